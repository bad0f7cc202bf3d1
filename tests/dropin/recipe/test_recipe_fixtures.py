"""What older tools wrote, restored: every line of every must.tsv."""

from __future__ import annotations

import functools
import shutil

import pytest
from command_line import Program
from old_backups import Line, hashes, lines, live, unpack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> object:
    folder = tmp_path_factory.mktemp("sites")
    return functools.cache(lambda name: unpack(name, folder))


@pytest.mark.parametrize("line", lines(), ids=str)
def test_every_line(line: Line, sites: object, program: Program) -> None:
    folder = sites(line.archive)  # type: ignore[operator]
    before = live(folder)
    where = ["--folder", str(folder)]
    if (folder / "part.json").exists():
        where = ["--part", str(folder / "part.json")]
    arguments = ["site", *where, line.script, "-n", *([line.date] if line.date else [])]
    if line.state is None:
        refused = program(*arguments, code=13 if "dmg" in line.archive else 2)
        assert "nothing was touched" in refused.err
        assert live(folder) == before
        return
    program(*arguments)
    assert live(folder) == hashes(folder / line.state)
    assert not list(folder.glob("var/**/.perdure-*.recovered"))
    shutil.rmtree(folder / "var" / "filestorage") if line.date is None else None

"""The definition of the container image: what it sets and starts does its work, as its user may."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from blob_site import BlobSite
from command_line import Program

ROOT = Path(__file__).parents[3]
LINES = re.sub(r"\\\n", " ", (ROOT / "container" / "Dockerfile").read_text()).splitlines()


def said(instruction: str) -> Iterator[str]:
    """Give what stands after an instruction, each time that it is there."""
    for line in LINES:
        if line.startswith(f"{instruction} "):
            yield line.removeprefix(instruction).strip()


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that everybody may come to."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_it_runs_with_data_that_are_only_read(
    open_folder: Path,
    program: Program,
    unprivileged: AbstractContextManager[None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data, backups = open_folder / "data", open_folder / "backups"
    site = BlobSite(data, "filestorage/Data.fs", "blobstorage")
    site.add()
    state = site.state()
    for path in (data, *data.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    backups.mkdir()
    backups.chmod(0o777)
    (environment,) = said("ENV")
    for name, value in (word.split("=", 1) for word in shlex.split(environment)):
        if name != "PATH":
            monkeypatch.setenv(name, re.sub("^/(data|backups)", f"{open_folder}/\\1", value))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(backups))
    monkeypatch.chdir(data)
    assert list(said("ENTRYPOINT")) == ['["perdure"]']
    (command,) = map(json.loads, said("CMD"))

    every = (command, ("site", "verify"), ("site", "restore", "--dry-run"))
    for arguments in every:  # imports what it needs: Python itself may lie where only root may read
        program(*arguments)
    shutil.rmtree(backups)
    backups.mkdir()
    backups.chmod(0o777)
    with unprivileged:
        program(*command)
        program("site", "verify")
        refused = program("site", "restore", "-n", code=1)
    assert "Data.fs.lock" in refused.err
    assert site.state() == state
    assert (backups / "blobstoragebackups" / "latest").is_dir()


def test_what_is_copied_is_there() -> None:
    """Nothing that the image is made of is missing from the repository."""
    copied = [words for words in map(str.split, said("COPY")) if not words[0].startswith("--")]
    assert copied
    for *sources, _ in copied:
        assert all((ROOT / source).exists() for source in sources)

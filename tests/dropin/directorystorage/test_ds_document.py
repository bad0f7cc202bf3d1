"""docs/directorystorage.md is executed: its commands, and its tool of one's own."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Program
from directorystorage_homes import unpack

from perdure.dropin.directorystorage.verify import verify_home
from perdure.model import SilentObserver
from perdure.sources.directorystorage.home import Home, View

DOCUMENT = (Path(__file__).parents[3] / "docs" / "directorystorage.md").read_text()


def test_the_commands(tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    home = unpack("chunky-clean", tmp_path)
    (home / "config" / "snapshot.conf").write_text("direct\n")
    (tmp_path / "copy").mkdir()
    said = ""
    for line in re.findall(r"^    ((?:perdure|mkdir) .*)$", DOCUMENT, re.MULTILINE):
        line = line.replace("HOME", str(home)).replace("/srv/", f"{tmp_path}/")
        line = line.replace("rsync -a", "cp -r").replace("/copy/", f"{tmp_path}/copy/")
        name, *words = shlex.split(line)
        if name == "mkdir":
            Path(words[0]).mkdir()
        else:
            result = program(*words)
            said += result.out + result.err
    for text in (
        "backup-1.tgz made",
        "there is no backup that an increment could refer to",
        "backups that can be restored: 1",
        "from backup-1.tgz: 51 transactions",
        "no errors: 51 transactions",
        "clean: ",
    ):
        assert text in said
    assert (tmp_path / "copy" / "A" / "x" / "serial").exists()
    assert (tmp_path / "wreckage.tgz").exists()


def test_the_tool_of_one_s_own(tmp_path: Path) -> None:
    home = unpack("bushy-clean", tmp_path)
    (block,) = re.findall(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    target = tmp_path / "target"
    serial = names["copy"](home, target)
    assert names["copy"](home, target, serial) == serial
    for folder in ("B", "journal", "misc"):
        (target / folder).mkdir()
    assert View(Home(target)).serial() == serial
    assert not verify_home(Home(target), SilentObserver()).damaged
    shutil.rmtree(target)

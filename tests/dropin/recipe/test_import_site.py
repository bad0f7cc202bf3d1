"""Backups of collective.recipe.backup, brought into a repository and compared with what they held."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_line import Program
from old_backups import hashes, lines, unpack

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    "name", ["v4-additional", "v6-incremental", "v6-default", "v6-rotate-archive"]
)
def test_each_run_is_a_snapshot(
    name: str, program: Program, repository: Path, tmp_path: Path
) -> None:
    folder = unpack(name, tmp_path)
    arguments = ("import-site", "--part", str(folder / "part.json"))
    runs = json.loads(program(*arguments, "--dry-run", "--json").out)["runs"]
    wanted = {
        each.date: each.state
        for each in lines()
        if each.archive == name and each.script == "restore" and each.date and each.state
        if each.date in each.state
    }
    assert set(runs) == wanted.keys()
    assert program(*arguments, "--json").summary["imported"] == len(runs)
    assert program(*arguments, "--json").summary["imported"] == 0
    program("check", "--read-data")
    listed = json.loads(program("snapshots", "--json").out)
    assert [each["time"][:19].replace("T", "-").replace(":", "-") for each in listed] == runs
    for snapshot, stamp in zip(listed, runs, strict=True):
        state = hashes(folder / str(wanted[stamp]))
        program("restore", snapshot["id"], "--in-place", "--yes")
        var = folder / "var"
        there = {str(p.relative_to(var)) for p in var.glob("blobstorage*/0x*/**/*.blob")}
        there = {path for path in there if "backups" not in path and "snapshots" not in path}
        assert there == {path for path in state if path.endswith(".blob")}
        shutil.rmtree(var / "filestorage")


def test_what_is_not_whole_is_named(program: Program, repository: Path, tmp_path: Path) -> None:
    folder = unpack("dmg-missing-blob-backup", tmp_path)
    said = program("import-site", "--part", str(folder / "part.json"), code=3)
    assert (
        "2026-11-21-04-13-36: not imported, 2 blob files of this state are in no backup" in said.out
    )
    assert len(json.loads(program("snapshots", "--json").out)) == 1
    program("check", "--read-data")

"""forget, prune and tag, on a real FileStorage and a real repository."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, commit

from perdure.repository import Repository
from perdure.stores import open_store

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture
def snapshots(program: Program, repository: Path, data_fs: Path) -> list[str]:
    """The ids of three snapshots, oldest first."""
    names = []
    for _ in range(3):
        done = program("backup", "--filestorage", str(data_fs), "--source", "site", "--json")
        names.append(str(done.summary["snapshot_id"]))
        commit(data_fs, 3)
    return names


def listed(program: Program) -> list[dict[str, Any]]:
    found = json.loads(program("snapshots", "--json").out)
    assert isinstance(found, list)
    return found


def ids(program: Program) -> list[str]:
    return [snapshot["id"] for snapshot in listed(program)]


def test_forget_by_a_policy(program: Program, snapshots: list[str]) -> None:
    rehearsed = program("forget", "--keep-last", "1", "--dry-run")
    head, *rows, end = rehearsed.out.splitlines()
    assert head.split() == ["id", "time", "(UTC)", "host", "tags", "source", "reason"]
    assert [row.split()[:2] for row in rows] == [
        ["keep", snapshots[2][:8]],
        ["drop", snapshots[1][:8]],
        ["drop", snapshots[0][:8]],
    ]
    assert rows[0].endswith("last snapshot")
    assert rows[1].endswith("no rule keeps it")
    assert end == "would drop 2 snapshots, kept 1"
    assert ids(program) == snapshots
    assert not program("forget", "--keep-last", "2", "--quiet").out
    assert ids(program) == snapshots[1:]
    done = program("forget", "--keep-daily", "7", "--keep-within", "1m", "--keep-tag", "x,y")
    assert done.out.endswith("dropped 0 snapshots, kept 2\n")


def test_forget_in_json(program: Program, snapshots: list[str]) -> None:
    group, summary = program(
        "forget", "--keep-last", "1", "--keep-daily", "unlimited", "--json"
    ).events
    assert group["message_type"] == "group"
    assert group["sources"] == ["site"]
    assert [each["id"] for each in group["drop"]] == snapshots[1::-1]
    (keep,) = group["keep"]
    assert keep["id"] == snapshots[2]
    assert keep["reasons"] == ["last snapshot", "daily snapshot"]
    assert keep["sources"] == ["site"]
    assert keep["incomplete"] == []
    assert summary == {
        "message_type": "summary",
        "dry_run": False,
        "kept": 1,
        "dropped": snapshots[1::-1],
    }


def test_forget_by_ids(program: Program, snapshots: list[str]) -> None:
    program("forget", snapshots[0][:8], "latest")
    assert ids(program) == [snapshots[1]]
    assert "named" in program("forget", snapshots[1]).out
    assert ids(program) == []


def test_forget_and_prune(program: Program, snapshots: list[str], tmp_path: Path) -> None:
    arguments = ("forget", "--keep-last", "1", "--prune", "--max-unused", "0")
    rehearsed = program(*arguments, "--dry-run", "--json").summary
    assert rehearsed["prune"]["bytes_freed"] > 0
    assert ids(program) == snapshots
    done = program(*arguments)
    assert " freed, " in done.out
    assert ids(program) == [snapshots[2]]
    assert "no damage was found" in program("check", "--read-data").out
    assert "nothing to prune" in program(*arguments).out
    program("restore", "--to", str(tmp_path / "restored"))


def test_prune_in_json(program: Program, snapshots: list[str]) -> None:
    program("forget", snapshots[0], snapshots[1])
    rehearsed = program("prune", "--max-unused", "0", "--dry-run", "--json").summary
    assert rehearsed["dry_run"] is True
    done = program("prune", "--max-unused", "0", "--max-repack-size", "1G", "--json").summary
    assert done["packfiles"] == rehearsed["packfiles"]
    assert {share["action"] for share in done["packfiles"]} >= {"delete"}
    assert done["bytes_unused"] == 0
    assert done["bytes_freed"] > 0
    assert done["index_files_deleted"] >= 1
    again = program("prune", "--json").summary
    assert again["bytes_freed"] == 0


def test_tags(program: Program, snapshots: list[str]) -> None:
    done = program("tag", snapshots[0], "--add", "a,b", "--add", "c")
    assert done.out.startswith(f"snapshot {snapshots[0][:8]} is now ")
    assert done.out.endswith(": a, b, c\n")
    assert [snapshot["tags"] for snapshot in listed(program)] == [["a", "b", "c"], [], []]
    program("tag", "--tag", "b", "--remove", "a,c", "--add", "d")
    assert [snapshot["tags"] for snapshot in listed(program)] == [["b", "d"], [], []]
    before = ids(program)
    summary = program("tag", "--all", "--set", "x", "--dry-run", "--json").summary
    assert [each["before"] for each in summary["tagged"]] == before
    assert ids(program) == before
    program("tag", "--source", "site", "--set", "x")
    program("tag", "--host", "nobody", "--set", "y")
    assert [snapshot["tags"] for snapshot in listed(program)] == [["x"]] * 3
    program("tag", "--all", "--set", "")
    assert [snapshot["tags"] for snapshot in listed(program)] == [[]] * 3
    assert "so already" in program("tag", "--all", "--set", "").out


@pytest.mark.parametrize(
    "arguments",
    [
        ("forget",),
        ("forget", "--keep-last", "0"),
        ("forget", "--prune"),
        ("forget", "--keep-last", "x"),
        ("forget", "--keep-daily", "-2"),
        ("forget", "--keep-within", "1w"),
        ("forget", "--keep-last", "1", "--group-by", "color"),
        ("forget", "latest", "--keep-last", "1"),
        ("forget", "latest", "--host", "www1"),
        ("forget", "ffff"),
        ("forget", "--keep-last", "1", "--prune", "--max-unused", "x"),
        ("prune", "--max-unused", "100%"),
        ("prune", "--max-repack-size", "5%"),
        ("tag", "--add", "a"),
        ("tag", "--all"),
        ("tag", "latest", "--all", "--add", "a"),
        ("tag", "--all", "--add", "a", "--set", "b"),
    ],
    ids=" ".join,
)
def test_wrong_usage_changes_nothing(
    program: Program, snapshots: list[str], arguments: tuple[str, ...]
) -> None:
    assert program(*arguments, code=2).err
    assert ids(program) == snapshots


@pytest.mark.parametrize(
    "arguments",
    [("prune",), ("forget", "--keep-last", "1"), ("tag", "--all", "--add", "a")],
    ids=" ".join,
)
def test_nothing_is_deleted_while_a_backup_runs(
    program: Program,
    snapshots: list[str],
    repository: Path,
    tmp_path: Path,
    arguments: tuple[str, ...],
) -> None:
    from perdure.cli.session import now

    with Repository.open(
        open_store(str(repository)), (tmp_path / "key").read_text().strip(), cache=None, clock=now
    ) as other:
        with other.lock():
            done = program(*arguments, code=11)
            assert "a shared lock of process" in done.err
            program(*arguments, "--dry-run")
        with other.lock(exclusive=True):
            program(*arguments, "--dry-run", code=11)
    assert ids(program) == snapshots


def test_damage_prevents_a_prune(program: Program, snapshots: list[str], repository: Path) -> None:
    packfiles = [path for path in repository.glob("data/*/*") if path.is_file()]
    max(packfiles, key=lambda path: path.stat().st_size).unlink()
    done = program("prune", code=13)
    assert "nothing is pruned" in done.err
    assert "is missing" in done.err
    program("forget", *snapshots)
    program("prune", code=13)  # what is not known to be whole is not touched

"""The commands: their words, exit codes and answers for programs."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest
from command_line import Program
from directorystorage_homes import unpack

NAME = "directorystorage"


@pytest.fixture
def storage(tmp_path: Path) -> Path:
    home = unpack("chunky-clean", tmp_path)
    (home / "config" / "snapshot.conf").write_text("direct\n")
    (home / "backups").mkdir()
    return home


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "nothing is asked for"),
        (["inc"], "inc needs something behind it"),
        (["prefix"], "prefix needs something behind it"),
        (["ful"], "'ful' is none of"),
        (["prefix", "a/b", "full"], "cannot be the prefix"),
        (["inc", "when pigs fly"], "date does not understand"),
    ],
)
def test_wrong_words_end_with_1(
    storage: Path, program: Program, words: list[str], said: str
) -> None:
    assert said in program(NAME, "backup", "--storage", str(storage), *words, code=1).err
    assert not list((storage / "backups").iterdir())


def test_wrong_options_end_with_1(program: Program) -> None:
    assert "No such option" in program(NAME, "backup", "--nonsense", code=1).err
    assert "give --storage HOME" in program(NAME, "snapshot", "onlyhome", code=1).err
    assert "no storage is named" in program(NAME, "backup", "full", code=1).err
    assert "--storage" in program(NAME, "backup", "--help").out


def test_answers_for_programs(storage: Path, tmp_path: Path, program: Program) -> None:
    backups, target = str(storage / "backups"), tmp_path / "target"
    made = program(NAME, "backup", "--storage", str(storage), "--json", "full").summary
    assert (made["archives"], made["number"]) == (["backup-1.tgz"], 1)
    assert made["tid"] == "040d2838af82d4ee"
    nothing = program(NAME, "backup", "--storage", str(storage), "--json", "inc", "@4000000000")
    assert nothing.summary["archives"] == []
    plan = program(NAME, "restore", "--json", "-n", backups, str(target)).summary
    assert plan["archives"] == ["backup-1.tgz"]
    restored = program(
        NAME, "restore", "--json", "--to", "2026-11-22", backups, str(target)
    ).summary
    assert (restored["transactions"], restored["tid"]) == (51, made["tid"])
    assert program(NAME, "verify", "--json", str(target)).summary["damaged"] is False
    assert program(NAME, "verify", "--json", backups).summary["restorable"] == [1]
    assert program(NAME, "state", "--json", str(storage)).summary["state"] == "clean"
    wreck = program(NAME, "wreckage", "--json", str(storage), str(tmp_path / "w.tgz")).summary
    assert wreck["members"] > 100


def test_dry_runs_make_nothing(storage: Path, tmp_path: Path, program: Program) -> None:
    said = program(NAME, "backup", "-n", "--storage", str(storage), "full").err
    assert said == "backup-1.tgz would be made: all of it\n"
    assert not list((storage / "backups").iterdir())
    program(NAME, "backup", "--storage", str(storage), "full")
    said = program(NAME, "restore", "-n", str(storage / "backups"), str(tmp_path / "to")).out
    assert said == "backup-1.tgz: a full backup of run 1\n"
    assert not (tmp_path / "to").exists()


def test_damage_ends_with_13(tmp_path: Path, program: Program) -> None:
    home = unpack("chunky-corrupt", tmp_path)
    assert "error: " in program(NAME, "verify", str(home), code=13).err


def test_a_damaged_storage_is_backed_up_and_named(tmp_path: Path, program: Program) -> None:
    home = unpack("chunky-corrupt", tmp_path)
    (home / "backups").mkdir()
    said = program(NAME, "backup", "--storage", str(home), "full", code=1).err
    assert "backup-1.tgz made" in said
    assert "but it is damaged" in said
    assert (home / "backups" / "backup-1.tgz").exists()


def test_home_comes_from_the_snapshot_tool_around(
    storage: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    import time

    monkeypatch.setenv("SNAPSHOT_VERSION", "2")
    monkeypatch.setenv("SNAPSHOT_DIRECTORY", f"{storage}/")
    monkeypatch.setenv("SNAPSHOT_TIMESTAMP", str(int(time.time()) - 100))
    assert "is not held still" in program(NAME, "backup", "full", code=1).err
    with (storage / "misc" / "sublock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        made = program(NAME, "backup", "--json", "full").summary
    assert made["timestamp"] <= time.time() - 100


def test_not_a_storage(tmp_path: Path, program: Program) -> None:
    for words in (["state"], ["leave"], ["wreckage"]):
        more = [str(tmp_path / "x.tgz")] if words == ["wreckage"] else []
        program(NAME, *words, str(tmp_path), *more, code=14)
    program(NAME, "backup", "--storage", str(tmp_path), "full", code=1)
    program(NAME, "verify", str(tmp_path), code=14)


def test_a_command_s_exit_code(storage: Path, program: Program) -> None:
    words = (NAME, "snapshot", "--storage", str(storage))
    program(*words, "true")
    program(*words, "sh", "-c", "exit 9", code=9)
    program(*words, "sh", "-c", "kill -9 $$", code=137)
    assert "cannot be run" in program(*words, "/no/such/program", code=1).err
    program(NAME, "snapshot", str(storage), "-", "sh", "-c", "exit 3", code=3)
    conf = storage.parent / "other.conf"
    conf.write_text("nodirect\n")
    assert (
        "could not be brought"
        in program(NAME, "snapshot", str(storage), str(conf), "true", code=1).err
    )


def test_a_command_on_a_copy(storage: Path, program: Program, tmp_path: Path) -> None:
    """The copy is a HOME that is closed in good order, and gone afterwards."""
    script = tmp_path / "script"
    script.write_text('cp -a "$SNAPSHOT_DIRECTORY" copied; echo "$SNAPSHOT_DIRECTORY" > where\n')
    program(NAME, "snapshot", "--live", "--storage", str(storage), "sh", str(script))
    assert "no errors: 51 transactions" in program(NAME, "verify", "copied").out
    assert program(NAME, "state", "copied").out.startswith("clean")
    assert not Path(Path("where").read_text().strip()).exists()

"""The commands, on a real FileStorage and a real repository."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, commit

from perdure.cli.options import duration
from perdure.errors import StoreError, UsageError

pytestmark = pytest.mark.usefixtures("bare_environment")


@pytest.fixture
def backed_up(program: Program, repository: Path, data_fs: Path) -> str:
    """The id of a snapshot of the site."""
    done = program("backup", "--filestorage", str(data_fs), "--json", "--tag", "one")
    return str(done.summary["snapshot_id"])


def listed(program: Program, *arguments: str) -> list[dict[str, Any]]:
    found = json.loads(program(*arguments, "--json").out)
    assert isinstance(found, list)
    return found


def test_backup_says_one_line(program: Program, repository: Path, data_fs: Path) -> None:
    done = program("backup", "--filestorage", str(data_fs))
    assert done.out.startswith("snapshot ")
    assert done.out.count("\n") == 1
    assert not done.err
    assert not program("backup", "--quiet", "--filestorage", str(data_fs)).out
    assert program("backup", "--verbose", "--filestorage", str(data_fs)).out.count("\n") == 2


def test_backup_in_json(program: Program, repository: Path, data_fs: Path) -> None:
    options = ("--source", "site", "--host", "www1", "--tag", "a", "--tag", "b", "--verify-source")
    summary = program("backup", "--json", "--filestorage", str(data_fs), *options).summary
    assert summary["message_type"] == "summary"
    assert len(summary["snapshot_id"]) == 64
    (source,) = summary["sources"]
    assert source["name"] == "site"
    assert source["size"] == data_fs.stat().st_size
    assert source["reason"]
    assert source["transactions_new"] == 5 + 1  # ZODB makes the root in one of its own
    (snapshot,) = listed(program, "snapshots")
    assert snapshot["id"] == summary["snapshot_id"]
    assert snapshot["hostname"] == "www1"
    assert snapshot["tags"] == ["a", "b"]
    assert snapshot["time"].endswith("Z")
    (source,) = snapshot["sources"]
    assert source["name"] == "site"
    assert source["kind"] == "filestorage"
    assert source["cut"] == summary["sources"][0]["cut"]
    assert source["size"] == data_fs.stat().st_size


def test_a_dry_run_stores_nothing(program: Program, repository: Path, data_fs: Path) -> None:
    before = sorted(path for path in repository.rglob("*") if path.is_file())
    summary = program("backup", "-n", "--json", "--filestorage", str(data_fs)).summary
    assert summary["dry_run"] is True
    assert summary["snapshot_id"] is None
    assert summary["bytes_added"] > 0
    assert "would store" in program("backup", "--dry-run", "--filestorage", str(data_fs)).out
    assert before == sorted(path for path in repository.rglob("*") if path.is_file())


def test_nothing_changed(program: Program, backed_up: str, data_fs: Path) -> None:
    arguments = ("backup", "--filestorage", str(data_fs), "--skip-if-unchanged")
    assert "nothing has changed" in program(*arguments).out
    assert len(listed(program, "snapshots")) == 1
    program(*arguments[:-1])
    assert len(listed(program, "snapshots")) == 2


def test_sources_that_cannot_be_backed_up(
    program: Program, repository: Path, data_fs: Path, tmp_path: Path
) -> None:
    assert "no database was found" in program("backup", code=14).err
    program("backup", "--filestorage", "a", "--filestorage", "b", "--source", "c", code=2)
    for name, content in (("empty", b""), ("other", b"something else")):
        Path(name).write_bytes(content)
        program("backup", "--filestorage", name, code=14)
    program("backup", "--filestorage", "missing", code=14)
    program("backup", "--filestorage", str(tmp_path), code=14)
    assert listed(program, "snapshots") == []


def test_tags_are_written_as_restics_are(program: Program, repository: Path, data_fs: Path) -> None:
    program("backup", "--filestorage", str(data_fs), "--tag", "a,b", "--tag", "c")
    (snapshot,) = listed(program, "snapshots", "--tag", "b,c")
    assert snapshot["tags"] == ["a", "b", "c"]
    assert listed(program, "snapshots", "--tag", "b,d") == []


@pytest.mark.parametrize("option", ["--source", "--host", "--tag", "--filestorage"])
def test_what_is_no_text_is_refused(
    program: Program, repository: Path, data_fs: Path, option: str
) -> None:
    arguments = ("backup", "--filestorage", str(data_fs), option, "b\udcffd")
    assert "not UTF-8" in program(*arguments, code=2).err


def test_snapshots_are_selected(program: Program, backed_up: str, data_fs: Path) -> None:
    program("backup", "--filestorage", str(data_fs), "--source", "two", "--host", "www2")
    assert len(listed(program, "snapshots", "--host", "www2")) == 1
    assert len(listed(program, "snapshots", "--tag", "one")) == 1
    assert len(listed(program, "snapshots", "--source", "two")) == 1
    assert listed(program, "snapshots", "--source", "three") == []


def test_snapshots_as_text(program: Program, backed_up: str) -> None:
    head, row = program("snapshots").out.splitlines()
    assert head.startswith("id        time (UTC)")
    assert row.startswith(backed_up[:8])
    assert "Data.fs" in row


def test_log(program: Program, backed_up: str) -> None:
    transactions = listed(program, "log")
    assert len(transactions) == 6
    last = transactions[-1]
    assert last["description"] == "change 4\x1b[31m"
    assert "jörg" in last["user"]
    assert set(last) >= {"tid", "time", "records", "bytes"}
    assert listed(program, "log", backed_up[:8], "--since", last["tid"]) == [last]
    assert listed(program, "log", "--until", last["tid"]) == transactions
    assert listed(program, "log", "--until", "2001-01-01") == []
    text = program("log").out
    assert "\x1b" not in text
    assert r"change 4\x1b[31m" in text
    assert last["tid"] in text


def test_restore(program: Program, backed_up: str, data_fs: Path) -> None:
    then = data_fs.read_bytes()
    commit(data_fs, 3)
    program("backup", "--filestorage", str(data_fs))
    done = program("restore", "--to", "new", "--json")
    assert Path("new/Data.fs").read_bytes() == data_fs.read_bytes()
    assert done.summary["sources"][0]["files"] == [
        str(Path("new/Data.fs").absolute()),
        f"{Path.cwd()}/new/Data.fs.index",
    ]
    program("restore", backed_up[:6], "--to", "old")
    assert Path("old/Data.fs").read_bytes() == then
    tid = listed(program, "log", backed_up)[-1]["tid"]
    assert "restored" in program("restore", "--to", "at", "--at", tid).out
    assert Path("at/Data.fs").read_bytes() == then


def test_restore_at_what_no_snapshot_tells(program: Program, backed_up: str) -> None:
    assert "UTC" in program("restore", "--to", "out", "--at", "2100-01-01", code=2).err
    program("restore", "--to", "out", "--at", "yesterday", code=2)
    program("restore", "0000", "--to", "out", code=2)


def test_restore_into_a_folder_that_is_not_empty(program: Program, backed_up: str) -> None:
    Path("out").mkdir()
    program("restore", "--to", "out")
    Path("out/Data.fs").write_bytes(b"precious")
    refused = program("restore", "--to", "out", code=2)
    assert "--force" in refused.err
    assert "would restore" in program("restore", "--to", "out", "--dry-run").out
    assert Path("out/Data.fs").read_bytes() == b"precious"
    program("restore", "--to", "out", "--force")
    assert Path("out/Data.fs").read_bytes() != b"precious"
    program("restore", "--to", "out/Data.fs", code=2)


def test_restore_into_a_place_in_use(program: Program, backed_up: str, data_fs: Path) -> None:
    from ZODB.FileStorage import FileStorage

    storage = FileStorage(str(data_fs))
    try:
        program("restore", "--to", str(data_fs.parent), "--force", code=14)
    finally:
        storage.close()


def test_check_of_a_whole_repository(program: Program, backed_up: str) -> None:
    assert "no damage" in program("check").out
    summary = program("check", "--read-data", "--json").summary
    assert summary["damaged"] is False
    assert summary["bytes_read"] > 0
    program("check", "--read-data-subset", "1/2")
    program("check", "--read-data-subset", "50%")
    program("check", "--read-data-subset", "3/2", code=2)
    program("check", "--read-data", "--read-data-subset", "1/2", code=2)


def test_check_of_a_damaged_repository(program: Program, backed_up: str, repository: Path) -> None:
    for packfile in (repository / "data").rglob("*"):
        if packfile.is_file():
            content = bytearray(packfile.read_bytes())
            content[10] ^= 1
            packfile.chmod(0o600)
            packfile.write_bytes(content)
    done = program("check", "--read-data", code=13)
    assert "error: " in done.err
    assert "perdure repair" in done.err
    done = program("check", "--read-data", "--json", code=13)
    assert {event["message_type"] for event in done.events} >= {"error", "summary"}
    assert done.summary["damaged"] is True
    assert any(backed_up in event.get("snapshots", ()) for event in done.events)
    assert json.loads(done.err)["code"] == 13


def test_repair(program: Program, backed_up: str, repository: Path) -> None:
    shutil.rmtree(repository / "index")
    (repository / "index").mkdir()
    program("check", code=13)
    assert program("repair", "index", "--json").summary["messages"]
    program("check", "--read-data")
    assert "nothing is damaged" in program("repair", "snapshots").out
    program("repair", "snapshots", "--dry-run", "--forget", "--json")


def test_unlock(program: Program, repository: Path) -> None:
    assert program("unlock").out == "removed 0 locks\n"
    assert program("unlock", "--json").summary["removed"] == 0


def test_a_lock_of_another(program: Program, backed_up: str, repository: Path) -> None:
    lock_exclusively(repository)
    done = program("snapshots", code=11)
    assert "--retry-lock" in done.err
    program("snapshots", "--no-lock")
    program("snapshots", "--retry-lock", "1s", code=11)
    program("unlock")  # it is neither old nor is its process known to be dead
    program("snapshots", code=11)
    assert program("unlock", "--remove-all").out == "removed 1 lock\n"
    program("snapshots")


def lock_exclusively(repository: Path) -> None:
    from datetime import UTC, datetime

    from perdure.repository import Repository
    from perdure.stores.local import LocalStore

    password = Path(os.environ["PERDURE_PASSWORD_FILE"]).read_text().strip()
    opened = Repository.open(
        LocalStore(str(repository)), password, cache=None, clock=lambda: datetime.now(UTC)
    )
    opened.lock(exclusive=True)


def test_a_repository_that_cannot_be_locked(
    program: Program, backed_up: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perdure.stores.local import LocalStore

    def refuse(self: LocalStore, name: str, data: bytes) -> None:
        raise StoreError("read-only file system")

    monkeypatch.setattr(LocalStore, "put", refuse)
    assert "--no-lock" in program("log", code=1).err
    assert backed_up[:8] in program("snapshots", "--no-lock").out
    program("restore", "--to", "out", "--no-lock")


def test_assemble(program: Program, backed_up: str, data_fs: Path, restic: Any) -> None:
    repository = Path(os.environ["PERDURE_REPOSITORY"])
    key = os.environ["PERDURE_PASSWORD_FILE"]
    restic(repository, "-p", key, "restore", "latest", "--target", "files")
    done = program("assemble", "files/Data.fs.history", "again.fs", "--json")
    assert done.summary["size"] == data_fs.stat().st_size
    assert Path("again.fs").read_bytes() == data_fs.read_bytes()
    program("assemble", "files/Data.fs.history", "again.fs", code=2)
    assert "assembled" in program("assemble", "files/Data.fs.history", "again.fs", "--force").out
    program("assemble", "nowhere.history", "x.fs", code=14)


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("1h30m", 5400), ("0s", 0), ("1.5h", 5400)]
)
def test_durations(text: str, seconds: float) -> None:
    assert duration(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "5 m", "-5m", "m", "5d"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError):
        duration(text)

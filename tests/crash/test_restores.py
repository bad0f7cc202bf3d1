"""A restore that is killed, or loses its power, at any moment: the old Data.fs or the new one, never half."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from datafs import DataFs, Record, Transaction
from doubles import PowerCut
from history_site import HistorySite
from living_storage import index_of_zodb
from ZODB.fsIndex import fsIndex
from ZODB.utils import u64

from perdure.errors import StoreError, TargetInUse, UsageError
from perdure.model import SilentObserver
from perdure.restore import RestoreRequest, restore
from perdure.sources import filestorage_writer

HANGS = 20
"""Seconds after which a child counts as hanging."""
CALLS = [
    "open",
    "write",
    "pwrite",
    "ftruncate",
    "fsync",
    "fdatasync",
    "sync",
    "rename",
    "unlink",
    "close",
    "fchmod",
    "fchown",
]


def database(text: bytes) -> bytes:
    made = DataFs()
    for number in range(6):
        made.add(Transaction([Record(oid, text * (number + 1)) for oid in range(number, 9)]))
    return made.data


OLD, NEW = database(b"old"), database(b"newer")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HistorySite]:
    made = HistorySite(300)
    (tmp_path / "source").mkdir()
    path = tmp_path / "source/Data.fs"
    path.write_bytes(NEW)
    made.back_up(path)
    yield made
    made.repository.close()


def give_old(target: Path) -> None:
    """A Data.fs with its index, as a server that was stopped leaves them, on the disk."""
    target.mkdir()
    index = fsIndex({oid.to_bytes(8, "big"): at for oid, at in index_of_zodb(OLD, target).items()})
    (target / "index-oracle.fs").unlink()
    (target / "Data.fs").write_bytes(OLD)
    index.save(len(OLD), str(target / "Data.fs.index"))
    for path in (target / "Data.fs", target / "Data.fs.index", target, target.parent):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)


def assert_whole(target: Path, had_old: bool) -> str:
    """Which file is there; its index, if there is one, is its own."""
    path = target / "Data.fs"
    if not path.exists():
        assert not had_old
        assert not (target / "Data.fs.index").exists()
        return "none"
    data = path.read_bytes()
    assert data in ((OLD, NEW) if had_old else (NEW,))
    if (target / "Data.fs.index").exists():
        loaded = fsIndex.load(str(target / "Data.fs.index"))
        assert loaded["pos"] == len(data)
        found = {u64(oid): at for oid, at in loaded["index"].items()}
        assert found == index_of_zodb(data, target.parent)
    return "old" if data == OLD else "new"


def die_at(n: int, site: HistorySite, target: Path) -> bool:
    """Restore in a child that dies at its n-th system call; says whether it lived.

    The test runner has threads, and a child that is forked from such a process may hang in a lock that
    one of them held: then another one is tried.
    """
    for _ in range(5):
        status = _restore_in_child(n, site, target)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM):
            return status == 0
    raise AssertionError(f"five children hung, told to die at call {n}")


def _restore_in_child(n: int, site: HistorySite, target: Path) -> int:
    child = os.fork()
    if not child:
        signal.alarm(HANGS)
        calls = count(1)

        def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
            def run(*arguments: Any, **options: Any) -> Any:
                if next(calls) == n:
                    os._exit(9)
                return call(*arguments, **options)

            return run

        for name in CALLS:
            setattr(os, name, deadly(getattr(os, name)))
        try:
            restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize("had_old", [True, False])
def test_killed_at_any_system_call(site: HistorySite, tmp_path: Path, had_old: bool) -> None:
    site.repository.close()  # a child cannot use its parent's threads
    seen = set()
    for n in count(1):
        target = tmp_path / f"target{n}"
        if had_old:
            give_old(target)
        lived = die_at(n, site, target)
        seen.add(assert_whole(target, had_old) if target.exists() else "none")
        if lived:
            break
        restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
        assert assert_whole(target, had_old) == "new"
        assert (
            sorted(path.name for path in target.iterdir()) == ["Data.fs", "Data.fs.index"]
            or (target / "Data.fs.lock").exists()
        )
        site.repository.close()
    assert seen == {"old", "new"} if had_old else {"none", "new"}
    assert n > 12


@pytest.mark.parametrize("had_old", [True, False])
def test_the_power_fails_at_any_moment(
    site: HistorySite, tmp_path: Path, had_old: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    power = PowerCut(monkeypatch)
    target = tmp_path / "target"
    if had_old:
        give_old(target)
    states: list[Path] = []

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            result = call(*arguments, **options)
            states.append(tmp_path / f"state{len(states)}")
            power.survivors(tmp_path, states[-1])
            return result

        return run

    with monkeypatch.context() as patch:
        for name in ("fsync", "fdatasync", "rename"):
            patch.setattr(os, name, watched(getattr(os, name)))
        restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
    seen = [
        assert_whole(state / "target", had_old) if (state / "target").exists() else "none"
        for state in states
    ]
    assert seen == sorted(seen, key=["none", "old", "new"].index)
    assert seen[0] == ("old" if had_old else "none")
    assert seen[-1] == "new"
    assert (states[-1] / "target/Data.fs.index").exists()


@pytest.mark.parametrize("call", ["pwrite", "fsync", "rename"])
def test_the_target_disk_is_full(
    site: HistorySite, tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    give_old(target)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, call, full)
        with pytest.raises(StoreError, match="No space left on device") as error:
            restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
    assert "make room" in str(error.value.hint)
    assert assert_whole(target, had_old=True) == "old"
    assert {path.name for path in target.iterdir()} <= {"Data.fs", "Data.fs.index"}


def test_not_over_what_is_there_unless_told_to(site: HistorySite, tmp_path: Path) -> None:
    target = tmp_path / "target"
    give_old(target)
    with pytest.raises(UsageError, match="exists"):
        restore(site.repository, RestoreRequest(target), SilentObserver())
    assert assert_whole(target, had_old=True) == "old"


def test_not_over_a_storage_in_use(site: HistorySite, tmp_path: Path) -> None:
    from ZODB.FileStorage import FileStorage

    target = tmp_path / "target"
    target.mkdir()
    storage: Any = FileStorage(str(target / "Data.fs"))
    with pytest.raises(TargetInUse, match="is in use") as error:
        restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
    assert error.value.exit_code == 14
    storage.close()
    restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
    assert assert_whole(target, had_old=False) == "new"


def test_a_restored_file_keeps_the_mode_of_the_one_it_replaces(
    site: HistorySite, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    give_old(target)
    (target / "Data.fs").chmod(0o640)
    restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
    assert (target / "Data.fs").stat().st_mode & 0o777 == 0o640
    assert (target / "Data.fs.index").stat().st_mode & 0o777 == 0o640


def test_what_fails_before_its_end_is_gone_on_with(
    site: HistorySite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "target"
    give_old(target)

    def fail(new: Any) -> None:
        raise StoreError("stopped before the end")

    monkeypatch.setattr(filestorage_writer.NewFileStorage, "commit", fail)
    with pytest.raises(StoreError, match="stopped"):
        restore(site.repository, RestoreRequest(target, force=True), SilentObserver())
    assert assert_whole(target, had_old=True) == "old"
    part = target / ".Data.fs.perdure-part"
    assert {path.name for path in target.iterdir()} == {"Data.fs", "Data.fs.index", part.name}
    assert part.read_bytes() == NEW
    monkeypatch.undo()

    def never(*_: object) -> None:
        raise AssertionError("what is there already is written again")

    with monkeypatch.context() as patch:
        patch.setattr(filestorage_writer.NewFileStorage, "write", never)
        request = RestoreRequest(target, force=True)
        [restored] = restore(site.repository, request, SilentObserver())
        assert (restored.kept, assert_whole(target, had_old=True)) == (len(NEW), "new")
        before = (target / "Data.fs").stat()
        [restored] = restore(site.repository, request, SilentObserver())
    assert (restored.kept, (target / "Data.fs").stat().st_ino) == (len(NEW), before.st_ino)

"""A site of two storages with blobs: its backup and its restore, stopped at any call."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from blob_storage import BlobStorage, Contents
from doubles import FaultyStore

from perdure.backup import BackupRequest, backup
from perdure.check import check
from perdure.errors import StoreError
from perdure.formats.blobs import BUSHY, path_in_directory
from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.model import SilentObserver, Subset
from perdure.repository import Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.sources.filestorage import FileStorageSource
from perdure.stores import Store
from perdure.stores.memory import MemoryStore

NAMES = ("catalog", "main")
HANGS = 30
"""Seconds after which a child counts as hanging."""
CALLS = (
    *("open", "write", "pwrite", "ftruncate", "fsync", "fdatasync", "sync", "rename", "unlink"),
    *("close", "fchmod", "fchown", "chown", "mkdir", "rmdir"),
)


@dataclass(frozen=True)
class State:
    """What a storage of the site holds; blobs by their path in the directory."""

    data: bytes
    blobs: dict[str, bytes]


SiteState = dict[str, State]


def now() -> datetime:
    return datetime.now(UTC)


class TwoStorages:
    """The site: ``folder``/NAME/Data.fs with ``folder``/NAME/blobs."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.storages = {name: BlobStorage(folder / name) for name in NAMES}

    def commit(self, *names: str) -> None:
        for storage in self.storages.values():
            storage.commit(*names)

    def state(self) -> SiteState:
        return {
            name: State(storage.data, by_path(storage.contents()))
            for name, storage in self.storages.items()
        }

    def close(self) -> None:
        for storage in self.storages.values():
            storage.close()


def create(store: Store) -> None:
    Repository.create(
        store, "secret", kdf=FOR_KEY_FILES, now=now(), username="u", hostname="h"
    ).close()


def opened(store: Store) -> Repository:
    return Repository.open(store, "secret", cache=None, clock=now, workers=2)


def back_up(store: Store, folder: Path) -> None:
    sources = [
        FileStorageSource(
            folder / name / "Data.fs", database=name, window=2000, blobs=folder / name / "blobs"
        )
        for name in NAMES
    ]
    repository = opened(store)
    try:
        with repository.lock() as lock:
            report = backup(
                repository, lock, sources, BackupRequest("h", "u"), now, SilentObserver()
            )
        assert not report.incomplete
    finally:
        repository.close()


def give_back(repository: Repository, target: Path | None, snapshot: str = "latest") -> None:
    request = RestoreRequest(target, Wanted(snapshot), force=True)
    restore(repository, request, SilentObserver())


def found_in(folder: Path) -> SiteState:
    """The databases of a site, and all blobs that are there."""
    found: SiteState = {}
    for name in NAMES:
        path, blobs = folder / name / "Data.fs", folder / name / "blobs"
        found[name] = State(
            path.read_bytes() if path.exists() else b"",
            {str(file.relative_to(blobs)): file.read_bytes() for file in blobs.rglob("*.blob")},
        )
    return found


def by_path(blobs: Contents) -> dict[str, bytes]:
    return {path_in_directory(blob, BUSHY): content for blob, content in blobs.items()}


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after it"])
def test_the_nth_store_call_of_a_backup_fails(tmp_path: Path, after: bool) -> None:
    site, original, states = TwoStorages(tmp_path / "site"), MemoryStore(), []
    create(original)
    for names in (("one", "two"), ("two", "three")):
        site.commit(*names)
        states.append(site.state())
        if len(states) == 1:
            back_up(original, site.folder)
    site.close()
    for n in count(1):
        store = MemoryStore()
        store.contents = dict(original.contents)
        faulty = FaultyStore(store, n, after=after)
        with suppress(StoreError):
            back_up(faulty, site.folder)
        done = assert_sound(store, states, tmp_path / "out")
        if not faulty.failed:
            break
        back_up(store, site.folder)
        assert_sound(store, [*states[:done], states[-1]], tmp_path / "out")
    assert n > 20


def assert_sound(store: Store, states: list[SiteState], target: Path) -> int:
    """The repository checks, and its snapshots are the first of these states, exactly."""
    repository = opened(store)
    report = check(repository, read_data=Subset(), observer=SilentObserver())
    assert not report.damaged, report
    snapshots = [name for name, _ in repository.snapshots()]
    assert len(snapshots) in (len(states), len(states) - 1)
    for name, state in zip(snapshots, states, strict=False):
        give_back(repository, target, name)
        assert found_in(target) == state
    repository.close()
    return len(snapshots)


@pytest.fixture
def in_place(tmp_path: Path) -> tuple[Path, MemoryStore, SiteState, SiteState]:
    """A site that was backed up and went on: its folder, the repository, the state then and now."""
    site, store = TwoStorages(tmp_path / "site"), MemoryStore()
    create(store)
    site.commit("one", "two")
    back_up(store, site.folder)
    then = site.state()
    site.commit("two", "three")
    present = site.state()
    site.close()
    return site.folder, store, then, present


def put_back(kept: Path, folder: Path) -> None:
    shutil.rmtree(folder)
    shutil.copytree(kept, folder)


@pytest.mark.slow
def test_a_restore_in_place_dies_at_any_system_call(
    in_place: tuple[Path, MemoryStore, SiteState, SiteState], tmp_path: Path
) -> None:
    folder, store, then, present = in_place
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    seen = set()
    for n in count(1):
        put_back(kept, folder)
        lived = dies_at(n, store)
        found = found_in(folder)
        for name in NAMES:
            states = {present[name].data: present[name], then[name].data: then[name]}
            state = states[found[name].data]
            assert state.blobs.items() <= found[name].blobs.items()
            seen.add((name, "then" if state is then[name] else "present"))
        if lived:
            break
        if n % 3 == 0:  # every time would take long
            repository = opened(store)
            give_back(repository, None)
            repository.close()
            assert_is(folder, then)
    assert_is(folder, then)
    assert len(seen) == 4
    assert n > 40


def assert_is(folder: Path, state: SiteState) -> None:
    assert found_in(folder) == state
    for name in NAMES:
        assert not list((folder / name).glob(".*perdure*"))
        assert not list((folder / name / "blobs/tmp").iterdir())


def dies_at(n: int, store: MemoryStore) -> bool:
    """Restore in place in a child that dies at its n-th system call; says whether it lived.

    The test runner has threads, and a child that is forked from such a process may hang in a lock that
    one of them held: then another one is tried.
    """
    for _ in range(5):
        status = _restore_in_child(n, store)
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM):
            return status == 0
    raise AssertionError(f"five children hung, told to die at call {n}")


def _restore_in_child(n: int, store: MemoryStore) -> int:
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

        try:
            repository = opened(store)
            for name in CALLS:
                setattr(os, name, deadly(getattr(os, name)))
            give_back(repository, None)
        except BaseException:
            os._exit(7)
        os._exit(0)
    return os.waitpid(child, 0)[1]


def test_the_store_fails_during_a_restore_in_place(
    in_place: tuple[Path, MemoryStore, SiteState, SiteState], tmp_path: Path
) -> None:
    folder, store, then, present = in_place
    kept = tmp_path / "kept"
    shutil.copytree(folder, kept)
    for n in count(1):
        faulty = FaultyStore(store, n)
        with suppress(StoreError):
            repository = opened(faulty)
            try:
                give_back(repository, None)
            finally:
                repository.close()
        if not faulty.failed:
            break
        found = found_in(folder)
        for name in NAMES:
            assert found[name].data == present[name].data
            assert present[name].blobs.items() <= found[name].blobs.items()
        put_back(kept, folder)
    assert_is(folder, then)
    assert n > 5


def test_one_of_two_storages_is_in_use(
    in_place: tuple[Path, MemoryStore, SiteState, SiteState],
) -> None:
    from ZODB.FileStorage import FileStorage

    from perdure.errors import TargetInUse

    folder, store, _, present = in_place
    server: Any = FileStorage(str(folder / "main/Data.fs"))
    repository = opened(store)
    with pytest.raises(TargetInUse, match=r"main/Data\.fs is in use"):
        give_back(repository, None)
    server.close()
    repository.close()
    assert found_in(folder)["catalog"].data == present["catalog"].data


def test_latest(tmp_path: Path) -> None:
    """A snapshot id is not needed to restore one storage of two, into a folder."""
    site, store = TwoStorages(tmp_path / "site"), MemoryStore()
    create(store)
    site.commit("one")
    back_up(store, site.folder)
    state = site.state()
    site.close()
    repository = opened(store)
    request = RestoreRequest(tmp_path / "out", Wanted(source="main"))
    [done] = restore(repository, request, SilentObserver())
    assert done.files[0] == tmp_path / "out/Data.fs"
    assert done.files[0].read_bytes() == state["main"].data
    give_back(repository, tmp_path / "both")
    repository.close()
    assert_is(tmp_path / "both", state)

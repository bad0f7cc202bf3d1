"""Whatever stops a backup: what was there before stays whole, and the next backup works."""

from __future__ import annotations

import os
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from doubles import Clock, FaultyStore, PowerCut
from small_repository import backup

from perdure.errors import NoRepository, StoreError
from perdure.formats.keyfile import KdfParameters
from perdure.model import ChunkKind, SilentObserver
from perdure.repository import Repository
from perdure.repository import packer as packer_module
from perdure.repository import writer as writer_module
from perdure.repository.checking import check_repository
from perdure.repository.repairing import repair_index
from perdure.stores import Store
from perdure.stores.local import LocalStore
from perdure.stores.memory import MemoryStore

CHEAP = KdfParameters(2, 1, 1)
FIRST = {"a": [b"first" * 1000, os.urandom(1000)], "b": []}
SECOND = {"a": [b"first" * 1000, os.urandom(2000)], "c": [b"second"]}


def create(store: Store) -> Repository:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    return Repository.create(store, "secret", kdf=CHEAP, now=now, username="u", hostname="h")


def open_repository(store: Store, clock: Clock | None = None) -> Repository:
    return Repository.open(store, "secret", cache=None, clock=clock or Clock(), workers=2)


def assert_sound(store: Store, snapshots: int) -> None:
    """What restic check would say, and that every snapshot can be read."""
    repository = open_repository(store)
    report = check_repository(repository, SilentObserver(), read_data=True)
    repository.close()
    assert not report.damaged, report
    assert report.snapshots == snapshots


@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after it"])
@pytest.mark.parametrize("dead", [False, True], ids=["once", "from then on"])
def test_a_backup_that_fails_at_its_nth_call(after: bool, dead: bool) -> None:
    for n in count(1):
        store = MemoryStore()
        create(store)
        backup(open_repository(store), FIRST)
        faulty = FaultyStore(store, n, after=after, dead=dead)
        with suppress(StoreError):
            repository = open_repository(faulty)
            backup(repository, SECOND)
        if not faulty.failed:
            break
        written = len(list(store.list("snapshots/")))
        assert written in (1, 2)
        assert_sound(store, written)
        backup(open_repository(store), SECOND)
        assert_sound(store, written + 1)
    assert n > 12


@pytest.mark.parametrize("after", [False, True])
def test_a_creation_that_fails_at_its_nth_call(after: bool) -> None:
    for n in count(1):
        store = MemoryStore()
        faulty = FaultyStore(store, n, after=after)
        with suppress(StoreError):
            create(faulty)
        if not faulty.failed:
            break
        try:
            open_repository(store)
        except NoRepository:
            create(store)
        backup(open_repository(store), FIRST)
        assert_sound(store, 1)
    assert n > 5


@pytest.mark.parametrize("after", [False, True])
def test_a_repair_that_fails_at_its_nth_call(after: bool) -> None:
    for n in count(1):
        store = MemoryStore()
        create(store)
        backup(open_repository(store), FIRST)
        backup(open_repository(store), SECOND)
        store.delete(next(name for name, _ in store.list("index/")))
        faulty = FaultyStore(store, n, after=after)
        with suppress(StoreError):
            repository = open_repository(faulty)
            with repository.lock(exclusive=True) as lock:
                repair_index(repository, lock, SilentObserver())
        if not faulty.failed:
            break
        later = Clock()
        later.advance(minutes=31)  # the lock may have stayed
        repository = open_repository(store, later)
        with repository.lock(exclusive=True) as lock:
            repair_index(repository, lock, SilentObserver())
        assert_sound(store, 2)
    assert n > 8


def test_the_power_fails_at_the_nth_put(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    power = PowerCut(monkeypatch)
    root = tmp_path / "repository"
    create(LocalStore(root))
    backup(open_repository(LocalStore(root)), FIRST)
    second = LocalStore(root)
    states: list[Path] = []

    class Watched(LocalStore):
        def put(self, name: str, data: bytes) -> None:
            super().put(name, data)
            states.append(tmp_path / f"after-{len(states)}")
            power.survivors(tmp_path, states[-1])

    repository = open_repository(Watched(root))
    backup(repository, SECOND)

    assert len(states) == 5  # lock, two packfiles, index, snapshot
    for state in states:
        last = state == states[-1]
        assert_sound(LocalStore(state / "repository"), 2 if last else 1)
    assert_sound(second, 2)


def test_an_interrupted_first_backup_is_not_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 500)
    monkeypatch.setattr(writer_module, "PACKFILES_PER_INDEX", 4)
    store = MemoryStore()
    create(store)
    chunks = [os.urandom(600) for _ in range(14)]
    repository = open_repository(store)
    with repository.lock() as lock, repository.writer(lock) as writer:
        for chunk in chunks:
            writer.add(ChunkKind.DATA, chunk).result()
    again = open_repository(store)
    with again.lock() as lock, again.writer(lock) as writer:
        for chunk in chunks:
            writer.add(ChunkKind.DATA, chunk).result()
        assert writer.added_chunks == 2
    assert_sound(store, 0)

"""A store that fails at its n-th call, for every n: earlier snapshots stay whole, the next backup works."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from datafs import DataFs, Record, Transaction, simple
from doubles import Clock, FaultyStore, PowerCut
from history_site import back_up, rebuilt_from, snapshots_in

from perdure.check import check
from perdure.errors import NoRepository, StoreError
from perdure.formats.keyfile import KdfParameters
from perdure.model import SilentObserver, Subset
from perdure.repository import Repository
from perdure.stores import Store
from perdure.stores.local import LocalStore
from perdure.stores.memory import MemoryStore

CHEAP = KdfParameters(2, 1, 1)
WINDOW = 400


def create(store: Store) -> None:
    clock = Clock()
    Repository.create(store, "secret", kdf=CHEAP, now=clock(), username="u", hostname="h").close()


def opened(store: Store) -> Repository:
    return Repository.open(store, "secret", cache=None, clock=Clock(), workers=2)


def run(store: Store, path: Path) -> None:
    repository = opened(store)
    try:
        back_up(repository, path, window=WINDOW)
    finally:
        repository.close()


def assert_sound(store: Store, states: list[bytes], unsure: bytes) -> int:
    """The repository checks, and has these states of the file, or these and one more."""
    repository = opened(store)
    report = check(repository, read_data=Subset(), observer=SilentObserver())
    assert not report.damaged, report
    found = [rebuilt_from(each)[0] for each in snapshots_in(repository)]
    repository.close()
    assert found in (states, [*states, unsure])
    return len(found)


def packed() -> bytes:
    """What a pack makes of the file: the newest record of each object."""
    made = DataFs()
    made.add(Transaction([Record(1, b"1:4 " * 10), Record(2, b"2:4 " * 10)], status=b"p"))
    return made.add(Transaction([Record(0, b"new" * 30)])).data


STATES = {
    "first": [simple(6).data],
    "increment": [simple(6).data, simple(9).data],
    "merge": [simple(6).data, simple(7).data, simple(8).data, simple(12).data],
    "after a pack": [simple(6).data, simple(9).data, packed()],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Data.fs"


def write(path: Path, data: bytes) -> None:
    """Grow the file, or put another in its place."""
    if path.exists() and data.startswith(path.read_bytes()):
        with path.open("ab") as file:
            file.write(data[path.stat().st_size :])
    else:
        if path.exists():
            path.rename(f"{path}.old")
        path.write_bytes(data)


def prepared(path: Path, states: list[bytes]) -> MemoryStore:
    """A repository that has all states but the last; the file is as it is at the last."""
    store = MemoryStore()
    create(store)
    for state in states[:-1]:
        write(path, state)
        run(store, path)
    write(path, states[-1])
    return store


def copies(store: MemoryStore) -> Iterator[tuple[int, MemoryStore]]:
    for n in count(1):
        copy = MemoryStore()
        copy.contents = dict(store.contents)
        yield n, copy


@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after it"])
@pytest.mark.parametrize(
    "dead",
    [pytest.param(True, id="from then on"), pytest.param(False, id="once", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", list(STATES))
def test_the_nth_call_fails(name: str, dead: bool, after: bool, path: Path) -> None:
    states = STATES[name]
    original = prepared(path, states)
    for n, store in copies(original):
        faulty = FaultyStore(store, n, after=after, dead=dead)
        with suppress(StoreError):
            run(faulty, path)
        done = assert_sound(store, states[:-1], states[-1])
        assert original.contents.items() <= store.contents.items()
        if not faulty.failed:
            break
        run(store, path)
        assert_sound(store, [*states[:-1], *[states[-1]] * (done - len(states) + 2)], b"")
    assert n > 12


def test_creation_and_first_backup(path: Path) -> None:
    path.write_bytes(simple(6).data)
    for n in count(1):
        store = MemoryStore()
        faulty = FaultyStore(store, n)
        with suppress(StoreError):
            create(faulty)
            run(faulty, path)
        if not faulty.failed:
            break
        try:
            opened(store).close()
        except NoRepository:
            create(store)
        run(store, path)
        assert_sound(store, [simple(6).data], simple(6).data)


@pytest.mark.parametrize("name", list(STATES))
def test_the_power_fails_after_each_sync(
    name: str, path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only what was synced survives; what was promised before must be there."""
    power = PowerCut(monkeypatch)
    root = tmp_path / "repository"
    create(LocalStore(root))
    for state in STATES[name][:-1]:
        write(path, state)
        run(LocalStore(root), path)
    write(path, STATES[name][-1])
    survivors: list[Path] = []

    class Watched(LocalStore):
        def put(self, name: str, data: bytes) -> None:
            super().put(name, data)
            survivors.append(tmp_path / f"after-{len(survivors)}")
            power.survivors(tmp_path, survivors[-1])

    run(Watched(root), path)
    for survivor in survivors:
        store = LocalStore(survivor / "repository")
        assert_sound(store, STATES[name][:-1], STATES[name][-1])
    assert assert_sound(store, STATES[name], b"") == len(STATES[name])
    assert len(survivors) >= 4


def test_a_full_disk(path: Path) -> None:
    """Puts fail, deletes and reads do not: as when the space is used up."""
    states = STATES["increment"]

    class Full(MemoryStore):
        left = 3

        def put(self, name: str, data: bytes) -> None:
            self.left -= 1
            if self.left < 0:
                raise StoreError("no space left on device", hint="make room")
            super().put(name, data)

    for left in range(6):
        full = Full()
        full.contents = prepared(path, states).contents
        path.with_name("Data.fs.old").unlink(missing_ok=True)
        full.left = left
        with suppress(StoreError):
            run(full, path)
        assert not list(full.list("locks/")), "the lock is let go of on a full disk, too"
        full.left = 100
        assert_sound(full, states[:-1], states[-1])
        run(full, path)
        path.unlink()

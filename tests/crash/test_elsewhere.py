"""Whatever stops a mirror or a copy: what is listed is whole, and the next run goes on."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta
from itertools import count

import pytest
from doubles import Clock, FaultyStore
from small_repository import Site, backup

from perdure.copy import copy_snapshots
from perdure.errors import PerdureError, StoreError
from perdure.forget import ForgetRequest, forget
from perdure.mirror import MirrorRequest, mirror
from perdure.model import SilentObserver
from perdure.prune import PruneRequest, prune
from perdure.repository import Repository
from perdure.repository.checking import check_repository
from perdure.retention import Policy
from perdure.selection import Selection
from perdure.stores import Store
from perdure.stores.memory import MemoryStore

FIRST = {"a": [b"first" * 100], "b": [b"both" * 100]}
SECOND = {"b": [b"both" * 100], "c": [b"second" * 100]}
THIRD = {"b": [b"both" * 100], "d": [b"third" * 100]}

each_fault = pytest.mark.parametrize(
    ("after", "dead"), [(False, True), (True, True), (False, False), (True, False)]
)


def open_at(store: Store, clock: Clock | None = None) -> Repository:
    return Repository.open(store, "secret", cache=None, clock=clock or Clock(), workers=2)


def sound_snapshots(store: Store) -> int:
    """Check that all that is listed is whole; gives how many snapshots there are."""
    repository = open_at(store)
    report = check_repository(repository, SilentObserver(), read_data=True)
    repository.close()
    assert not report.damaged, report
    return report.snapshots


def later() -> Clock:
    """A clock by which the lock of a run that died is stale."""
    clock = Clock()
    clock.advance(minutes=31)
    return clock


def source() -> Site:
    """A repository whose first snapshot was mirrored, and is gone since."""
    site = Site()
    backup(site.repository, FIRST)
    backup(site.repository, SECOND)
    return site


def thin_out(site: Site) -> None:
    backup(site.repository, THIRD)
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        forget(repository, lock, ForgetRequest(policy=Policy(last=1)), SilentObserver())
        prune(repository, lock, PruneRequest(), SilentObserver())


def run_mirror(site: Site, source: Store, target: Store, clock: Clock, *, delete: bool) -> None:
    repository = open_at(source, clock)
    with repository.lock() as lock:
        request = MirrorRequest(delete=delete, lock_wait=timedelta(0))
        mirror(repository, lock, target, request, clock, SilentObserver())


def contents(store: MemoryStore) -> dict[str, bytes]:
    return {name: data for name, data in store.contents.items() if not name.startswith("locks/")}


@each_fault
@pytest.mark.parametrize("side", ["here", "there"])
def test_a_first_mirror_that_fails_at_its_nth_call(after: bool, dead: bool, side: str) -> None:
    site = source()
    for n in count(1):
        target, here = MemoryStore("elsewhere"), MemoryStore()
        here.contents |= contents(site.store)
        faulty = FaultyStore(here if side == "here" else target, n, after=after, dead=dead)
        with suppress(StoreError):
            if side == "here":
                run_mirror(site, faulty, target, Clock(), delete=False)
            else:
                run_mirror(site, site.store, faulty, Clock(), delete=False)
        if not faulty.failed:
            break
        if "config" in target.contents:
            assert sound_snapshots(target) in (0, 1, 2)
        run_mirror(site, site.store, target, later(), delete=True)
        assert contents(target) == contents(site.store)
    assert sound_snapshots(target) == 2
    assert n > 15


@each_fault
def test_a_mirror_that_deletes_and_fails_at_its_nth_call(after: bool, dead: bool) -> None:
    site = source()
    before = MemoryStore("elsewhere")
    run_mirror(site, site.store, before, Clock(), delete=False)
    thin_out(site)
    for n in count(1):
        target = MemoryStore("elsewhere")
        target.contents |= before.contents
        faulty = FaultyStore(target, n, after=after, dead=dead)
        with suppress(StoreError):
            run_mirror(site, site.store, faulty, Clock(), delete=True)
        assert sound_snapshots(target) >= 1
        if not faulty.failed:
            break
        run_mirror(site, site.store, target, later(), delete=True)
        assert contents(target) == contents(site.store)
    assert sound_snapshots(target) == 1
    assert n > 25


@each_fault
@pytest.mark.parametrize("side", ["there", "here"])
def test_a_copy_that_fails_at_its_nth_call(after: bool, dead: bool, side: str) -> None:
    there, before = source(), Site()
    backup(before.repository, THIRD)

    def run(origin: Store, target: Store, clock: Clock) -> None:
        from_it, into_it = open_at(origin, clock), open_at(target, clock)
        with from_it.lock(), into_it.lock() as lock:
            copy_snapshots(from_it, into_it, lock, Selection(), clock, SilentObserver())

    for n in count(1):
        target, theirs = MemoryStore(), MemoryStore()
        target.contents |= before.store.contents
        theirs.contents |= there.store.contents
        faulty = FaultyStore(theirs if side == "there" else target, n, after=after, dead=dead)
        with suppress(PerdureError):
            if side == "there":
                run(faulty, target, Clock())
            else:
                run(theirs, faulty, Clock())
        if not faulty.failed:
            break
        assert sound_snapshots(target) in (1, 2, 3)
        run(there.store, target, later())
        assert sound_snapshots(target) == 3
    assert sound_snapshots(target) == 3
    assert n > 10

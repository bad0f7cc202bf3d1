"""Mirror: an exact copy elsewhere."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest
from doubles import Clock
from small_repository import Site, backup

from perdure.errors import RepositoryDamaged, RepositoryLocked, UsageError
from perdure.forget import ForgetRequest, forget
from perdure.formats.golang import format_moment
from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.formats.snapshot import Snapshot
from perdure.mirror import MirrorReport, MirrorRequest, mirror, plan_mirror
from perdure.model import SilentObserver, SnapshotId
from perdure.prune import PruneRequest, prune
from perdure.repository import Owner, Repository
from perdure.repository.checking import check_repository
from perdure.selection import Selection
from perdure.stores.memory import MemoryStore
from perdure.stores.wrappers import CountingStore

FIRST = {"a": [b"first" * 100], "b": [b"both" * 100]}
SECOND = {"b": [b"both" * 100], "c": [b"second" * 100]}


def mirrored(
    site: Site, target: MemoryStore | CountingStore, *, delete: bool = False, dry_run: bool = False
) -> MirrorReport:
    repository = site.open()
    with repository.lock() as lock:
        request = MirrorRequest(delete=delete, dry_run=dry_run)
        return mirror(repository, lock, target, request, site.clock, SilentObserver())


def contents(store: MemoryStore) -> dict[str, bytes]:
    return {name: data for name, data in store.contents.items() if not name.startswith("locks/")}


def assert_sound(target: MemoryStore, snapshots: int) -> None:
    repository = Repository.open(target, "secret", cache=None, clock=Clock(), workers=2)
    report = check_repository(repository, SilentObserver(), read_data=True)
    assert not report.findings
    assert report.snapshots == snapshots


def clear(site: Site, *forgotten: SnapshotId) -> None:
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        forget(repository, lock, ForgetRequest(Selection(snapshots=forgotten)), SilentObserver())
        prune(repository, lock, PruneRequest(), SilentObserver())


def test_the_plan() -> None:
    here = {"keys": {"k": 1}, "data": {"a": 1, "b": 2}, "index": {"i": 3}, "snapshots": {"s": 4}}
    there = {"keys": {}, "data": {"a": 1, "b": 1, "x": 5}, "index": {}, "snapshots": {"old": 1}}

    plan = plan_mirror(here, there, delete=False)
    assert plan.copied == {
        "keys": {"k": 1},
        "data": {"b": 2},
        "index": {"i": 3},
        "snapshots": {"s": 4},
    }
    assert not plan.deletes
    assert plan.already_there == 1
    plan = plan_mirror(here, there, delete=True)
    assert plan.deleted == {"keys": {}, "data": {"x": 5}, "index": {}, "snapshots": {"old": 1}}


def test_an_exact_copy(site: Site) -> None:
    backup(site.repository, FIRST)
    backup(site.repository, SECOND)
    target = MemoryStore("elsewhere")

    rehearsed = mirrored(site, target, dry_run=True)
    assert not target.contents
    report = mirrored(site, target)

    assert contents(target) == contents(site.store)
    assert report.copied == {"keys": 1, "data": 4, "index": 2, "snapshots": 2} == rehearsed.copied
    assert report.bytes_copied == rehearsed.bytes_copied
    assert not any(name.startswith("locks/") for name in target.contents)
    assert_sound(target, 2)


def test_only_what_is_missing_is_copied(site: Site) -> None:
    target = MemoryStore("elsewhere")
    backup(site.repository, FIRST)
    mirrored(site, target)
    backup(site.repository, SECOND)
    counting = CountingStore(target)

    report = mirrored(site, counting)
    assert report.copied == {"keys": 0, "data": 2, "index": 1, "snapshots": 1}
    assert counting.calls["put"] == 5  # and a lock
    assert contents(target) == contents(site.store)

    counting = CountingStore(target)
    assert mirrored(site, counting).bytes_copied == 0
    assert sum(counting.calls.values()) < 12


def test_what_is_gone_here_stays_there_unless_it_is_to_go(site: Site) -> None:
    target = MemoryStore("elsewhere")
    first = backup(site.repository, FIRST)
    backup(site.repository, SECOND)
    mirrored(site, target)
    clear(site, first)

    report = mirrored(site, target)
    assert not any(report.deleted.values())
    assert_sound(target, 2)
    report = mirrored(site, target, delete=True)
    assert report.deleted["snapshots"] == 1
    assert report.bytes_deleted
    assert contents(target) == contents(site.store)
    assert_sound(target, 1)


def test_nothing_is_deleted_where_a_snapshot_cannot_be_read(site: Site) -> None:
    target = MemoryStore("elsewhere")
    first = backup(site.repository, FIRST)
    backup(site.repository, SECOND)
    mirrored(site, target)
    clear(site, first)
    target.put(f"snapshots/{first}", b"x" * 40)
    before = contents(target)
    with pytest.raises(UsageError, match="nothing is deleted") as caught:
        mirrored(site, target, delete=True)
    assert "repair snapshots --forget" in str(caught.value.hint)
    assert contents(target) == before


def test_a_revoked_key_goes(site: Site) -> None:
    backup(site.repository, FIRST)
    target = MemoryStore("elsewhere")
    mirrored(site, target)
    site.repository.change_password("secret", FOR_KEY_FILES, _owner(site))
    assert mirrored(site, target).copied["keys"] == 1
    assert mirrored(site, target, delete=True).deleted["keys"] == 1
    assert contents(target) == contents(site.store)


def test_a_file_of_another_size_is_copied_again(site: Site) -> None:
    backup(site.repository, FIRST)
    target = MemoryStore("elsewhere")
    mirrored(site, target)
    name = next(name for name in target.contents if name.startswith("data/"))
    target.put(name, b"short")
    mirrored(site, target)
    assert_sound(target, 1)


def test_what_is_damaged_is_not_copied(site: Site) -> None:
    backup(site.repository, FIRST)
    target = MemoryStore("elsewhere")
    mirrored(site, target)
    backup(site.repository, SECOND)
    damaged = next(name for name in site.names("data") if name not in target.contents)
    content = site.store.get(damaged)
    site.store.put(damaged, bytes(len(content)))

    with pytest.raises(RepositoryDamaged, match=damaged):
        mirrored(site, target)
    assert damaged not in target.contents
    assert_is_usable(target)
    site.store.put(damaged, content)
    mirrored(site, target)
    assert_sound(target, 2)


def assert_is_usable(target: MemoryStore) -> None:
    repository = Repository.open(target, "secret", cache=None, clock=Clock(), workers=2)
    report = check_repository(repository, SilentObserver(), read_data=True)
    assert not report.damaged
    assert report.snapshots == 1


def test_a_packfile_that_is_gone_is_told_and_stays_there(site: Site) -> None:
    backup(site.repository, FIRST)
    first, second, new = MemoryStore("first"), MemoryStore("second"), MemoryStore("new")
    mirrored(site, first)
    gone = site.names("data")[0]
    backup(site.repository, SECOND)
    mirrored(site, second)
    site.store.delete(gone)
    with pytest.raises(RepositoryDamaged, match=f"{gone} is in the index, and missing"):
        mirrored(site, new)
    assert not any(name.startswith(("index/", "snapshots/")) for name in new.contents)
    report = mirrored(site, first, delete=True)
    assert not any(report.deleted.values())
    assert_sound(first, 2)
    before = contents(second)
    assert not any(mirrored(site, second, delete=True).deleted.values())
    assert contents(second) == before


def test_another_repository_is_not_written_to(site: Site) -> None:
    backup(site.repository, FIRST)
    other = MemoryStore("elsewhere")
    other.contents |= Site().store.contents
    before = contents(other)
    with pytest.raises(UsageError, match="another repository"):
        mirrored(site, other)
    assert contents(other) == before
    nothing = MemoryStore("elsewhere")
    nothing.put(f"data/ab/{'ab' * 32}", b"?")
    with pytest.raises(UsageError, match="no config"):
        mirrored(site, nothing)
    with pytest.raises(UsageError, match="the same place"):
        mirrored(site, site.store)


def test_a_mirror_that_went_on_by_itself_is_not_thrown_away(site: Site) -> None:
    backup(site.repository, FIRST)
    target = MemoryStore("elsewhere")
    mirrored(site, target)
    elsewhere = Repository.open(target, "secret", cache=None, clock=site.clock, workers=2)
    with elsewhere.lock():
        name, snapshot = elsewhere.find_snapshot("latest")
        later = elsewhere.save_snapshot(_later(snapshot))
    before = contents(target)

    with pytest.raises(UsageError, match=f"snapshot {later[:8]} .* newer"):
        mirrored(site, target, delete=True)
    assert contents(target) == before
    mirrored(site, target)
    clear(site, name)
    with pytest.raises(UsageError, match="newer"):
        mirrored(site, target, delete=True)


def test_a_mirror_in_use(site: Site) -> None:
    first = backup(site.repository, FIRST)
    target = MemoryStore("elsewhere")
    backup(site.repository, SECOND)
    mirrored(site, target)
    clear(site, first)
    reader = Repository.open(target, "secret", cache=None, clock=site.clock, workers=2)
    with reader.lock():
        mirrored(site, target)
        with pytest.raises(RepositoryLocked):
            mirrored(site, target, delete=True)
    assert_sound(target, 2)
    mirrored(site, target, delete=True)
    assert_sound(target, 1)


def _later(snapshot: Snapshot) -> Snapshot:
    moment = snapshot.moment + timedelta(hours=1)
    return msgspec.structs.replace(snapshot, time=format_moment(moment))


def _owner(site: Site) -> Owner:
    return Owner("plone", "www1", site.clock())

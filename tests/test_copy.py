"""Copy: snapshots between repositories with different keys."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from command_line import commit
from history_site import HistorySite, back_up, rebuilt_from, snapshots_in
from small_repository import Site, backup

import perdure.copy as copy_module
from perdure.copy import CopyReport, copy_snapshots, plan_copy
from perdure.errors import RepositoryDamaged
from perdure.formats.snapshot import Snapshot
from perdure.model import ChunkKind, SilentObserver, SnapshotId
from perdure.repository.checking import check_repository
from perdure.selection import Selection
from perdure.stores.wrappers import CountingStore

FIRST = {"a": [b"first" * 100], "b": [b"both" * 100]}
SECOND = {"b": [b"both" * 100], "c": [b"second" * 100]}
ALL = Selection()


@pytest.fixture
def there() -> Site:
    """The repository that is copied from; its key is another one."""
    return Site()


def copied(
    there: Site, here: Site, selection: Selection = ALL, *, dry_run: bool = False
) -> CopyReport:
    origin, repository = there.open(), here.open()
    with origin.lock(), repository.lock() as lock:
        return copy_snapshots(
            origin, repository, lock, selection, here.clock, SilentObserver(), dry_run=dry_run
        )


def assert_sound(here: Site, snapshots: int) -> None:
    report = check_repository(here.open(), SilentObserver(), read_data=True)
    assert not report.findings
    assert report.snapshots == snapshots


def test_the_plan() -> None:
    def made(hour: int, **more: object) -> Snapshot:
        text = {"time": f"2026-11-21T{hour:02}:00:00Z", "tree": "ab" * 32, "paths": ("/x",)}
        return Snapshot(**(text | more))  # type: ignore[arg-type]

    one, two, three = SnapshotId("1"), SnapshotId("2"), SnapshotId("3")
    wanted = [(two, made(2)), (one, made(1, parent="zz")), (three, made(3, original="0"))]
    here = [(SnapshotId("x"), made(1, original="1")), (SnapshotId("y"), made(3, original="3"))]
    assert plan_copy(wanted, here) == [(two, made(2)), (three, made(3, original="0"))]


def test_snapshots_are_the_same_here_and_there(there: Site, site: Site) -> None:
    first = backup(there.repository, FIRST)
    second = backup(there.repository, SECOND)

    rehearsed = copied(there, site, dry_run=True)
    assert not site.repository.snapshots()
    report = copied(there, site)

    assert {each.origin for each in report.copied} == {first, second}
    here = dict(site.repository.snapshots())
    for each in report.copied:
        theirs = there.repository.find_snapshot(each.origin)[1]
        ours = here[SnapshotId(each.name)]
        assert ours.original == each.origin
        assert (ours.tree, ours.time, ours.paths) == (theirs.tree, theirs.time, theirs.paths)
    assert (rehearsed.chunks, rehearsed.content_bytes) == (report.chunks, report.content_bytes)
    assert_sound(site, 2)


def test_a_copy_is_not_made_twice(there: Site, site: Site) -> None:
    first = backup(there.repository, FIRST)
    copied(there, site)
    assert copied(there, site).already_there == 1
    backup(there.repository, SECOND)
    report = copied(there, site)
    assert (len(report.copied), report.already_there) == (1, 1)
    assert report.chunks == 3  # one of data, two trees: "both" is here
    assert_sound(site, 2)
    # and back again: what a copy was made of is known
    assert copied(site, there).already_there == 2
    assert {each.original for _, each in site.repository.snapshots()} > {first}


def test_chosen_snapshots(there: Site, site: Site) -> None:
    first = backup(there.repository, FIRST)
    backup(there.repository, SECOND)
    report = copied(there, site, Selection(snapshots=(first[:8],)))
    assert [each.origin for each in report.copied] == [first]
    assert_sound(site, 1)


def test_many_snapshots_are_committed_together(
    there: Site, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        backup(there.repository, {"a": [os.urandom(1000)], "b": [b"%d" % number]})
    copied(there, site)
    assert len(site.names("index")) == 1
    assert len(site.names("data")) == 2
    monkeypatch.setattr(copy_module, "TOGETHER", 2000)
    other = Site()
    copied(there, other)
    assert len(other.names("index")) > 1  # how many is a matter of when threads are done
    assert_sound(other, 6)


def test_a_tree_that_is_here_by_chance_proves_nothing(there: Site, site: Site) -> None:
    """As an interrupted copy leaves it: the trees are in the index, what they refer to is not."""
    name = backup(there.repository, FIRST)
    snapshot = there.repository.find_snapshot(name)[1]
    root = there.repository.load(ChunkKind.TREE, snapshot.root)
    below = there.repository.load_tree(snapshot.root).nodes[0].tree
    assert below
    repository = site.open()
    with repository.lock() as lock, repository.writer(lock) as writer:
        writer.add(ChunkKind.TREE, root)
        writer.add(ChunkKind.TREE, there.repository.load(ChunkKind.TREE, below))
        writer.flush()
    copied(there, site)
    assert_sound(site, 1)


def test_what_cannot_be_read_is_not_copied(there: Site, site: Site) -> None:
    backup(there.repository, FIRST)
    copied(there, site)
    backup(there.repository, SECOND)
    for name in there.names("data"):
        there.store.put(name, bytes(there.store.size(name)))
    with pytest.raises(RepositoryDamaged):
        copied(there, site)
    assert_sound(site, 1)


def test_an_increment_of_a_database_is_copied_by_its_change(tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    commit(path, 30)
    there, here = HistorySite(), HistorySite()
    back_up(there.repository, path)
    copied(there, here)
    commit(path, 3)
    back_up(there.repository, path)

    counting = CountingStore(there.store)
    there.store, kept = counting, there.store  # type: ignore[assignment]
    copied(there, here)
    assert counting.calls["get"] < 25
    there.store = kept
    *_, found = snapshots_in(here.open())
    assert rebuilt_from(found)[0] == path.read_bytes()
    assert_sound(here, 2)

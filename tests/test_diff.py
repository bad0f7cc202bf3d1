"""What came and went between two snapshots, beside what ZODB itself says of the two files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from blob_storage import BlobStorage
from datafs import FIRST_TID, simple
from history_site import back_up, transactions_in
from raw_storage import commit_raw, raw_storage, referring
from small_repository import Site, backup
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.FileStorage import FileIterator
from ZODB.utils import get_pickle_metadata, u64

from perdure.diff import DatabaseChange, diff
from perdure.errors import UsageError
from perdure.history.changes import ADDED, CHANGED, REMOVED, FileChange
from perdure.model import SilentObserver, Tid
from perdure.repository.checking import check_repository


@pytest.fixture(autouse=True)
def whole_repository(site: Site) -> Iterator[None]:
    """Every repository that a test wrote is whole."""
    yield
    assert not check_repository(site.repository, SilentObserver(), read_data=True).damaged


def made(site: Site, path: Path, **options: Any) -> str:
    report = back_up(site.repository, path, clock=site.clock, **options)
    site.clock.advance(minutes=1)
    assert report.snapshot_id
    return report.snapshot_id


def compared(site: Site, first: str, second: str) -> DatabaseChange:
    found = diff(site.repository, first, second, None, SilentObserver())
    assert list(found.files) == []
    [change] = found.databases
    return change


class State:
    """What ZODB says of a file: the newest record of each object, and the transactions."""

    def __init__(self, path: Path) -> None:
        self.newest: dict[int, tuple[bytes, bytes]] = {}
        self.transactions = set()
        for each in FileIterator(str(path)):
            self.transactions.add(each.tid)
            for record in each:
                if record.data is None:
                    self.newest.pop(u64(record.oid), None)
                else:
                    self.newest[u64(record.oid)] = record.tid, record.data


def expected(old: State, new: State) -> dict[str, list[int]]:
    """For each class: added, removed, changed, bytes before and after."""
    found: dict[str, list[int]] = {}
    for oid in old.newest.keys() | new.newest.keys():
        was, now = old.newest.get(oid), new.newest.get(oid)
        if was and now and was[0] == now[0]:
            continue
        _, data = now or was or (b"", b"")
        row = found.setdefault(".".join(get_pickle_metadata(data)), [0] * 5)
        row[0 if not was else 1 if not now else 2] += 1
        row[3] += len(was[1]) if was else 0
        row[4] += len(now[1]) if now else 0
    return found


@pytest.mark.parametrize("window", [2000, 1 << 20])
@pytest.mark.parametrize("seed", range(6))
def test_a_living_storage(site: Site, tmp_path: Path, seed: int, window: int) -> None:
    storage = BlobStorage(tmp_path / "site", seed=seed)
    states, blobs, names = [], [], []
    for _ in range(4):
        for _ in range(8):
            storage.step()
        states.append(State(storage.path))
        blobs.append(storage.contents())
        names.append(made(site, storage.path, blobs=storage.blobs, window=window))
    storage.close()
    for before, after in ((0, 1), (1, 2), (0, 3), (3, 0)):
        change = compared(site, names[before], names[after])
        old, new = states[before], states[after]
        assert {
            each.class_name: [each.added, each.removed, each.changed, each.before, each.after]
            for each in change.classes
        } == expected(old, new)
        assert change.transactions_added == len(new.transactions - old.transactions)
        assert change.transactions_removed == len(old.transactions - new.transactions)
        come, gone = blobs[after].keys() - blobs[before], blobs[before].keys() - blobs[after]
        assert (change.blobs_added, change.blobs_removed) == (len(come), len(gone))
        assert change.blobs_added_bytes == sum(len(blobs[after][blob]) for blob in come)
        assert change.blobs_removed_bytes == sum(len(blobs[before][blob]) for blob in gone)


@pytest.mark.parametrize("seed", range(3))
def test_moments(site: Site, tmp_path: Path, seed: int) -> None:
    """What one snapshot tells of several moments."""
    storage = BlobStorage(tmp_path / "site", seed=seed)
    storage.commit("blob1")
    states, blobs, tids = [], [], []
    for _ in range(3):
        for _ in range(4):
            storage.commit(f"blob{storage.random.randint(0, 3)}")
            storage.undo()
        states.append(State(storage.path))
        blobs.append(storage.contents())
        tids.append(transactions_in(storage.data)[-1].tid)
    storage.close()
    name = made(site, storage.path, blobs=storage.blobs)
    for before, after in ((0, 1), (1, 2), (0, 2), (2, 0)):
        text = [f"{tids[n]:016x}" if n < 2 else name[:16] for n in (before, after)]
        change = compared(site, *text)
        old, new = states[before], states[after]
        assert {
            each.class_name: [each.added, each.removed, each.changed, each.before, each.after]
            for each in change.classes
        } == expected(old, new)
        assert change.transactions_added == len(new.transactions - old.transactions)
        come, gone = blobs[after].keys() - blobs[before], blobs[before].keys() - blobs[after]
        assert (change.blobs_added, change.blobs_removed) == (len(come), len(gone))
        assert change.blobs_added_bytes == sum(len(blobs[after][blob]) for blob in come)
        assert change.before
        assert change.before.cut.value == tids[before]
        assert change.before.size < len(storage.data) or before == 2
    time = f"{Tid(tids[1]).time:%Y-%m-%dT%H:%M:%S.%f}"
    assert compared(site, time, "latest").classes == compared(site, f"{tids[1]:016x}", name).classes
    with pytest.raises(UsageError, match="neither a time nor"):
        compared(site, "yesterday", "latest")


def test_nothing_and_a_pack(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    raw_storage(path, {0: referring(1, 2), 1: referring(), 2: referring()}, {1: referring(2)})
    raw_storage(path, {0: referring(1), 5: referring()})
    first = made(site, path)
    assert compared(site, first, "latest").classes == ()
    storage: Any = FileStorage(str(path))
    storage.pack(2**32, lambda data: [])  # what is not the root goes
    commit_raw(storage, {0: referring()})
    storage.close()
    change = compared(site, first, made(site, path))
    assert change.packed
    [mappings] = change.classes
    assert (mappings.added, mappings.removed, mappings.changed) == (0, 3, 1)
    assert change.objects_removed == 3
    assert change.transactions_removed


def test_sources_that_come_and_go(site: Site, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(simple(3).data)
    first, second = (
        made(site, tmp_path / "one", name="one"),
        made(site, tmp_path / "two", name="two"),
    )
    found = diff(site.repository, first, second, None, SilentObserver())
    one, two = found.databases
    assert (one.after, one.objects_removed, one.transactions_removed) == (None, 3, 3)
    assert (two.before, two.objects_added, two.transactions_added) == (None, 3, 3)
    [only] = diff(site.repository, first, second, "two", SilentObserver()).databases
    assert only == two
    with pytest.raises(UsageError, match="neither snapshot has a source named 'three'"):
        diff(site.repository, first, second, "three", SilentObserver())


def test_files_of_another_program(site: Site, tmp_path: Path) -> None:
    first = backup(site.repository, {"same": [b"1"], "gone": [b"22"], "changed": [b"333"]})
    second = backup(site.repository, {"same": [b"1"], "changed": [b"4444"], "new": []})
    found = diff(site.repository, first, second, None, SilentObserver())
    assert found.databases == ()
    assert list(found.files) == [
        FileChange("folder/changed", CHANGED, 3, 4),
        FileChange("folder/gone", REMOVED, 2, None),
        FileChange("folder/new", ADDED, None, 0),
    ]
    (tmp_path / "Data.fs").write_bytes(simple(2).data)
    ours = made(site, tmp_path / "Data.fs")
    mixed = diff(site.repository, first, ours, None, SilentObserver())
    counts = Counter(each.change for each in mixed.files)
    assert counts[REMOVED] == 3
    assert counts[ADDED] >= 3
    for one, other, source in ((first, ours, "main"), (first, f"{FIRST_TID:016x}", None)):
        with pytest.raises(UsageError, match="another program made one"):
            diff(site.repository, one, other, source, SilentObserver())

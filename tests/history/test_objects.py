"""Which objects a history has, and their data, beside what ZODB's iterator says of the file."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from blob_storage import BlobStorage
from history_site import back_up, snapshots_in, transactions_in
from hypothesis import given
from hypothesis import strategies as st
from small_repository import Site
from ZODB.FileStorage.FileStorage import FileIterator
from ZODB.utils import u64

from perdure.history import objects as module
from perdure.history.graph import Graph
from perdure.history.objects import Objects, survey_objects
from perdure.history.records import read_records
from perdure.model import SilentObserver, Tid
from perdure.snapshots import Found

State = dict[int, tuple[int, bytes | None]]


@pytest.fixture(params=[0, 1, 2])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> BlobStorage:
    made = BlobStorage(tmp_path / "site", seed=request.param)
    for _ in range(40):
        made.step()
    made.close()
    return made


def state_of(path: Path, until: int) -> State:
    """The newest revision of each object up to a transaction, and its data; None: it is gone."""
    state: State = {}
    for each in FileIterator(str(path)):
        if u64(each.tid) <= until:
            for record in each:
                state[u64(record.oid)] = u64(record.tid), record.data
    return state


def check_state(found: Found, objects: Objects, until: Tid, expected: State) -> None:
    assert objects.oid.tolist() == sorted(expected)
    assert objects.tid.tolist() == [expected[oid][0] for oid in sorted(expected)]
    assert objects.gone.tolist() == [expected[oid][1] is None for oid in sorted(expected)]
    data = [expected[oid][1] for oid in sorted(expected)]
    assert objects.length.tolist() == [len(each or b"") for each in data]
    read: dict[tuple[int, int], bytes] = {}
    for batch in read_records(found.history, objects.names, until):
        for oid, tid, view in zip(batch.oid.tolist(), batch.tid.tolist(), batch.data, strict=True):
            assert (oid, tid) not in read
            read[oid, tid] = bytes(view)
    for number, each in enumerate(data):
        if each is not None:
            assert read[int(objects.oid[number]), int(objects.content[number])] == each


@pytest.mark.parametrize("pending", [1, 1 << 20])
@pytest.mark.parametrize("window", [400, 5000, 1 << 20])
def test_objects_at_some_moments(
    site: Site, storage: BlobStorage, window: int, pending: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PENDING", pending)
    back_up(site.repository, storage.path, blobs=storage.blobs, window=window)
    [found] = snapshots_in(site.repository)
    headers = transactions_in(storage.data)
    for header in headers[:: max(1, len(headers) // 5)]:
        until = Tid(header.tid)
        objects = survey_objects(found.history, until, SilentObserver())
        check_state(found, objects, until, state_of(storage.path, header.tid))
        assert objects.transactions.tolist() == [h.tid for h in headers if h.tid <= header.tid]


def test_chosen_records(site: Site, storage: BlobStorage) -> None:
    back_up(site.repository, storage.path, window=3000)
    [found] = snapshots_in(site.repository)
    objects = survey_objects(found.history, None, SilentObserver())
    wanted = objects.oid[~objects.gone][::2]
    contents = objects.content[~objects.gone][::2]
    layouts = objects.holding(np.unique(contents))
    read = {
        (oid, tid)
        for batch in read_records(
            found.history, layouts, None, lambda oids, tids: np.isin(oids, wanted)
        )
        for oid, tid in zip(batch.oid.tolist(), batch.tid.tolist(), strict=True)
    }
    assert {oid for oid, _ in read} == set(wanted.tolist())
    assert set(zip(wanted.tolist(), contents.tolist(), strict=True)) <= read


def test_find(site: Site, storage: BlobStorage) -> None:
    back_up(site.repository, storage.path)
    [found] = snapshots_in(site.repository)
    objects = survey_objects(found.history, None, SilentObserver())
    oids = np.array([0, 10**6, 0, 1 << 63], np.uint64)
    numbers, there = objects.find(oids)
    assert there.tolist() == [True, False, True, False]
    assert objects.oid[numbers[0]] == 0


@given(st.integers(1, 40), st.integers(0, 5), st.integers(0, 1000))
def test_what_can_be_reached(count: int, most: int, seed: int) -> None:
    random_ = random.Random(seed)
    references = [random_.choices(range(count), k=random_.randint(0, most)) for _ in range(count)]
    graph = Graph(count)
    order = random_.sample(range(count), count)
    for start in range(0, count, 7):
        some = order[start : start + 7]
        graph.add(
            np.array(some, np.int64),
            np.array([len(references[number]) for number in some], np.int64),
            np.array([to for number in some for to in references[number]], np.int64),
        )
    roots = random_.sample(range(count), random_.randint(0, min(2, count)))
    reached, ahead = set(roots), list(roots)
    while ahead:
        new = set(references[ahead.pop()]) - reached
        reached |= new
        ahead += new
    found = graph.reachable(np.array(roots, np.int64))
    assert set(np.flatnonzero(found).tolist()) == reached

"""The data of a history's records, chunk by chunk: all of it, or of chosen records only."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from perdure.errors import DamageFound
from perdure.formats.catalogue import Catalogue
from perdure.formats.columns import Numbers
from perdure.formats.history import LayoutName
from perdure.formats.layout import Layout
from perdure.history.in_repository import RepositoryHistory, StoredSegment
from perdure.history.rows import Mask, Ordinals, counted, data_offset, verbatim_extent
from perdure.model import Tid

Choose = Callable[[Numbers, Numbers], Mask]
"""From oid and tid of records to which of them are wanted."""


@dataclass(frozen=True)
class Batch:
    """Some records with data of their own."""

    oid: Numbers
    tid: Numbers
    data: list[memoryview]


def read_records(
    history: RepositoryHistory,
    names: Sequence[LayoutName],
    until: Tid | None = None,
    choose: Choose | None = None,
) -> Iterator[Batch]:
    """Give the records of some layouts that ZODB counts in a file that is cut behind ``until``.

    Layouts come in their order, the records within one in no order that means anything. Only the chunks
    of records that are wanted are loaded. Raises DamageFound, StoreError.
    """
    for name in names:
        layout = history.layout(name)
        wanted = _Wanted(layout, until, choose)
        if layout.facts.verbatim:
            yield _verbatim(history, name, layout, wanted)
            continue
        for number, segment in enumerate(history.segments(layout)):
            catalogue = history.catalogue(segment)
            live = layout.live_records(number, len(catalogue))
            yield from _batches(history, segment, catalogue, live, wanted)


class _Wanted:
    def __init__(self, layout: Layout, until: Tid | None, choose: Choose | None) -> None:
        self._counted = counted(layout, until)
        self._tids = layout.transactions.tid[self._counted]
        self._choose = choose

    def of_transactions(self, oid: Numbers, transaction: Ordinals, tid: Numbers) -> Mask:
        """Say which records of the layout's transactions, given by number, are wanted."""
        mask: Mask = self._counted[transaction]
        return mask & self._choose(oid, tid) if self._choose else mask

    def of_tids(self, oid: Numbers, tid: Numbers) -> Mask:
        """Say which records are wanted, where tids rise."""
        mask: Mask = np.isin(tid, self._tids)
        return mask & self._choose(oid, tid) if self._choose else mask


def _verbatim(
    history: RepositoryHistory, name: LayoutName, layout: Layout, wanted: _Wanted
) -> Batch:
    extent = verbatim_extent(history, name, layout)
    tids = layout.transactions.tid[extent.transaction_of]
    mask = wanted.of_transactions(extent.oid, extent.transaction_of, tids)
    numbers = np.flatnonzero(mask & (extent.length > 0))
    data = []
    for number in numbers.tolist():
        start = data_offset(extent, number)
        data.append(extent.data[start : start + int(extent.length[number])])
    return Batch(extent.oid[numbers], tids[numbers], data)


def _batches(
    history: RepositoryHistory,
    segment: StoredSegment,
    catalogue: Catalogue,
    live: Mask,
    wanted: _Wanted,
) -> Iterator[Batch]:
    """Give the wanted records of a segment, a chunk at a time."""
    chosen = live & wanted.of_tids(catalogue.oid, catalogue.tid)
    if not chosen.any():
        return
    present, needed = catalogue.live_chunks(live), catalogue.live_chunks(chosen)
    if int(present.sum()) != len(segment.payload.chunks):
        raise DamageFound(f"{history.where}: the payload of {segment.name} has other chunks")
    stored = dict(zip(np.flatnonzero(present).tolist(), segment.payload.chunks, strict=True))
    chunks = np.flatnonzero(needed).tolist()
    loaded = history.chunks(stored[number] for number in chunks)
    cutter = _Cutter(catalogue, np.flatnonzero(chosen))
    for number, data in zip(chunks, loaded, strict=True):
        if len(data) != int(catalogue.chunks[number]):
            raise DamageFound(f"{history.where}: a chunk of {segment.name} has {len(data)} bytes")
        numbers, found = cutter.cut(number, data)
        if found:
            yield Batch(catalogue.oid[numbers], catalogue.tid[numbers], found)


class _Cutter:
    """Cuts records out of chunks that come in order; a long record is put together of several."""

    def __init__(self, catalogue: Catalogue, numbers: Ordinals) -> None:
        self._numbers = numbers
        self._ends = catalogue.ends[numbers]
        self._begins = self._ends - catalogue.length[numbers]
        self._chunk_ends = np.cumsum(catalogue.chunks)
        self._last = np.searchsorted(self._chunk_ends, self._ends - 1, side="right")
        self._held: list[bytes] = []

    def cut(self, chunk: int, data: bytes) -> tuple[Ordinals, list[memoryview]]:
        """Give the numbers and the data of the records that end in a chunk."""
        end = int(self._chunk_ends[chunk])
        first, stop = np.searchsorted(self._last, [chunk, chunk + 1]).tolist()
        goes_on = stop < len(self._begins) and int(self._begins[stop]) < end
        start = end - len(data)
        if first < stop and int(self._begins[first]) < start:
            data = b"".join((*self._held, data))
            start = end - len(data)
        view = memoryview(data)
        found = [
            view[a - start : b - start]
            for a, b in zip(
                self._begins[first:stop].tolist(), self._ends[first:stop].tolist(), strict=True
            )
        ]
        if not goes_on or first < stop:
            self._held.clear()
        if goes_on:
            self._held.append(data)
        return self._numbers[first:stop], found

"""The bytes of a range of a Data.fs, put together again from a layout, catalogues and payloads.

The other direction is formats/segment.py; the formats stand in formats/catalogue.py and layout.py.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import pairwise

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from perdure.errors import DamageFound
from perdure.formats import references
from perdure.formats.arrangement import Arrangement
from perdure.formats.catalogue import Catalogue
from perdure.formats.columns import Numbers
from perdure.formats.filestorage import RECORD_HEADER, TRAILER_SIZE, TRANSACTION_HEADER
from perdure.formats.layout import Layout
from perdure.formats.references import Locate
from perdure.formats.revisions import Revisions

BLOCK_SIZE = 1 << 20
"""Bytes of a range that are put together at once: what a processor's own cache holds."""


class Assembly:
    """The bytes of a layout's range, put together again from the payloads of its segments.

    ``catalogues`` and ``payloads`` are those of the segments that the layout names, in that order; a
    payload is the list of its chunks, without those that its file lacks. Raises DamageFound when
    anything does not fit.
    """

    def __init__(
        self,
        layout: Layout,
        catalogues: Sequence[Catalogue],
        payloads: Sequence[Sequence[bytes]],
        revisions: Revisions,
        locate: Locate,
        where: str,
    ) -> None:
        self._layout, self._where = layout, where
        self._records = records = Arrangement(layout, catalogues, where)
        self._data: list[memoryview] = [memoryview(b"")] * len(records.oid)
        for number, catalogue in enumerate(catalogues):
            self._place(number, catalogue, payloads[number])
        self._prev, back = references.resolve(
            layout, records.records, records.groups, revisions, locate, where
        )
        self._place_back_data(back)

    def _place(self, number: int, catalogue: Catalogue, payload: Sequence[bytes]) -> None:
        """Take the data of the range's records that one segment has."""
        live = self._layout.live_records(number, len(catalogue))
        pieces = _cut_payload(
            catalogue, live, payload, f"{self._where}: the payload of segment {number}"
        )
        mine, order = self._records.places[number]
        found = map(pieces.__getitem__, order.tolist())
        if len(mine) == len(self._data):
            self._data = list(found)
            return
        for record, piece in zip(mine.tolist(), found, strict=True):
            self._data[record] = piece

    def _place_back_data(self, back: Numbers) -> None:
        raw = memoryview(back.astype(">u8").tobytes())
        for number, record in enumerate(self._records.back.tolist()):
            self._data[record] = raw[number * 8 : number * 8 + 8]

    def _headers(self) -> NDArray[np.uint8]:
        """The record headers, one in a row of 42 bytes."""
        layout, records = self._layout, self._records
        table = np.zeros((len(records.oid), RECORD_HEADER.size), np.uint8)
        lengths = records.lengths.copy()
        lengths[records.back] = 0
        columns = (
            (0, records.oid),
            (8, layout.transactions.tid[records.transaction]),
            (16, self._prev),
            (24, layout.positions()[records.transaction]),
            (34, lengths),
        )
        for offset, values in columns:
            table[:, offset : offset + 8] = values.astype(">u8").view(np.uint8).reshape(-1, 8)
        return table

    def blocks(self) -> Iterator[bytes]:
        """Give the bytes of the range, some megabytes at a time."""
        frames, cuts = self._frames()
        view, data = memoryview(frames), self._data
        heads = [view[a:b] for a, b in pairwise([0, *cuts])]
        parts = [part for pair in zip(heads, data, strict=True) for part in pair]
        ends = np.cumsum(self._records.lengths + np.diff(np.array([0, *cuts], np.int64)))
        first = 0
        while first < len(data):
            start = int(ends[first - 1]) if first else 0
            last = max(int(np.searchsorted(ends, start + BLOCK_SIZE)), first + 1)
            yield b"".join(parts[2 * first : 2 * last])
            first = last
        yield bytes(view[cuts[-1] if cuts else 0 :])

    def _frames(self) -> tuple[bytearray, list[int]]:
        """Everything of the range but the records' data, and where in it each record's data belongs."""
        facts, transactions = self._layout.facts, self._layout.transactions
        skipped = np.concatenate(([0], np.cumsum(self._records.lengths)))
        offsets = self._records.at - facts.start - skipped[:-1]
        frames = np.zeros(facts.end - facts.start - int(skipped[-1]), np.uint8)
        frames[: len(facts.magic)] = np.frombuffer(facts.magic.encode(), np.uint8)
        if len(offsets):
            windows = sliding_window_view(frames, RECORD_HEADER.size, writeable=True)
            windows[offsets] = self._headers()
        raw = bytearray(frames.tobytes())
        firsts = np.concatenate(([0], np.cumsum(transactions.records.astype(np.int64))))
        before, behind = self._records.extra()
        sizes = before + behind + np.diff(firsts) * RECORD_HEADER.size
        ends = len(facts.magic) + np.cumsum(sizes)
        self._write_transactions(raw, (ends - sizes).tolist(), ends.tolist())
        return raw, (offsets + RECORD_HEADER.size).tolist()

    def _write_transactions(self, raw: bytearray, begins: list[int], ends: list[int]) -> None:
        layout, transactions = self._layout, self._layout.transactions
        fields = ("tid", "length", "status", "user", "description", "extension")
        rows = list(zip(*(getattr(transactions, name).tolist() for name in fields), strict=True))
        text, taken = transactions.text.tobytes(), 0
        last = len(rows) - 1
        for number, (tid, length, status, user, description, extension) in enumerate(rows):
            begin = begins[number]
            if number or layout.facts.begins is None:
                TRANSACTION_HEADER.pack_into(
                    raw, begin, tid, length, bytes([status]), user, description, extension
                )
                size = user + description + extension
                begin += TRANSACTION_HEADER.size
                raw[begin : begin + size] = text[taken : taken + size]
                taken += size
            if number < last or not layout.facts.ends_inside:
                raw[ends[number] - TRAILER_SIZE : ends[number]] = length.to_bytes(8, "big")

    def note(self, revisions: Revisions, until: int | None = None) -> None:
        """Enter the records of the range that stand before ``until`` into ``revisions``."""
        self._records.note(revisions, until)


def _cut_payload(
    catalogue: Catalogue, live: NDArray[np.bool_], payload: Sequence[bytes], where: str
) -> list[memoryview]:
    """Give the data of each record of a catalogue; nothing for records of chunks that are not there."""
    present = catalogue.live_chunks(live)
    if [len(chunk) for chunk in payload] != catalogue.chunks[present].tolist():
        raise DamageFound(f"{where} has other chunks than its catalogue says")
    pieces: list[memoryview] = []
    begins, ends = (catalogue.ends - catalogue.length).tolist(), catalogue.ends.tolist()
    chunks, held = iter(payload), list[bytes]()
    begin = behind = 0
    for size, there in zip(catalogue.chunks.tolist(), present.tolist(), strict=True):
        if there:
            held.append(next(chunks))
        behind += size
        first, stop = len(pieces), bisect.bisect_right(ends, behind)
        if first == stop:  # a record that is longer than a chunk goes on
            begin = begin if there else behind
            continue
        view = memoryview(held[0] if len(held) == 1 else b"".join(held))
        pieces += [
            view[max(a - begin, 0) : b - begin]
            for a, b in zip(begins[first:stop], ends[first:stop], strict=True)
        ]
        begin = behind
        held.clear()
    return pieces

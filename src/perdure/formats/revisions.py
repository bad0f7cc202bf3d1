"""Where each object's newest record stands, for as much of a Data.fs as was walked through.

This is what ZODB keeps as its index, in arrays: 16 bytes an object. Oids are given out one after the
other, so they are kept in pages of 256.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby

import numpy as np

from perdure.formats.columns import Numbers

_PAGE_BITS = 8
_PAGE = 1 << _PAGE_BITS
_LOW = np.uint64(_PAGE - 1)
_SHIFT = np.uint64(_PAGE_BITS)


class Revisions:
    """A map from oid to the position and tid of the object's newest record; position 0: none known.

    ``whole``: it is filled from the beginning of the file on, so that what it has is the newest there is.
    """

    def __init__(self, *, whole: bool = False) -> None:
        self.whole = whole
        self._rows: dict[int, int] = {}
        self._position = np.zeros((16, _PAGE), np.uint64)
        self._tid = np.zeros((16, _PAGE), np.uint64)

    def lookup(self, oids: Numbers) -> tuple[Numbers, Numbers]:
        """Give the positions and tids for oids in ascending order."""
        if not len(oids):
            return oids.copy(), oids.copy()
        rows = self._rows_of(oids)
        known = rows >= 0
        low = (oids & _LOW).astype(np.int64)
        position, tid = self._position[rows, low], self._tid[rows, low]
        position[~known] = 0
        tid[~known] = 0
        return position, tid

    def position(self, oid: int) -> int:
        """Give the position of one object's newest record; 0: none known."""
        row = self._rows.get(oid >> _PAGE_BITS)
        return 0 if row is None else int(self._position[row, oid & (_PAGE - 1)])

    def revision(self, oid: int) -> tuple[int, int]:
        """Give the position and tid of one object's newest record; 0, 0: none known."""
        row = self._rows.get(oid >> _PAGE_BITS)
        if row is None:
            return 0, 0
        place = row, oid & (_PAGE - 1)
        return int(self._position[place]), int(self._tid[place])

    def update(self, oids: Numbers, positions: Numbers, tids: Numbers) -> None:
        """Note newer records, one for each of these oids, which ascend."""
        if not len(oids):
            return
        pages = oids >> _SHIFT
        for page in pages[np.append(True, pages[1:] != pages[:-1])].tolist():
            if page not in self._rows:
                self._rows[page] = len(self._rows)
        self._grow(len(self._rows))
        rows, low = self._rows_of(oids), (oids & _LOW).astype(np.int64)
        self._position[rows, low] = positions
        self._tid[rows, low] = tids

    def pages(self) -> Iterator[tuple[int, Numbers, Numbers]]:
        """Give each page in ascending order: its first oid, and positions and tids of its 256 objects."""
        for page in sorted(self._rows):
            row = self._rows[page]
            yield page << _PAGE_BITS, self._position[row], self._tid[row]

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Give what an index file holds, ascending: a prefix of oids, and its suffixes and positions."""
        for prefix, group in groupby(self.pages(), key=lambda page: page[0] >> 16):
            suffixes, positions = [], []
            for first, page, _ in group:
                used = np.flatnonzero(page)
                suffixes.append((used + (first & 0xFFFF)).astype(">u2").tobytes())
                positions.append(_six_bytes(page[used]))
            if any(suffixes):
                yield prefix, b"".join(suffixes + positions)

    def _rows_of(self, oids: Numbers) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        pages = oids >> _SHIFT
        starts = np.flatnonzero(np.concatenate(([True], pages[1:] != pages[:-1])))
        get = self._rows.get
        rows = np.array([get(page, -1) for page in pages[starts].tolist()], np.int64)
        return np.repeat(rows, np.diff(np.append(starts, len(pages))))

    def _grow(self, rows: int) -> None:
        have = len(self._position)
        if rows > have:
            more = np.zeros((max(rows - have, have), _PAGE), np.uint64)
            self._position = np.concatenate((self._position, more))
            self._tid = np.concatenate((self._tid, more))


def _six_bytes(positions: Numbers) -> bytes:
    return positions.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:].tobytes()

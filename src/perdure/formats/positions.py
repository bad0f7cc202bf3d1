"""Where each object's newest record stands in the settled part of a history: a file of the cache.

It tells what layouts and catalogues tell, so that these need not all be read in each run. Oids are given
out one after the other, so they are kept in pages of 256. All integers are little-endian::

    offset  size    content
    0       16      magic and version: "perdure past 1\\n" and a zero byte
    16      8       n: how many pages it has
    24      8       xxh3 of the 32 + 8 n first bytes without these 8
    32      8 n     the first oid of each page, ascending; each is a multiple of 256
    32+8n   4104 n  the pages

    page
    0       2048    of each of the 256 objects: position of its newest record; 0: it has none
    2048    2048    ... the tid of that record
    4096    8       xxh3 of the page's first oid (8 bytes) and the 4096 bytes before

A lookup reads one page, which is checked then. A file or a page that is not exactly so is made again.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator

import numpy as np
import xxhash

from perdure.errors import DamageFound
from perdure.formats.columns import Numbers
from perdure.formats.filestorage import Buffer

_MAGIC = b"perdure past 1\n\0"
_HEADER = struct.Struct("<16sQ")
_NUMBER = struct.Struct("<Q")
_INDEX = _HEADER.size + _NUMBER.size
_PAGE = 256
_COLUMN = 8 * _PAGE
_PAGE_SIZE = 2 * _COLUMN + _NUMBER.size

Page = tuple[int, Numbers, Numbers]
"""First oid, positions and tids of 256 objects."""


class Positions:
    """The content of such a file. Raises DamageFound when it is none."""

    def __init__(self, data: Buffer) -> None:
        self._data = memoryview(data)
        self._checked: set[int] = set()
        try:
            magic, count = _HEADER.unpack_from(self._data)
            (digest,) = _NUMBER.unpack_from(self._data, _HEADER.size)
        except struct.error:
            raise DamageFound("the file has no header") from None
        if magic != _MAGIC or len(self._data) != _INDEX + count * (8 + _PAGE_SIZE):
            raise DamageFound("the file has another magic or length than its header says")
        self._pages: int = _INDEX + 8 * count
        index = self._data[_INDEX : self._pages]
        if digest != _digest(self._data[: _HEADER.size], index):
            raise DamageFound("the digest of the file's index does not fit to it")
        self.firsts: Numbers = np.frombuffer(index, "<u8")
        """The first oid of each page."""

    def revision(self, oid: int) -> tuple[int, int]:
        """Give position and tid of an object's newest record; 0, 0: it has none. Raises DamageFound."""
        number = int(np.searchsorted(self.firsts, np.uint64(oid), side="right")) - 1
        if number < 0 or oid - int(self.firsts[number]) >= _PAGE:
            return 0, 0
        place = self._checked_page(number) + 8 * (oid - int(self.firsts[number]))
        return self._number(place), self._number(place + _COLUMN)

    def _number(self, place: int) -> int:
        return int.from_bytes(self._data[place : place + 8], "little")

    def pages(self) -> Iterator[Page]:
        """Give all pages, their oids ascending. Raises DamageFound."""
        for number, first in enumerate(self.firsts.tolist()):
            start = self._checked_page(number)
            columns = np.frombuffer(self._data[start : start + 2 * _COLUMN], "<u8")
            yield first, columns[:_PAGE].astype(np.uint64), columns[_PAGE:].astype(np.uint64)

    def _checked_page(self, number: int) -> int:
        start = self._pages + number * _PAGE_SIZE
        if number not in self._checked:
            first = self._data[_INDEX + 8 * number : _INDEX + 8 * number + 8]
            (digest,) = _NUMBER.unpack_from(self._data, start + 2 * _COLUMN)
            if digest != _digest(first, self._data[start : start + 2 * _COLUMN]):
                raise DamageFound(f"page {number} does not fit to its digest")
            self._checked.add(number)
        return start


def encode(firsts: Numbers, pages: Iterable[Page]) -> Iterator[bytes]:
    """Give the bytes of a file of pages, whose first oids are ``firsts``, ascending."""
    head, index = _HEADER.pack(_MAGIC, len(firsts)), firsts.astype("<u8").tobytes()
    yield head + _NUMBER.pack(_digest(head, index)) + index
    for first, positions, tids in pages:
        columns = positions.astype("<u8").tobytes() + tids.astype("<u8").tobytes()
        yield columns + _NUMBER.pack(_digest(_NUMBER.pack(first), columns))


def merged(older: Iterable[Page], newer: Iterable[Page]) -> Iterator[Page]:
    """Give the pages of both, where both have one with the newer's records."""
    left, right = iter(older), iter(newer)
    old, new = next(left, None), next(right, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old[0] < new[0]):
            assert old is not None
            yield old
            old = next(left, None)
        elif old is None or new[0] < old[0]:
            yield new
            new = next(right, None)
        else:
            later = new[1] != 0
            yield new[0], np.where(later, new[1], old[1]), np.where(later, new[2], old[2])
            old, new = next(left, None), next(right, None)


def _digest(*parts: Buffer) -> int:
    digest = xxhash.xxh3_64()
    for part in parts:
        digest.update(part)
    return int.from_bytes(digest.digest(), "big")

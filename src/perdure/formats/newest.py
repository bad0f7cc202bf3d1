"""Where the newest record of each object stands, without numpy: its import takes longer than most increments.

This is what ZODB keeps as its index, 8 bytes an object. Oids are given out one after the other, so they are
kept in pages of 256. What an index file holds of 65536 oids stays packed until one of them changes.
"""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterator, Mapping

PAGE_BITS = 8
PAGE = 1 << PAGE_BITS
_PREFIX_BITS = 16
_PAGES_IN_PART = 1 << (_PREFIX_BITS - PAGE_BITS)
_EMPTY = bytes(8 * PAGE)
_SWAPPED = sys.byteorder == "little"


class Newest:
    """A map from oid to the position of the object's newest record; position 0: none known.

    ``parts``: what an index file has, as formats/fsindex.py describes it.
    """

    def __init__(self, parts: Mapping[int, bytes] | None = None) -> None:
        self._packed = dict(parts or {})
        self._pages: dict[int, array[int]] = {}

    def page(self, number: int) -> array[int]:
        """Give the positions of the 256 oids from ``256 * number`` on; what is set there is noted."""
        prefix = number >> (_PREFIX_BITS - PAGE_BITS)
        if prefix in self._packed:
            self._unpack(prefix)
        page = self._pages.get(number)
        if page is None:
            page = self._pages[number] = array("Q", _EMPTY)
        return page

    def position(self, oid: int) -> int:
        """Give the position of one object's newest record; 0: none known."""
        return self.page(oid >> PAGE_BITS)[oid & (PAGE - 1)]

    def items(self) -> Iterator[tuple[int, int]]:
        """Give each oid that has a position, ascending, and the position."""
        for prefix, packed in self.parts():
            suffixes, positions = unpack(packed)
            first = prefix << _PREFIX_BITS
            yield from (
                (first + suffix, at) for suffix, at in zip(suffixes, positions, strict=True)
            )

    def update(self, newer: Newest) -> None:
        """Take over what another map knows."""
        for oid, position in newer.items():
            self.page(oid >> PAGE_BITS)[oid & (PAGE - 1)] = position

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Give what an index file holds, ascending: a prefix of oids, and its suffixes and positions."""
        pages = self._pages
        shift = _PREFIX_BITS - PAGE_BITS
        for prefix in sorted({*self._packed, *(number >> shift for number in pages)}):
            packed = self._packed.get(prefix)
            if packed is None:
                first = prefix << shift
                packed = _pack([pages.get(first + each) for each in range(_PAGES_IN_PART)])
            if packed:
                yield prefix, packed

    def _unpack(self, prefix: int) -> None:
        suffixes, positions = unpack(self._packed.pop(prefix))
        first = prefix << (_PREFIX_BITS - PAGE_BITS)
        for suffix, position in zip(suffixes, positions, strict=True):
            self.page(first + (suffix >> PAGE_BITS))[suffix & (PAGE - 1)] = position


def unpack(packed: bytes) -> tuple[array[int], array[int]]:
    """Take what an index file holds of one prefix apart: the last two bytes of each oid, the positions."""
    count = len(packed) // 8
    suffixes = array("H", packed[: 2 * count])
    wide = bytearray(8 * count)
    for byte in range(6):
        wide[byte + 2 :: 8] = packed[2 * count + byte :: 6]
    positions = array("Q", bytes(wide))
    if _SWAPPED:
        suffixes.byteswap()
        positions.byteswap()
    return suffixes, positions


def _pack(pages: list[array[int] | None]) -> bytes:
    """Do what `unpack` undoes, for the 256 pages of one prefix."""
    suffixes, positions = array("H"), array("Q")
    for number, page in enumerate(pages):
        if page is not None:
            first = number * PAGE
            used = [place for place, position in enumerate(page) if position]
            suffixes.extend([first + place for place in used])
            positions.extend(page if len(used) == PAGE else [page[place] for place in used])
    if _SWAPPED:
        suffixes.byteswap()
        positions.byteswap()
    wide = positions.tobytes()
    narrow = bytearray(6 * len(positions))
    for byte in range(6):
        narrow[byte::6] = wide[byte + 2 :: 8]
    return suffixes.tobytes() + narrow

"""Data.fs.index: where the newest record of each object stands, so that ZODB opens a Data.fs at once.

A stream of pickles, protocol 3: the position behind the last transaction that the index knows; then for
each prefix of six bytes of the oids, ascending, a pair: the prefix, and a byte string of the last two
bytes of each oid, ascending, followed by the position (6 bytes, big-endian) of each, in the same order;
then None. Source: ZODB.fsIndex of ZODB 6.

A file that is read is taken apart by hand: the few kinds of pickled values above, and nothing else.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import lt
from typing import Protocol

from perdure.errors import DamageFound
from perdure.formats.newest import Newest, unpack


class Positions(Protocol):
    """Knows where the newest record of each object stands."""

    def parts(self) -> Iterator[tuple[int, bytes]]:
        """Give what an index file holds, ascending: a prefix of oids, and its suffixes and positions."""


def encode(positions: Positions, end: int) -> Iterator[bytes]:
    """Give the bytes of an index of a file that ends at ``end``, piece by piece."""
    yield _pickled(end)
    for prefix, packed in positions.parts():
        yield _pickled((prefix.to_bytes(6, "big"), packed))
    yield _pickled(None)


def _pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=3)


@dataclass(frozen=True)
class Index:
    """An index that was read."""

    end: int
    """Position behind the last transaction that it knows."""
    parts: Mapping[int, bytes]
    """For each prefix of oids, ascending: the suffixes and positions, packed."""

    def agrees_with(self, positions: Positions) -> bool:
        """Whether it has these positions, and no object beside them."""
        return self.parts == dict(positions.parts())

    def newest(self) -> Newest:
        """Give what it knows."""
        return Newest(self.parts)


def decode(data: bytes) -> Index:
    """Read an index. Raises DamageFound for anything but a whole one."""
    values = _Values(data)
    end = values.next()
    if not isinstance(end, int):
        raise DamageFound("it does not begin with a position")
    parts: dict[int, bytes] = {}
    before = -1
    while (value := values.next()) is not None:
        if not isinstance(value, tuple):
            raise DamageFound("it has something else than pairs of bytes")
        prefix, packed = int.from_bytes(value[0], "big"), value[1]
        if len(value[0]) != 6 or len(packed) % 8 or prefix <= before:
            raise DamageFound(f"what it has of the prefix {value[0]!r} cannot be right")
        before = prefix
        _check_part(packed, end)
        if packed:
            parts[prefix] = packed
    values.check_end()
    return Index(end, parts)


def _check_part(packed: bytes, end: int) -> None:
    suffixes, positions = unpack(packed)
    ascending = all(map(lt, suffixes, suffixes[1:]))
    if packed and not (ascending and min(positions) > 0 and max(positions) < end):
        raise DamageFound("its oids do not ascend, or a position lies outside the file")


_INTEGERS = {b"K": 1, b"M": 2, b"J": 4}
_BYTES = {b"C": 1, b"U": 1, b"B": 4, b"T": 4, b"\x8e": 8}
_SKIPPED = {b"\x80": 1, b"q": 1, b"r": 4, b"\x94": 0, b"\x95": 8}
"""Opcodes that say nothing here, with the bytes of their arguments: versions, memos and frames."""


class _Values:
    """Values that were pickled one after the other: integers, pairs of bytes, None."""

    def __init__(self, data: bytes) -> None:
        self._data, self._at = data, 0

    def next(self) -> int | tuple[bytes, bytes] | None:
        """Read the next value. Raises DamageFound."""
        stack: list[int | bytes | tuple[bytes, bytes] | None] = []
        while (code := self._take(1)) != b".":
            if code in _SKIPPED:
                self._take(_SKIPPED[code])
            elif code in _INTEGERS:
                stack.append(int.from_bytes(self._take(_INTEGERS[code]), "little"))
            elif code == b"\x8a":
                stack.append(int.from_bytes(self._take(self._number(1)), "little", signed=True))
            elif code in _BYTES:
                stack.append(self._take(self._number(_BYTES[code])))
            elif code == b"\x86" and len(stack) == 2:
                first, second = stack
                if not (isinstance(first, bytes) and isinstance(second, bytes)):
                    raise DamageFound("it has a pair that is not of bytes")
                stack = [(first, second)]
            elif code == b"N":
                stack.append(None)
            else:
                raise DamageFound(f"it has a pickle that no index has, at byte {self._at - 1}")
        if len(stack) != 1 or isinstance(stack[0], bytes):
            raise DamageFound(f"it has a pickle that no index has, at byte {self._at - 1}")
        return stack[0]

    def check_end(self) -> None:
        """Check that nothing follows. Raises DamageFound."""
        if self._at != len(self._data):
            raise DamageFound(f"{len(self._data) - self._at} bytes follow it")

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "little")

    def _take(self, count: int) -> bytes:
        data = self._data[self._at : self._at + count]
        if len(data) < count:
            raise DamageFound("it is cut short")
        self._at += count
        return data

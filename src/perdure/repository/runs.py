"""A run: index entries as one sorted array of records, in memory or mapped from the cache.

A record has 77 bytes, integers big-endian::

    offset  size  content
    0       1     0 data, 1 tree
    1       32    the chunk's id
    33      32    the packfile's id
    65      4     offset of the sealed chunk
    69      4     its length
    73      4     length of its content if it is compressed, else 0

The records of a run ascend, so that a lookup is a binary search, and two runs merge in linear time.
The same chunk may have several records: it lies in several packfiles.

In the cache a run is a file, named after what it covers::

    offset  size    content
    0       16      magic and version: "perdure run 1\\n" and two zero bytes
    16      4       n: how many index files it covers
    20      8       r: how many records it has
    28      32      SHA-256 of the 28 bytes before and the 32 n bytes behind
    60      32 n    the ids of the index files
    60+32n  77 r    the records

A file that is not exactly so is no run and is made again. Records are not covered by the digest,
since to read them all at each start would cost more than they save: a damaged record is a chunk
that is not found, which is then stored again, or looked for in the index itself.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeAlias

import msgspec

from perdure.formats.index import Packed
from perdure.formats.packfile import Entry
from perdure.model import ChunkId, ChunkKind

_RECORD = struct.Struct(">B32s32sIII")
_SIZE = _RECORD.size
_KEY_SIZE = 33
_HEADER = struct.Struct(">16sIQ")
_MAGIC = b"perdure run 1\n\0\0"
_DIGEST_SIZE = _ID_SIZE = 32
_IDS_START = _HEADER.size + _DIGEST_SIZE
_NUMBERS = {ChunkKind.DATA: b"\0", ChunkKind.TREE: b"\1"}
_KINDS = (ChunkKind.DATA, ChunkKind.TREE)

Records: TypeAlias = bytes | mmap.mmap


class Location(msgspec.Struct, frozen=True):
    """A chunk's place: a packfile (32 bytes of id), and where in it."""

    packfile: bytes
    entry: Entry


def chunk_key(kind: ChunkKind, chunk_id: ChunkId) -> bytes:
    """Give what records are sorted and found by."""
    return _NUMBERS[kind] + chunk_id


class Run:
    """Sorted records, and which index files (hexadecimal ids) they are the content of."""

    def __init__(self, covered: frozenset[str], records: Records, start: int = 0) -> None:
        self.covered = covered
        self._records = records
        self._start = start
        self.count = (len(records) - start) // _SIZE

    @classmethod
    def of(cls, covered: Iterable[str], packfiles: Iterable[Packed]) -> Run:
        """Sort the content of index files into a run."""
        records = [
            _NUMBERS[entry.kind]
            + _RECORD.pack(
                0, entry.id, packed.id, entry.offset, entry.length, entry.content_length
            )[1:]
            for packed in packfiles
            for entry in packed.entries
        ]
        records.sort()
        return cls(frozenset(covered), b"".join(records))

    @classmethod
    def merged(cls, runs: Iterable[Run]) -> Run:
        """Make one run of several."""
        covered: frozenset[str] = frozenset()
        records: list[bytes] = []
        for run in runs:
            covered |= run.covered
            records += run._slices()
        records.sort()  # linear: the parts are sorted already
        return cls(covered, b"".join(records))

    @property
    def records(self) -> memoryview:
        """All records, one behind the other."""
        return memoryview(self._records)[self._start :]

    def find(self, key: bytes) -> list[Location]:
        """Give every place of the chunk with this key."""
        return [self.location(number) for number in self.numbers(key)]

    def numbers(self, key: bytes) -> range:
        """Give the numbers of the records of the chunk with this key."""
        records, start = self._records, self._start
        low, high = 0, self.count
        while low < high:
            middle = (low + high) // 2
            at = start + middle * _SIZE
            if records[at : at + _KEY_SIZE] < key:
                low = middle + 1
            else:
                high = middle
        end = low
        while records[start + end * _SIZE : start + end * _SIZE + _KEY_SIZE] == key:
            end += 1
        return range(low, end)

    def location(self, number: int) -> Location:
        """Give the place that a record tells, by its number."""
        at = self._start + number * _SIZE
        return _location(self._records[at : at + _SIZE])

    def locations(self) -> Iterator[Location]:
        """Give every place of every chunk."""
        return map(_location, self._slices())

    def packfiles(self) -> set[bytes]:
        """Give the ids of all packfiles that are named."""
        records, first = self._records, self._start + _KEY_SIZE
        return {records[at : at + _ID_SIZE] for at in range(first, len(records), _SIZE)}

    def _slices(self) -> list[bytes]:
        ends = range(self._start + _SIZE, len(self._records) + 1, _SIZE)
        return [self._records[end - _SIZE : end] for end in ends]

    @property
    def file_name(self) -> str:
        """The name of the run's file in the cache."""
        return hashlib.sha256("".join(sorted(self.covered)).encode()).hexdigest()[:32] + ".run"

    def write(self, folder: Path) -> None:
        """Write the run's file. Raises OSError."""
        header = _HEADER.pack(_MAGIC, len(self.covered), self.count)
        ids = b"".join(map(bytes.fromhex, sorted(self.covered)))
        digest = hashlib.sha256(header + ids).digest()
        path = folder / self.file_name
        temporary = path.with_suffix(f".{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.writelines((header, digest, ids, self.records))
        temporary.replace(path)

    @classmethod
    def map(cls, path: Path) -> Run | None:
        """Map a run's file, or give None if it is none. Raises OSError."""
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < _IDS_START:
                return None
            records = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        header = records[: _HEADER.size]
        magic, id_count, count = _HEADER.unpack(header)
        start = _IDS_START + id_count * _ID_SIZE
        if magic != _MAGIC or len(records) != start + count * _SIZE:
            return None
        ids = records[_IDS_START:start]
        if hashlib.sha256(header + ids).digest() != records[_HEADER.size : _IDS_START]:
            return None
        parts = range(0, len(ids), _ID_SIZE)
        return cls(frozenset(ids[at : at + _ID_SIZE].hex() for at in parts), records, start)


def _location(record: bytes) -> Location:
    number, chunk, packfile, offset, length, content_length = _RECORD.unpack(record)
    entry = Entry(_KINDS[number & 1], ChunkId(chunk), offset, length, content_length)
    return Location(packfile, entry)

"""Which chunks of a repository are needed, and so how much of each packfile is.

There may be millions of chunks, so there is no object for each: the records of all index files are one
sorted array of those that `perdure.repository.runs` describes, and what is needed is a byte beside each.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from perdure.formats.index import Packed
from perdure.formats.packfile import Entry, expected_size
from perdure.model import ChunkId, ChunkKind
from perdure.repository.prune_plan import PackfileUse
from perdure.repository.runs import Location, Run, chunk_key

Numbers = NDArray[np.int64]
Mask = NDArray[np.bool_]

_COLUMNS = np.dtype(
    [
        ("kind", "u1"),
        ("id", "S32"),
        ("packfile", "S32"),
        ("offset", ">u4"),
        ("length", ">u4"),
        ("content_length", ">u4"),
    ]
)
_RECORD = f"S{_COLUMNS.itemsize}"
_ID_SIZE = 32


class ChunkTable:
    """All chunks that index files name, each place once, and which were asked for."""

    def __init__(self, indexed: Iterable[Iterable[Packed]]) -> None:
        parts = bytearray()
        for packfiles in indexed:
            parts += Run.of((), packfiles).records
        # Sorted and without repetition; as long as all have the same length, numpy compares strings
        # by all their bytes.
        records = np.unique(np.frombuffer(parts, _RECORD))
        self._run = Run(frozenset(), records.tobytes())
        self._needed = bytearray(self._run.count)

    def need(self, kind: ChunkKind, chunk_id: ChunkId) -> list[Location]:
        """Mark a chunk as needed; gives its places, none if no index file names it."""
        numbers = self._run.numbers(chunk_key(kind, chunk_id))
        if numbers:
            self._needed[numbers.start] = 1
        return [self._run.location(number) for number in numbers]

    def usage(self) -> Usage:
        """Say what is needed of what, by the marks made so far."""
        return Usage(self._run, np.frombuffer(bytes(self._needed), np.bool_))

    def __len__(self) -> int:
        return self._run.count


class Usage:
    """What is needed of each packfile.

    A chunk in several packfiles is needed in one of them only: in that of which the greatest part is.
    """

    def __init__(self, run: Run, needed: Mask) -> None:
        self._run = run
        self._columns = np.frombuffer(run.records, _COLUMNS)
        ids, self._packfile = np.unique(self._columns["packfile"], return_inverse=True)
        names = ids.tobytes()
        self._ids = [names[at : at + _ID_SIZE] for at in range(0, len(names), _ID_SIZE)]
        self._numbers = {packfile: number for number, packfile in enumerate(self._ids)}
        self._bytes = self._columns["length"].astype(np.int64) + _header_bytes(self._columns)
        self._needed = self._chosen(needed)
        # The records of each packfile, in the order of their offsets.
        self._order = np.lexsort((self._columns["offset"], self._packfile))
        self._ends = np.cumsum(np.bincount(self._packfile, minlength=len(self._ids)))

    def packfiles(self) -> Iterator[PackfileUse]:
        """Say of each packfile how much of it is needed."""
        tree = self._columns["kind"] == 1
        trees, chunks = self._sum(tree), self._sum(np.ones(len(tree), np.int64))
        plain = self._sum(tree & (self._columns["content_length"] == 0))
        everything, used = self._sum(self._bytes), self._sum(self._bytes * self._needed)
        for number, packfile in enumerate(self._ids):
            yield PackfileUse(
                id=packfile,
                kind=_kind(int(trees[number]), int(chunks[number])),
                size=int(everything[number]) + expected_size(()),
                used=int(used[number]),
                garbage=int(everything[number] - used[number]),
                plain_trees=bool(plain[number]),
            )

    def packed(self, packfile: bytes) -> Packed:
        """Give everything that is in a packfile."""
        return Packed(packfile, [self._entry(number) for number in self._records_of(packfile)])

    def needed_in(self, packfile: bytes) -> Iterator[Entry]:
        """Give what is needed of a packfile, in the order in which it lies there."""
        return (self._entry(n) for n in self._records_of(packfile) if self._needed[n])

    def places(self, kind: ChunkKind, chunk_id: ChunkId) -> list[Location]:
        """Give the places of a chunk: first where it is needed."""
        numbers = self._run.numbers(chunk_key(kind, chunk_id))
        return [self._run.location(n) for n in sorted(numbers, key=lambda n: not self._needed[n])]

    def _chosen(self, marked: Mask) -> Mask:
        """Choose one place of each needed chunk; the mark stands at the first record of a chunk."""
        columns = self._columns
        if not len(columns):
            return marked
        first = np.ones(len(columns), bool)
        first[1:] = (columns["id"][1:] != columns["id"][:-1]) | (
            columns["kind"][1:] != columns["kind"][:-1]
        )
        chunk = np.cumsum(first) - 1
        wanted = marked[first][chunk]
        much = self._sum(self._bytes * wanted)
        part = much / self._sum(self._bytes)
        rank = np.empty(len(part), np.int64)
        rank[np.lexsort((-much, -part))] = np.arange(len(part))
        best_first = np.lexsort((columns["offset"], rank[self._packfile], chunk))
        chosen = np.zeros(len(columns), bool)
        chosen[best_first[np.flatnonzero(first)]] = True
        chosen &= wanted
        return chosen

    def _sum(self, values: NDArray[np.int64] | Mask) -> Numbers:
        """Add up, packfile by packfile; exact below 2**53."""
        sums = np.bincount(self._packfile, weights=values, minlength=len(self._ids))
        return sums.astype(np.int64)

    def _records_of(self, packfile: bytes) -> list[int]:
        number = self._numbers[packfile]
        start = self._ends[number - 1] if number else 0
        return [int(each) for each in self._order[start : self._ends[number]]]

    def _entry(self, number: int) -> Entry:
        return self._run.location(number).entry


def _header_bytes(columns: NDArray[np.void]) -> Numbers:
    """Give the bytes that each chunk takes in the header of its packfile."""
    plain = expected_size([Entry(ChunkKind.DATA, ChunkId(b""), 0, 0, 0)]) - expected_size(())
    compressed = expected_size([Entry(ChunkKind.DATA, ChunkId(b""), 0, 0, 1)]) - expected_size(())
    return np.where(columns["content_length"] > 0, compressed, plain).astype(np.int64)


def _kind(trees: int, chunks: int) -> ChunkKind | None:
    if trees == chunks:
        return ChunkKind.TREE
    return None if trees else ChunkKind.DATA

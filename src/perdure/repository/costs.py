"""What the chunks of a repository cost, and which snapshot brought each: for many millions of chunks.

Snapshots are entered from the oldest to the newest, then once more from the newest to the oldest; so the
first and the last snapshot that needs a chunk are known, and no tree is looked through for each snapshot
that has it. Beside the index there are 9 bytes for each chunk, and 4 for each time that a tree names one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.errors import RepositoryDamaged
from perdure.formats.sealing import OVERHEAD
from perdure.formats.tree import Tree
from perdure.model import ChunkId, ChunkKind
from perdure.repository.checking import MOST_NESTED
from perdure.repository.index import FOLDER, read_index_file
from perdure.repository.repository import Repository
from perdure.repository.runs import Run, chunk_key

Numbers = NDArray[np.int64]

_LENGTHS = np.dtype([("key", "S69"), ("length", ">u4"), ("content", ">u4")])
"""The part of a run's record (repository/runs.py) that says what a chunk costs."""


_RECORD = f"S{_LENGTHS.itemsize}"


@dataclass(frozen=True, slots=True)
class _Folder:
    """What a tree names: chunks by their numbers, and the bytes of its own files."""

    data: NDArray[np.uint32]
    trees: tuple[int, ...]
    size: int


class Costs:
    """All chunks that the index of a repository names, and for which snapshots and owners they are there.

    Snapshots and owners are numbers that the caller gives out.
    """

    def __init__(self, repository: Repository) -> None:
        self._repository = repository
        records = bytearray()
        for name, _ in repository.files.list(FOLDER):
            records += Run.of((), read_index_file(repository.files, name)).records
        # Sorted and without repetition, as in repository/usage.py.
        self._run = Run(frozenset(), np.unique(np.frombuffer(records, _RECORD)).tobytes())
        columns = np.frombuffer(self._run.records, _LENGTHS)
        self._stored = columns["length"].astype(np.int64)
        plain = columns["content"] == 0
        self._content = np.where(plain, self._stored - OVERHEAD, columns["content"])
        self._first = np.full(self._run.count, -1, np.int32)
        self._last = np.full(self._run.count, -1, np.int32)
        self._owner = np.zeros(self._run.count, np.int16)
        self._folders: dict[int, _Folder] = {}
        self._sizes: dict[int, int] = {}

    def enter(self, snapshot: int, owner: int, kind: ChunkKind, chunk_id: ChunkId) -> None:
        """Note that a snapshot needs a chunk, and all below it if it is a tree; the oldest snapshot first.

        Raises RepositoryDamaged.
        """
        level = [self._number(kind, chunk_id)]
        if kind is ChunkKind.DATA:
            self._claim(np.array(level, np.uint32), snapshot, owner)
            return
        while level:
            new = [number for number in dict.fromkeys(level) if self._first[number] < 0]
            self._claim(np.array(new, np.uint32), snapshot, owner)
            self._load(new)
            folders = [self._folders[number] for number in new]
            for folder in folders:
                self._claim(folder.data, snapshot, owner)
            level = [number for folder in folders for number in folder.trees]

    def enter_again(self, snapshot: int, tree: ChunkId) -> None:
        """Note the same once more, from the newest snapshot to the oldest."""
        ahead = [self._number(ChunkKind.TREE, tree)]
        while ahead:
            number = ahead.pop()
            if self._last[number] < 0:
                folder = self._folders[number]
                self._last[number] = snapshot
                self._last[folder.data[self._last[folder.data] < 0]] = snapshot
                ahead += folder.trees

    def size_of(self, tree: ChunkId) -> int:
        """Give the bytes of all files below a tree that was entered."""
        return self._size(self._number(ChunkKind.TREE, tree), 0)

    def added(self, snapshots: int) -> list[int]:
        """Give, for each of so many snapshots, the stored bytes that it brought."""
        return self._by(self._first, self._first >= 0, snapshots)

    def alone(self, snapshots: int) -> list[int]:
        """Give, for each of so many snapshots, the stored bytes that it alone needs."""
        return self._by(self._first, (self._first >= 0) & (self._first == self._last), snapshots)

    def owned(self, owners: int) -> list[int]:
        """Give, for each of so many owners, the stored bytes that are there because of it."""
        return self._by(self._owner, self._first >= 0, owners)

    @property
    def needed(self) -> int:
        """The stored bytes of all chunks that some snapshot needs."""
        return int(self._stored[self._first >= 0].sum())

    @property
    def content(self) -> int:
        """The bytes of content of the same chunks, before they were compressed."""
        return int(self._content[self._first >= 0].sum())

    @property
    def unneeded(self) -> int:
        """The stored bytes of chunks that no snapshot needs, and of second copies."""
        return int(self._stored[self._first < 0].sum())

    def _by(
        self, column: NDArray[np.signedinteger], which: NDArray[np.bool_], count: int
    ) -> list[int]:
        sums = np.bincount(column[which], weights=self._stored[which], minlength=count)
        return [int(each) for each in sums]

    def _claim(self, numbers: NDArray[np.uint32], snapshot: int, owner: int) -> None:
        new = numbers[self._first[numbers] < 0]
        self._first[new] = snapshot
        self._owner[new] = owner

    def _number(self, kind: ChunkKind, chunk_id: ChunkId) -> int:
        numbers = self._run.numbers(chunk_key(kind, chunk_id))
        if not numbers:
            raise RepositoryDamaged(
                f"{kind.value} chunk {chunk_id.hex()} is in no index file",
                hint="perdure check says what is lost",
            )
        return numbers.start

    def _load(self, numbers: Sequence[int]) -> None:
        ids = [self._run.location(number).entry.id for number in numbers]
        loaded = self._repository.load_many(ChunkKind.TREE, ids)
        for number, chunk_id, data in zip(numbers, ids, loaded, strict=True):
            nodes = Tree.decode(data, f"tree {chunk_id.hex()}").nodes
            found = [self._number(ChunkKind.DATA, chunk) for node in nodes for chunk in node.chunks]
            trees = [self._number(ChunkKind.TREE, node.tree) for node in nodes if node.tree]
            size = sum(node.size for node in nodes if node.type == "file")
            self._folders[number] = _Folder(np.array(found, np.uint32), tuple(trees), size)

    def _size(self, number: int, depth: int) -> int:
        if depth > MOST_NESTED:
            raise RepositoryDamaged(f"a tree lies in more than {MOST_NESTED} folders")
        if number not in self._sizes:
            folder = self._folders[number]
            below = sum(self._size(each, depth + 1) for each in folder.trees)
            self._sizes[number] = folder.size + below
        return self._sizes[number]

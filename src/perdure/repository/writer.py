"""Writing a backup: chunks into packfiles, packfiles into the index, and at the end the snapshot.

Nothing refers to what is not durable yet: packfiles are put before the index files that name them,
and these before the snapshot. Whatever stops a backup before that leaves chunks that nothing refers
to.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, wait
from types import TracebackType
from typing import Any, Self

import msgspec

from perdure.errors import PerdureError
from perdure.formats.index import Packed
from perdure.formats.packfile import Entry
from perdure.formats.sealing import Bytes, MasterKey
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Tree
from perdure.model import ChunkId, ChunkKind, SnapshotId
from perdure.pool import Pool
from perdure.repository.chunks import chunk_id, encode, encode_many
from perdure.repository.index import Index, save_index
from perdure.repository.locks import Lock
from perdure.repository.packer import Packer, assemble
from perdure.repository.reading import packfile_name
from perdure.repository.runs import chunk_key
from perdure.repository.sealed import SealedFiles
from perdure.repository.snapshots import Snapshots
from perdure.stores import Store

PACKFILES_PER_INDEX = 64
"""An index file is written after this many packfiles, so that an interrupted backup is not lost."""


class Added(msgspec.Struct, frozen=True):
    """What a writer has added: chunks of each kind, their content, all bytes that were put."""

    data_chunks: int = 0
    tree_chunks: int = 0
    content_bytes: int = 0
    stored_bytes: int = 0


class Writer:
    """Adds chunks, and commits a snapshot of them. One thread calls it; the pool does the work."""

    def __init__(
        self,
        store: Store,
        files: SealedFiles,
        snapshots: Snapshots,
        key: MasterKey,
        index: Index,
        pool: Pool,
        lock: Lock,
    ) -> None:
        self._store = store
        self._files = files
        self._snapshots = snapshots
        self._key = key
        self._index = index
        self._pool = pool
        self._lock = lock
        self._mutex = threading.Lock()
        self._claimed: set[bytes] = set()
        self._packers = {kind: Packer() for kind in ChunkKind}
        self._unindexed: list[Packed] = []
        self._pending: set[Future[Any]] = set()
        self._failure: BaseException | None = None
        self._closed = False
        self._added = Added()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def added(self) -> Added:
        """What was added so far."""
        return self._added

    @property
    def added_bytes(self) -> int:
        """How many bytes were put into the store: packfiles, index files, the snapshot."""
        return self._added.stored_bytes

    @property
    def added_chunks(self) -> int:
        """How many chunks were not there before."""
        return self._added.data_chunks + self._added.tree_chunks

    def add(self, kind: ChunkKind, content: Bytes) -> Future[ChunkId]:
        """Store a chunk, if the repository lacks it. Raises what went wrong with an earlier one.

        Returns at once unless too much is waiting. ``content`` must not change before the future is
        done.
        """
        self._check_open()
        self._lock.keep()
        future = self._pool.submit(len(content), self._store_chunk, (kind, content))
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def add_all(self, cost: int, contents: Callable[[], Iterable[Bytes]]) -> Future[list[ChunkId]]:
        """Store the chunks of files that ``contents`` gives, called in a thread of the pool.

        They may be many small ones; they are compressed quickly. ``cost`` (bytes) is about what they have.
        Raises what went wrong with an earlier one.
        """
        self._check_open()
        self._lock.keep()
        future = self._pool.submit(cost, self._store_all, contents)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def add_tree(self, tree: Tree) -> ChunkId:
        """Store a tree and wait for it. Raises ValueError for names that cannot be."""
        return self.add(ChunkKind.TREE, tree.encode()).result()

    def flush(self) -> None:
        """Make everything durable that was added, and enter it in the index; there is no snapshot."""
        self._finish_chunks()
        self._write_index()

    def commit(self, snapshot: Snapshot) -> SnapshotId:
        """Make everything durable, and then write the snapshot: from now on the backup exists.

        Raises RepositoryLocked, with no snapshot written, if the lock was lost meanwhile.
        """
        self.flush()
        self._lock.verify()
        name, size = self._snapshots.save(snapshot)
        self._count(stored_bytes=size)
        self._closed = True
        return name

    def close(self) -> None:
        """Take no more chunks, and wait for those in work; what was not committed is garbage."""
        self._closed = True
        pending = list(self._pending)
        for future in pending:
            future.cancel()
        wait(pending)

    def _check_open(self) -> None:
        if self._failure:
            raise self._failure
        if self._closed:
            raise PerdureError("this writer is closed")

    def _finish_chunks(self) -> None:
        self._check_open()
        for future in list(self._pending):
            future.result()
        packfiles = [packer.take() for packer in self._packers.values()]
        puts = [self._pool.submit(0, self._put_packfile, taken) for taken in packfiles if taken[1]]
        for put in puts:
            put.result()
        self._check_open()

    def _store_chunk(self, job: tuple[ChunkKind, Bytes]) -> ChunkId:
        kind, content = job
        try:
            name = chunk_id(content)
            if self._claim(kind, name):
                self._keep_chunk(kind, name, content)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        return name

    def _store_all(self, contents: Callable[[], Iterable[Bytes]]) -> list[ChunkId]:
        names: list[ChunkId] = []
        mine: list[tuple[ChunkId, Bytes]] = []
        try:
            for content in contents():
                name = chunk_id(content)
                names.append(name)
                if self._claim(ChunkKind.DATA, name):
                    mine.append((name, content))
            self._keep_all(mine)
        except BaseException as error:
            self._failure = self._failure or error
            raise
        return names

    def _keep_all(self, chunks: Sequence[tuple[ChunkId, Bytes]]) -> None:
        encoded = encode_many(self._key, [content for _, content in chunks])
        packer = self._packers[ChunkKind.DATA]
        full: list[tuple[list[bytes], list[Entry]]] = []
        with self._mutex:
            for (name, _), (sealed, content_length) in zip(chunks, encoded, strict=True):
                packer.append(ChunkKind.DATA, name, sealed, content_length)
                if packer.full:
                    full.append(packer.take())
        self._count(data_chunks=len(chunks), content_bytes=sum(len(each) for _, each in chunks))
        for taken in full:
            self._put_packfile(taken)

    def _claim(self, kind: ChunkKind, name: ChunkId) -> bool:
        """Tell whether it is on the caller to store this chunk."""
        if self._index.has(kind, name):
            return False
        key = chunk_key(kind, name)
        with self._mutex:
            if key in self._claimed:
                return False
            self._claimed.add(key)
        return True

    def _keep_chunk(self, kind: ChunkKind, name: ChunkId, content: Bytes) -> None:
        sealed, content_length = encode(self._key, kind, content)
        packer = self._packers[kind]
        is_data = kind is ChunkKind.DATA
        with self._mutex:
            packer.append(kind, name, sealed, content_length)
            taken = packer.take() if packer.full else None
        self._count(
            data_chunks=int(is_data), tree_chunks=int(not is_data), content_bytes=len(content)
        )
        if taken:
            self._put_packfile(taken)

    def _put_packfile(self, taken: tuple[list[bytes], list[Entry]]) -> None:
        packed, content = assemble(self._key, *taken)
        taken[0].clear()
        self._store.put(packfile_name(packed.id), content)
        self._index.add(packed)
        self._count(stored_bytes=len(content))
        with self._mutex:
            self._unindexed.append(packed)
            many = len(self._unindexed) >= PACKFILES_PER_INDEX
        if many:
            self._write_index()

    def _write_index(self) -> None:
        with self._mutex:
            packfiles, self._unindexed = self._unindexed, []
        for _, size in save_index(self._files, packfiles):
            self._count(stored_bytes=size)

    def _count(self, **more: int) -> None:
        with self._mutex:
            sums = {name: getattr(self._added, name) + number for name, number in more.items()}
            self._added = msgspec.structs.replace(self._added, **sums)

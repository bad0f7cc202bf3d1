"""Read files into chunks: many small ones in one task of the pool, a large one cut by its content.

Cut points are a matter of the content alone, so that a file that has changed shares its other chunks with
what it was, and equal files share all. The hash that finds them is keyed by a secret of the repository;
docs/guarantees.md says what that is worth. A file up to the smallest chunk is one chunk, as it is
in restic; docs/decisions/0019 has the sizes.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

from perdure.model import ChunkId
from perdure.repository import Writer

if TYPE_CHECKING:
    from pyfastcdc import FastCDC

SMALLEST, AVERAGE, LARGEST = 512 << 10, 1 << 20, 8 << 20
"""Bytes of a chunk; what is not larger than the smallest is not cut."""
_WINDOW = 16 << 20
_BATCH_BYTES, _BATCH_FILES = 1 << 20, 128
_ATTEMPTS = 3
_NO_TRACE = getattr(os, "O_NOATIME", 0)
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Content:
    """A file that is to be read, and what came of it."""

    __slots__ = (
        "batch",
        "chunks",
        "gone",
        "grown",
        "path",
        "pending",
        "problem",
        "size",
        "status",
        "steady",
    )

    def __init__(self, path: str, status: os.stat_result) -> None:
        self.path = path
        self.status = status
        """Of the file when it was opened, once it was read."""
        self.size = 0
        """Bytes that were read."""
        self.chunks: tuple[ChunkId, ...] = ()
        self.gone = False
        """It was removed before it could be read."""
        self.problem = ""
        """Why it was not read."""
        self.steady = True
        """It did not change while it was read."""
        self.grown = False
        self.batch: _Batch | None = None
        self.pending: Sequence[Future[list[ChunkId]]] = ()

    def fail(self, error: OSError) -> None:
        """Note that it could not be read."""
        self.gone = isinstance(error, FileNotFoundError)
        self.problem = error.strerror or str(error)


class _Batch:
    """Small files that one task reads and stores."""

    def __init__(self) -> None:
        self.files: list[Content] = []
        self.size = 0
        self.done: Future[list[ChunkId]] | None = None
        self.settled = False

    def contents(self) -> Iterator[bytes]:
        """Read the files, in a thread of the pool; those that have bytes give them."""
        for file in self.files:
            try:
                data = _read_small(file)
            except OSError as error:
                file.fail(error)
                continue
            file.size = len(data)
            if data:
                yield data


class Contents:
    """Reads files of a tree; ``key`` is the repository's secret for cut points."""

    def __init__(self, writer: Writer, key: str) -> None:
        self._writer = writer
        self._key = key
        self._chunker: FastCDC | None = None
        self._batch = _Batch()

    def begin(self, path: str, status: os.stat_result) -> Content:
        """Begin to read a file; `finish` tells what came of it."""
        file = Content(path, status)
        if status.st_size > SMALLEST:
            self._read_large(file)
            return file
        batch = file.batch = self._batch
        batch.files.append(file)
        batch.size += status.st_size
        if batch.size >= _BATCH_BYTES or len(batch.files) >= _BATCH_FILES:
            self._submit()
        return file

    def finish(self, file: Content) -> None:
        """Wait until a file is read and its chunks are on their way. Raises StoreError."""
        if file.batch is not None:
            self._settle(file.batch)
            file.batch = None
        if file.grown:
            self._read_large(file)
        if file.pending:
            file.chunks = tuple(chunk.result()[0] for chunk in file.pending)
            file.pending = ()

    def _settle(self, batch: _Batch) -> None:
        """Wait for the task that reads a batch, and tell each file its chunk."""
        if batch.settled:
            return
        if batch.done is None:
            self._submit()
        assert batch.done is not None
        names = iter(batch.done.result())
        for each in batch.files:
            if each.size:
                each.chunks = (next(names),)
        batch.settled = True

    def _submit(self) -> None:
        batch, self._batch = self._batch, _Batch()
        batch.done = self._writer.add_all(batch.size, batch.contents)

    def _read_large(self, file: Content) -> None:
        """Read a file in this thread, and have its chunks stored by others. Raises StoreError."""
        file.grown = False
        try:
            for _ in range(_ATTEMPTS):
                descriptor = _open(file.path)
                try:
                    file.status = _regular(descriptor)
                    file.pending, file.size = self._cut(descriptor)
                    file.steady = _same(file.status, os.fstat(descriptor), file.size)
                finally:
                    os.close(descriptor)
                if file.steady:
                    break
        except OSError as error:
            file.fail(error)

    def _cut(self, descriptor: int) -> tuple[Sequence[Future[list[ChunkId]]], int]:
        pending: list[Future[list[ChunkId]]] = []
        total, rest = 0, memoryview(b"")
        while data := _read(descriptor, _WINDOW):
            total += len(data)
            window = memoryview(b"".join((rest, data)) if rest else data)
            last = len(data) < _WINDOW
            at = 0
            for chunk in self._cutting(window):
                if at + chunk == len(window) and not last:
                    break  # where this one ends only what follows can tell
                pending.append(self._add(window[at : at + chunk]))
                at += chunk
            rest = window[at:]
        if rest:
            pending.append(self._add(rest))
        return pending, total

    def _add(self, chunk: memoryview) -> Future[list[ChunkId]]:
        return self._writer.add_all(len(chunk), lambda: (chunk,))

    def _cutting(self, window: memoryview) -> Iterator[int]:
        if self._chunker is None:
            from pyfastcdc import FastCDC  # not for a run that meets small files only

            seed = hashlib.sha256(b"perdure cut points " + self._key.encode()).digest()[:8]
            self._chunker = FastCDC(
                AVERAGE, min_size=SMALLEST, max_size=LARGEST, seed=int.from_bytes(seed, "big") >> 1
            )
        return (chunk.length for chunk in self._chunker.cut_buf(window))


def _read_small(file: Content) -> bytes:
    """Read a whole file; again if it changes meanwhile. Raises OSError."""
    data = b""
    for attempt in range(_ATTEMPTS):
        descriptor = _open(file.path)
        try:
            if attempt:  # what it was like when its folder was listed does not hold any more
                file.status = _regular(descriptor)
            if file.status.st_size > SMALLEST:
                file.grown = True
                return b""
            data = _read(descriptor, SMALLEST, file.status.st_size + 1)
            file.steady = _same(file.status, os.fstat(descriptor), len(data))
        finally:
            os.close(descriptor)
        if file.steady:
            break
    return data


def _open(path: str) -> int:
    try:
        return os.open(path, _OPEN | _NO_TRACE)
    except PermissionError:
        return os.open(path, _OPEN)  # only its owner may read a file without leaving a trace


def _regular(descriptor: int) -> os.stat_result:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError(0, "it is no longer a file")
    return status


def _read(descriptor: int, most: int, first: int | None = None) -> bytes:
    """Read up to so many bytes, all that there are; ``first`` says how many to ask for at once."""
    data = os.read(descriptor, min(first or most, most))
    if not data or len(data) == most or (first is not None and len(data) < first):
        return data
    parts, size = [data], len(data)
    while size < most and (data := os.read(descriptor, most - size)):
        parts.append(data)
        size += len(data)
    return b"".join(parts)


def _same(before: os.stat_result, after: os.stat_result, size: int) -> bool:
    return (
        size == before.st_size == after.st_size
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_mtime_ns == after.st_mtime_ns
        and before.st_ino == after.st_ino
    )

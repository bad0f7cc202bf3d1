"""Write a FileStorage back: a new Data.fs with its index, under the final name only when it is whole.

The order is that of docs/guarantees.md: the lock that a server would take, a temporary file in the same
directory, fsync; then the old index goes, the new Data.fs and the new index come, each by a rename that
is made durable before the next step.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path

from perdure.errors import StoreError, TargetInUse, UsageError
from perdure.pool import Pool

_SYNC_EVERY = 64 << 20


class NewFileStorage:
    """A Data.fs that is being written; it comes into being with ``commit``."""

    def __init__(self, path: Path, pool: Pool) -> None:
        self.path = path
        self._pool = pool
        self._syncing: Future[None] | None = None
        self._unsynced = 0
        self._part = path.with_name(f".{path.name}.perdure-part")
        self._part_index = path.with_name(f".{path.name}.index.perdure-part")
        self._descriptor = os.open(
            self._part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666
        )

    def write(self, data: bytes) -> None:
        """Append bytes. What has gathered goes to the disk meanwhile, so that the end is not a long wait."""
        view = memoryview(data)
        while view:
            view = view[os.write(self._descriptor, view) :]
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_EVERY:
            self._wait_for_sync()
            self._syncing = self._pool.submit(0, os.fdatasync, self._descriptor)
            self._unsynced = 0

    def read(self, position: int, size: int) -> bytes:
        """Read bytes that were written before."""
        return os.pread(self._descriptor, size, position)

    def commit(self, index: Iterable[bytes]) -> None:
        """Make the file durable and put it, with its index, under the final name.

        A file that it replaces leaves it its mode and, where that may be done, its owner.
        """
        self._wait_for_sync()
        if self.path.exists():
            _copy_owner(self.path, self._descriptor)
        os.fsync(self._descriptor)
        final_index = self.path.with_name(f"{self.path.name}.index")
        _write_durably(self._part_index, index, self._part)
        final_index.unlink(missing_ok=True)
        _sync_directory(self.path.parent)
        os.rename(self._part, self.path)
        _sync_directory(self.path.parent)
        os.rename(self._part_index, final_index)
        _sync_directory(self.path.parent)

    def close(self) -> None:
        """Let go of the file; what was not committed disappears."""
        try:
            self._wait_for_sync()
        finally:
            os.close(self._descriptor)
            self._part.unlink(missing_ok=True)
            self._part_index.unlink(missing_ok=True)

    def _wait_for_sync(self) -> None:
        if self._syncing is not None:
            syncing, self._syncing = self._syncing, None
            syncing.result()


@contextmanager
def new_filestorage(path: Path, pool: Pool, *, force: bool) -> Iterator[NewFileStorage]:
    """Hold the storage's lock while a new Data.fs is written.

    Raises UsageError when there is a Data.fs and ``force`` is not given, TargetInUse when a server holds
    the lock, StoreError when the disk is full or the directory cannot be written to.
    """
    try:
        _make_directory(path.parent)
        with _held_lock(path):
            if path.exists() and not force:
                raise UsageError(
                    f"{path} exists",
                    hint="restore into another directory, or say --force to replace it",
                )
            new = NewFileStorage(path, pool)
            try:
                yield new
            finally:
                new.close()
    except OSError as error:
        raise StoreError(
            f"{error.filename or path} cannot be written: {error.strerror}",
            hint="make room, or give a directory that this user may write to;"
            " a Data.fs that was there is still as it was",
        ) from error


@contextmanager
def _held_lock(path: Path) -> Iterator[None]:
    from zc.lockfile import LockError, LockFile

    name = f"{path}.lock"
    existed = os.path.exists(name)
    try:
        lock = LockFile(name)
    except LockError:
        raise TargetInUse(
            f"{path} is in use: another process holds {name}",
            hint="stop the server first, or restore into another directory",
        ) from None
    try:
        yield
    finally:
        if not existed:
            os.unlink(name)
        lock.close()


def _copy_owner(path: Path, descriptor: int) -> None:
    status = os.stat(path)
    os.fchmod(descriptor, status.st_mode & 0o7777)
    if os.geteuid() == 0:
        os.fchown(descriptor, status.st_uid, status.st_gid)


def _write_durably(path: Path, parts: Iterable[bytes], like: Path) -> None:
    with open(path, "wb") as file:
        file.writelines(parts)
        file.flush()
        _copy_owner(like, file.fileno())
        os.fsync(file.fileno())


def _make_directory(path: Path) -> None:
    """Make a directory with those above it, durably."""
    if not path.is_dir():
        _make_directory(path.parent)
        path.mkdir(exist_ok=True)
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Write a FileStorage back: a new Data.fs with its index, under the final name only when it is whole.

The order is that of docs/guarantees.md: the lock that a server would take, a temporary file in the same
directory, fsync; then the old index goes, the new Data.fs and the new index come, each by a rename that
is made durable before the next step.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from perdure.errors import StoreError, TargetInUse, UsageError
from perdure.pool import Pool

_SYNC_EVERY = 64 << 20
_COPIED = 4 << 20
_PART = ".perdure-part"


class StandingFiles:
    """What is there already of a Data.fs that is to be restored: an interrupted restore's, an old file's.

    Nothing of it is believed: a range counts where its SHA-256 is right.
    """

    def __init__(self, path: Path) -> None:
        self.unfinished, self.old = _part_of(path), path
        self._open: dict[Path, int] = {}
        for each in (self.unfinished, self.old):
            with suppress(FileNotFoundError):
                self._open[each] = os.open(each, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)

    def __bool__(self) -> bool:
        return any(os.fstat(descriptor).st_size for descriptor in self._open.values())

    def find(self, start: int, size: int, sha256: str) -> Path | None:
        """Say which file has the bytes of a range; None if none has."""
        for path in self._open:
            data = self.read(path, start, size)
            if len(data) == size and hashlib.sha256(data).hexdigest() == sha256:
                return path
        return None

    def read(self, path: Path, start: int, size: int) -> bytes:
        """Read bytes of one of the files; fewer at its end."""
        return os.pread(self._open[path], size, start)

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


class NewFileStorage:
    """A Data.fs that is being written; it comes into being with ``commit``."""

    def __init__(self, path: Path, pool: Pool) -> None:
        self.path = path
        self.standing = StandingFiles(path)
        self._pool = pool
        self._syncing: Future[None] | None = None
        self._unsynced = self._end = 0
        self._prefix = 0
        """Bytes at the beginning that are as in the old file, and so far only there."""
        self._part = _part_of(path)
        self._part_index = path.with_name(f".{path.name}.index{_PART}")
        self._descriptor = os.open(
            self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
        )

    def write(self, data: bytes) -> None:
        """Append bytes. What has gathered goes to the disk meanwhile, so that the end is not a long wait."""
        self._copy_prefix()
        view = memoryview(data)
        while view:
            done = os.pwrite(self._descriptor, view, self._end)
            self._end += done
            view = view[done:]
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_EVERY:
            self._wait_for_sync()
            self._syncing = self._pool.submit(0, os.fdatasync, self._descriptor)
            self._unsynced = 0

    def keep(self, place: Path, size: int) -> bytes:
        """Append what ``place``, found standing, has next; what is right already is not written again."""
        data = self.standing.read(place, self._end, size)
        if place == self.path and self._prefix == self._end:
            self._prefix = self._end = self._end + size
        elif place == self._part:
            self._copy_prefix()
            self._end += size
        else:
            self.write(data)
        return data

    def _copy_prefix(self) -> None:
        """Take over what is as in the old file, now that something is not."""
        size, self._prefix = self._prefix, 0
        for start in range(0, size, _COPIED):
            data = self.standing.read(self.path, start, min(_COPIED, size - start))
            os.pwrite(self._descriptor, data, start)

    def read(self, position: int, size: int) -> bytes:
        """Read bytes that were written before."""
        if self._prefix:
            return self.standing.read(self.path, position, size)
        return os.pread(self._descriptor, size, position)

    def commit(self, index: Iterable[bytes]) -> None:
        """Make the file durable and put it, with its index, under the final name.

        A file that it replaces leaves it its mode and, where that may be done, its owner. One that has the
        same bytes already stays.
        """
        self._wait_for_sync()
        final_index = self.path.with_name(f"{self.path.name}.index")
        if self._prefix == self._end == _size(self.path) and final_index.exists():
            self._part.unlink(missing_ok=True)
            return
        self._copy_prefix()
        os.ftruncate(self._descriptor, self._end)
        if self.path.exists():
            _copy_owner(self.path, self._descriptor)
        os.fsync(self._descriptor)
        _write_durably(self._part_index, index, self._part)
        final_index.unlink(missing_ok=True)
        sync_directory(self.path.parent)
        os.rename(self._part, self.path)
        sync_directory(self.path.parent)
        os.rename(self._part_index, final_index)
        sync_directory(self.path.parent)

    def close(self, *, keep: bool = False) -> None:
        """Let go of the file; what was not committed disappears, unless a later restore may go on with it."""
        try:
            self._wait_for_sync()
        finally:
            os.close(self._descriptor)
            self.standing.close()
            if not keep:
                self._part.unlink(missing_ok=True)
            self._part_index.unlink(missing_ok=True)

    def _wait_for_sync(self) -> None:
        if self._syncing is not None:
            syncing, self._syncing = self._syncing, None
            syncing.result()


@contextmanager
def new_filestorage(path: Path, pool: Pool, *, force: bool) -> Iterator[NewFileStorage]:
    """Hold the storage's lock while a new Data.fs is written.

    What was written stays for a later restore to go on with, if this one is interrupted or the repository
    cannot be reached any more. Raises UsageError when there is a Data.fs and ``force`` is not given,
    TargetInUse when a server holds the lock, StoreError when the disk is full or the directory cannot be
    written to.
    """
    try:
        make_directory(path.parent)
        with _held_lock(path):
            if path.exists() and not force:
                raise UsageError(
                    f"{path} exists",
                    hint="restore into another directory, or say --force to replace it",
                )
            new = NewFileStorage(path, pool)
            try:
                yield new
            except (KeyboardInterrupt, StoreError):
                new.close(keep=True)
                raise
            except BaseException:
                new.close()
                raise
            new.close()
    except OSError as error:
        raise StoreError(
            f"{error.filename or path} cannot be written: {error.strerror}",
            hint="make room, or give a directory that this user may write to;"
            " a Data.fs that was there is still as it was",
        ) from error


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PART}")


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


def make_directory(path: Path) -> None:
    """Make a directory with those above it, durably."""
    if not path.is_dir():
        make_directory(path.parent)
        path.mkdir(exist_ok=True)
        sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

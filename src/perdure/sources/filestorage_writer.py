"""Write a FileStorage back: a new Data.fs with its index, under the final name only when it is whole.

The order is that of docs/guarantees.md: the lock that a server would take, a temporary file in the same
directory, fsync; then the old index goes, the new Data.fs and the new index come, each by a rename that
is made durable before the next step.
"""

from __future__ import annotations

import errno
import filecmp
import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path

from perdure.errors import DamageFound, StoreError, TargetInUse, UsageError
from perdure.pool import Pool
from perdure.sources.durable import (
    Owner,
    give,
    make_directory,
    owner_for,
    sync_directory,
    write_all,
    write_new,
)

_SYNC_EVERY = 64 << 20
_COPIED = 4 << 20
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_PART = ".perdure-part"


class StandingFiles:
    """What is there already of a Data.fs that is to be restored: an interrupted restore's, an old file's.

    Nothing of it is believed: a range counts where its SHA-256 is right.
    """

    def __init__(self, path: Path) -> None:
        self.old = Path(os.path.realpath(path))
        self.unfinished = _part_of(self.old)
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

    def size(self, path: Path) -> int:
        """Give the size of one of the files; 0 where there is none."""
        return os.fstat(self._open[path]).st_size if path in self._open else 0

    def close(self) -> None:
        """Let go of the files."""
        for descriptor in self._open.values():
            os.close(descriptor)
        self._open.clear()


class NewFileStorage:
    """A Data.fs that is being written; `finish` makes it whole, `commit` puts it in its place.

    Where the name is a symbolic link the file that it leads to is replaced; lock and index are beside the
    link, as FileStorage has them.
    """

    def __init__(self, path: Path, pool: Pool, owner: Owner | None) -> None:
        self.path = path
        self.standing = StandingFiles(path)
        self.failed = False
        """Whether the disk did not do as asked."""
        self.committed = False
        """Whether something of what was there is replaced."""
        self._old, self._part = self.standing.old, self.standing.unfinished
        self.resumes = self.standing.size(self._part) > 0
        """Whether an interrupted restore left something."""
        self._pool, self._owner = pool, owner
        self._syncing: Future[None] | None = None
        self._unsynced = self._end = 0
        self._prefix = 0
        """Bytes at the beginning that are as in the old file, and so far only there."""
        self._index = path.with_name(f"{path.name}.index")
        self._part_index = path.with_name(f".{path.name}.index{_PART}")
        self._new_index = self._new_data = True
        self._descriptor = os.open(
            self._part, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666
        )

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. What has gathered goes to the disk meanwhile, so that the end is not a long wait."""
        self._copy_prefix()
        self._end = write_all(self._descriptor, data, self._end)
        self._unsynced += len(data)
        if self._unsynced >= _SYNC_EVERY:
            self._wait_for_sync()
            self._syncing = self._pool.submit(0, os.fdatasync, self._descriptor)
            self._unsynced = 0

    def keep(self, place: Path, size: int) -> bytes:
        """Append what ``place``, found standing, has next; what is right already is not written again."""
        data = self.standing.read(place, self._end, size)
        if place == self._old and self._prefix == self._end:
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
            data = self.standing.read(self._old, start, min(_COPIED, size - start))
            write_all(self._descriptor, data, start)

    def read(self, position: int, size: int) -> bytes:
        """Read bytes that were written before."""
        if self._prefix:
            return self.standing.read(self._old, position, size)
        return os.pread(self._descriptor, size, position)

    def finish(self, index: Iterable[bytes]) -> None:
        """Make file and index whole and durable beside what is there. Raises OSError.

        A file that it replaces leaves it its mode and, where that may be done, its owner. What has the same
        bytes already stays.
        """
        self._wait_for_sync()
        self._new_data = not self._prefix == self._end == self.standing.size(self._old)
        if self._new_data:
            self._copy_prefix()
            os.ftruncate(self._descriptor, self._end)
            self._dress(self._descriptor)
            os.fsync(self._descriptor)
        descriptor = write_new(self._part_index, index)
        try:
            self._dress(descriptor)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        self._new_index = not (
            self._index.is_file() and filecmp.cmp(self._index, self._part_index, shallow=False)
        )

    def commit(self) -> None:
        """Put what is new in its place. Raises OSError."""
        folder = self._index.parent
        if self._new_data:
            self._index.unlink(missing_ok=True)
            sync_directory(folder)
            os.rename(self._part, self._old)
            self.committed = True
            sync_directory(self._old.parent)
        if self._new_index or self._new_data:
            os.rename(self._part_index, self._index)
            sync_directory(folder)
        self.committed = True

    def _dress(self, descriptor: int) -> None:
        """Give a new file the mode and owner of what it replaces, or the owner that it should have."""
        owner = self._owner
        if self._old.exists():
            status = os.stat(self._old)
            os.fchmod(descriptor, status.st_mode & 0o7777)
            owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        elif descriptor != self._descriptor:
            os.fchmod(descriptor, os.fstat(self._descriptor).st_mode & 0o7777)
        if owner:
            os.fchown(descriptor, *owner)

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
    owner = owner_for(path)
    with _translated(path):
        make_directory(path.parent, owner)
    with held_lock(path, owner):
        if path.exists() and not force:
            raise UsageError(
                f"{path} exists",
                hint="restore into another directory, or say --force to replace it",
            )
        with _translated(path):
            new = NewFileStorage(path, pool, owner)
        try:
            yield new
        except BaseException as error:
            wanted = new.resumes or isinstance(error, KeyboardInterrupt | StoreError)
            new.close(keep=wanted and not (new.failed or isinstance(error, DamageFound)))
            raise
        new.close()


@contextmanager
def writing(new: NewFileStorage) -> Iterator[None]:
    """Turn what the disk does not do into a StoreError that says what stands now."""
    with _translated(new.path, new):
        yield


@contextmanager
def _translated(path: Path, new: NewFileStorage | None = None) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        todo = "make room" if error.errno in _FULL else "see to it that this user may write there"
        stands = f"; a Data.fs that was at {path} is still as it was"
        if new is not None:
            new.failed = True
            if new.committed:
                stands = (
                    f", then restore again: {path} is the restored one by now, others may be too"
                )
        raise StoreError(
            f"{error.filename or path} cannot be written: {error.strerror}", hint=f"{todo}{stands}"
        ) from error


def _part_of(path: Path) -> Path:
    return path.with_name(f".{path.name}{_PART}")


@contextmanager
def held_lock(path: Path, owner: Owner | None) -> Iterator[None]:
    """Hold the lock that a server would take on a Data.fs. Raises TargetInUse, StoreError."""
    from zc.lockfile import LockError, LockFile

    name = Path(f"{path}.lock")
    existed = name.exists()
    try:
        with _translated(path):
            lock = LockFile(str(name))
    except LockError:
        raise TargetInUse(
            f"{path} is in use: another process holds {name}",
            hint="stop the server first, or restore into another directory",
        ) from None
    try:
        if not existed:
            give(
                name, owner
            )  # should this be killed, the server must still be able to take the lock
        yield
    finally:
        if not existed:
            name.unlink(missing_ok=True)
        lock.close()

"""A store in a local directory, laid out as restic lays out its own.

Folders have mode 0700 and files 0400. A file is written under a temporary name in its own folder,
synced, renamed, and the folder is synced; a folder that is made is synced into the one above it.
Temporary files that a crash left behind are not listed; `LocalStore.leftovers` finds them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path

from perdure.errors import NameNotFound, StoreError

FOLDERS = ("data", "index", "keys", "locks", "snapshots")
"""Where files are that come and go."""
_TEMPORARY = "-tmp-"  # restic's temporary files have it in their names, too
_HINTS = {
    errno.ENOSPC: "make room there; what was stored before is whole",
    errno.EDQUOT: "the quota is used up; what was stored before is whole",
    errno.EACCES: "give the user of this program access to it",
    errno.EPERM: "give the user of this program access to it",
    errno.EROFS: "the file system is mounted read-only",
    errno.EIO: "the disk or its connection fails; look into the system's log",
}
# What file systems answer that cannot sync a folder.
_CANNOT_SYNC = {errno.EINVAL, errno.ENOTSUP}


class LocalStore:
    """A store in a directory."""

    def __init__(self, path: str | Path) -> None:
        self._root = Path(os.path.abspath(path))

    @property
    def location(self) -> str:
        """The directory's absolute path."""
        return str(self._root)

    def put(self, name: str, data: bytes) -> None:
        """Write, sync, rename, sync the folder. Raises StoreError."""
        path = self._path(name)
        temporary = path.with_name(f"{path.name}{_TEMPORARY}{os.urandom(4).hex()}")
        with _explained("write", path):
            descriptor = self._create(temporary)
            try:
                _write(descriptor, data)
                temporary.rename(path)
            except BaseException:
                with suppress(OSError):
                    temporary.unlink()
                raise
            _sync_folder(path.parent)

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Read a file or a part of it. Raises NameNotFound, StoreError."""
        path = self._path(name)
        with _explained("read", path):
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                end = os.fstat(descriptor).st_size if stop is None else stop
                data = _read(descriptor, start, end - start)
            finally:
                os.close(descriptor)
        if len(data) != max(end - start, 0):
            raise StoreError(f"cannot read {path}: it ends before byte {end}")
        return data

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give name and size of every file below a folder. Raises StoreError."""
        for name, status in self._walk(prefix.rstrip("/")):
            if _TEMPORARY not in name.rpartition("/")[2]:
                yield name, status.st_size

    def leftovers(self, before: datetime) -> Iterator[tuple[str, int]]:
        """Give name and size of temporary files last written before a time. Raises StoreError."""
        for folder in FOLDERS:
            for name, status in self._walk(folder):
                if _TEMPORARY in name.rpartition("/")[2] and status.st_mtime < before.timestamp():
                    yield name, status.st_size

    def _walk(self, top: str) -> Iterator[tuple[str, os.stat_result]]:
        pending = [top]
        while pending:
            folder = pending.pop()
            path = self._path(folder)
            with _explained("list", path):
                try:
                    entries = os.scandir(path)
                except FileNotFoundError:
                    continue
                with entries:
                    for entry in entries:
                        if entry.is_dir(follow_symlinks=False):
                            pending.append(f"{folder}/{entry.name}")
                            continue
                        try:
                            status = entry.stat()
                        except FileNotFoundError:  # deleted meanwhile
                            continue
                        yield f"{folder}/{entry.name}", status

    def size(self, name: str) -> int:
        """Give a file's length. Raises NameNotFound, StoreError."""
        path = self._path(name)
        with _explained("look at", path):
            return path.stat().st_size

    def delete(self, name: str) -> None:
        """Remove a file. Raises NameNotFound, StoreError."""
        path = self._path(name)
        with _explained("delete", path):
            path.unlink()
            _sync_folder(path.parent)

    def _path(self, name: str) -> Path:
        parts = name.split("/")
        if name.startswith("/") or not {"", ".", ".."}.isdisjoint(parts):
            raise ValueError(f"{name!r} is not the name of anything in a store")
        return self._root.joinpath(*parts)

    def _create(self, path: Path) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        try:
            return os.open(path, flags, 0o400)
        except FileNotFoundError:
            _make_folders(path.parent)
            return os.open(path, flags, 0o400)


def _write(descriptor: int, data: bytes) -> None:
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read(descriptor: int, start: int, length: int) -> bytes:
    data = os.pread(descriptor, max(length, 0), start)
    while len(data) < length:  # a single read gives at most 2 GiB
        more = os.pread(descriptor, length - len(data), start + len(data))
        if not more:
            break
        data += more
    return data


def _make_folders(path: Path) -> None:
    parent = path.parent
    if not parent.is_dir():
        _make_folders(parent)
    with suppress(FileExistsError):
        path.mkdir(0o700)
    _sync_folder(parent)


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _CANNOT_SYNC:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def _explained(verb: str, path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise NameNotFound(f"cannot {verb} {path}: there is no such file") from error
    except OSError as error:
        hint = _HINTS.get(error.errno or 0)
        raise StoreError(f"cannot {verb} {path}: {error.strerror}", hint=hint) from error

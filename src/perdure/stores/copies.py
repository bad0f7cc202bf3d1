"""Copies, in a local folder, of packfiles of a store that is far: each request saved is worth a file.

A packfile never changes, so a copy is never out of date; it may be damaged, and whoever reads from it
verifies what it reads, as if it came from the store. A copy is a file ``<id>`` of a whole packfile, or
``<id>-<start>-<stop>`` of a part of it, sealed as it is in the store. Where the folder cannot be written
to, there are no copies. What was not read for a month is removed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path

from perdure.stores.protocol import Store

SMALL = 1 << 20
"""Bytes up to which a new packfile is kept, whatever is in it: the next increment reads of it."""
UNUSED = timedelta(days=30)
_DAY = timedelta(days=1)


class CopyingStore:
    """A store of which parts of packfiles are read again and again; get asks the copies first."""

    def __init__(self, store: Store, folder: Path, now: datetime) -> None:
        self._store = store
        self._folder = folder
        self._now = now.timestamp()

    @property
    def location(self) -> str:
        """The inner store's."""
        return self._store.location

    def put(self, name: str, data: bytes) -> None:
        """Put, and keep a copy of what is small."""
        self._store.put(name, data)
        if len(data) <= SMALL:
            self._keep(_whole(name), data)

    def put_and_keep(self, name: str, data: bytes) -> None:
        """Put, and keep a copy of whatever size."""
        self._store.put(name, data)
        self._keep(_whole(name), data)

    def fetch(self, name: str) -> None:
        """Make sure that there is a copy of all of a packfile. Raises NameNotFound, StoreError."""
        if not self._used(_whole(name)):
            self._keep(_whole(name), self._store.get(name))

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Give a part, from a copy if there is one; a copy of it stays."""
        if stop is None:
            return self._store.get(name, start)
        part = f"{_whole(name)}-{start}-{stop}"
        for file, offset in ((_whole(name), start), (part, 0)):
            found = self._read(file, offset, stop - start)
            if found is not None:
                return found
        data = self._store.get(name, start, stop)
        self._keep(part, data)
        return data

    def forget(self, name: str) -> None:
        """Remove what is kept of a packfile: it is damaged."""
        with suppress(OSError):
            for path in self._folder.glob(f"{_whole(name)}*"):
                path.unlink(missing_ok=True)

    def tidy(self) -> None:
        """Remove copies that were not read for a month."""
        with suppress(OSError), os.scandir(self._folder) as entries:
            for entry in entries:
                if entry.stat().st_mtime < self._now - UNUSED.total_seconds():
                    os.unlink(entry.path)

    def clear(self) -> None:
        """Remove all copies, and the folder."""
        with suppress(OSError):
            for path in self._folder.iterdir():
                path.unlink(missing_ok=True)
            self._folder.rmdir()

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """List the store."""
        return self._store.list(prefix)

    def size(self, name: str) -> int:
        """Look in the store."""
        return self._store.size(name)

    def delete(self, name: str) -> None:
        """Delete in the store, and what is kept of it."""
        self._store.delete(name)
        self.forget(name)

    def _read(self, file: str, start: int, length: int) -> bytes | None:
        try:
            with open(self._folder / file, "rb") as copy:
                copy.seek(start)
                data = copy.read(length)
        except OSError:
            return None
        return data if len(data) == length and self._used(file) else None

    def _used(self, file: str) -> bool:
        """Tell whether there is such a copy; it counts as used today."""
        path = self._folder / file
        try:
            if path.stat().st_mtime < self._now - _DAY.total_seconds():
                os.utime(path, (self._now, self._now))
        except OSError:
            return False
        return True

    def _keep(self, file: str, data: bytes) -> None:
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            temporary = self._folder / f"tmp-{os.urandom(8).hex()}"
            temporary.write_bytes(data)
            temporary.replace(self._folder / file)


def remove_abandoned(cache: Path, beginning: str, older: datetime) -> None:
    """Remove folders of copies to which nothing was added since: their process was killed."""
    with suppress(OSError):
        for folder in cache.glob(f"{beginning}*"):
            if folder.stat().st_mtime < older.timestamp():
                shutil.rmtree(folder, ignore_errors=True)


def _whole(name: str) -> str:
    return name.rpartition("/")[2]

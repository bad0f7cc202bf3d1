"""What an interrupted backup has sent already, and no index file names yet.

A backup writes an index file only after every 64 packfiles, so that there are few of them. If it is killed
before that, up to a gigabyte has been sent that nobody knows of. So who writes to a store that is far
notes in the cache, after each packfile, what is in it; the next writer looks whether these packfiles
are there, and takes them up. A note is a line of JSON as an index file has it; a run has a file of notes,
locked for as long as it runs. Notes may be lost or wrong: what they name is believed only if a packfile
of that name and size is in the store, under the lock that keeps prunes away.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from perdure.errors import NameNotFound
from perdure.formats import index as index_file
from perdure.formats.index import Packed
from perdure.formats.packfile import expected_size
from perdure.repository.index import Index
from perdure.repository.reading import packfile_name
from perdure.stores import Store

_LONGEST = 64 << 20


class Unfinished:
    """The notes of one run, and of those before it that were interrupted, in a folder of the cache."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._taken: list[tuple[Path, BinaryIO]] = []
        self._path = folder / f"{os.urandom(8).hex()}.notes"
        self._file: BinaryIO | None = None

    def take_up(self, store: Store, index: Index) -> Iterator[Packed]:
        """Give the packfiles of interrupted runs that are in the store and in no index file."""
        for path in self._others():
            with suppress(OSError):
                file = open(path, "r+b")  # noqa: SIM115 - it is held until all is in the index
                if not _lock(file):  # its run goes on
                    file.close()
                    continue
                self._taken.append((path, file))
                for packed in _notes(file):
                    if not _is_known(index, packed) and _is_there(store, packed):
                        yield packed

    def note(self, packed: Packed) -> None:
        """Note that a packfile is in the store."""
        with suppress(OSError):
            if self._file is None:
                self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115 - open for the run
                _lock(self._file)
            text = index_file.encode([packed])
            self._file.write(_digest(text.strip()) + b" " + text)

    def finish(self) -> None:
        """Forget the notes: all that they name is in an index file."""
        mine = [(self._path, self._file)] if self._file else []
        for path, file in (*self._taken, *mine):
            with suppress(OSError):
                path.unlink(missing_ok=True)
            file.close()
        self._taken, self._file = [], None

    def close(self) -> None:
        """Let go of the notes; they stay for the next run."""
        for _, file in self._taken:
            file.close()
        if self._file:
            self._file.close()
        self._taken, self._file = [], None

    def _others(self) -> list[Path]:
        with suppress(OSError):
            return sorted(self._folder.glob("*.notes"))
        return []


def _lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _notes(file: BinaryIO) -> Iterator[Packed]:
    for line in file.read(_LONGEST).splitlines():
        digest, _, text = line.partition(b" ")
        if digest == _digest(text):  # the last line of a run that was killed may be half
            yield from index_file.decode(text, "a note")


def _digest(text: bytes) -> bytes:
    return hashlib.sha256(text).hexdigest().encode()


def _is_known(index: Index, packed: Packed) -> bool:
    return all(index.has(entry.kind, entry.id) for entry in packed.entries)


def _is_there(store: Store, packed: Packed) -> bool:
    try:
        return store.size(packfile_name(packed.id)) == expected_size(packed.entries)
    except NameNotFound:
        return False

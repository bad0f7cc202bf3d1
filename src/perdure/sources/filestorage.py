"""A FileStorage's Data.fs, read at a cut while a server goes on writing to it.

One descriptor is read for the whole run, never the name again: what was read from it stays a valid state
of the storage even when a pack puts a new file under the name meanwhile. No lock is taken: what stands
before the first voted or incomplete transaction is final (formats/filestorage.py).
"""

from __future__ import annotations

import hashlib
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats.filestorage import (
    MAGIC_SIZE,
    POINTER_SIZE,
    RECORD_HEADER,
    TRAILER_SIZE,
    TRANSACTION_HEADER,
    VERSION_SIZE,
    VOTED,
    TransactionHeader,
    above,
    check_magic,
    damage,
)

if TYPE_CHECKING:
    from perdure.formats.extent import Extent
    from perdure.formats.manifest import Position, Proof
    from perdure.sources.protocol import Blobs, Companion, Evidence, Past

WINDOW = 64 << 20
"""Bytes of a Data.fs that are looked at together, and so the size of a segment."""
_BLOCK = 1 << 20
_ATTEMPTS = 40
_PAUSE = 0.05
_LONGEST_CHAIN = 1000
"""Back pointers that are followed, one after the other."""


class FileStorageSource:
    """A FileStorage, by the path of its Data.fs; named by that path unless a name is given.

    ``window``: bytes that are looked at together. ``blobs``: its blob directory, where that is known;
    ``without_blobs``: they are not asked for. ``database``: what the site calls it.
    """

    kind = "filestorage"

    def __init__(
        self,
        path: Path,
        name: str | None = None,
        window: int = WINDOW,
        *,
        blobs: Path | None = None,
        without_blobs: bool = False,
        database: str = "",
    ) -> None:
        self.path = path.absolute()
        self.place = str(self.path)
        self.name = name or self.place
        self.database = database
        self._window = window
        self._blobs, self._without_blobs = blobs, without_blobs

    @contextmanager
    def cut(self) -> Iterator[FileStorageCut]:
        """Open the file and fix how much of it is looked at. Raises SourceUnusable."""
        blobs = None if self._without_blobs else self._blob_directory()
        descriptor = _open(self.path)
        try:
            yield FileStorageCut(self.path, descriptor, self._window, blobs)
        finally:
            os.close(descriptor)

    def _blob_directory(self) -> Blobs:
        from perdure.sources.blobs import BlobDirectory, NoBlobDirectory

        return BlobDirectory(self._blobs) if self._blobs else NoBlobDirectory()

    def concerns(self) -> Iterator[str]:
        """Say what is not right with the storage, though it can be read."""
        for process in detached_writers(self.path):
            yield (
                f"process {process} writes to a file that was {self.path} and is so no more: what it"
                " commits is in no backup and is lost when it stops. Copy the file from /proc before"
                " you stop it"
            )


class FileStorageCut:
    """An open Data.fs, up to the size that it had when it was opened."""

    companion: Companion | None = None

    def __init__(
        self, path: Path, descriptor: int, window: int = WINDOW, blobs: Blobs | None = None
    ) -> None:
        self.path = path
        self.blobs = blobs
        self.where = str(path)
        self._descriptor = descriptor
        self.window = window
        self._buffer = bytearray()
        self.bytes_read = 0
        status = os.fstat(descriptor)
        self.limit = status.st_size
        self.device, self.inode = status.st_dev, status.st_ino
        if not stat.S_ISREG(status.st_mode):
            what = "a directory" if stat.S_ISDIR(status.st_mode) else "no ordinary file"
            raise SourceUnusable(
                f"{path} is {what}, not a FileStorage", hint="give the path of the Data.fs itself"
            )
        self.magic = check_magic(self.read(0, MAGIC_SIZE), self.where)

    def read(self, position: int, size: int) -> bytes:
        """Read bytes; fewer at the end of the file. Raises SourceDamaged when they cannot be read."""
        try:
            data = os.pread(self._descriptor, size, position)
        except OSError as error:
            raise _unreadable(self.where, position, error) from error
        self.bytes_read += len(data)
        return data

    def extents(
        self,
        start: int,
        end: int | None = None,
        *,
        last_tid: int | None = None,
        expected: int | None = None,
    ) -> Iterator[Extent]:
        """Read the committed transactions from ``start`` on, some tens of megabytes at a time.

        It stops at ``end``, before a transaction above ``last_tid``, or where the committed part of the
        file ends; about ``expected`` bytes are read at first. Each extent is valid until the next one is
        asked for. Raises SourceDamaged.
        """
        position = start
        while True:
            limit = self.limit if end is None else end
            size = min(self.window, limit - position, expected or self.window)
            expected = None
            extent = self._scan(position, size, last_tid)
            if extent.end > position:
                yield extent
                position = extent.end
                if last_tid is None:
                    continue
            header = self.look(position)
            if header is None or position >= limit or above(header.tid, last_tid):
                return
            if os.fstat(self._descriptor).st_size < header.end:
                raise damage(position, header.tid, "the file ends inside it by now", self.where)
            if header.size > self.window:
                yield from self._parts(header)
                position = header.end

    def _scan(self, position: int, size: int, last_tid: int | None) -> Extent:
        from perdure.formats.extent import scan  # not needed where nothing is new

        return scan(self._fill(position, size), position, where=self.where, last_tid=last_tid)

    def _fill(self, position: int, size: int) -> memoryview:
        """Read into the one buffer that all extents share."""
        if len(self._buffer) < size:
            self._buffer = bytearray(size)
        view = memoryview(self._buffer)[:size]
        done = 0
        while done < size:
            try:
                count = os.preadv(self._descriptor, [view[done:]], position + done)
            except OSError as error:
                raise _unreadable(self.where, position + done, error) from error
            if not count:
                break
            done += count
        self.bytes_read += done
        return view[:done]

    def look(self, position: int) -> TransactionHeader | None:
        """Look at the transaction at a position; None at the quiet end of the file. Raises SourceDamaged."""
        for attempt in range(_ATTEMPTS):
            raw = self.read(position, min(TRANSACTION_HEADER.size, self.limit - position))
            if len(raw) < TRANSACTION_HEADER.size:
                return None
            header = TransactionHeader.parse(raw, 0, position)
            if header.status != VOTED:
                return self._judge(header)
            self.limit = min(self.limit, os.fstat(self._descriptor).st_size)
            if header.end >= self.limit:
                return None
            if attempt:
                time.sleep(_PAUSE)
        raise damage(
            position, header.tid, "it was voted but never finished, and more follows it", self.where
        )

    def _judge(self, header: TransactionHeader) -> TransactionHeader | None:
        if not header.plausible:
            why = f"its header cannot be right (status {header.status!r}, length {header.length})"
            raise damage(header.position, header.tid, why, self.where)
        if header.end <= self.limit:
            return header
        if self._ends_with_transaction_behind(header.position):
            why = f"its length is {header.length}, which leads behind the end of the file at {self.limit}"
            raise damage(header.position, header.tid, why, self.where)
        return None

    def _ends_with_transaction_behind(self, position: int) -> bool:
        """Whether the file ends with a whole transaction that begins behind ``position``."""
        length = int.from_bytes(self.read(self.limit - TRAILER_SIZE, TRAILER_SIZE), "big")
        begin = self.limit - TRAILER_SIZE - length
        if not position < begin <= self.limit - TRANSACTION_HEADER.size - TRAILER_SIZE:
            return False
        header = TransactionHeader.parse(self.read(begin, TRANSACTION_HEADER.size), 0, begin)
        return header.length == length and header.plausible

    def _parts(self, header: TransactionHeader) -> Iterator[Extent]:
        """Read a transaction that is larger than the window, some records at a time."""
        from perdure.formats.extent import scan_part

        again = self.read(header.position + header.length, TRAILER_SIZE)
        if int.from_bytes(again, "big") != header.length:
            raise damage(
                header.position, header.tid, "its length differs before and behind it", self.where
            )
        position, size = header.position, self.window
        while position < header.end:
            data = self._fill(position, min(size, header.end - position))
            part = scan_part(data, position, header, where=self.where)
            if part.end == position:
                if len(data) < min(size, header.end - position):
                    raise damage(position, header.tid, "the file ends inside it by now", self.where)
                size *= 2
                continue
            yield part
            position, size = part.end, self.window

    def identify(self, position: int) -> tuple[int, int] | None:
        """Give oid and tid of the record at a position; None where no record is.

        A record is one that names a transaction before it which has its tid and reaches beyond it.
        """
        if position < MAGIC_SIZE + TRANSACTION_HEADER.size:
            return None
        raw = os.pread(self._descriptor, RECORD_HEADER.size, position)
        if len(raw) < RECORD_HEADER.size:
            return None
        oid, tid, _, tloc, *_ = RECORD_HEADER.unpack(raw)
        if not MAGIC_SIZE <= tloc < position:
            return None
        header = os.pread(self._descriptor, TRANSACTION_HEADER.size, tloc)
        found = TransactionHeader.parse(header, 0, tloc)
        return (oid, tid) if found.tid == tid and position < found.end else None

    def data_at(self, position: int, limit: int) -> bytes | None:
        """Give the data of the record at a position, behind all back pointers; None for more than a limit."""
        for _ in range(_LONGEST_CHAIN):
            if not MAGIC_SIZE < position < self.limit:
                return None
            raw = os.pread(self._descriptor, RECORD_HEADER.size + limit, position)
            if len(raw) < RECORD_HEADER.size:
                return None
            *_, version, length = RECORD_HEADER.unpack_from(raw)
            start = RECORD_HEADER.size + (version and version + VERSION_SIZE)
            if length:
                return raw[start : start + length] if start + length <= len(raw) else None
            pointer = int.from_bytes(raw[start : start + POINTER_SIZE], "big")
            if not 0 < pointer < position:
                return None
            position = pointer
        return None

    def transaction_at(self, position: int) -> TransactionHeader:
        """Read the transaction header at a position that is known to have one."""
        return TransactionHeader.parse(self.read(position, TRANSACTION_HEADER.size), 0, position)

    def proof(self, position: int, size: int) -> Proof:
        """Give the SHA-256 of a range of the file, which may end before the range does."""
        from perdure.formats.manifest import Proof  # msgspec, which repozo spares

        digest = hashlib.sha256()
        for offset in range(position, position + size, _BLOCK):
            digest.update(self.read(offset, min(_BLOCK, position + size - offset)))
        return Proof(position, size, digest.hexdigest())

    def position(self, last: TransactionHeader | None) -> Position:
        """Say how a later run recognises this file, read up to behind ``last``."""
        from perdure.formats.manifest import Position

        if last is None:
            return Position(self.device, self.inode, None, None)
        first = self.transaction_at(MAGIC_SIZE)
        return Position(
            self.device,
            self.inode,
            self.proof(first.position, first.size),
            self.proof(last.position, last.size),
        )

    def evidence(self, earlier: Position | None) -> Evidence:
        """Look whether the file is the one that an earlier run read, and still as it was."""
        from perdure.sources.protocol import Evidence

        if earlier is None:
            return Evidence(same_file=False, first_stands=False, last_stands=False)
        return Evidence(
            same_file=(earlier.device, earlier.inode) == (self.device, self.inode),
            first_stands=self._stands(earlier.first),
            last_stands=self._stands(earlier.last),
        )

    def resume(self, past: Past) -> None:
        """A file says by itself where its records are."""

    def _stands(self, proof: Proof | None) -> bool:
        return proof is None or (
            proof.position + proof.size <= self.limit
            and self.proof(proof.position, proof.size) == proof
        )

    @property
    def replaced(self) -> bool:
        """Whether the name leads to another file by now: a pack has ended, or somebody moved files."""
        try:
            status = os.stat(self.path)
        except OSError:
            return True
        return (status.st_dev, status.st_ino) != (self.device, self.inode)


def _open(path: Path) -> int:
    for attempt in range(_ATTEMPTS):
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # for a pipe's sake
        except FileNotFoundError:
            # Between the two renames of a pack there is no file under the name.
            if attempt == _ATTEMPTS - 1 or not Path(f"{path}.old").exists():
                raise SourceUnusable(
                    f"{path} does not exist",
                    hint="give the path of the Data.fs that the server uses"
                    " (filestorage, path in zope.conf or zeo.conf)",
                ) from None
            time.sleep(_PAUSE)
        except OSError as error:
            raise SourceUnusable(
                f"{path} cannot be read: {error.strerror}",
                hint="run as the user of the server, or let that user's group read the file",
            ) from error
    raise AssertionError


def _unreadable(where: str, position: int, error: OSError) -> SourceDamaged:
    return SourceDamaged(
        f"{where} cannot be read at byte {position}: {error.strerror}",
        hint="the disk may be failing: look at the system's log, and copy what can be read elsewhere",
    )


def detached_writers(path: Path) -> list[int]:
    """Find the processes that write to a file which is no longer the one under ``path``.

    A server whose Data.fs was replaced or removed under it goes on writing to a file that is gone when
    it stops (ZODB issue 38). Only what /proc shows to this user is found. Returns process ids.
    """
    real = os.path.realpath(path)
    gone = {f"{real} (deleted)", f"{real}.old", f"{real}.old (deleted)"}
    found: set[int] = set()
    for descriptor in _descriptors():
        with suppress(OSError):  # closed meanwhile, or another user's
            if os.readlink(descriptor) in gone and _writable(descriptor):
                found.add(int(descriptor.parent.parent.name))
    return sorted(found)


def _descriptors() -> Iterator[Path]:
    for folder in Path("/proc").glob("[0-9]*/fd"):
        with suppress(OSError):
            yield from list(folder.iterdir())


def _writable(descriptor: Path) -> bool:
    info = descriptor.parent.parent / "fdinfo" / descriptor.name
    flags = next(line for line in info.read_text().splitlines() if line.startswith("flags:"))
    return int(flags.split()[1], 8) & os.O_ACCMODE != os.O_RDONLY

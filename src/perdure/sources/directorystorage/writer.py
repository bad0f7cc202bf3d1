"""Write a HOME back: all its files, made beside the target and put in its place when they are on the disk.

The files are those that DirectoryStorage would have after a clean shutdown, but for ``misc``: no snapshot is
held, and locks are made when the storage starts. A pointer leads to each object's newest revision. Data files
have mode 0640, folders 0750; what root writes belongs to the owner of the folder around.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO, NamedTuple

from perdure.errors import DamageFound, StoreError
from perdure.formats.directorystorage import PointerFile, encode_counter
from perdure.formats.directorystorage_names import (
    LAST_OID,
    PACKED,
    SERIAL,
    path_of,
    pointer_name,
    revision_name,
    transaction_name,
)
from perdure.formats.directorystorage_particulars import (
    NO_POINTER,
    OLD_POINTER,
    USUAL_POINTER,
    Particulars,
    revision_file,
    transaction_file,
)
from perdure.formats.filestorage import (
    MAGIC_SIZE,
    POINTER_SIZE,
    RECORD_HEADER,
    TRAILER_SIZE,
    TRANSACTION_HEADER,
)
from perdure.model import Observer
from perdure.sources.directorystorage.home import FOLDERS
from perdure.sources.directorystorage.placing import made_beside
from perdure.sources.durable import Owner, give, owner_for, write_all

_FILE_MODE, _FOLDER_MODE = 0o640, 0o750
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
_BUFFER = 1 << 20


class Restored(NamedTuple):
    """What was written, and the last transaction (0: there is none)."""

    transactions: int
    revisions: int
    serial: int


@dataclass(frozen=True, slots=True)
class Counters:
    """``x.oid`` and ``x.packed``; None: there is no such file."""

    last_oid: int | None
    packed: int | None


class NewHome:
    """A HOME that is being written, in one of the four formats, in an empty folder."""

    def __init__(self, path: Path, layout: str, owner: Owner | None) -> None:
        self.path, self._layout, self._owner = path, layout, owner
        self._made: set[str] = set()
        give(path, owner)
        path.chmod(_FOLDER_MODE)
        for name in FOLDERS:
            self._folder(path / name)

    def configure(self, files: Mapping[str, bytes]) -> None:
        """Write the files of ``config``, by their paths in it."""
        for path, data in files.items():
            parts = PurePosixPath(path).parts
            if path.startswith("/") or ".." in parts or "\0" in path or not parts:
                raise DamageFound(f"{path!r} is no name of a file in config")
            self._write(f"{self.path}/config/{path}", data)

    def fill(
        self,
        filestorage: Path,
        known: Iterator[Particulars],
        counters: Counters,
        observer: Observer,
    ) -> Restored:
        """Write all data from the FileStorage that holds the transactions, and from their particulars.

        Both come with tids rising. Raises DamageFound, OSError.
        """
        newest: dict[int, tuple[int, int]] = {}
        told = next(known, None)
        previous = transactions = revisions = 0
        total = filestorage.stat().st_size
        for each in read_transactions(filestorage):
            while told is not None and told.tid < each.tid:
                told = next(known, None)
            mine = told if told is not None and told.tid == each.tid else None
            oids = [oid for oid, _ in each.records]
            made = transaction_file(each.tid, each.texts, oids, previous, mine)
            if made is not None:
                self._data(transaction_name(each.tid), made.encode())
            self._revisions(each, mine, newest)
            previous, transactions = each.tid, transactions + 1
            revisions += len(oids)
            observer.progress("write files", each.end, total)
        for oid, (tid, pointer) in newest.items():
            if pointer != NO_POINTER:
                raw = PointerFile(tid, old=pointer == OLD_POINTER).encode()
                self._data(pointer_name(oid), raw)
        self._data(SERIAL, encode_counter(previous))
        for name, value in ((LAST_OID, counters.last_oid), (PACKED, counters.packed)):
            if value is not None:
                self._data(name, encode_counter(value))
        return Restored(transactions, revisions, previous)

    def _revisions(
        self, each: Transaction, mine: Particulars | None, newest: dict[int, tuple[int, int]]
    ) -> None:
        own = {record.number: record for record in mine.records} if mine else {}
        for number, (oid, data) in enumerate(each.records):
            before = newest[oid][0] if oid in newest else 0
            file = revision_file(oid, each.tid, data, before, own.get(number))
            self._data(revision_name(oid, each.tid), file.encode())
            pointer = own[number].pointer if number in own else USUAL_POINTER
            newest[oid] = (each.tid, pointer)

    def _data(self, name: str, raw: bytes) -> None:
        self._write(f"{self.path}/A/{path_of(name, self._layout)}", raw)

    def _write(self, path: str, raw: bytes) -> None:
        folder = path.rpartition("/")[0]
        if folder not in self._made:
            self._folder(Path(folder))
        descriptor = os.open(path, _NEW, _FILE_MODE)
        try:
            write_all(descriptor, raw, 0)
            if self._owner:
                os.fchown(descriptor, *self._owner)
        finally:
            os.close(descriptor)

    def _folder(self, path: Path) -> None:
        if str(path) in self._made:
            return
        if path != self.path:
            self._folder(path.parent)
        path.mkdir(_FOLDER_MODE, exist_ok=True)
        give(path, self._owner)
        self._made.add(str(path))


@contextmanager
def new_home(path: Path, layout: str) -> Iterator[NewHome]:
    """Write a HOME where there is none yet, or an empty folder.

    Raises UsageError when anything is there, StoreError when the disk does not do as asked.
    """
    try:
        with made_beside(path) as part:
            yield NewHome(part, layout, owner_for(path))
    except OSError as error:
        raise StoreError(
            f"{error.filename or path} cannot be written: {error.strerror}",
            hint=f"make room, or see to it that this user may write there; {path} is not there yet",
        ) from error


class Transaction(NamedTuple):
    """A transaction of a FileStorage; each record is an oid and its data, empty if it was undone."""

    tid: int
    texts: tuple[bytes, bytes, bytes]
    records: list[tuple[int, bytes]]
    end: int
    """Where it ends in the file."""


def read_transactions(path: Path) -> Iterator[Transaction]:
    """Read a FileStorage without back pointers, as those of a DirectoryStorage are. Raises DamageFound."""
    with open(path, "rb", buffering=_BUFFER) as file:
        file.seek(MAGIC_SIZE)
        position = MAGIC_SIZE
        while raw := file.read(TRANSACTION_HEADER.size):
            tid, length, _, *lengths = TRANSACTION_HEADER.unpack(raw)
            user, description, extension = (file.read(each) for each in lengths)
            end = position + length
            at = position + TRANSACTION_HEADER.size + sum(lengths)
            records = []
            while at < end:
                oid, data, size = _record(file, path)
                records.append((oid, data))
                at += size
            position = end + TRAILER_SIZE
            file.seek(position)
            yield Transaction(tid, (user, description, extension), records, position)


def _record(file: BinaryIO, path: Path) -> tuple[int, bytes, int]:
    oid, tid, _, _, _, size = RECORD_HEADER.unpack(file.read(RECORD_HEADER.size))
    data = file.read(size or POINTER_SIZE)
    taken = RECORD_HEADER.size + len(data)
    if size:
        return oid, data, taken
    if any(data):
        raise DamageFound(f"{path}: the record of {oid:#x} in transaction {tid:016x} has no data")
    return oid, b"", taken

"""The canonical bytes of a storage: the FileStorage that holds its transactions.

It is the file that ``FileStorage.copyTransactionsFrom`` would write (formats/filestorage.py), but for two
things. A record always has its data, never a back pointer to an earlier record that has the same (but for
the pointer 0: the object is created no more); so a storage that does not tell where data came from gives
the same bytes as one that does. And prev is 0 in a transaction of status "p", as a pack of ZODB writes it.

In order: the magic "FS30"; then the transactions, tids rising, each with status " " or "p", with user,
description and extension as the storage gives them, and with its records in the storage's order. A
record's prev is the position of the object's last record in an earlier transaction of this file. User
and description are cut to 65,535 bytes, which is all that a FileStorage can hold.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from perdure.errors import SourceDamaged, StoreError
from perdure.formats.filestorage import (
    MAGIC_SIZE,
    MAGICS,
    POINTER_SIZE,
    RECORD_HEADER,
    TRAILER_SIZE,
    TRANSACTION_HEADER,
)
from perdure.model import Tid

if TYPE_CHECKING:
    from perdure.formats.revisions import Revisions

MAGIC = MAGICS[-1]
_BLOCK = 1 << 20
_LONGEST_TEXT = 0xFFFF
_MANY = 1 << 16

Newest = Callable[[int], tuple[int, int]]
"""From an oid to position and tid of its newest record before the file's new part; 0, 0: it has none."""


class Spool:
    """A range of the canonical file in a temporary file, where it has the positions of the whole one.

    Nothing but the magic stands before the range; it takes no room on the disk.
    """

    def __init__(self, start: int, magic: bytes = MAGIC) -> None:
        self.start = self.end = start
        self._held = bytearray()
        try:
            self._file = tempfile.TemporaryFile(prefix="perdure-")  # noqa: SIM115 - `close` closes it
        except OSError as error:
            raise _no_room(error) from error
        self.descriptor = self._file.fileno()
        self._put(magic, 0)
        if start == 0:
            self.end = MAGIC_SIZE

    @property
    def size(self) -> int:
        """Bytes of the range."""
        return self.end - self.start

    def write(self, data: bytes) -> None:
        """Append bytes."""
        self._held += data
        self.end += len(data)
        if len(self._held) >= _BLOCK:
            self.flush()

    def patch(self, position: int, data: bytes) -> None:
        """Replace bytes that one call of ``write`` has written."""
        offset = position - (self.end - len(self._held))
        if offset >= 0:
            self._held[offset : offset + len(data)] = data
        else:
            self._put(data, position)

    def flush(self) -> None:
        """Make what was written readable."""
        self._put(self._held, self.end - len(self._held))
        self._held.clear()

    def read(self, position: int, size: int) -> bytes:
        """Read bytes of the range; fewer at its end."""
        return os.pread(self.descriptor, size, position)

    def close(self) -> None:
        """Give the room back."""
        self._file.close()

    def _put(self, data: bytes | bytearray, position: int) -> None:
        view = memoryview(data)
        try:
            while view:
                done = os.pwrite(self.descriptor, view, position)
                view, position = view[done:], position + done
        except OSError as error:
            raise _no_room(error) from error
        finally:
            view.release()


def _no_room(error: OSError) -> StoreError:
    return StoreError(
        f"the temporary folder {tempfile.gettempdir()} cannot be written to: {error.strerror}",
        hint="make room there, or name another folder with TMPDIR: it must hold some tens of megabytes,"
        " and the largest transaction",
    )


class Canonical:
    """Writes transactions as the canonical file has them, from ``position`` on.

    ``links_packed``: records of packed transactions have prev pointers too, where there is what they lead to.
    """

    def __init__(
        self, position: int, newest: Newest | None, where: str, *, links_packed: bool = False
    ) -> None:
        self.position = position
        self.outer: dict[int, tuple[int, int]] = {}
        """Oid and tid of the records before the first position that prev pointers lead to."""
        self._newest, self._where, self._links_packed = newest, where, links_packed
        self._recent: dict[int, tuple[int, int]] = {}
        self._made: Revisions | None = None

    def begin(self, spool: Spool) -> None:
        """Take up a spool that begins where the last one ended."""
        self.position = spool.end

    def add(
        self, transaction: Any, records: Iterable[Any], spool: Spool, *, packed: bool
    ) -> list[int]:
        """Write a transaction. Raises SourceDamaged for one that no FileStorage can hold.

        Returns, for each record, the tid of the one that its prev pointer leads to; 0: to none.
        """
        begin = self.position
        tid = int.from_bytes(transaction.tid, "big")
        texts = _texts(transaction, self._where)
        status = b"p" if packed else b" "
        spool.write(TRANSACTION_HEADER.pack(tid, 0, status, *map(len, texts)))
        spool.write(b"".join(texts))
        mine: dict[int, tuple[int, int]] = {}
        before: list[int] = []
        linked = self._links_packed or not packed
        for record in records:
            oid, data = int.from_bytes(record.oid, "big"), record.data or b""
            prev, prev_tid = self._before(oid) if linked else (0, 0)
            before.append(prev_tid)
            mine[oid] = (spool.end, tid)
            spool.write(RECORD_HEADER.pack(oid, tid, prev, begin, 0, len(data)))
            spool.write(data or bytes(POINTER_SIZE))
        length = spool.end - begin
        spool.write(length.to_bytes(TRAILER_SIZE, "big"))
        spool.patch(begin, TRANSACTION_HEADER.pack(tid, length, status, *map(len, texts)))
        self.position = spool.end
        self._recent |= mine
        if len(self._recent) > _MANY:
            self._settle()
        return before

    def _before(self, oid: int) -> tuple[int, int]:
        """Give position and tid of an object's newest record; 0, 0: it has none."""
        found = self._recent.get(oid)
        if found is not None:
            return found
        made = self._made.revision(oid) if self._made is not None else (0, 0)
        if made[0] or self._newest is None:
            return made
        position, tid = self._newest(oid)
        if position:
            self.outer[position] = (oid, tid)
        return position, tid

    def _settle(self) -> None:
        """Move what is known of recent records to where it takes less memory."""
        import numpy as np

        from perdure.formats.revisions import Revisions

        if self._made is None:
            self._made = Revisions()
        oids = sorted(self._recent)
        rows = np.array([self._recent[oid] for oid in oids], np.uint64)
        self._made.update(np.array(oids, np.uint64), rows[:, 0], rows[:, 1])
        self._recent.clear()


def _texts(transaction: Any, where: str) -> tuple[bytes, bytes, bytes]:
    """Give user, description and extension as bytes; what is bytes already is never unpickled."""
    from ZODB.Connection import TransactionMetaData

    raw = getattr(transaction, "extension_bytes", None)
    extension = transaction.extension if raw is None else raw
    known = TransactionMetaData(transaction.user, transaction.description, extension)
    pickled: bytes = known.extension_bytes
    if len(pickled) > _LONGEST_TEXT:
        tid = Tid.from_bytes(transaction.tid)
        raise SourceDamaged(
            f"{where}: transaction {tid} has {len(pickled)} bytes of extension data,"
            f" and a FileStorage holds {_LONGEST_TEXT}",
            hint="no snapshot was written; packing the storage may drop the transaction",
        )
    return _cut(known.user), _cut(known.description), pickled


def _cut(text: bytes) -> bytes:
    """Cut UTF-8 between two characters."""
    if len(text) <= _LONGEST_TEXT:
        return text
    return text[:_LONGEST_TEXT].decode("utf-8", "ignore").encode()

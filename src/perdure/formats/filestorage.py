"""Data.fs: the file of a ZODB FileStorage.

All integers are big-endian. A file is a magic and then transactions, one behind the other::

    offset  size  content
    0       4     magic: "FS21" (written by Python 2) or "FS30" (by Python 3); the rest is the same

    transaction, at position p
    0       8     tid
    8       8     length: of everything but the last 8 bytes, so the next transaction is at p + length + 8
    16      1     status: " " committed, "p" rewritten by a pack, "u" undone (skipped by ZODB's readers),
                  "c" voted but not finished (only ever at the end of the file)
    17      2+2+2 lengths of user, description and extension
    23      ...   user, description, extension (a pickle, never read here), then the data records
    length  8     length, again

    data record, at position r
    0       8     oid
    8       8     tid, the transaction's
    16      8     prev: position of the object's previous record in this file, 0 if there is none
    24      8     tloc: position of the record's transaction
    32      2     vlen: length of a version's name; 0 since versions died
    34      8     plen: length of the data
    42      plen  data: two pickles, never loaded here; where plen is 0 instead:
            8     back pointer: position of the record, of the same oid, that holds the data; 0 if the
                  object is created no more (written by an undo)

A record of a version has 16 bytes and the version's name between its header and its data.

Source: ZODB.FileStorage.format and ZODB.FileStorage.FileStorage.read_index of ZODB 6, and files of all
ages. What this module calls *committed* is what ZODB's readers count, plus transactions of status "u",
which they skip.
"""

from __future__ import annotations

import struct
from typing import NamedTuple, TypeAlias

from perdure.errors import SourceDamaged, SourceUnusable
from perdure.model import Tid

PYTHON_2, PYTHON_3 = MAGICS = (b"FS21", b"FS30")
MAGIC_SIZE = 4
TRANSACTION_HEADER = struct.Struct(">QQcHHH")
RECORD_HEADER = struct.Struct(">QQQQHQ")
TRAILER_SIZE = 8
POINTER_SIZE = 8
VERSION_SIZE = 16
"""Bytes that a record of a version has beside the version's name."""
COMMITTED = b" pu"
VOTED = b"c"

Buffer: TypeAlias = bytes | bytearray | memoryview


def check_magic(raw: bytes, where: str) -> bytes:
    """Return the magic that a file starts with. Raises SourceUnusable when it is no FileStorage's."""
    if raw[:MAGIC_SIZE] in MAGICS:
        return raw[:MAGIC_SIZE]
    if not raw:
        raise SourceUnusable(
            f"{where} is empty: it has 0 bytes and no magic",
            hint="a FileStorage has at least the 4 bytes FS30; is this the file that the server uses?",
        )
    raise SourceUnusable(
        f"{where} is not a FileStorage: it starts with {raw[:MAGIC_SIZE]!r} at byte 0, not with FS21 or FS30",
        hint="give the path of a Data.fs, not of its index, its lock or a compressed copy",
    )


class TransactionHeader(NamedTuple):
    """The first 23 bytes of a transaction, and where they stand."""

    position: int
    tid: int
    length: int
    status: bytes
    user_length: int
    description_length: int
    extension_length: int

    @classmethod
    def parse(cls, data: Buffer, offset: int, position: int) -> TransactionHeader:
        """Take the header at ``offset`` of ``data`` apart. Raises struct.error when it is cut short."""
        return cls._make((position, *TRANSACTION_HEADER.unpack_from(data, offset)))

    @property
    def text_length(self) -> int:
        """Bytes of user, description and extension together."""
        return self.user_length + self.description_length + self.extension_length

    @property
    def size(self) -> int:
        """Bytes that the whole transaction takes, its trailer included."""
        return self.length + TRAILER_SIZE

    @property
    def end(self) -> int:
        """Position behind the transaction."""
        return self.position + self.size

    @property
    def plausible(self) -> bool:
        """Whether the lengths can be true and the status is one that counts as committed."""
        return (
            self.length >= TRANSACTION_HEADER.size + self.text_length and self.status in COMMITTED
        )


def damage(position: int, tid: int | None, why: str, where: str) -> SourceDamaged:
    """Describe damage inside a Data.fs: the byte offset, the transaction, and what to do."""
    transaction = "" if tid is None else f", in transaction {Tid(tid)}"
    return SourceDamaged(
        f"{where} is damaged at byte {position}{transaction}: {why}",
        hint="keep the file as it is and look at it with ZODB's fstest; earlier snapshots stay restorable,"
        " and ZODB's fsrecover copies what can be read",
    )


def above(tid: int, last_tid: int | None) -> bool:
    """Whether a transaction lies behind the last one that is wanted."""
    return last_tid is not None and tid > last_tid

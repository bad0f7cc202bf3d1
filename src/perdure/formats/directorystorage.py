"""The files of a DirectoryStorage (their names: formats/directorystorage_names.py).

All integers are big-endian. A revision::

    offset  size  content
    0       4     magic BD B8 2A 71
    4       4     length of the whole file
    8       8     oid
    16      8     tid of the revision that an undo copied this data from; else zeros
    24      16    zeros (reserved)
    40      16    MD5 of byte 56 to the end; zeros: it was not computed
    56      8     tid of the object's previous revision; zeros: it is the first
    64      8     own tid
    72      ...   data: two pickles, never loaded here; empty: the object's creation was undone

A transaction::

    0       4     magic 47 40 07 76
    4       4     length of the whole file
    8       8     tid
    16      8     zeros (reserved)
    24      8     tid of the previous transaction; a pack rewrites it in place
    32      16    MD5 of byte 48 to the end; zeros: it was not computed
    48      12    lengths of user, description, extension (2 bytes each), of the oids (4), of versions (2; 0)
    60      ...   user, description, extension (a pickle, never read here), oids of 8 bytes each

A pointer is the 8 bytes of a tid; before DirectoryStorage 1.0 the magic 0B FE E8 EC and then the tid.
``x.oid``, ``x.serial`` and ``x.packed`` are 8 bytes each.

Everything but pointers, ``x.*`` and bytes 24 to 31 of a transaction stays as it is once committed.
User and description are bytes in whatever encoding the site used.

Source: DirectoryStorage 1.1.21, and files that it wrote.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import md5
from typing import NamedTuple

from perdure.errors import SourceDamaged

REVISION_MAGIC = bytes.fromhex("BDB82A71")
TRANSACTION_MAGIC = bytes.fromhex("47400776")
OLD_POINTER_MAGIC = bytes.fromhex("0BFEE8EC")
NO_MD5 = bytes(16)
NOTHING_RESERVED = bytes(16)
COUNTER_SIZE = 8
MOST_BYTES = 0xFFFFFFFF
"""Bytes of the largest file: its length has 4 bytes."""
LONGEST_TEXT = 0xFFFF

REVISION_HEADER = struct.Struct(">4sIQQ16s16sQQ")
_TRANSACTION_HEADER = struct.Struct(">4sIQ8sQ16sHHHIH")
_LENGTHS = struct.Struct(">HHHIH")
_TIDS = struct.Struct(">QQ")
_REVISION_SUMMED, _TRANSACTION_SUMMED = 56, 48


@dataclass(frozen=True, slots=True)
class RevisionFile:
    """One revision of an object; tids and oid as numbers, 0: none."""

    oid: int
    tid: int
    prev: int
    data: bytes
    """Empty: the object's creation was undone."""
    undo_from: int = 0
    md5: bytes = NO_MD5
    reserved: bytes = NOTHING_RESERVED

    @classmethod
    def parse(cls, raw: bytes, where: str) -> RevisionFile:
        """Read a file. Raises SourceDamaged; whether its MD5 is right, ``md5_stands`` tells."""
        if len(raw) < REVISION_HEADER.size:
            raise damaged(where, f"it has {len(raw)} bytes, less than its header")
        magic, length, oid, undo_from, reserved, digest, prev, tid = REVISION_HEADER.unpack_from(
            raw
        )
        _check(magic == REVISION_MAGIC, where, f"it begins with {magic.hex()}")
        _check(length == len(raw), where, f"it has {len(raw)} bytes, and says {length}")
        data = raw[REVISION_HEADER.size :]
        return cls(oid, tid, prev, data, undo_from, digest, reserved)

    @classmethod
    def read(cls, raw: bytes, oid: int, tid: int, where: str) -> RevisionFile:
        """Read the file of a certain revision, and make sure that it is whole. Raises SourceDamaged."""
        found = cls.parse(raw, where)
        _check((found.oid, found.tid) == (oid, tid), where, "it is that of another revision")
        _check(found.md5_stands, where, "its MD5 is not that of its content")
        return found

    def encode(self) -> bytes:
        """Give the bytes of the file."""
        length = REVISION_HEADER.size + len(self.data)
        head = (self.oid, self.undo_from, self.reserved, self.md5, self.prev, self.tid)
        return REVISION_HEADER.pack(REVISION_MAGIC, length, *head) + self.data

    def computed_md5(self) -> bytes:
        """Give the MD5 that the file should have."""
        return _md5(_TIDS.pack(self.prev, self.tid), self.data)

    @property
    def md5_stands(self) -> bool:
        """Whether the MD5 is right, or was never computed."""
        return self.md5 in (NO_MD5, self.computed_md5())


@dataclass(frozen=True, slots=True)
class TransactionFile:
    """A transaction: who, what, which objects; tids and oids as numbers, 0: none."""

    tid: int
    prev: int
    user: bytes
    description: bytes
    extension: bytes
    """A pickle of a dictionary, or empty."""
    oids: tuple[int, ...]
    """Of the revisions that it wrote; a pack may have removed some of them."""
    md5: bytes = NO_MD5

    @classmethod
    def parse(cls, raw: bytes, where: str) -> TransactionFile:
        """Read a file. Raises SourceDamaged; whether its MD5 is right, ``md5_stands`` tells."""
        size = _TRANSACTION_HEADER.size
        if len(raw) < size:
            raise damaged(where, f"it has {len(raw)} bytes, less than its header")
        magic, length, tid, reserved, prev, digest, *lengths = _TRANSACTION_HEADER.unpack_from(raw)
        _check(magic == TRANSACTION_MAGIC, where, f"it begins with {magic.hex()}")
        _check(length == len(raw), where, f"it has {len(raw)} bytes, and says {length}")
        _check(size + sum(lengths) == length, where, "its parts do not add up to its length")
        _check(not any(reserved), where, "bytes 16 to 23 are not zero")
        _check(not lengths[4], where, "it has data of versions")
        _check(lengths[3] % 8 == 0, where, f"its oids take {lengths[3]} bytes")
        texts = []
        for each in lengths[:3]:
            texts.append(raw[size : size + each])
            size += each
        user, description, extension = texts
        return cls(tid, prev, user, description, extension, decode_oids(raw[size:]), digest)

    @classmethod
    def read(cls, raw: bytes, tid: int, where: str) -> TransactionFile:
        """Read the file of a certain transaction, and make sure that it is whole. Raises SourceDamaged."""
        found = cls.parse(raw, where)
        _check(found.tid == tid, where, "it is that of another transaction")
        _check(found.md5_stands, where, "its MD5 is not that of its content")
        return found

    def encode(self) -> bytes:
        """Give the bytes of the file. Raises ValueError when a text is too long for its format."""
        body = self._body()
        length = _TRANSACTION_SUMMED + len(body)
        head = TRANSACTION_MAGIC + length.to_bytes(4, "big") + _TIDS.pack(self.tid, 0)
        return head + self.prev.to_bytes(8, "big") + self.md5 + body

    def computed_md5(self) -> bytes:
        """Give the MD5 that the file should have."""
        return _md5(self._body())

    @property
    def md5_stands(self) -> bool:
        """Whether the MD5 is right, or was never computed."""
        return self.md5 in (NO_MD5, self.computed_md5())

    def _body(self) -> bytes:
        texts = (self.user, self.description, self.extension)
        if max(map(len, texts)) > LONGEST_TEXT:
            raise ValueError(f"a text of a transaction has at most {LONGEST_TEXT} bytes")
        oids = encode_oids(self.oids)
        return b"".join((_LENGTHS.pack(*map(len, texts), len(oids), 0), *texts, oids))


class PointerFile(NamedTuple):
    """An object's current revision; ``old``: in the form that DirectoryStorage had before 1.0."""

    tid: int
    old: bool = False

    @classmethod
    def parse(cls, raw: bytes, where: str) -> PointerFile:
        """Read a file. Raises SourceDamaged."""
        old = raw[:4] == OLD_POINTER_MAGIC and len(raw) == 12
        _check(old or len(raw) == 8, where, f"it has {len(raw)} bytes, and a pointer has 8")
        return cls(int.from_bytes(raw[-8:], "big"), old)

    def encode(self) -> bytes:
        """Give the bytes of the file."""
        return (OLD_POINTER_MAGIC if self.old else b"") + self.tid.to_bytes(8, "big")


def parse_counter(raw: bytes, where: str) -> int:
    """Read ``x.oid``, ``x.serial`` or ``x.packed``. Raises SourceDamaged."""
    _check(len(raw) == COUNTER_SIZE, where, f"it has {len(raw)} bytes, and must have 8")
    return int.from_bytes(raw, "big")


def encode_counter(value: int) -> bytes:
    """Give the bytes of ``x.oid``, ``x.serial`` or ``x.packed``."""
    return value.to_bytes(COUNTER_SIZE, "big")


def encode_oids(oids: Sequence[int]) -> bytes:
    """Give the bytes of oids, or tids, one behind the other."""
    return struct.pack(f">{len(oids)}Q", *oids)


def decode_oids(raw: bytes) -> tuple[int, ...]:
    """Read oids, or tids, that stand one behind the other. Raises struct.error for a broken one."""
    return struct.unpack(f">{len(raw) // 8}Q", raw)


def damaged(where: str, why: str) -> SourceDamaged:
    """Describe damage in a file of a DirectoryStorage, and what to do."""
    return SourceDamaged(
        f"{where} is damaged: {why}",
        hint="keep the storage as it is and take the file from an older backup;"
        " perdure directorystorage verify lists all that is damaged",
    )


def _check(right: bool, where: str, why: str) -> None:
    if not right:
        raise damaged(where, why)


def _md5(*parts: bytes) -> bytes:
    digest = md5(usedforsecurity=False)
    for part in parts:
        digest.update(part)
    return digest.digest()

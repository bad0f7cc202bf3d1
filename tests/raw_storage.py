"""Write records into a storage byte by byte, also such as no database would write."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.utils import p64, z64

CLASS = b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\0."
BROKEN = CLASS + b"\x80\x03}q\1(X\4\0\0\0data"


def referring(*oids: int, database: str = "", weak: bool = False) -> bytes:
    """Give the record of a mapping that refers to some objects."""
    return CLASS + b"\x80\x03](" + b"".join(_reference(oid, database, weak) for oid in oids) + b"e."


def _reference(oid: int, database: str, weak: bool) -> bytes:
    plain = b"C\x08" + oid.to_bytes(8, "big")
    if weak:
        return b"](X\1\0\0\0w" + plain + b"\x85eQ"
    if database:
        name = b"X" + len(database).to_bytes(4, "little") + database.encode()
        return b"](X\1\0\0\0n" + name + plain + b"\x86eQ"
    return plain + b"cother\nThing\n\x86Q"


def commit_raw(storage: Any, records: dict[int, bytes]) -> int:
    """Commit records; gives the tid."""
    meta = TransactionMetaData()
    storage.tpc_begin(meta)
    for oid, data in records.items():
        try:
            serial = storage.load(p64(oid), "")[1]
        except POSKeyError:
            serial = z64
        storage.store(p64(oid), serial, data, "", meta)
    storage.tpc_vote(meta)
    tid = storage.tpc_finish(meta)
    return int.from_bytes(tid, "big")


def raw_storage(path: Path, *transactions: dict[int, bytes]) -> list[int]:
    """Make a FileStorage of some transactions; gives their tids."""
    path.parent.mkdir(exist_ok=True)
    storage: Any = FileStorage(str(path))
    tids = [commit_raw(storage, records) for records in transactions]
    storage.close()
    return tids

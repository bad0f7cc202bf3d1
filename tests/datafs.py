"""Data.fs files made by hand, byte by byte, for what ZODB itself no longer writes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from perdure.formats.filestorage import RECORD_HEADER, TRANSACTION_HEADER

FIRST_TID = 0x03F2C0A4B21E55AA


@dataclass(frozen=True)
class Record:
    """A record: its data, or (as a number) the back pointer that it has instead."""

    oid: int
    data: bytes | int
    prev: int = 0
    tid: int | None = None
    tloc: int | None = None
    version: bytes = b""

    def encode(self, tid: int, tloc: int) -> bytes:
        pointer = isinstance(self.data, int)
        content = self.data.to_bytes(8, "big") if isinstance(self.data, int) else self.data
        header = RECORD_HEADER.pack(
            self.oid,
            tid if self.tid is None else self.tid,
            self.prev,
            tloc if self.tloc is None else self.tloc,
            len(self.version),
            0 if pointer else len(content),
        )
        version = bytes(16) + self.version if self.version else b""
        return header + version + content


@dataclass(frozen=True)
class Transaction:
    """A transaction; ``raw`` stands in for its encoded records."""

    records: Iterable[Record] = ()
    tid: int | None = None
    status: bytes = b" "
    user: bytes = b""
    description: bytes = b""
    extension: bytes = b""
    raw: bytes = b""


@dataclass
class DataFs:
    """A Data.fs that grows; ``ends`` has the position behind the magic and behind each transaction."""

    data: bytes = b"FS30"
    ends: list[int] = field(default_factory=list)
    at: list[int] = field(default_factory=list)
    """The position of each record."""
    tids: list[int] = field(default_factory=list)

    def add(self, transaction: Transaction) -> DataFs:
        """Append a transaction; without a tid of its own it gets the next one."""
        following = self.tids[-1] + 1000 if self.tids else FIRST_TID
        tid = following if transaction.tid is None else transaction.tid
        position = len(self.data)
        texts = (transaction.user, transaction.description, transaction.extension)
        before = TRANSACTION_HEADER.size + sum(map(len, texts))
        body = b""
        for record in transaction.records:
            self.at.append(position + before + len(body))
            body += record.encode(tid, position)
        body += transaction.raw
        length = before + len(body)
        header = TRANSACTION_HEADER.pack(tid, length, transaction.status, *map(len, texts))
        self.data += header + b"".join(texts) + body + length.to_bytes(8, "big")
        self.tids.append(tid)
        self.ends.append(len(self.data))
        return self


def simple(count: int = 5, objects: int = 3, size: int = 40) -> DataFs:
    """A file as ZODB would write it: each transaction writes some of the objects anew."""
    made = DataFs()
    prev: dict[int, int] = {}
    for number in range(count):
        oids = [oid for oid in range(objects) if (oid + number) % 2 == 0 or number == 0]
        records = [
            Record(oid, b"%d:%d " % (oid, number) * (size // 4), prev.get(oid, 0)) for oid in oids
        ]
        made.add(Transaction(records, user=b"admin", description=b"/plone edit %d" % number))
        prev |= dict(zip(oids, made.at[-len(oids) :], strict=True))
    return made

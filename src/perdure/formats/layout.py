"""A layout: how one Data.fs arranges the records of a segment.

A layout stands for a range of the file, and with the payloads and catalogues that it names gives exactly
the bytes of that range. It is a file of columns (formats/columns.py) of kind "layo", version 1. Facts:

===============  ==================================================================================
fact             meaning
===============  ==================================================================================
start, end       the range of the file, in bytes
sha256           of the bytes of that range (hexadecimal)
magic            the file's first four bytes, where start is 0; else empty
segments         names of the segments whose payloads it draws on (formats/history.py); usually one
verbatim         the payload is the range itself, byte for byte, and has no catalogue
begins           position of the first transaction, when it begins before start; else null
ends_inside      the last transaction goes on in the next layout
===============  ==================================================================================

===========  =====  ==============================================================================
column       delta  one number for
===========  =====  ==============================================================================
tid          yes    each transaction in the range, in file order
status       no     ... its status byte
length       no     ... its length field
user         no     ... the length of its user (0 where the transaction begins before start)
description  no     ... the length of its description (likewise)
extension    no     ... the length of its extension (likewise)
records      no     ... the number of its records in the range
text         no     each byte of the users, descriptions and extensions of all of them
source       no     each record, in file order: which of ``segments`` has its data; 255 for a record
                    with a back pointer. Empty: all are of the first segment
live0 ...    no     each byte of a bitmap (first record: lowest bit) over the records of that
                    segment's catalogue: is it in this range? Empty: all are
back_oid     no     each back pointer, in file order: the oid of its record
back_tid     no     ... the tid of the record that it leads to; 0 for the pointer 0
prev_tid     no     each record, in file order, whose object has no earlier record in the range, in a
                    transaction that is not "p": 0 where prev is 0; 1 where it leads to the object's
                    newest record before the range; else the tid of the record that it leads to
odd_record   no     each exception: the number of its record in the range
odd_field    no     ... 0: its prev, 1: its back pointer
odd_value    no     ... what stands there
===========  =====  ==============================================================================

Everything else is arithmetic. A record's tid and tloc are those of its transaction. Its prev is 0 in a
transaction of status "p"; else the position of the object's last record in an earlier transaction of the
file, 0 if there is none. Transactions of status "u" and their records count for nothing in this; what
their records have in prev is always an exception. A reference to a transaction in which the same object
has several records means the last of them, or is an exception.

The record data of a segment fits to the layout by order: the live records of each segment, sorted by tid
and rank, are taken one by one. A chunk of a payload is in the payload's file only when one of the
records that it holds is live (formats/catalogue.py); a segment belongs to one layout of a history.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec
import numpy as np
from numpy.typing import NDArray

from perdure.errors import DamageFound
from perdure.formats import columns
from perdure.formats.columns import Column, Numbers
from perdure.formats.filestorage import MAGICS

KIND, VERSION = b"layo", 1
BACK_POINTER = 255
SEGMENTS_LIMIT = 250
ODD_PREV, ODD_BACK = 0, 1
NEWEST = 1
"""In ``prev_tid``: no commit has this tid."""
_TRANSACTION = ("tid", "status", "length", "user", "description", "extension", "records")
_REFERENCES = ("source", "back_oid", "back_tid", "prev_tid", "odd_record", "odd_field", "odd_value")


class LayoutFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a layout says about its range as a whole."""

    start: int
    end: int
    sha256: str
    magic: str = ""
    segments: tuple[str, ...] = ()
    verbatim: bool = False
    begins: int | None = None
    ends_inside: bool = False


@dataclass(frozen=True)
class Transactions:
    """The transactions of a range: a number for each, and their texts one behind the other."""

    tid: Numbers
    status: Numbers
    length: Numbers
    user: Numbers
    description: Numbers
    extension: Numbers
    records: Numbers
    text: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.tid)

    @property
    def packed(self) -> NDArray[np.bool_]:
        """Which of them a pack rewrote (status "p")."""
        return np.equal(self.status, ord("p"))

    @property
    def undone(self) -> NDArray[np.bool_]:
        """Which of them ZODB skips (status "u")."""
        return np.equal(self.status, ord("u"))


@dataclass(frozen=True)
class Layout:
    """How a range of a Data.fs arranges the records of its segments; see the module for each part."""

    facts: LayoutFacts
    transactions: Transactions
    source: Numbers
    live: tuple[NDArray[np.bool_] | None, ...]
    back_oid: Numbers
    back_tid: Numbers
    prev_tid: Numbers
    odd_record: Numbers
    odd_field: Numbers
    odd_value: Numbers

    @property
    def size(self) -> int:
        """Bytes of the range."""
        return self.facts.end - self.facts.start

    def live_records(self, number: int, count: int) -> NDArray[np.bool_]:
        """For each of the ``count`` records of the catalogue of segment ``number``: is it in the range?

        Raises DamageFound.
        """
        live = self.live[number]
        if live is None:
            return np.ones(count, bool)
        if len(live) < count:
            raise DamageFound(
                f"the layout at byte {self.facts.start} tells of {len(live)} records of segment"
                f" {self.facts.segments[number]}, which has {count}"
            )
        return live[:count]

    def positions(self) -> NDArray[np.int64]:
        """Where each transaction of the range begins in the file."""
        sizes = self.transactions.length.astype(np.int64) + 8
        first = self.facts.start + len(self.facts.magic)
        if self.facts.begins is not None:
            first = self.facts.begins
        return first + np.concatenate(([0], np.cumsum(sizes)[:-1])).astype(np.int64)[: len(sizes)]

    def encode(self) -> bytes:
        """Give the bytes of the file."""
        found: dict[str, Column] = {
            name: (getattr(self.transactions, name), name == "tid") for name in _TRANSACTION
        }
        found["text"] = (self.transactions.text, False)
        for name in _REFERENCES:
            found[name] = (getattr(self, name), False)
        for number, live in enumerate(self.live):
            if live is not None:
                found[f"live{number}"] = (np.packbits(live, bitorder="little"), False)
        return columns.encode(KIND, VERSION, self.facts, found)

    @classmethod
    def decode(cls, data: bytes, where: str) -> Layout:
        """Read and check a file. Raises DamageFound."""
        facts, found = columns.decode(data, KIND, VERSION, LayoutFacts, where)
        names = {*_TRANSACTION, "text", *_REFERENCES}
        bitmaps = {f"live{number}" for number in range(len(facts.segments))}
        if not names <= found.keys() <= names | bitmaps:
            raise DamageFound(f"{where}: its columns are not those of a layout")
        live = tuple(_bitmap(found.get(f"live{number}")) for number in range(len(facts.segments)))
        transactions = Transactions(
            **{name: found[name] for name in _TRANSACTION}, text=found["text"].astype(np.uint8)
        )
        layout = cls(facts, transactions, live=live, **{name: found[name] for name in _REFERENCES})
        layout._check(where)
        return layout

    def _check(self, where: str) -> None:
        facts, transactions = self.facts, self.transactions
        counts = {len(getattr(transactions, name)) for name in _TRANSACTION}
        columns_of_text = (transactions.user, transactions.description, transactions.extension)
        texts = sum(int(column.sum()) for column in columns_of_text)
        magic = (facts.magic.encode() in MAGICS) if facts.start == 0 else not facts.magic
        consistent = (
            len(counts) == 1
            and 0 <= facts.start < facts.end < 1 << 62
            and magic
            and all(int(column.max(initial=0)) < 1 << 16 for column in columns_of_text)
            and texts == len(transactions.text)
            and len(self.back_oid) == len(self.back_tid)
            and len(self.odd_record) == len(self.odd_field) == len(self.odd_value)
            and int(self.odd_record.max(initial=0)) < columns.COUNT_LIMIT
            and int(transactions.length.max(initial=0)) < 1 << 62
            and int(transactions.records.max(initial=0)) < columns.COUNT_LIMIT
            and int(transactions.status.max(initial=0)) < 256
        )
        if not consistent:
            raise DamageFound(f"{where}: its numbers contradict each other")


def _bitmap(packed: Numbers | None) -> NDArray[np.bool_] | None:
    """Unpack a bitmap; its length is the next multiple of 8, the catalogue knows the true one."""
    if packed is None:
        return None
    return np.unpackbits(packed.astype(np.uint8), bitorder="little").astype(bool)

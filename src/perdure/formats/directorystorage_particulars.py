"""Particulars: what the files of a DirectoryStorage hold that a FileStorage has no place for.

A history of a DirectoryStorage is that of the FileStorage with the same transactions. From such a
transaction its files are *predicted*: the transaction names its records in their order and the transaction
before it; a revision names the object's revision before it, and no other that it was copied from; both
have their MD5; the pointer to the newest revision has 8 bytes. What deviates is kept in files of columns
(formats/columns.py) of kind "dsto", version 1, so that every file comes back as it was, byte for byte::

    Data.fs.history/companion/
      storage.json                                            the counters, and the format it had
      config/settings ...                                     what HOME has in config/
      particulars/03f2c0a4b21e55aa-5c1b0f9e2d7a4c38.columns   of the transactions between two tids

============  =====  ===============================================================================
column        delta  one number for
============  =====  ===============================================================================
tid           yes    each transaction that deviates
kind          no     ... 1: it has no file; 2: no MD5; 4: another previous transaction; 8: other oids
previous      no     each of kind 4: the tid that it names
oids          no     each of kind 8: how many it names
oid           no     each of these
records       no     each transaction that deviates: how many of its records do
number        no     each record that deviates: its place in its transaction
what          no     ... 1: no MD5; 2: another previous revision; 4: it was copied by an undo;
                     8: the reserved bytes are not zero; 16: its pointer, should it be the newest,
                     has the old form; 32: ... is not there
prev          no     each of what 2: the tid that it names
undo_from     no     each of what 4: the tid that it was copied from
reserved      no     two for each of what 8
============  =====  ===============================================================================
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

import msgspec
import numpy as np

from perdure.errors import DamageFound
from perdure.formats import columns
from perdure.formats.columns import Column
from perdure.formats.directorystorage import (
    NO_MD5,
    NOTHING_RESERVED,
    RevisionFile,
    TransactionFile,
)
from perdure.model import Tid

CONFIG, FACTS = "config", "storage.json"
KIND, VERSION = b"dsto", 1
USUAL_POINTER, OLD_POINTER, NO_POINTER = 0, 16, 32

_NO_FILE, _NO_MD5, _PREVIOUS, _OIDS = 1, 2, 4, 8
_BARE, _PREV, _UNDO, _RESERVED = 1, 2, 4, 8
_FACTS_LIMIT = 1 << 20
_COLUMNS = (
    *("tid", "kind", "previous", "oids", "oid", "records"),
    *("number", "what", "prev", "undo_from", "reserved"),
)


class HomeFacts(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """``storage.json``: what a HOME is as a whole. A counter is null where it has no file."""

    perdure: int = 1
    format: str
    last_oid: int | None
    packed: int | None

    def encode(self) -> bytes:
        """Give the bytes of the file."""
        return msgspec.json.encode(self) + b"\n"

    @classmethod
    def decode(cls, data: bytes, where: str) -> HomeFacts:
        """Read the file. Raises DamageFound."""
        try:
            facts = msgspec.json.decode(data[:_FACTS_LIMIT], type=cls)
        except (msgspec.MsgspecError, UnicodeError) as error:
            raise DamageFound(f"{where} cannot be read: {error}") from None
        if facts.perdure != 1:
            raise DamageFound(f"{where} has version {facts.perdure}, this program reads version 1")
        return facts


class RecordParticulars(msgspec.Struct, frozen=True, array_like=True):
    """How a revision's file deviates from what is predicted."""

    number: int
    """Its place in its transaction."""
    bare: bool = False
    """It has no MD5."""
    prev: int | None = None
    undo_from: int = 0
    reserved: bytes = NOTHING_RESERVED
    pointer: int = USUAL_POINTER


class Particulars(msgspec.Struct, frozen=True, array_like=True):
    """How the files of a transaction deviate from what is predicted."""

    tid: int
    missing: bool = False
    """The transaction has no file."""
    bare: bool = False
    """It has no MD5."""
    previous: int | None = None
    oids: tuple[int, ...] | None = None
    records: tuple[RecordParticulars, ...] = ()


class Revision(NamedTuple):
    """A revision as it was found: its file, how its pointer is, and the tid of the one before it."""

    file: RevisionFile
    pointer: int
    before: int


def particulars_of(
    tid: int, said: TransactionFile | None, previous: int, revisions: Sequence[Revision]
) -> Particulars | None:
    """Say how the files of a transaction deviate; None: they do not.

    ``previous``: the transaction before it in the FileStorage; 0: none.
    """
    records = tuple(
        each
        for number, revision in enumerate(revisions)
        if (each := _record(number, revision)) is not None
    )
    if said is None:
        return Particulars(tid, missing=True, records=records)
    oids = tuple(revision.file.oid for revision in revisions)
    found = Particulars(
        tid,
        bare=said.md5 == NO_MD5,
        previous=None if said.prev == previous else said.prev,
        oids=None if said.oids == oids else said.oids,
        records=records,
    )
    return None if found == Particulars(tid) else found


def _record(number: int, revision: Revision) -> RecordParticulars | None:
    file = revision.file
    found = RecordParticulars(
        number,
        bare=file.md5 == NO_MD5,
        prev=None if file.prev == revision.before else file.prev,
        undo_from=file.undo_from,
        reserved=file.reserved,
        pointer=revision.pointer,
    )
    return None if found == RecordParticulars(number) else found


def transaction_file(
    tid: int,
    texts: tuple[bytes, bytes, bytes],
    oids: Sequence[int],
    previous: int,
    known: Particulars | None,
) -> TransactionFile | None:
    """Make the file of a transaction; None where there was none. ``texts``: user, description, extension."""
    known = known or Particulars(tid)
    if known.missing:
        return None
    made = TransactionFile(
        tid,
        previous if known.previous is None else known.previous,
        *texts,
        oids=tuple(oids) if known.oids is None else known.oids,
    )
    return made if known.bare else replace(made, md5=made.computed_md5())


def revision_file(
    oid: int, tid: int, data: bytes, before: int, known: RecordParticulars | None
) -> RevisionFile:
    """Make the file of a revision; ``before``: the tid of the object's revision before it."""
    known = known or RecordParticulars(0)
    prev = before if known.prev is None else known.prev
    made = RevisionFile(oid, tid, prev, data, known.undo_from, NO_MD5, known.reserved)
    return made if known.bare else replace(made, md5=made.computed_md5())


def file_name(known: Sequence[Particulars]) -> str:
    """Name the file of some particulars, in the order of their tids."""
    return f"{Tid(known[0].tid)}-{Tid(known[-1].tid)}.columns"


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


def encode(known: Sequence[Particulars]) -> bytes:
    """Put particulars, in the order of their tids, into one file."""
    records = [record for each in known for record in each.records]
    other = [each.oids for each in known if each.oids is not None]
    tables: dict[str, list[int]] = {
        "tid": [each.tid for each in known],
        "kind": [_kind(each) for each in known],
        "previous": [each.previous for each in known if each.previous is not None],
        "oids": [len(oids) for oids in other],
        "oid": [oid for oids in other for oid in oids],
        "records": [len(each.records) for each in known],
        "number": [record.number for record in records],
        "what": [_what(record) for record in records],
        "prev": [record.prev for record in records if record.prev is not None],
        "undo_from": [record.undo_from for record in records if record.undo_from],
        "reserved": [
            int.from_bytes(half, "big")
            for record in records
            if record.reserved != NOTHING_RESERVED
            for half in (record.reserved[:8], record.reserved[8:])
        ],
    }
    made: dict[str, Column] = {
        name: (np.array(numbers, np.uint64), name == "tid") for name, numbers in tables.items()
    }
    return columns.encode(KIND, VERSION, _Facts(), made)


def decode(data: bytes, where: str) -> list[Particulars]:
    """Read a file. Raises DamageFound."""
    _, found = columns.decode(data, KIND, VERSION, _Facts, where)
    if set(found) != set(_COLUMNS):
        raise DamageFound(f"{where}: its columns are {', '.join(sorted(found))}")
    table = {name: iter(numbers.tolist()) for name, numbers in found.items()}
    try:
        known = [_particulars(tid, table) for tid in table["tid"]]
    except (StopIteration, RuntimeError):
        raise DamageFound(f"{where}: a column is shorter than another one says") from None
    if any(True for numbers in table.values() for _ in numbers):
        raise DamageFound(f"{where}: a column is longer than another one says")
    return known


def _particulars(tid: int, table: dict[str, Iterator[int]]) -> Particulars:
    kind, count = next(table["kind"]), next(table["records"])
    previous = next(table["previous"]) if kind & _PREVIOUS else None
    oids = None
    if kind & _OIDS:
        wanted = next(table["oids"])
        oids = tuple(islice(table["oid"], wanted))
        if len(oids) < wanted:
            raise StopIteration
    records = tuple([_decoded(table) for _ in range(count)])
    return Particulars(tid, bool(kind & _NO_FILE), bool(kind & _NO_MD5), previous, oids, records)


def _decoded(table: dict[str, Iterator[int]]) -> RecordParticulars:
    number, what = next(table["number"]), next(table["what"])
    return RecordParticulars(
        number,
        bool(what & _BARE),
        next(table["prev"]) if what & _PREV else None,
        next(table["undo_from"]) if what & _UNDO else 0,
        b"".join(next(table["reserved"]).to_bytes(8, "big") for _ in range(2))
        if what & _RESERVED
        else NOTHING_RESERVED,
        what & (OLD_POINTER | NO_POINTER),
    )


def _bits(*flags: bool) -> int:
    """Give the number whose bits these are, the lowest first."""
    return sum(is_set << bit for bit, is_set in enumerate(flags))


def _kind(each: Particulars) -> int:
    return _bits(each.missing, each.bare, each.previous is not None, each.oids is not None)


def _what(record: RecordParticulars) -> int:
    return record.pointer | _bits(
        record.bare,
        record.prev is not None,
        record.undo_from > 0,
        record.reserved != NOTHING_RESERVED,
    )

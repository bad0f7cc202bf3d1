"""Whether one file of a storage is what its name says."""

from __future__ import annotations

from perdure.formats.directorystorage import (
    NOTHING_RESERVED,
    PointerFile,
    RevisionFile,
    TransactionFile,
    damaged,
    parse_counter,
)
from perdure.formats.directorystorage_names import Kind, Name


def check_content(name: Name, raw: bytes, where: str) -> None:
    """Make sure that a file of the database is what its name says. Raises SourceDamaged."""
    if name.kind is Kind.REVISION:
        revision = RevisionFile.read(raw, name.oid, name.tid, where)
        if revision.reserved != NOTHING_RESERVED:
            raise damaged(where, "bytes 24 to 39 are not zero")
    elif name.kind is Kind.TRANSACTION:
        TransactionFile.read(raw, name.tid, where)
    elif name.kind is Kind.POINTER:
        PointerFile.parse(raw, where)
    elif name.kind is Kind.COUNTER:
        parse_counter(raw, where)

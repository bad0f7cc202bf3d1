"""Whether one file of a storage is what its name says."""

from __future__ import annotations

from perdure.formats.directorystorage import (
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
        revision = RevisionFile.parse(raw, where)
        right = (revision.oid, revision.tid) == (name.oid, name.tid) and revision.md5_stands
        if not right or any(revision.reserved):
            raise damaged(where, "its content is not what was written")
    elif name.kind is Kind.TRANSACTION:
        transaction = TransactionFile.parse(raw, where)
        if transaction.tid != name.tid or not transaction.md5_stands:
            raise damaged(where, "its content is not what was written")
    elif name.kind is Kind.POINTER:
        PointerFile.parse(raw, where)
    elif name.kind is Kind.COUNTER:
        parse_counter(raw, where)

"""Copy a restored FileStorage with its blobs into another storage, such as a RelStorage."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perdure.errors import UsageError
from perdure.formats.filestorage import MAGIC_SIZE, PYTHON_2
from perdure.model import NO_TID, Observer, Tid
from perdure.sources.protocol import Blobs
from perdure.sources.storage_writer import StorageWriter, opened_writer


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied where: numbers of transactions, of blobs whose file is nowhere, and the last tid."""

    place: str
    copied: int
    already_there: int
    """Transactions up to the last one that the storage had before."""
    blobs_missing: int
    cut: Tid


def copy_into(
    filestorage: Path,
    blobs: Blobs | None,
    zconfig: str,
    observer: Observer,
    *,
    until: Tid | None = None,
) -> CopyReport:
    """Copy the transactions of a FileStorage, up to ``until``, into the storage of a ZConfig text.

    That must be empty, or have been copied into before: then it goes on behind its last transaction.
    Each transaction is committed by itself, with its own tid. Records have their data, so that nothing
    depends on back pointers. Raises UsageError when the storage holds anything else, SourceUnusable when
    it cannot be opened, StoreError when it cannot be written to.
    """
    from ZODB.FileStorage import FileIterator

    _refuse_python_2(filestorage)
    stop = None if until is None else until.value.to_bytes(8, "big")
    total = filestorage.stat().st_size
    copied = there = done = missing = 0
    cut = NO_TID
    with (
        opened_writer(zconfig) as target,
        closing(FileIterator(str(filestorage), None, stop)) as ours,
    ):
        last = target.last_tid()
        for transaction in _behind(target, ours, last) if last else ours:
            if transaction is None:
                there += 1
                continue
            size, lacking = target.restore(transaction, blobs)
            copied, missing, done = copied + 1, missing + lacking, done + size
            cut = Tid.from_bytes(transaction.tid)
            observer.progress("copy", done, total)
        return CopyReport(target.place, copied, there, missing, cut if copied else Tid(last))


def _refuse_python_2(filestorage: Path) -> None:
    """ZODB on Python 3 reads no file of Python 2, since it could not tell its texts from its bytes."""
    with open(filestorage, "rb") as file:
        if file.read(MAGIC_SIZE) == PYTHON_2:
            raise UsageError(
                "the database has Python 2's pickles, which no storage of Python 3 may be given",
                hint="restore it into a folder with --to, convert it with zodbupdate, and copy that",
            )


def _behind(target: StorageWriter, ours: Iterator[Any], last: int) -> Iterator[Any]:
    """Give None for each transaction that the target has, or had, and then those behind its last one.

    A storage without history no longer has all that was copied into it. The last one is compared by its
    records, the others by their tids. Raises UsageError.
    """
    theirs = target.reader.transactions(0, None)
    expected = next(theirs)
    for transaction in ours:
        tid, wanted = transaction.tid, expected.tid if expected is not None else None
        if wanted is None:
            yield transaction
            continue
        if tid > wanted or (tid < wanted and target.reader.keeps_history):
            raise _foreign(target, wanted)
        if tid == wanted:
            if int.from_bytes(tid, "big") == last and not _equal(target, transaction, expected):
                raise _foreign(target, wanted)
            expected = next(theirs, None)
        yield None
    if expected is not None:
        raise _foreign(target, expected.tid)


def _equal(target: StorageWriter, ours: Any, theirs: Any) -> bool:
    mine = {record.oid: record.data for record in ours}
    return mine == {record.oid: record.data for record in target.reader.records(theirs)}


def _foreign(target: StorageWriter, tid: bytes) -> UsageError:
    return UsageError(
        f"{target.place} is not empty: it has transaction {Tid.from_bytes(tid)},"
        " which is not what is restored",
        hint="give an empty storage; one that was copied into before goes on only with the same snapshot"
        " or a later one",
    )

"""Convert a DirectoryStorage into the FileStorage that holds the same: all revisions, users, texts, undos.

The HOME is read as it is, also beside its living process, and nothing in it is touched. The file is
written beside the target and put in its place when it is whole and on the disk. Its first bytes are "FS21"
where the pickles are Python 2's: ZODB on Python 3 then refuses it, rightly, and Zope on Python 2 opens
it; docs/directorystorage-conversion.md has the way on.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.formats import fsindex
from perdure.formats.filestorage import PYTHON_2
from perdure.formats.revisions import Revisions
from perdure.model import NO_TID, Observer, Tid
from perdure.pool import Pool
from perdure.sources.directorystorage.source import DirectoryStorageSource
from perdure.sources.filestorage_writer import new_filestorage, writing

if TYPE_CHECKING:
    from perdure.formats.extent import Extent


@dataclass(frozen=True, slots=True)
class ConvertReport:
    """What was written; sizes in bytes."""

    file: Path
    size: int
    cut: Tid
    """The last transaction; zero: there is none."""
    transactions: int
    records: int
    last_packed: Tid
    """Before it the storage does not tell every moment any more; zero: it was never packed."""
    without_file: tuple[Tid, ...]
    """Transactions of which only revisions were left: user and texts are not known."""
    python_2: bool
    """Whether the pickles are Python 2's."""


def convert(home: Path, target: Path, *, force: bool, observer: Observer) -> ConvertReport:
    """Write the FileStorage of a HOME's transactions, with its index; gives what it has.

    Raises SourceUnusable, SourceDamaged, UsageError when ``target`` exists and ``force`` is not given,
    TargetInUse, StoreError.
    """
    transactions = records = size = last = packed = 0
    revisions = Revisions(whole=True)
    with (
        closing(Pool()) as pool,
        DirectoryStorageSource(home).cut() as cut,
        new_filestorage(target.absolute(), pool, force=force) as new,
        writing(new),
    ):
        for extent in cut.extents(0):
            new.write(bytes(extent.data))
            _note(extent, revisions)
            transactions += len(extent.headers)
            records += len(extent.at)
            size = extent.end
            last = max([last, *(header.tid for header in extent.headers)])
            packed = max([packed, *(h.tid for h in extent.headers if h.status == b"p")])
            observer.progress("convert", size, max(cut.limit, size))
        cut.check_steady()
        new.finish(fsindex.encode(revisions, size))
        new.commit()
        python_2 = cut.magic == PYTHON_2
        if python_2:  # which cannot read the index, and says so; without one it makes its own
            target.with_name(f"{target.name}.index").unlink(missing_ok=True)
        return ConvertReport(
            file=target,
            size=size,
            cut=Tid(last) if last else NO_TID,
            transactions=transactions,
            records=records,
            last_packed=Tid(packed),
            without_file=tuple(cut.without_file),
            python_2=python_2,
        )


def _note(extent: Extent, revisions: Revisions) -> None:
    """Note where the newest record of each object stands."""
    order = extent.by_oid
    oids = extent.oid[order]
    newest = order[[*(oids[1:] != oids[:-1]), True]] if len(order) else order
    revisions.update(extent.oid[newest], extent.at[newest].astype("u8"), extent.tid[newest])

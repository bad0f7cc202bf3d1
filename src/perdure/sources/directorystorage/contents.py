"""What a HOME holds at one moment: its transactions in order, each with its revisions.

**The cut** is the last transaction that was committed when the HOME was looked at. What is committed
meanwhile, and what a careless restore left behind it, is not looked at.

**Two ways to find the transactions.** From the last one back along what each calls previous: cheap, and
enough for what was committed since the last pack. Or a *scan* of all names: it finds also the revisions
whose transaction's file a pack has dropped (``keep_policy: undoable``) or that is lost. Such a transaction
is given with its tid, its revisions, and a description that says so: ``HomeTransaction.said`` is None.

**After a pack** a moment is whole only if each object's revision of that moment is still there. The pack
drops what was not current; so moments before the greatest transaction that changed an object whose
previous revision is gone are not whole. ``Contents.boundary`` is that transaction; all up to it have
status "p".

**What is refused**, as SourceDamaged: a revision that a pointer, or a transaction since the pack, names and
that is not there; a pointer to an older revision than the newest; no pointer to one since the pack;
anything broken inside. A revision from before the pack that has no pointer is what a pack that was killed
leaves; it is kept. While a pack runs everything is refused, as SourceUnusable.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from enum import Enum
from functools import cached_property

import numpy as np
from ZODB.BaseStorage import DataRecord, TransactionRecord

from perdure.errors import SourceUnusable
from perdure.formats.columns import Numbers
from perdure.formats.directorystorage import (
    PointerFile,
    RevisionFile,
    TransactionFile,
    damaged,
)
from perdure.formats.directorystorage_names import (
    ROOT,
    SERIAL,
    Kind,
    pointer_name,
    revision_name,
    transaction_name,
)
from perdure.formats.directorystorage_settings import MINIMAL
from perdure.sources.directorystorage.home import Home, LiveView, View

_UNPACKED, _PACKED = " ", "p"
LOST = b"DirectoryStorage had revisions of this transaction, but no file of it"
"""The description of a transaction whose file is missing."""
_NOTHING_THERE = "it is missing: does config/settings name the right format?"


class PointerState(Enum):
    """What the pointer to an object's newest revision is like."""

    USUAL = 0
    OLD = 1
    """In the form from before DirectoryStorage 1.0."""
    NONE = 2
    """There is none."""


class HomeRecord(DataRecord):  # type: ignore[misc]
    """A revision, as ZODB's iterators give one; ``data`` is None where the creation was undone."""

    def __init__(self, file: RevisionFile, pointer: PointerState) -> None:
        undone = file.undo_from.to_bytes(8, "big") if file.undo_from else None
        super().__init__(
            file.oid.to_bytes(8, "big"), file.tid.to_bytes(8, "big"), file.data or None, undone
        )
        self.file, self.pointer = file, pointer


class HomeTransaction(TransactionRecord):  # type: ignore[misc]
    """A transaction, as ZODB's iterators give one: iterating over it gives its revisions."""

    def __init__(
        self,
        contents: Contents,
        tid: int,
        said: TransactionFile | None,
        oids: Sequence[int],
        status: str,
    ) -> None:
        texts = (said.user, said.description, said.extension) if said else (b"", LOST, b"")
        super().__init__(tid.to_bytes(8, "big"), status, *texts)
        self.number, self.said, self.oids = tid, said, oids
        self._contents = contents

    def __iter__(self) -> Iterator[HomeRecord]:
        """Read the revisions, in the transaction's own order. Raises SourceDamaged, SourceUnusable."""
        for oid in self.oids:
            yield self._contents.record(oid, self.number)


class Contents:
    """A HOME as it is when this is made. Raises SourceUnusable."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self.where = str(home.path)
        _refuse_others(home)
        self.view: View = LiveView(home)
        self._settled = View(home)
        self.packed = self.view.packed()
        self.serial = self.view.serial()
        self.check_steady()
        self.view.check_packed()
        self._scanned = False
        self._check_last()

    @cached_property
    def names(self) -> Names:
        """All revisions there are. Raises SourceDamaged, SourceUnusable."""
        names = Names(self.view, self.serial)
        self.check_steady()
        if self.serial and self.serial not in names.transactions(self.serial - 1, self.serial):
            raise damaged(self.view.where(transaction_name(self.serial)), _NOTHING_THERE)
        for oid in names.without_revision().tolist():
            self._pointer(oid, 0)
        self._scanned = True
        return names

    @cached_property
    def boundary(self) -> int:
        """The tid of the last transaction before which not every moment is whole; 0: all are."""
        if not self.packed:
            return 0
        before = self.names.last_before(self.packed)
        for oid, tid in self.names.first_since(self.packed):
            prev = self.revision(oid, tid).prev
            if prev and not self.names.has(oid, prev):
                return max(before, tid)
        return before

    def transactions(
        self, after: int = 0, stop: int | None = None, *, boundary: int | None = None
    ) -> Iterator[HomeTransaction]:
        """Give the transactions above ``after`` and up to ``stop``, tids rising.

        ``boundary``, where it is known, spares finding it out. Raises SourceDamaged, SourceUnusable.
        """
        stop = self.serial if stop is None else min(stop, self.serial)
        chain = self._chain(after, stop)
        if boundary is None:
            boundary = self.boundary if chain is None else 0
        if chain is not None:
            for tid in reversed(chain):
                said = self._said(tid)
                yield HomeTransaction(self, tid, said, said.oids, _status(tid, boundary))
        else:
            for tid in self.names.transactions(after, stop):
                yield self._scanned_transaction(tid, _status(tid, boundary))
        self.check_steady()

    def record(self, oid: int, tid: int) -> HomeRecord:
        """Read a revision that there must be. Raises SourceDamaged, SourceUnusable."""
        if not self._scanned:
            pointer = self._pointer_since(oid, tid)
        elif self.names.is_newest(oid, tid):
            pointer = self._pointer(oid, tid)
        else:
            pointer = PointerState.USUAL
        return HomeRecord(self.revision(oid, tid), pointer)

    def revision(self, oid: int, tid: int) -> RevisionFile:
        """Read the file of a revision that there must be. Raises SourceDamaged, SourceUnusable."""
        found = self.view.revision(oid, tid)
        if found is None:
            self.check_steady()
            raise damaged(self.view.where(revision_name(oid, tid)), "it is missing")
        return found

    def check_steady(self) -> None:
        """Make sure that no pack has begun since this was made. Raises SourceUnusable."""
        if self.home.pack_runs() or self.view.packed() != self.packed:
            raise SourceUnusable(
                f"{self.where}: a pack runs, or has run while this was read; what it removes cannot be"
                " told from what is lost",
                hint="try again when the pack has ended",
            )

    def _check_last(self) -> None:
        """Make sure that the last transaction is there: where nothing can be found, little would be amiss.

        Raises SourceDamaged.
        """
        if self.view.counter_bytes(SERIAL) is None:
            raise damaged(self.view.where(SERIAL), _NOTHING_THERE)
        if self.serial and not self.view.has(transaction_name(self.serial), self.serial):
            _ = self.names  # its revisions may be there

    def _chain(self, after: int, stop: int) -> list[int] | None:
        """Give the tids above ``after``, the greatest first; None where only a scan finds them all."""
        if not after or after < self.packed or self._scanned:
            return None
        found = []
        tid = self.serial
        while tid > after:
            said = self.view.transaction(tid)
            if said is None or said.prev >= tid:
                return None
            if tid <= stop:
                found.append(tid)
            tid = said.prev
        return found

    def _scanned_transaction(self, tid: int, status: str) -> HomeTransaction:
        there = self.names.objects(tid)
        said = self._said(tid) if self.names.has_transaction(tid) else None
        if said is None:
            return HomeTransaction(self, tid, None, there, status)
        have, named = set(there), set(said.oids)
        if tid >= self.packed and not named <= have:
            raise damaged(self.view.where(revision_name(min(named - have), tid)), "it is missing")
        oids = [oid for oid in said.oids if oid in have]
        return HomeTransaction(self, tid, said, [*oids, *sorted(have - named)], status)

    def _said(self, tid: int) -> TransactionFile:
        found = self.view.transaction(tid)
        if found is None:
            self.check_steady()
            raise damaged(self.view.where(transaction_name(tid)), "it is missing")
        return found

    def _pointer_since(self, oid: int, tid: int) -> PointerState:
        """Look at the pointer to an object of which a revision was committed since the last pack."""
        found = self.view.pointer(oid)
        if found is None or found.tid < tid:
            self.check_steady()
            raise damaged(
                self.view.where(pointer_name(oid)),
                f"it should lead to {revision_name(oid, tid)}, or to a newer revision",
            )
        return PointerState.OLD if found == PointerFile(tid, old=True) else PointerState.USUAL

    def _pointer(self, oid: int, newest: int) -> PointerState:
        """Compare an object's pointer with its newest revision; 0: it has none up to the cut."""
        found = self._settled.pointer(oid)  # most are there; looking into the journal takes longer
        if found is None or found.tid != newest:
            found = self.view.pointer(oid)
        if found is None and newest < self.packed and oid != ROOT:
            return PointerState.NONE
        if found is None:
            self.check_steady()
            raise damaged(self.view.where(pointer_name(oid)), "it is missing")
        if found.tid != newest and not self.serial < found.tid <= self.view.serial():
            self.check_steady()
            name, there = revision_name(oid, found.tid), revision_name(oid, newest)
            raise damaged(
                self.view.where(pointer_name(oid)),
                f"it leads to {name}, and the newest revision is {there if newest else 'missing'}",
            )
        return PointerState.OLD if found.old else PointerState.USUAL


class Names:
    """The revisions and transactions of a HOME up to a cut, by their names: 16 bytes of memory each."""

    def __init__(self, view: View, serial: int) -> None:
        tids, oids, said, pointers = array("Q"), array("Q"), array("Q"), array("Q")
        for name in view.names():
            if name.kind is Kind.POINTER:
                pointers.append(name.oid)
            elif name.tid <= serial:
                if name.kind is Kind.REVISION:
                    tids.append(name.tid)
                    oids.append(name.oid)
                elif name.kind is Kind.TRANSACTION:
                    said.append(name.tid)
        tid, oid = np.array(tids, np.uint64), np.array(oids, np.uint64)
        order = np.lexsort((tid, oid))
        tid, oid = tid[order], oid[order]
        once = np.append(True, (oid[1:] != oid[:-1]) | (tid[1:] != tid[:-1]))[: len(tid)]
        self._oid, self._tid = oid[once], tid[once]
        """Ascending by oid, then tid."""
        self._by_tid = np.lexsort((self._oid, self._tid))
        self._sorted = self._tid[self._by_tid]
        self._said = np.unique(np.array(said, np.uint64))
        self._pointers = np.unique(np.array(pointers, np.uint64))

    def transactions(self, after: int, stop: int) -> Iterator[int]:
        """Give the tids above ``after`` and up to ``stop``."""
        every = np.union1d(self._sorted, self._said)
        yield from every[(every > np.uint64(after)) & (every <= np.uint64(stop))].tolist()

    def objects(self, tid: int) -> list[int]:
        """Give the oids of a transaction's revisions, ascending."""
        start, end = _range(self._sorted, tid)
        found: list[int] = self._oid[self._by_tid[start:end]].tolist()
        return found

    def has_transaction(self, tid: int) -> bool:
        """Whether there is a file of a transaction."""
        return _has(self._said, tid)

    def has(self, oid: int, tid: int) -> bool:
        """Whether there is a revision."""
        start, end = _range(self._oid, oid)
        return _has(self._tid[start:end], tid)

    def is_newest(self, oid: int, tid: int) -> bool:
        """Whether a revision is the newest of its object."""
        _, end = _range(self._oid, oid)
        return bool(end) and int(self._oid[end - 1]) == oid and int(self._tid[end - 1]) == tid

    def last_before(self, tid: int) -> int:
        """Give the greatest tid of a transaction before ``tid``; 0: there is none."""
        found = [
            column[: np.searchsorted(column, np.uint64(tid))]
            for column in (self._sorted, self._said)
        ]
        return max((int(column[-1]) for column in found if len(column)), default=0)

    def first_since(self, tid: int) -> Iterator[tuple[int, int]]:
        """Give each object's first revision from ``tid`` on: oid and tid, the greatest tid first."""
        rows = np.flatnonzero(self._tid >= np.uint64(tid))
        oid, at = self._oid[rows], self._tid[rows]
        first = np.append(True, oid[1:] != oid[:-1])[: len(oid)]
        oid, at = oid[first], at[first]
        for row in np.argsort(at)[::-1]:
            yield int(oid[row]), int(at[row])

    def without_revision(self) -> Numbers:
        """Give the oids of pointers to objects that have no revision."""
        return np.setdiff1d(self._pointers, self._oid)


def _range(column: Numbers, value: int) -> tuple[int, int]:
    """Give where a value begins and ends in an ascending column."""
    sides = (np.searchsorted(column, np.uint64(value), side) for side in ("left", "right"))
    start, end = map(int, sides)
    return start, end


def _has(column: Numbers, value: int) -> bool:
    row = int(np.searchsorted(column, np.uint64(value)))
    return row < len(column) and int(column[row]) == value


def _status(tid: int, boundary: int) -> str:
    return _PACKED if tid <= boundary else _UNPACKED


def _refuse_others(home: Home) -> None:
    if home.settings.classname == MINIMAL:
        raise SourceUnusable(
            f"{home.path} is a DirectoryStorage of class Minimal: it has no transactions, hence no history",
            hint="hold a snapshot of it (perdure directorystorage snapshot) and save its files as they are",
        )
    if home.journal().replica:
        raise SourceUnusable(
            f"{home.path}: journal/replica.tar waits to be applied by the next start of the storage",
            hint="start and stop the storage once",
        )

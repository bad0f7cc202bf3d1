"""The objects of a source in a snapshot: which there are, and which record is the newest of each.

Only layouts and catalogues are read for this, no payload. What is kept are three numbers for each object,
and a little for each record that has a back pointer.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from perdure.formats.columns import Numbers
from perdure.formats.history import LayoutName
from perdure.history.in_repository import RepositoryHistory
from perdure.history.reading import check_seamless, names_until
from perdure.history.rows import Mask, Ordinals, Rows, rows_of
from perdure.model import Observer, Tid

NOWHERE = (1 << 64) - 1
"""Where a back pointer leads that leads to no record: to a tid that no commit has."""
_PENDING = 1 << 20
"""Records that may wait before they are put in order with the others."""


@dataclass(frozen=True)
class Objects:
    """The newest record of each object, by ascending oid; an object whose making was undone is gone."""

    names: Sequence[LayoutName]
    oid: Numbers
    tid: Numbers
    content: Numbers
    """The tid of the record that holds the data: another one's where there is a back pointer."""
    length: Numbers
    """Bytes of the data; 0: the object is gone, or its data is nowhere."""
    transactions: Numbers
    """The tids of all transactions, ascending."""
    records: int
    back: dict[tuple[int, int], int]
    """Of each record with a back pointer, by oid and tid: the tid of the record that holds its data."""

    def __len__(self) -> int:
        return len(self.oid)

    @property
    def gone(self) -> Mask:
        """Which objects have a record that says that they are no more."""
        none: Mask = self.content == 0
        return none

    def find(self, oids: Numbers) -> tuple[Ordinals, Mask]:
        """Give the number of each object, and whether there is such an object at all."""
        numbers = np.searchsorted(self.oid, oids)
        if not len(self.oid):
            return numbers, np.zeros(len(oids), bool)
        numbers[numbers == len(self.oid)] = 0
        return numbers, (self.oid[numbers] == oids) & ~self.gone[numbers]

    def holding(self, tids: Numbers) -> list[LayoutName]:
        """Give the layouts that can have records of some transactions."""
        lasts = np.array([name.last_tid for name in self.names], np.uint64)
        if not len(tids):
            return []
        if len(lasts) > 1 and (lasts[1:] < lasts[:-1]).any():  # tids that fall: anywhere
            return list(self.names)
        wanted = np.zeros(len(lasts) + 1, bool)
        wanted[np.searchsorted(lasts, tids, "left")] = True
        wanted[np.searchsorted(lasts, tids, "right")] = True  # a transaction may go on
        return [name for name, has in zip(self.names, wanted, strict=False) if has]


def survey_objects(history: RepositoryHistory, until: Tid | None, observer: Observer) -> Objects:
    """Find all objects that a history has after the last transaction not above ``until``.

    Raises DamageFound, StoreError.
    """
    names = history.names()
    check_seamless(names, history.where)
    return _Survey(history, names_until(names, until), until).run(observer)


class _Survey:
    def __init__(
        self, history: RepositoryHistory, names: Sequence[LayoutName], until: Tid | None
    ) -> None:
        self._history, self._names, self._until = history, names, until
        self._newest = _Newest()
        self._back: dict[tuple[int, int], int] = {}
        self._recent: tuple[LayoutName, Rows] | None = None

    def run(self, observer: Observer) -> Objects:
        transactions: list[Numbers] = []
        records = 0
        for done, name in enumerate(self._names, 1):
            rows = rows_of(self._history, name)
            self._recent = name, rows
            which = rows.counted(self._until)
            transactions.append(rows.layout.transactions.tid[which])
            records += self._note(rows, which[rows.transaction])
            observer.progress("catalogues", done, len(self._names))
        oid, tid, length = self._newest.columns()
        tids = np.concatenate(transactions) if transactions else np.zeros(0, np.uint64)
        found = Objects(self._names, oid, tid, tid, length, np.unique(tids), records, self._back)
        return self._with_contents(found) if self._back else found

    def _note(self, rows: Rows, which: Mask) -> int:
        """Enter these records; gives how many there are."""
        tids, numbers = rows.tid, np.flatnonzero(which)
        for place, number in enumerate(rows.back.tolist()):
            if which[number]:
                key = int(rows.oid[number]), int(tids[number])
                self._back[key] = self._target(key, number, int(rows.back_tid[place]), rows)
        self._newest.add(rows.oid[numbers], tids[numbers], rows.length[numbers].astype(np.uint64))
        return len(numbers)

    def _target(self, key: tuple[int, int], number: int, tid: int, rows: Rows) -> int:
        if number in rows.odd:
            tid = self._tid_at(rows.odd[number])
        return self._back.get((key[0], tid), tid) if tid != key[1] else tid

    def _tid_at(self, position: int) -> int:
        """Give the tid of the record at a position of the file; that of no transaction where none is."""
        name = self._names[
            max(bisect.bisect_right(self._names, position, key=lambda n: n.start), 1) - 1
        ]
        if self._recent is None or self._recent[0] != name:
            self._recent = name, rows_of(self._history, name)
        rows = self._recent[1]
        number = int(np.searchsorted(rows.at, position))
        if number == len(rows.at) or int(rows.at[number]) != position:
            return NOWHERE
        return int(rows.tid[number])

    def _with_contents(self, found: Objects) -> Objects:
        """Say, of the objects whose newest record has a back pointer, which record holds their data."""
        content, length = found.tid.copy(), found.length.copy()
        which = np.flatnonzero(length == 0)
        pairs = zip(found.oid[which].tolist(), found.tid[which].tolist(), strict=True)
        content[which] = [self._back[pair] for pair in pairs]
        which = which[content[which] != 0]
        wanted = {
            (oid, tid): number
            for oid, tid, number in zip(
                found.oid[which].tolist(), content[which].tolist(), which.tolist(), strict=True
            )
        }
        for oid, tid, size in self._lengths(found, content[which]):
            if (oid, tid) in wanted:
                length[wanted[oid, tid]] = size
        return replace(found, content=content, length=length)

    def _lengths(self, found: Objects, tids: Numbers) -> Iterator[tuple[int, int, int]]:
        """Give oid, tid and length of the records of some transactions."""
        for name in found.holding(tids):
            rows = rows_of(self._history, name)
            mine = np.flatnonzero(np.isin(rows.tid, tids) & (rows.length > 0))
            yield from zip(
                rows.oid[mine].tolist(),
                rows.tid[mine].tolist(),
                rows.length[mine].tolist(),
                strict=True,
            )


class _Newest:
    """Collects records; of each oid the last one counts."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Numbers, ...]] = [(np.zeros(0, np.uint64),) * 3]
        self._count = 0

    def add(self, *columns: Numbers) -> None:
        """Enter oid, tid and length of records, in file order."""
        columns = _last_of_each(columns)
        self._waiting.append(columns)
        self._count += len(columns[0])
        if self._count > max(_PENDING, len(self._waiting[0][0]) // 2):
            self._merge()

    def columns(self) -> tuple[Numbers, Numbers, Numbers]:
        """Give the newest ones by ascending oid."""
        self._merge()
        oid, tid, length = self._waiting[0]
        return oid, tid, length

    def _merge(self) -> None:
        joined = tuple(map(np.concatenate, zip(*self._waiting, strict=True)))
        self._waiting = [_last_of_each(joined)]
        self._count = 0


def _last_of_each(columns: tuple[Numbers, ...]) -> tuple[Numbers, ...]:
    """Sort by the first column; of rows that are equal in it keep the last."""
    order = np.argsort(columns[0], kind="stable")
    oid = columns[0][order]
    order = order[np.append(oid[1:] != oid[:-1], True)] if len(oid) else order
    return tuple(column[order] for column in columns)

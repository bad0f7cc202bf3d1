"""Prev and back pointers of a Data.fs as what they mean: which revision they lead to.

A position says where a record stands in one file; the tid of the record says it in every file that has
it. Here positions become tids and exceptions (for a layout, formats/layout.py), and positions again.
Both directions predict with the same rule, ``Groups``, so that what one leaves out the other knows.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.errors import DamageFound
from perdure.formats.columns import Numbers
from perdure.formats.extent import Extent
from perdure.formats.layout import NEWEST, ODD_BACK, ODD_PREV, Layout
from perdure.formats.revisions import Revisions

Identify = Callable[[int], tuple[int, int] | None]
"""From the position of a record outside the range to its oid and tid; None where no record can be."""
Locate = Callable[[int, int], int]
"""From the oid and tid of a record outside the range to the position of the last such record."""
Repeated = set[tuple[int, int]]
"""The (oid, tid) of which a file has several records."""

Ordinals = NDArray[np.int64]


@dataclass(frozen=True)
class References:
    """What a layout stores of prev and back pointers."""

    back_oid: Numbers
    back_tid: Numbers
    prev_tid: Numbers
    odd_record: Numbers
    odd_field: Numbers
    odd_value: Numbers


class Groups:
    """The records of a range by object, then transaction; a group is one object in one transaction.

    ``order`` has the numbers of the records by oid, then as in the file, without those that do not count.
    """

    def __init__(self, oid: Numbers, transaction: Ordinals, at: Ordinals, order: Ordinals) -> None:
        oids, transactions = oid[order], transaction[order]
        new_oid = np.ones(len(order), bool)
        new_oid[1:] = oids[1:] != oids[:-1]
        new_group = new_oid.copy()
        new_group[1:] |= transactions[1:] != transactions[:-1]
        self.order = order
        self.first = np.flatnonzero(new_group)
        self.sizes = np.diff(np.append(self.first, len(order)))
        self.begins_object = new_oid[self.first]
        self.oid = oids[self.first]
        self.leader = order[self.first]
        """The first record of each group."""
        last = order[self.first + self.sizes - 1] if len(order) else order
        self.position = at[last].astype(np.uint64)
        """The position of the last record of each group: what a reference to it means."""
        self.before = np.zeros(len(last), np.uint64)
        self.before[1:] = self.position[:-1]
        self.before[self.begins_object] = 0

    def spread(self, of_group: Numbers, count: int) -> Numbers:
        """Turn a number for each group into one for each of ``count`` records."""
        result = np.zeros(count, np.uint64)
        result[self.order] = np.repeat(of_group, self.sizes)
        return result

    def newest(self) -> Ordinals:
        """The numbers of the groups that are the last of their object."""
        return (
            np.flatnonzero(np.append(self.begins_object[1:], True))
            if len(self.first)
            else self.first
        )


def groups_of(extent: Extent) -> Groups:
    """Group the records of an extent that ZODB does not skip."""
    order = extent.by_oid
    if extent.undone.any():
        order = order[~extent.undone[order]]
    return Groups(extent.oid, extent.transaction_of, extent.at, order)


def note_newest(revisions: Revisions, groups: Groups, transaction: Ordinals, tid: Numbers) -> None:
    """Enter the newest record of each object into ``revisions``.

    ``transaction`` has the number of each record's transaction, ``tid`` the tid of each transaction.
    """
    newest = groups.newest()
    tids = tid[transaction[groups.leader[newest]]]
    revisions.update(groups.oid[newest], groups.position[newest], tids)


def repeated_in(extent: Extent, revisions: Revisions) -> Repeated:
    """Find the objects of which a transaction of the extent has several records.

    ``revisions`` knows what stands before the extent, which may have begun inside a transaction.
    """
    groups = Groups(extent.oid, extent.transaction_of, extent.at, extent.by_oid)
    repeated = groups.sizes > 1
    if extent.begins_inside:
        _, newest = revisions.lookup(groups.oid)
        repeated |= newest == np.uint64(extent.headers[0].tid)
    several = groups.leader[repeated]
    tids = extent.transaction_tids[extent.transaction_of[several]]
    return set(zip(extent.oid[several].tolist(), tids.tolist(), strict=True))


def describe(
    extent: Extent, groups: Groups, revisions: Revisions, identify: Identify, repeated: Repeated
) -> References:
    """Turn the prev and back pointers of an extent into tids and exceptions.

    ``repeated`` has what ``repeated_in`` found, in this extent and before it.
    """
    count = len(extent.at)
    outer = np.flatnonzero(groups.begins_object & ~extent.packed[groups.leader])
    prev_tid = _outer_tids(extent, groups, outer, revisions, identify, repeated)
    predicted = groups.before.copy()
    predicted[outer[prev_tid != 0]] = extent.prev[groups.leader[outer[prev_tid != 0]]]
    expected = groups.spread(predicted, count)
    expected[extent.packed] = 0
    odd_prev = np.flatnonzero(expected != extent.prev)
    back_oid, back_tid, odd_back, odd_value = _back_pointers(extent, identify, repeated)
    return References(
        back_oid=back_oid,
        back_tid=back_tid,
        prev_tid=prev_tid[np.argsort(groups.leader[outer], kind="stable")],
        odd_record=np.concatenate((odd_prev.astype(np.uint64), odd_back)),
        odd_field=np.repeat(
            np.array([ODD_PREV, ODD_BACK], np.uint64), [len(odd_prev), len(odd_back)]
        ),
        odd_value=np.concatenate((extent.prev[odd_prev], odd_value)),
    )


def _outer_tids(
    extent: Extent,
    groups: Groups,
    outer: Ordinals,
    revisions: Revisions,
    identify: Identify,
    repeated: Repeated,
) -> Numbers:
    """For each group whose prev leads out of the extent: what a layout says of it; 0 for an exception."""
    oids, prev = groups.oid[outer], extent.prev[groups.leader[outer]]
    position, tids = revisions.lookup(oids)
    known = np.uint64(NEWEST) if revisions.whole else tids
    result = np.where((prev == position) & (prev != 0), known, np.uint64(0))
    for number in np.flatnonzero((prev != position) & (prev != 0)).tolist():
        oid, target = int(oids[number]), int(prev[number])
        found = identify(target) if target < extent.start else None
        if found is not None and found[0] == oid and found not in repeated:
            result[number] = found[1]
    return result


def _back_pointers(
    extent: Extent, identify: Identify, repeated: Repeated
) -> tuple[Numbers, Numbers, Numbers, Numbers]:
    which, undone = np.flatnonzero(extent.length == 0), extent.undone
    oids = extent.oid[which]
    tids = np.zeros(len(which), np.uint64)
    odd: list[int] = []
    values: list[int] = []
    for number, record in enumerate(which.tolist()):
        offset = int(extent.at[record]) - extent.start + 42
        target = int.from_bytes(extent.data[offset : offset + 8], "big")
        if target == 0:
            continue
        inside = int(np.searchsorted(extent.at, target))
        if target < extent.start:
            found = identify(target)
        elif inside < record and int(extent.at[inside]) == target and not undone[inside]:
            found = (int(extent.oid[inside]), int(extent.tid[inside]))
        else:
            found = None
        if found is not None and found[0] == int(oids[number]) and found not in repeated:
            tids[number] = found[1]
        else:
            odd.append(record)
            values.append(target)
    return oids, tids, np.array(odd, np.uint64), np.array(values, np.uint64)


@dataclass(frozen=True)
class Range:
    """The records of a layout's range as columns, in file order, before their references are known."""

    oid: Numbers
    transaction: Ordinals
    at: Ordinals
    back: Ordinals
    """The numbers of the records that have a back pointer."""


def groups_in(layout: Layout, records: Range) -> Groups:
    """Group the records of a layout's range that ZODB does not skip."""
    order = np.argsort(records.oid, kind="stable")
    if layout.transactions.undone.any():
        order = order[~layout.transactions.undone[records.transaction[order]]]
    return Groups(records.oid, records.transaction, records.at, order)


def resolve(
    layout: Layout, records: Range, groups: Groups, revisions: Revisions, locate: Locate, where: str
) -> tuple[Numbers, Numbers]:
    """Turn a layout's references into positions again: prev of each record, and each back pointer.

    Raises DamageFound when the layout contradicts itself.
    """
    packed = layout.transactions.packed[records.transaction]
    outer = np.flatnonzero(groups.begins_object & ~packed[groups.leader])
    if len(outer) != len(layout.prev_tid):
        raise DamageFound(
            f"{where}: it has {len(layout.prev_tid)} outer references, not {len(outer)}"
        )
    prev_tid = np.zeros(len(outer), np.uint64)
    prev_tid[np.argsort(groups.leader[outer], kind="stable")] = layout.prev_tid
    predicted = groups.before.copy()
    predicted[outer] = _outer_positions(groups.oid[outer], prev_tid, revisions, locate)
    prev = groups.spread(predicted, len(records.oid))
    prev[packed] = 0
    back = _back_positions(layout, records, groups, locate)
    _apply_exceptions(layout, records, prev, back, where)
    return prev, back


def _outer_positions(oids: Numbers, tids: Numbers, revisions: Revisions, locate: Locate) -> Numbers:
    position, newest = revisions.lookup(oids)
    result = np.where(tids != 0, position, np.uint64(0))
    for number in np.flatnonzero((tids != 0) & (tids != NEWEST) & (tids != newest)).tolist():
        result[number] = locate(int(oids[number]), int(tids[number]))
    return result


def _back_positions(layout: Layout, records: Range, groups: Groups, locate: Locate) -> Numbers:
    tids = layout.transactions.tid
    own = {}
    if len(layout.back_tid):
        which = np.flatnonzero(np.isin(groups.oid, layout.back_oid))
        of_group = tids[records.transaction[groups.leader[which]]]
        names = zip(groups.oid[which].tolist(), of_group.tolist(), strict=True)
        own = dict(zip(names, groups.position[which].tolist(), strict=True))
    odd = {int(r) for r in layout.odd_record[layout.odd_field == ODD_BACK]}
    result = np.zeros(len(layout.back_tid), np.uint64)
    for number, record in enumerate(records.back.tolist()):
        wanted = (int(layout.back_oid[number]), int(layout.back_tid[number]))
        if wanted[1] and record not in odd:
            result[number] = own[wanted] if wanted in own else locate(*wanted)
    return result


def _apply_exceptions(
    layout: Layout, records: Range, prev: Numbers, back: Numbers, where: str
) -> None:
    which = layout.odd_record.astype(np.int64)
    if len(which) and int(which.max()) >= len(prev):
        raise DamageFound(
            f"{where}: an exception is of record {which.max()}, there are {len(prev)}"
        )
    is_back = layout.odd_field == ODD_BACK
    prev[which[~is_back]] = layout.odd_value[~is_back]
    ordinal = np.searchsorted(records.back, which[is_back])
    if len(ordinal) and (
        int(ordinal.max()) >= len(back) or (records.back[ordinal] != which[is_back]).any()
    ):
        raise DamageFound(f"{where}: an exception is of a back pointer that is not there")
    back[ordinal] = layout.odd_value[is_back]

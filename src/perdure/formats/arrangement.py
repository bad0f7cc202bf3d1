"""Where the records of a layout's range stand: all that a layout and its catalogues say without payloads."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from perdure.errors import DamageFound
from perdure.formats import references
from perdure.formats.catalogue import Catalogue, Ordinals
from perdure.formats.columns import Numbers
from perdure.formats.filestorage import (
    POINTER_SIZE,
    RECORD_HEADER,
    TRAILER_SIZE,
    TRANSACTION_HEADER,
)
from perdure.formats.layout import BACK_POINTER, Layout
from perdure.formats.references import Groups, Range
from perdure.formats.revisions import Revisions


class Arrangement:
    """The records of a layout's range as columns, in file order.

    ``catalogues`` are those of the segments that the layout names, in that order. Raises DamageFound when
    they do not fit to it.
    """

    def __init__(self, layout: Layout, catalogues: Sequence[Catalogue], where: str) -> None:
        self._layout, self._where = layout, where
        self._check_count(catalogues)
        self.transaction: Ordinals = np.repeat(
            np.arange(len(layout.transactions)), layout.transactions.records.astype(np.int64)
        )
        count = len(self.transaction)
        self.lengths: Ordinals = np.full(count, POINTER_SIZE, np.int64)
        """Bytes that stand behind each record's header."""
        self.oid: Numbers = np.zeros(count, np.uint64)
        self.back = self._place_back_pointers()
        """The numbers of the records that have a back pointer."""
        self.places = [self._place(*numbered) for numbered in enumerate(catalogues)]
        """For each catalogue: the numbers of the range's records from it, and theirs in the catalogue."""
        self.at: Ordinals = self._positions()
        records = Range(self.oid, self.transaction, self.at, self.back)
        self.records = records
        self.groups = references.groups_in(layout, records)

    def note(self, revisions: Revisions, until: int | None = None) -> None:
        """Enter the records of the range that stand before ``until`` into ``revisions``."""
        groups, tid = self.groups, self._layout.transactions.tid
        if until is not None:
            order = groups.order[self.at[groups.order] < until]
            groups = Groups(self.oid, self.transaction, self.at, order)
        references.note_newest(revisions, groups, self.transaction, tid)

    def extra(self) -> tuple[Ordinals, Ordinals]:
        """For each transaction, the bytes before its first record and behind its last one."""
        layout, transactions = self._layout, self._layout.transactions
        texts = (transactions.user + transactions.description + transactions.extension).astype(
            np.int64
        )
        before = texts + TRANSACTION_HEADER.size
        behind = np.full(len(transactions), TRAILER_SIZE, np.int64)
        if layout.facts.begins is not None and len(before):
            before[0] = 0
        if layout.facts.ends_inside and len(behind):
            behind[-1] = 0
        return before, behind

    def _check_count(self, catalogues: Sequence[Catalogue]) -> None:
        """Make sure, before there are columns as long as the layout claims, that it has these records."""
        claimed = sum(self._layout.transactions.records.tolist())
        known = len(self._layout.back_oid) + sum(
            int(self._layout.live_records(number, len(catalogue)).sum())
            for number, catalogue in enumerate(catalogues)
        )
        if claimed != known:
            raise DamageFound(f"{self._where}: it has {known} records, not {claimed}")

    def _source(self) -> Numbers:
        source = self._layout.source
        if len(source) not in (0, len(self.transaction)):
            raise DamageFound(f"{self._where}: it names the sources of {len(source)} records")
        return source if len(source) else np.zeros(len(self.transaction), np.uint64)

    def _place_back_pointers(self) -> Ordinals:
        back = np.flatnonzero(self._source() == BACK_POINTER)
        if len(back) != len(self._layout.back_oid):
            raise DamageFound(f"{self._where}: it has {len(self._layout.back_oid)} back pointers")
        self.oid[back] = self._layout.back_oid
        return back

    def _place(self, number: int, catalogue: Catalogue) -> tuple[Ordinals, Ordinals]:
        """Take the live records of one segment, in file order, as the range's records from it."""
        live = self._layout.live_records(number, len(catalogue))
        order = catalogue.file_order[live[catalogue.file_order]]
        mine = np.flatnonzero(self._source() == number)
        if len(mine) != len(order):
            raise DamageFound(
                f"{self._where}: segment {number} has {len(order)} records, not {len(mine)}"
            )
        if (catalogue.tid[order] != self._layout.transactions.tid[self.transaction[mine]]).any():
            raise DamageFound(f"{self._where}: segment {number} has other transactions")
        self.lengths[mine] = catalogue.length[order]
        self.oid[mine] = catalogue.oid[order]
        return mine, order

    def _positions(self) -> Ordinals:
        before, behind = self.extra()
        sizes = self.lengths + RECORD_HEADER.size
        done = np.cumsum(sizes) - sizes
        frames = np.cumsum(before + behind) - behind
        facts = self._layout.facts
        at: Ordinals = facts.start + len(facts.magic) + done + frames[self.transaction]
        end = facts.start + len(facts.magic) + int(sizes.sum()) + int((before + behind).sum())
        if end != facts.end:
            raise DamageFound(f"{self._where}: its parts make it end at {end}, not at {facts.end}")
        return at

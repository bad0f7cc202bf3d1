"""Decide how a FileStorage is read, given what the last snapshot has of it.

Where nothing was committed since, this is all that a run needs: nothing is imported here that is only
for reading columns.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec

from perdure.errors import DamageFound, SourceDamaged
from perdure.formats.filestorage import TransactionHeader
from perdure.formats.manifest import Proof, SourceRecord
from perdure.history.blobs import FoundBlobs, SnapshotBlobs
from perdure.history.companion import is_whole
from perdure.history.in_repository import RepositoryHistory
from perdure.history.past import HistoryPast
from perdure.model import Observer
from perdure.plan import (
    HistoryPlan,
    PieceState,
    append_history,
    compare,
    continue_history,
    full,
)
from perdure.sources.protocol import Blobs, Cut, Evidence

if TYPE_CHECKING:
    from perdure.formats.extent import Extent


@dataclass(slots=True)
class Totals:
    """What was read: numbers, the greatest packed tid, and the last transaction."""

    transactions: int = 0
    records: int = 0
    payload: int = 0
    """Bytes of record data that no earlier snapshot of the history had."""
    last_packed: int = 0
    last: TransactionHeader | None = None
    reused: bool = False
    """Whether something that an earlier snapshot has was found again."""

    def add(self, extent: Extent, since: int) -> None:
        """Count what an extent has behind the position ``since``."""
        begun = [header for header in extent.headers if header.position >= max(since, extent.start)]
        self.transactions += len(begun)
        self.records += int((extent.at >= since).sum())
        packed = [header.tid for header in begun if header.status == b"p"]
        self.last_packed = max([self.last_packed, *packed])
        self.last = begun[-1] if begun else self.last


@dataclass(frozen=True, slots=True)
class Earlier:
    """What the last snapshot of a source has of it."""

    record: SourceRecord
    history: RepositoryHistory
    blobs: SnapshotBlobs | None = None
    hostname: str = ""

    def states(self) -> list[PieceState]:
        """Describe the layouts for a plan. Raises DamageFound.

        The parts of a transaction that is larger than a layout have its tid in their names: they are one
        piece, since a file can be read from the beginning of a transaction only.
        """
        lacking = self.history.lacking()
        garbage = {start: (live, stored) for start, live, stored in self.record.garbage}
        names = self.history.names()
        groups = [list(group) for _, group in groupby(names, key=lambda name: name.last_tid)]
        ends = [*(group[0].start for group in groups[1:]), self.record.size]
        return [
            PieceState(
                group[0].start,
                end,
                live=sum(garbage.get(name.start, (1, 1))[0] for name in group),
                stored=sum(garbage.get(name.start, (1, 1))[1] for name in group),
                lacking=not lacking.isdisjoint(group),
            )
            for group, end in zip(groups, ends, strict=True)
        ]


@dataclass(frozen=True, slots=True)
class Advance:
    """What came of it: the source's new record, its history, and how much was new."""

    record: SourceRecord
    history: RepositoryHistory
    plan: HistoryPlan
    totals: Totals
    stored: Sequence[Proof] = ()
    """The ranges of the file that this run stored."""
    blobs: FoundBlobs = field(default_factory=FoundBlobs)
    companion_new: bool = False
    """Whether what is kept beside the history has changed."""


def decide(cut: Cut, earlier: Earlier | None, *, verify: bool, observer: Observer) -> HistoryPlan:
    """Say how to read the file, given what the last snapshot has. Raises SourceDamaged."""
    if earlier is None:
        return full("the source has no earlier snapshot in this repository")
    evidence = cut.evidence(earlier.record.position)
    if not evidence.same_file:
        return compare(
            "the file is another one than at the last snapshot: packed, restored or moved"
        )
    if not evidence.continues:
        return compare("the transactions of the last snapshot are no longer where they were")
    if cut.blobs is not None and _lacks_blobs(earlier, cut.blobs):
        return compare("the last snapshot lacks the blobs")
    if cut.companion is not None and not is_whole(earlier.history.folder):
        return compare("the last snapshot lacks what is kept beside the history")
    if verify and evidence.whole is not None:
        return compare("a source without history can be verified as a whole only")
    try:
        states = earlier.states()
        changed = _first_change(cut, _kept(earlier.history), observer) if verify else None
        cut.resume(HistoryPast(earlier.history))
        plan = _continue(states, cut, evidence)
        if changed is None and not evidence.certain and evidence.whole is None:
            again = _read_again(earlier.history, plan, earlier.record.size)
            changed = _first_change(cut, again, observer)
    except DamageFound as error:
        observer.warning(f"{error}; the whole source is stored again")
        return compare("the history of the last snapshot is damaged")
    if changed is not None:
        observer.warning(
            f"{cut.where} has changed since the last snapshot, in the {changed.size} bytes"
            f" from {changed.position} on"
        )
        return compare("bytes of the source have changed in place since the last snapshot")
    return plan


def _continue(states: Sequence[PieceState], cut: Cut, evidence: Evidence) -> HistoryPlan:
    if evidence.whole is not None:
        return append_history(states, cut.limit, evidence.whole)
    return continue_history(states, cut.limit)


def _read_again(history: RepositoryHistory, plan: HistoryPlan, end: int) -> Iterator[Proof]:
    """Give what a plan reads of the part of a file that an earlier run read."""
    ranges = [(start, stop or end) for start, stop in plan.read]
    for name in history.names():
        if any(start <= name.start < stop for start, stop in ranges):
            facts = history.layout(name).facts
            yield Proof(facts.start, facts.end - facts.start, facts.sha256)


def _lacks_blobs(earlier: Earlier, blobs: Blobs) -> bool:
    if earlier.blobs is None:
        return True
    record = earlier.blobs.record
    return blobs.place is not None and (record.unseen or record.place is None)


def unchanged(earlier: Earlier, identity: SourceRecord, plan: HistoryPlan) -> Advance:
    """Say that the last snapshot has everything; ``identity`` has path and tree of the source now."""
    record = msgspec.structs.replace(
        earlier.record, path=identity.path, tree=identity.tree, database=identity.database
    )
    return Advance(record, earlier.history, plan, Totals())


def _first_change(cut: Cut, ranges: Iterable[Proof], observer: Observer) -> Proof | None:
    """Find the first range of the file that is not as it was when it was stored."""
    for stored in ranges:
        if cut.proof(stored.position, stored.size) != stored:
            return stored
        observer.progress("verify", stored.position + stored.size, cut.limit)
    return None


def _kept(history: RepositoryHistory) -> Iterator[Proof]:
    for name in history.names():
        facts = history.layout(name).facts
        yield Proof(facts.start, facts.end - facts.start, facts.sha256)


def verify(cut: Cut, done: Advance, observer: Observer) -> None:
    """Read again what was read of the source, and compare it. Raises SourceDamaged."""
    changed = _first_change(cut, done.stored, observer)
    if changed is not None:
        raise SourceDamaged(
            f"{cut.where} gave other bytes when it was read again, in the {changed.size} bytes"
            f" from {changed.position} on",
            hint="the disk or the memory may be failing; no snapshot was written",
        )

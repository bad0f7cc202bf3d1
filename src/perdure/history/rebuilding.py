"""Put a Data.fs together again from its history: whole, or as it was after any of its transactions."""

from __future__ import annotations

import bisect
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from perdure.errors import DamageFound
from perdure.formats.assembly import Assembly
from perdure.formats.extent import Extent, scan, scan_part
from perdure.formats.filestorage import RECORD_HEADER, TRANSACTION_HEADER, TransactionHeader
from perdure.formats.history import LayoutName
from perdure.formats.layout import Layout, LayoutFacts
from perdure.formats.references import groups_of, note_newest
from perdure.formats.revisions import Revisions
from perdure.history.reading import (
    History,
    Piece,
    check_follows,
    check_seamless,
    names_until,
)
from perdure.model import NO_TID, Observer, Tid
from perdure.pool import Pool

_QUEUE = 16 << 20
"""Bytes that may wait for being hashed, and for being written."""


class Standing(Protocol):
    """Where bytes of the file may stand already."""

    def find(self, start: int, size: int, sha256: str) -> Path | None:
        """Say which file has the bytes of a range; None if none has."""


class Output(Protocol):
    """A file that is written from its beginning to its end, and read back meanwhile."""

    @property
    def standing(self) -> Standing | None:
        """What of the file is there already; None if nothing is."""

    def keep(self, place: Path, size: int) -> bytes:
        """Append what ``place``, found standing, has next."""

    def write(self, data: bytes) -> object:
        """Append bytes."""

    def read(self, position: int, size: int) -> bytes:
        """Read bytes that were written before."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What was put together: its size, its last transaction, and where each object's record is."""

    size: int
    cut: Tid
    revisions: Revisions
    kept: int = 0
    """Bytes that stood already, and did not come from the history."""


def rebuild(history: History, output: Output, until: Tid | None, observer: Observer) -> Rebuilt:
    """Write the file of a history, up to the last transaction that is not above ``until``.

    Every range is proved by its SHA-256; what was written is of no use if that fails. Raises
    DamageFound.
    """
    names = history.names()
    check_seamless(names, history.where)
    with (
        closing(Pool(1, _QUEUE)) as hashing,
        closing(Pool(1, _QUEUE)) as writing,
    ):
        return _Rebuilding(history, output, names, hashing, writing).run(until, observer)


class _Rebuilding:
    """Puts pieces together while what is ready is hashed and written, in order, beside it."""

    def __init__(
        self,
        history: History,
        output: Output,
        names: Sequence[LayoutName],
        hashing: Pool,
        writing: Pool,
    ) -> None:
        self._history, self._output, self._names = history, output, names
        self._hashing, self._writing = hashing, writing
        self._jobs: deque[Future[object]] = deque()
        self._revisions = Revisions()
        self._end = 0

    def run(self, until: Tid | None, observer: Observer) -> Rebuilt:
        cut, stop, kept = NO_TID, None, 0
        names = names_until(self._names, until)
        places = standing_ranges(self._history, names, until, self._output.standing, observer)
        total = names[-1].start or 1
        pieces = self._history.pieces([name for name in names if name not in places])
        for name in names:
            if name in places:
                layout = self._keep(name, places[name])
                kept += layout.facts.end - layout.facts.start
            else:
                piece = next(pieces)
                layout = piece.layout
                check_follows(layout, self._end, piece.where)
                stop = cut_position(layout, until)
                self._add(piece, stop)
                del piece  # before the next one is loaded: they are large
            self._end = layout.facts.end if stop is None else stop
            cut = last_tid(layout, until) or cut
            observer.progress("restore", self._end, max(total, self._end))
            if stop is not None:
                break
        self._settle(everything=True)
        return Rebuilt(self._end, cut, self._revisions, kept)

    def _keep(self, name: LayoutName, place: Path) -> Layout:
        """Take a range that stands already, and note its records."""
        layout = self._history.layout(name)
        check_follows(layout, self._end, self._history.where)
        self._settle(everything=True)
        data = self._output.keep(place, layout.facts.end - layout.facts.start)
        self._note(data, layout.facts, self._history.where)
        return layout

    def _add(self, piece: Piece, stop: int | None) -> None:
        if piece.layout.facts.verbatim:
            self._verbatim(piece, stop)
        else:
            self._assemble(piece, stop)

    def _assemble(self, piece: Piece, stop: int | None) -> None:
        assembly = Assembly(
            piece.layout,
            piece.catalogues,
            piece.payloads,
            self._revisions,
            self._locate,
            piece.where,
        )
        self._write(assembly.blocks(), piece, stop)
        assembly.note(self._revisions, stop)

    def _verbatim(self, piece: Piece, stop: int | None) -> None:
        chunks, facts = piece.payloads[0], piece.layout.facts
        self._write(chunks, piece, stop)
        self._note(
            b"".join(chunks)[: None if stop is None else max(stop - facts.start, 0)],
            facts,
            piece.where,
        )

    def _note(self, data: bytes, facts: LayoutFacts, where: str) -> None:
        """Note where the records in the bytes of a range are."""
        if data:
            extent = self._parse(data, facts, where)
            note_newest(
                self._revisions,
                groups_of(extent),
                extent.transaction_of,
                extent.transaction_tids,
            )

    def _parse(self, data: bytes, facts: LayoutFacts, where: str) -> Extent:
        """Take the bytes of a range apart, which may be a part of one large transaction."""
        if facts.begins is None and not facts.ends_inside:
            return scan(data, facts.start, where=where)
        begin = facts.start if facts.begins is None else facts.begins
        raw = data if facts.begins is None else self._read(begin, TRANSACTION_HEADER.size)
        header = TransactionHeader.parse(raw, 0, begin)
        return scan_part(data, facts.start, header, where=where)

    def _write(self, blocks: Iterable[bytes], piece: Piece, stop: int | None) -> None:
        """Write a range as far as ``stop``, and prove the whole of it."""
        facts = piece.layout.facts
        left = (facts.end if stop is None else stop) - facts.start
        digest = hashlib.sha256()
        for block in blocks:
            self._settle()
            self._jobs.append(self._hashing.submit(len(block), digest.update, block))
            if left:
                part = block[:left] if left < len(block) else block
                self._jobs.append(self._writing.submit(len(part), self._output.write, part))
                left -= len(part)
        self._jobs.append(self._hashing.submit(0, _prove(facts, piece.where), digest))

    def _settle(self, *, everything: bool = False) -> None:
        """Raise what went wrong with jobs that are done; wait for all of them if asked to."""
        while self._jobs and (everything or self._jobs[0].done()):
            self._jobs.popleft().result()

    def _read(self, position: int, size: int) -> bytes:
        self._settle(everything=True)
        return self._output.read(position, size)

    def _locate(self, oid: int, tid: int) -> int:
        """Find the last record of an object in a transaction that was written before.

        It walks from the object's newest record backwards; a pack cuts that way, and then the
        transaction itself is looked through.
        """
        position = self._revisions.position(oid)
        while position:
            found, at_tid, prev, *_ = RECORD_HEADER.unpack(self._read(position, RECORD_HEADER.size))
            if found != oid or at_tid <= tid or prev >= position:
                break
            position = prev
        if position and found == oid and at_tid == tid:
            return position
        return self._search(oid, tid)

    def _search(self, oid: int, tid: int) -> int:
        number = bisect.bisect_left(self._names, tid, key=lambda name: name.last_tid)
        for name in self._names[number:]:
            if name.start >= self._end:
                break
            layout = self._history.layout(name)
            for place, found in zip(layout.positions(), layout.transactions.tid, strict=True):
                if int(found) == tid:
                    position = self._record_in(int(place), oid)
                    if position:
                        return position
        raise DamageFound(
            f"{self._history.where}: object {oid:#x} has no record of transaction {tid:016x} before"
            f" byte {self._end}, but a later record refers to it"
        )

    def _record_in(self, transaction: int, oid: int) -> int:
        header = self._read(transaction, TRANSACTION_HEADER.size)
        size = int.from_bytes(header[8:16], "big") + 8
        extent = scan(self._read(transaction, size), transaction, where=self._history.where)
        mine = extent.at[extent.oid == oid]
        return int(mine[-1]) if len(mine) else 0


def standing_ranges(
    history: History,
    names: Sequence[LayoutName],
    until: Tid | None,
    standing: Standing | None,
    observer: Observer,
) -> dict[LayoutName, Path]:
    """Find the ranges, of those that belong whole to the file, whose bytes are there already."""
    found: dict[LayoutName, Path] = {}
    if not standing:
        return found
    for name in names:
        if until is not None and name.last_tid > until.value:
            break
        facts = history.layout(name).facts
        place = standing.find(facts.start, facts.end - facts.start, facts.sha256)
        if place is not None:
            found[name] = place
        observer.progress("compare", facts.end, max(names[-1].start, facts.end))
    return found


def standing_size(
    history: History, until: Tid | None, standing: Standing, observer: Observer
) -> int:
    """Say how many bytes of the file are there already, and right."""
    places = standing_ranges(history, history.names(), until, standing, observer)
    facts = (history.layout(name).facts for name in places)
    return sum(each.end - each.start for each in facts)


def _prove(facts: LayoutFacts, where: str) -> Callable[[hashlib._Hash], None]:
    def prove(digest: hashlib._Hash) -> None:
        if digest.hexdigest() != facts.sha256:
            raise DamageFound(
                f"{where}: bytes {facts.start} to {facts.end} of the file came out with the SHA-256"
                f" {digest.hexdigest()}, not with {facts.sha256}"
            )

    return prove


def cut_position(layout: Layout, until: Tid | None) -> int | None:
    """Say where the first transaction above ``until`` begins; None: there is none in the layout."""
    if until is None:
        return None
    above = (layout.transactions.tid > until.value).nonzero()[0]
    return int(layout.positions()[above[0]]) if len(above) else None


def last_tid(layout: Layout, until: Tid | None) -> Tid | None:
    """Give the tid of the last transaction of a layout that a file cut at ``until`` has."""
    tids = layout.transactions.tid
    if until is not None:
        above = (tids > until.value).nonzero()[0]
        tids = tids[: above[0]] if len(above) else tids
    return Tid(int(tids[-1])) if len(tids) else None

"""Store what was read of a Data.fs as pieces of its history."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perdure.formats.catalogue import CHUNK_LIMIT, Catalogue, Ordinals
from perdure.formats.columns import Numbers
from perdure.formats.extent import Extent
from perdure.formats.history import LayoutName
from perdure.formats.layout import BACK_POINTER, Layout
from perdure.formats.manifest import Proof
from perdure.formats.matching import MISSING, match
from perdure.formats.references import (
    Groups,
    Identify,
    Repeated,
    describe,
    groups_of,
    note_newest,
    repeated_in,
)
from perdure.formats.revisions import Revisions
from perdure.formats.segment import (
    NOTHING,
    Segment,
    digest_records,
    make_layout,
    make_segment,
    ranks,
    verbatim_chunks,
    verbatim_layout,
)
from perdure.history.deciding import Totals
from perdure.history.folders import StoredFile
from perdure.history.in_repository import RepositoryHistory, StoredSegment
from perdure.model import ChunkId, ChunkKind
from perdure.pool import Pool
from perdure.repository import Writer


@dataclass(slots=True)
class _PendingFile:
    """A file whose chunks are on their way into the repository."""

    chunks: list[Future[ChunkId]] = field(default_factory=list)
    size: int = 0

    def stored(self) -> StoredFile:
        return StoredFile(tuple(chunk.result() for chunk in self.chunks), self.size)


@dataclass(slots=True)
class _PendingPiece:
    name: LayoutName
    layout: _PendingFile
    segments: list[tuple[str, _PendingFile, _PendingFile | None]]
    kept: list[StoredSegment]


@dataclass(frozen=True, slots=True)
class OldPiece:
    """A layout of the last snapshot with its catalogues, for a file that was rewritten since."""

    layout: Layout
    segments: tuple[StoredSegment, ...]
    catalogues: tuple[Catalogue, ...]


class Recorder:
    """Stores extents of one Data.fs, given in the order of the file, in a history.

    ``floor`` is the greatest tid before the first extent; ``repeated`` grows with what is found.
    """

    def __init__(
        self,
        pool: Pool,
        writer: Writer,
        history: RepositoryHistory,
        identify: Identify,
        repeated: Repeated,
        *,
        whole: bool,
    ) -> None:
        self._pool, self._writer = pool, writer
        self._history, self._identify = history, identify
        self.repeated = repeated
        self.totals = Totals()
        self.garbage: dict[int, tuple[int, int]] = {}
        self.stored: list[Proof] = []
        """The ranges of the file that were recorded."""
        self._revisions = Revisions(whole=whole)
        self._pending: list[_PendingPiece] = []
        self._rank = 0

    def record(self, extent: Extent, floor: int, old: Sequence[OldPiece] = ()) -> None:
        """Store an extent; what ``old`` has of it is referred to."""
        digest = self._pool.submit(0, hashlib.sha256, extent.data)
        groups = groups_of(extent)
        self.repeated |= repeated_in(extent, self._revisions)
        falls = _falls(extent, floor)
        if falls or not extent.ordered:
            self.repeated |= set(zip(extent.oid.tolist(), extent.tid.tolist(), strict=True))
        if falls or not extent.regular:
            self._record_verbatim(extent, floor, digest)
        else:
            self._record_records(extent, groups, floor, old, digest)
        note_newest(self._revisions, groups, extent.transaction_of, extent.transaction_tids)

    def finish(self) -> None:
        """Wait until everything is in the repository, and enter it into the history."""
        for piece in self._pending:
            self._history.put_layout(piece.name, piece.layout.stored())
            for segment in piece.kept:
                self._history.put_segment(segment)
            for name, payload, catalogue in piece.segments:
                stored = catalogue.stored() if catalogue is not None else None
                self._history.put_segment(StoredSegment(name, payload.stored(), stored))
        self._pending.clear()

    def _record_records(
        self,
        extent: Extent,
        groups: Groups,
        floor: int,
        old: Sequence[OldPiece],
        digest: Future[hashlib._Hash],
    ) -> None:
        pieces, digests = digest_records(extent)
        rank = self._ranks(extent)
        source, live = _look_up(extent, digests, old)
        kept, kept_live = self._keep(old, live, source, extent.start)
        self.totals.reused |= bool(kept)
        names = [segment.name for segment in kept]
        segments = []
        missing = np.flatnonzero(source == MISSING)
        if len(missing):
            source[missing] = len(kept)
            segment = make_segment(extent, missing, pieces, digests, rank)
            segments.append(self._add_segment(segment))
            names.append(segment.name)
            kept_live.append(None)
        found = describe(extent, groups, self._revisions, self._identify, self.repeated)
        layout = make_layout(
            extent,
            digest.result().hexdigest(),
            names,
            source if source.any() else NOTHING,
            kept_live,
            found,
        )
        self._add_layout(layout, floor, segments, kept)

    def _record_verbatim(self, extent: Extent, floor: int, digest: Future[hashlib._Hash]) -> None:
        layout = verbatim_layout(extent, digest.result().hexdigest())
        payload = self._add_file(verbatim_chunks(extent))
        self.totals.payload += payload.size
        self._add_layout(layout, floor, [(layout.facts.segments[0], payload, None)], [])

    def _ranks(self, extent: Extent) -> Ordinals:
        if not extent.begins_inside:
            self._rank = 0
        rank = ranks(extent, self._rank)
        if extent.ends_inside:
            self._rank += int(extent.records_of[-1])
        return rank

    def _keep(
        self,
        old: Sequence[OldPiece],
        live: Sequence[NDArray[np.bool_]],
        source: Numbers,
        start: int,
    ) -> tuple[list[StoredSegment], list[NDArray[np.bool_] | None]]:
        """Take the old segments over in which something lives, without their dead chunks.

        In ``source`` the numbers of all old segments become those of the kept ones.
        """
        kept: list[StoredSegment] = []
        masks: list[NDArray[np.bool_] | None] = []
        alive = 0
        for number, (piece, place) in enumerate(_places(old)):
            now = live[number]
            if not now.any():
                continue
            catalogue = piece.catalogues[place]
            before = piece.layout.live_records(place, len(catalogue))
            source[source == number] = len(kept)
            kept.append(_without_dead_chunks(piece.segments[place], catalogue, before, now))
            masks.append(None if now.all() else now)
            alive += int(catalogue.length[now].sum())
        stored = sum(segment.payload.size for segment in kept)
        if alive < stored:
            self.garbage[start] = (alive, stored)
        return kept, masks

    def _add_segment(self, segment: Segment) -> tuple[str, _PendingFile, _PendingFile]:
        payload = self._add_file(segment.chunks())
        assert payload.size == int(segment.catalogue.length.sum()), "a payload is all its records"
        catalogue = self._add_file(_cut(segment.catalogue.encode()))
        self.totals.payload += payload.size
        return segment.name, payload, catalogue

    def _add_layout(
        self,
        layout: Layout,
        floor: int,
        segments: Iterable[tuple[str, _PendingFile, _PendingFile | None]],
        kept: list[StoredSegment],
    ) -> None:
        facts, tids = layout.facts, layout.transactions.tid
        self.stored.append(Proof(facts.start, facts.end - facts.start, facts.sha256))
        name = LayoutName(facts.start, max(int(tids.max(initial=0)), floor))
        file = self._add_file(_cut(layout.encode()))
        self._pending.append(_PendingPiece(name, file, list(segments), kept))

    def _add_file(self, chunks: Iterable[bytes]) -> _PendingFile:
        file = _PendingFile()
        for chunk in chunks:
            file.chunks.append(self._writer.add(ChunkKind.DATA, chunk))
            file.size += len(chunk)
        return file


def _falls(extent: Extent, floor: int) -> bool:
    """Whether the first transaction that begins in an extent is not above all before it."""
    begun = extent.headers[extent.begins_inside :]
    return bool(begun) and begun[0].tid <= floor


def _places(old: Sequence[OldPiece]) -> list[tuple[OldPiece, int]]:
    return [(piece, place) for piece in old for place in range(len(piece.segments))]


def _look_up(
    extent: Extent, digests: Numbers, old: Sequence[OldPiece]
) -> tuple[Numbers, list[NDArray[np.bool_]]]:
    """Say which old segment has each record: its number, MISSING, or BACK_POINTER."""
    catalogues = [piece.catalogues[place] for piece, place in _places(old)]
    usable = [
        piece.layout.live_records(place, len(piece.catalogues[place]))
        for piece, place in _places(old)
    ]
    source, live = match(extent, digests, catalogues, usable)
    source[extent.length == 0] = BACK_POINTER
    return source, live


def _without_dead_chunks(
    segment: StoredSegment, catalogue: Catalogue, before: NDArray[np.bool_], now: NDArray[np.bool_]
) -> StoredSegment:
    """Leave the chunks out of a payload's file in which no record lives any more."""
    was, still = catalogue.live_chunks(before), catalogue.live_chunks(now)
    chunks = tuple(
        chunk
        for chunk, lives in zip(segment.payload.chunks, still[was].tolist(), strict=True)
        if lives
    )
    payload = StoredFile(chunks, int(catalogue.chunks[still].sum()))
    return StoredSegment(segment.name, payload, segment.catalogue)


def _cut(data: bytes) -> list[bytes]:
    return [data[start : start + CHUNK_LIMIT] for start in range(0, len(data), CHUNK_LIMIT)]

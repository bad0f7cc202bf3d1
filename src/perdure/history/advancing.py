"""Bring the history of a FileStorage up to a cut: read what the plan says, and store it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import PurePosixPath

from perdure.errors import DamageFound
from perdure.formats.blob_records import RECORD_LIMIT, BlobRecords
from perdure.formats.extent import Extent
from perdure.formats.history import LayoutName
from perdure.formats.layout import SEGMENTS_LIMIT
from perdure.formats.manifest import COMPLETE, Position, SourceRecord
from perdure.history.blobs import FoundBlobs
from perdure.history.deciding import Advance, Earlier
from perdure.history.folders import Folder
from perdure.history.in_repository import RepositoryHistory
from perdure.history.recording import OldPiece, Recorder
from perdure.model import NO_TID, Observer, Tid
from perdure.plan import HistoryPlan, Method
from perdure.repository import Repository, Writer
from perdure.sources.protocol import Cut

_GROUP_LIMIT = 200
_SLACK = 1 << 20


def advance(
    cut: Cut,
    identity: SourceRecord,
    earlier: Earlier | None,
    plan: HistoryPlan,
    repository: Repository,
    writer: Writer,
    observer: Observer,
) -> Advance:
    """Carry a plan out. ``identity`` says name, kind, path and tree of the source. Raises SourceDamaged."""
    run = _Run(cut, earlier, plan, repository, writer, observer, identity.tree)
    return run.advance(identity)


class _Run:
    def __init__(
        self,
        cut: Cut,
        earlier: Earlier | None,
        plan: HistoryPlan,
        repository: Repository,
        writer: Writer,
        observer: Observer,
        tree: str,
    ) -> None:
        self._cut, self._earlier, self._plan, self._observer = cut, earlier, plan, observer
        continues = earlier is not None and plan.method is Method.INCREMENT
        self._base = earlier.record if earlier is not None and continues else None
        self._old_names = earlier.history.names() if earlier is not None else []
        if earlier is not None and continues:
            self._history = earlier.history
        else:
            self._history = RepositoryHistory(
                repository, Folder(repository, PurePosixPath("/", tree), None)
            )
        repeated = {(oid, tid.value) for oid, tid in self._base.repeated} if self._base else set()
        self._recorder = Recorder(
            repository.pool,
            writer,
            self._history,
            cut.identify,
            repeated,
            whole=self._base is None,
        )
        self._since = self._base.size if self._base else 0
        self._end = self._since
        self._blobs = BlobRecords()

    def advance(self, identity: SourceRecord) -> Advance:
        if self._plan.method is Method.COMPARE:
            self._compare()
        else:
            self._drop_replaced()
            for start, end in self._plan.read:
                self._read(start, end)
        self._recorder.finish()
        return Advance(
            self._record(identity),
            self._history,
            self._plan,
            self._recorder.totals,
            self._recorder.stored,
            FoundBlobs(self._blobs.certain, self._blobs.uncertain, everything=self._base is None),
        )

    def _drop_replaced(self) -> None:
        if self._base is None:
            return
        for name in self._old_names:
            if self._is_read(name.start):
                self._history.drop(name)
        if self._earlier is not None and self._earlier.history.unreadable:
            self._history.sweep()

    def _is_read(self, position: int) -> bool:
        return any(
            start <= position and (end is None or position < end) for start, end in self._plan.read
        )

    def _read(self, start: int, end: int | None) -> None:
        floor = max((name.last_tid for name in self._old_names if name.start < start), default=0)
        for extent in self._cut.extents(start, end):
            floor = self._store(extent, floor)

    def _store(self, extent: Extent, floor: int, old: Sequence[OldPiece] = ()) -> int:
        self._recorder.record(extent, floor, old)
        self._recorder.totals.add(extent, self._since)
        if self._cut.blobs is not None:
            self._blobs.add(extent, lambda position: self._cut.data_at(position, RECORD_LIMIT))
        self._end = max(self._end, extent.end)
        self._observer.progress("backup", extent.end, self._cut.limit)
        return max([floor, *(header.tid for header in extent.headers)])

    def _compare(self) -> None:
        """Look the whole file up, as many old pieces at a time as fill a window together."""
        position = floor = 0
        for group, size in self._groups():
            old = self._load(group)
            extents = self._cut.extents(
                position, last_tid=group[-1].last_tid, expected=size + size // 8 + _SLACK
            )
            for extent in extents:
                floor = self._store(extent, floor, old)
                position, old = extent.end, []
        for extent in self._cut.extents(position):
            floor = self._store(extent, floor)

    def _groups(self) -> Iterator[tuple[list[LayoutName], int]]:
        assert self._earlier is not None
        names = self._old_names
        ends = [*(name.start for name in names[1:]), self._earlier.record.size]
        group: list[LayoutName] = []
        total = 0
        for name, end in zip(names, ends, strict=True):
            if group and (
                total + end - name.start > self._cut.window or len(group) == _GROUP_LIMIT
            ):
                yield group, total
                group, total = [], 0
            group.append(name)
            total += end - name.start
        if group:
            yield group, total

    def _load(self, names: Sequence[LayoutName]) -> list[OldPiece]:
        """Load what the old history has of some layouts; what is damaged there is stored again."""
        assert self._earlier is not None
        history = self._earlier.history
        pieces: list[OldPiece] = []
        left = SEGMENTS_LIMIT
        for name in names:
            try:
                layout = history.layout(name)
                segments = history.segments(layout)
                if len(segments) > left:
                    break
                if layout.facts.verbatim or not history.has_payloads(segments):
                    continue
                catalogues = tuple(history.catalogue(segment) for segment in segments)
            except DamageFound as error:
                self._observer.warning(f"{error}; that part of the source is stored again")
                continue
            pieces.append(OldPiece(layout, tuple(segments), catalogues))
            left -= len(segments)
        return pieces

    def _record(self, identity: SourceRecord) -> SourceRecord:
        totals, base = self._recorder.totals, self._base
        last = totals.last
        garbage = dict(self._recorder.garbage)
        if base is not None:
            garbage |= {
                start: (live, stored)
                for start, live, stored in base.garbage
                if not self._is_read(start)
            }
        return SourceRecord(
            name=identity.name,
            kind=identity.kind,
            path=identity.path,
            tree=identity.tree,
            cut=Tid(last.tid) if last else base.cut if base else NO_TID,
            size=self._end,
            last_packed=Tid(max(totals.last_packed, base.last_packed.value if base else 0)),
            transactions=totals.transactions + (base.transactions if base else 0),
            records=totals.records + (base.records if base else 0),
            status=COMPLETE,
            position=self._position(),
            repeated=tuple((oid, Tid(tid)) for oid, tid in sorted(self._recorder.repeated)),
            garbage=tuple((start, *garbage[start]) for start in sorted(garbage)),
            database=identity.database,
        )

    def _position(self) -> Position | None:
        last = self._recorder.totals.last
        if last is None and self._base is not None:
            return self._base.position
        return self._cut.position(last)

"""Back up: one snapshot of some sources, each at its cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath

import msgspec

from perdure.errors import DamageFound, RepositoryDamaged, UsageError
from perdure.formats import blobs, golang, history, manifest
from perdure.formats.manifest import (
    COMPLETE,
    INCOMPLETE,
    REPAIRED,
    BlobsRecord,
    Manifest,
    SourceRecord,
)
from perdure.formats.snapshot import Snapshot
from perdure.history.blobs import BlobFolder, KeptBlobs, keep_blobs
from perdure.history.deciding import Advance, Earlier, decide, unchanged, verify
from perdure.history.folders import Folder, StoredFile
from perdure.model import NO_TID, BlobId, ChunkKind, Observer, SnapshotId, Tid
from perdure.plan import Method
from perdure.repository import Lock, Repository, Writer
from perdure.snapshots import sources_in
from perdure.sources.protocol import Blobs, Cut, Source

Listed = tuple[SnapshotId, Snapshot]
_ATTEMPTS = 3
_NAMED = 20
"""How many missing blobs are named in warnings; the snapshot knows all of them."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What a snapshot says of its making, and what is wanted beyond the usual."""

    hostname: str
    username: str
    tags: tuple[str, ...] = ()
    program_version: str = ""
    verify_source: bool = False
    skip_if_unchanged: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class BlobsReport:
    """What became of the blobs of a source; sizes in bytes."""

    count: int
    size: int
    new: int
    missing: int
    unseen: bool
    """There are blobs, but no blob directory was known."""


@dataclass(frozen=True, slots=True)
class SourceReport:
    """What became of a source; sizes in bytes."""

    name: str
    kind: str
    path: str
    cut: Tid
    size: int
    status: str
    method: str
    reason: str
    transactions_new: int
    records_new: int
    bytes_new: int
    """Bytes of record data that went into new segments."""
    bytes_read: int
    database: str = ""
    blobs: BlobsReport | None = None
    """None: its blobs were not asked for."""


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup did. Without a snapshot it was a rehearsal, or nothing had changed."""

    snapshot_id: SnapshotId | None
    sources: tuple[SourceReport, ...]
    bytes_read: int
    bytes_added: int
    seconds: float
    incomplete: bool = False


def backup(
    repository: Repository,
    lock: Lock,
    sources: Sequence[Source],
    request: BackupRequest,
    clock: Callable[[], datetime],
    observer: Observer,
) -> BackupReport:
    """Make a snapshot of the sources. Nothing exists of it before its last step.

    The sources are read in the order given: those that refer to others last. Raises SourceUnusable,
    SourceDamaged, RepositoryDamaged, RepositoryLocked, StoreError.
    """
    started = clock()
    snapshots = repository.snapshots()
    time = _time(started, snapshots, observer)
    trees = _tree_names(sources)
    root = Folder(repository, PurePosixPath("/"), None)
    with repository.writer(lock) as writer:
        run = _Run(repository, writer, snapshots, request, observer)
        done = run.read(sources, trees)
        snapshot_id = None
        if not (request.skip_if_unchanged and all(each.unchanged for each in done)):
            for each in done:
                for name, folder in each.folders.items():
                    root.adopt(name, folder)
            known = Manifest(manifest.VERSION, tuple(each.record for each in done))
            root.put(manifest.NAME, _store(writer, known.encode()))
            tree_id = root.store(writer)
            assert tree_id is not None
            snapshot = Snapshot(
                time=golang.format_moment(time),
                tree=tree_id.hex(),
                paths=tuple(source.place for source in sources),
                hostname=request.hostname,
                username=request.username,
                tags=request.tags,
                program_version=request.program_version,
            )
            snapshot_id = writer.commit(snapshot)
        return BackupReport(
            snapshot_id=None if request.dry_run else snapshot_id,
            sources=tuple(each.report for each in done),
            bytes_read=sum(each.report.bytes_read for each in done),
            bytes_added=writer.added_bytes,
            seconds=(clock() - started).total_seconds(),
            incomplete=any(each.record.status == INCOMPLETE for each in done),
        )


@dataclass(frozen=True, slots=True)
class _Done:
    """A source that was read: its record and folders in the snapshot, and what is reported of it."""

    record: SourceRecord
    folders: dict[str, Folder]
    report: SourceReport
    missing: Mapping[BlobId, str]
    unchanged: bool


class _Run:
    """One run over some sources."""

    def __init__(
        self,
        repository: Repository,
        writer: Writer,
        snapshots: Sequence[Listed],
        request: BackupRequest,
        observer: Observer,
    ) -> None:
        self._repository, self._writer = repository, writer
        self._snapshots, self._request, self._observer = snapshots, request, observer

    def read(self, sources: Sequence[Source], trees: Sequence[str]) -> list[_Done]:
        """Read the sources, all at cuts taken together before the first is read.

        Once more if a pack has meanwhile taken blobs away that a cut had.
        """
        for attempt in range(_ATTEMPTS):
            with ExitStack() as stack:
                cuts = [stack.enter_context(source.cut()) for source in sources]
                done = [self._advance(*each) for each in zip(sources, cuts, trees, strict=True)]
                packed = [
                    source.place
                    for source, cut, each in zip(sources, cuts, done, strict=True)
                    if cut.replaced and each.record.blobs and each.record.blobs.missing
                ]
                if not packed or attempt == _ATTEMPTS - 1:
                    for each in zip(sources, cuts, done, strict=True):
                        _warn(*each, self._observer)
                    break
            self._observer.warning(
                f"{', '.join(packed)}: a pack has taken blobs away while they were read;"
                " everything is read once more"
            )
        return done

    def _advance(self, source: Source, cut: Cut, tree: str, *, trust_blobs: bool = True) -> _Done:
        """Bring history and blobs of one source up to its cut."""
        earlier = _earlier(self._repository, source.name, self._snapshots, self._observer)
        if earlier is not None and not trust_blobs:
            earlier = replace(earlier, blobs=None)
        identity = SourceRecord(
            name=source.name,
            kind=source.kind,
            path=source.place,
            tree=tree,
            cut=NO_TID,
            size=0,
            last_packed=NO_TID,
            transactions=0,
            records=0,
            database=source.database,
        )
        verify_source = self._request.verify_source
        plan = decide(cut, earlier, verify=verify_source, observer=self._observer)
        if plan.method is Method.NOTHING and earlier is not None:
            done = unchanged(earlier, identity, plan)
        else:
            from perdure.history.advancing import (
                advance,  # columns and what they need: not for nothing
            )

            done = advance(
                cut, identity, earlier, plan, self._repository, self._writer, self._observer
            )
        if verify_source:
            verify(cut, done, self._observer)
        folders = {tree: done.history.folder}
        record, kept = done.record, KeptBlobs()
        if cut.blobs is not None:
            name = f"{tree.removesuffix(history.SUFFIX)}{blobs.SUFFIX}"
            try:
                folder, facts, kept = self._keep_blobs(cut.blobs, name, done, earlier)
            except RepositoryDamaged as error:
                if not trust_blobs:
                    raise
                self._observer.warning(f"{error}; all blobs are looked for anew")
                return self._advance(source, cut, tree, trust_blobs=False)
            folders[name] = folder.folder
            record = _with_blobs(record, msgspec.structs.replace(facts, tree=name))
        else:
            record = _with_blobs(record, None)
        report = _report(record, done, kept, cut.bytes_read)
        nothing_new = plan.method is Method.NOTHING and not kept.new
        return _Done(record, folders, report, kept.missing, nothing_new)

    def _keep_blobs(
        self, found: Blobs, name: str, done: Advance, earlier: Earlier | None
    ) -> tuple[BlobFolder, BlobsRecord, KeptBlobs]:
        return keep_blobs(
            found,
            done.blobs,
            earlier.blobs if earlier else None,
            BlobFolder(Folder(self._repository, PurePosixPath("/", name), None)),
            self._writer,
            self._observer,
            verify=self._request.verify_source,
        )


def _with_blobs(record: SourceRecord, facts: BlobsRecord | None) -> SourceRecord:
    status = record.status
    if status != REPAIRED:
        lacking = facts is not None and (facts.missing or facts.unseen)
        status = INCOMPLETE if lacking else COMPLETE
    return msgspec.structs.replace(record, blobs=facts, status=status)


def _warn(source: Source, cut: Cut, done: _Done, observer: Observer) -> None:
    if cut.replaced:
        observer.warning(
            f"{source.place} is another file by now: a pack has ended, or it was replaced."
            " What was read is a whole state of the storage; the next run reads the new file"
        )
    facts = done.record.blobs
    if facts is not None and facts.unseen:
        observer.warning(
            f"{source.place} has blobs, and no blob directory is known: they are not in the snapshot."
            " Give it with --blobs, or say --no-blobs"
        )
    for blob, why in list(done.missing.items())[:_NAMED]:
        observer.warning(f"{source.place}: blob {blob} {why}; it is not in the snapshot")
    if len(done.missing) > _NAMED:
        observer.warning(f"{source.place}: {len(done.missing) - _NAMED} more blobs are missing")
    for concern in source.concerns():
        observer.warning(concern)


def _earlier(
    repository: Repository, name: str, snapshots: Sequence[Listed], observer: Observer
) -> Earlier | None:
    """Find what the newest readable snapshot of a source has of it."""
    for listed in reversed(snapshots):
        try:
            there = sources_in(repository, [listed], None)
            found = next((each for each in there if each.record.name == name), None)
            if found is not None:
                found.history.names()  # nothing can be built upon a history that cannot tell them
        except DamageFound as error:
            observer.warning(f"{error}; what snapshot {listed[0][:8]} has is not built upon")
            continue
        if found is not None:
            return Earlier(found.record, found.history, found.blobs)
    return None


def _time(started: datetime, snapshots: Sequence[Listed], observer: Observer) -> datetime:
    """Give the time of a new snapshot: after all others, so that the latest is the last one made."""
    newest = max((snapshot.moment for _, snapshot in snapshots), default=None)
    if newest is None or newest < started:
        return started
    observer.warning(
        f"the clock says {started:%Y-%m-%d %H:%M:%S}, but a snapshot was made at"
        f" {newest:%Y-%m-%d %H:%M:%S} (UTC): the new one is dated just behind it. Is the clock right?"
    )
    return newest + timedelta(milliseconds=1)


def _report(record: SourceRecord, done: Advance, kept: KeptBlobs, read: int) -> SourceReport:
    facts = record.blobs
    return SourceReport(
        name=record.name,
        kind=record.kind,
        path=record.path,
        cut=record.cut,
        size=record.size,
        status=record.status,
        method=done.plan.method.value,
        reason=done.plan.reason,
        transactions_new=done.totals.transactions,
        records_new=done.totals.records,
        bytes_new=done.totals.payload,
        bytes_read=read + kept.bytes_read,
        database=record.database,
        blobs=_blobs_report(facts, kept) if facts is not None else None,
    )


def _blobs_report(facts: BlobsRecord, kept: KeptBlobs) -> BlobsReport:
    return BlobsReport(facts.count, facts.size, kept.new, len(facts.missing), facts.unseen)


def _tree_names(sources: Sequence[Source]) -> list[str]:
    """Name the folder of each source in the snapshot after its file."""
    names = [source.name for source in sources]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            "no source is given"
            if not names
            else f"two sources have the same name: {', '.join(names)}",
            hint="name a Data.fs with --filestorage",
        )
    trees: list[str] = []
    for source in sources:
        base, number = f"{PurePosixPath(source.place).name}{history.SUFFIX}", 2
        tree = base
        while tree in trees:
            tree, number = f"{number}-{base}", number + 1
        trees.append(tree)
    return trees


def _store(writer: Writer, data: bytes) -> StoredFile:
    return StoredFile((writer.add(ChunkKind.DATA, data).result(),), len(data))

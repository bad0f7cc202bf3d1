"""Back up: one snapshot of some sources, each at its cut."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from perdure.formats import golang, manifest
from perdure.formats.manifest import INCOMPLETE, FailedSource, Manifest
from perdure.formats.snapshot import Snapshot
from perdure.history.folders import Folder, StoredFile
from perdure.history.updating import Updated
from perdure.model import NO_TID, ChunkId, ChunkKind, Observer, SnapshotId, Tid
from perdure.reading_sources import Job, Kept, Listed, Reading, read_sources
from perdure.repository import Lock, Repository, Writer
from perdure.sources.protocol import Source
from perdure.trees.keeping import KeptTree

FAILED = "failed"
"""The status of a source that could not be read, while others could."""


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
    read_all: bool = False
    """Read all files of trees, those that have not changed, too."""
    job_names: Mapping[str, str] = field(default_factory=dict)
    """The job of a source, by its name: that one job fails does not stop the others. What has none is one."""

    def jobs(self, sources: Sequence[Source]) -> list[Job]:
        """Give the sources job by job."""
        jobs: defaultdict[str, list[Source]] = defaultdict(list)
        for source in sources:
            jobs[self.job_names.get(source.name, "")].append(source)
        return list(jobs.values())


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
class FilesReport:
    """What became of the files of a source."""

    files: int
    folders: int
    others: int
    """Links, pipes, devices."""
    new: int
    changed: int
    unread: int
    """They are not in the snapshot."""
    changing: int
    """They changed whenever they were read."""


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
    transactions_new: int = 0
    records_new: int = 0
    bytes_new: int = 0
    """Bytes of record data that went into new segments."""
    bytes_read: int = 0
    database: str = ""
    blobs: BlobsReport | None = None
    """None: its blobs were not asked for."""
    files: FilesReport | None = None
    """None: it is no file tree."""


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
    reading = Reading(snapshots, started, request.hostname, request.verify_source, request.read_all)
    with repository.writer(lock) as writer:
        done, failed = read_sources(repository, writer, request.jobs(sources), reading, observer)
        snapshot_id = None
        if not (request.skip_if_unchanged and all(each.unchanged for each in done)):
            snapshot = Snapshot(
                time=golang.format_moment(time),
                tree=_store_root(repository, writer, done, failed).hex(),
                paths=tuple(source.place for source in sources),
                hostname=request.hostname,
                username=request.username,
                tags=request.tags,
                program_version=request.program_version,
            )
            writer.flush()
            if not request.dry_run:
                _note_whole(repository, done)
            snapshot_id = writer.commit(snapshot)
        return BackupReport(
            snapshot_id=None if request.dry_run else snapshot_id,
            sources=(*map(_report, done), *map(_failure, failed)),
            bytes_read=sum(each.bytes_read for each in done),
            bytes_added=writer.added_bytes,
            seconds=(clock() - started).total_seconds(),
            incomplete=bool(failed) or any(each.record.status == INCOMPLETE for each in done),
        )


def _store_root(
    repository: Repository,
    writer: Writer,
    done: Sequence[Kept],
    failed: Sequence[FailedSource],
) -> ChunkId:
    """Store the root of the snapshot: what is kept of each source, and what is known of it."""
    root = Folder(repository, PurePosixPath("/"), None)
    known = Manifest(manifest.VERSION, tuple(each.record for each in done), tuple(failed))
    root.put(manifest.NAME, _store(writer, known.encode()))
    for each in sorted(done, key=lambda each: isinstance(each, KeptTree)):
        each.enter(root)
    tree = root.store(writer)
    assert tree is not None
    return tree


def _note_whole(repository: Repository, done: Sequence[Kept]) -> None:
    """Note, now that everything is flushed, what is wholly in the repository."""
    notes = repository.notes()
    for each in done:
        if each.note is not None:
            notes.note_whole(each.note)


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


def _report(done: Kept) -> SourceReport:
    record = done.record
    report = SourceReport(
        name=record.name,
        kind=record.kind,
        path=record.path,
        cut=record.cut,
        size=record.size,
        status=record.status,
        method=done.method,
        reason=done.reason,
        bytes_read=done.bytes_read,
        database=record.database,
    )
    return _with_files(report, done) if isinstance(done, KeptTree) else _with_history(report, done)


def _with_history(report: SourceReport, done: Updated) -> SourceReport:
    kept, facts, blobs = done.blobs, done.record.blobs, None
    if facts is not None:
        blobs = BlobsReport(facts.count, facts.size, kept.new, len(facts.missing), facts.unseen)
    return replace(
        report,
        transactions_new=done.totals.transactions,
        records_new=done.totals.records,
        bytes_new=done.totals.payload,
        blobs=blobs,
    )


def _with_files(report: SourceReport, done: KeptTree) -> SourceReport:
    counts = done.counts
    files = FilesReport(
        *(counts.files, counts.folders, counts.others, counts.new, counts.changed),
        *(counts.unread_count, len(counts.changing)),
    )
    return replace(report, files=files)


def _failure(failed: FailedSource) -> SourceReport:
    return SourceReport(
        name=failed.name,
        kind=failed.kind,
        path=failed.path,
        cut=NO_TID,
        size=0,
        status=FAILED,
        method="none",
        reason=failed.why,
    )


def _store(writer: Writer, data: bytes) -> StoredFile:
    return StoredFile((writer.add(ChunkKind.DATA, data).result(),), len(data))

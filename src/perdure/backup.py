"""Back up: one snapshot of some sources, each at its cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from perdure.errors import DamageFound, UsageError
from perdure.formats import golang, history, manifest
from perdure.formats.manifest import Manifest, SourceRecord
from perdure.formats.snapshot import Snapshot
from perdure.history.deciding import Advance, Earlier, decide, unchanged, verify
from perdure.history.folders import Folder, StoredFile
from perdure.model import NO_TID, ChunkKind, Observer, SnapshotId, Tid
from perdure.plan import Method
from perdure.repository import Lock, Repository, Writer
from perdure.snapshots import sources_in
from perdure.sources.filestorage import FileStorageSource, detached_writers

Listed = tuple[SnapshotId, Snapshot]


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
    sources: Sequence[FileStorageSource],
    request: BackupRequest,
    clock: Callable[[], datetime],
    observer: Observer,
) -> BackupReport:
    """Make a snapshot of the sources. Nothing exists of it before its last step.

    Raises SourceUnusable, SourceDamaged, RepositoryDamaged, RepositoryLocked, StoreError.
    """
    started = clock()
    snapshots = repository.snapshots()
    time = _time(started, snapshots, observer)
    trees = _tree_names(sources)
    root = Folder(repository, PurePosixPath("/"), None)
    advances: list[Advance] = []
    reports: list[SourceReport] = []
    with repository.writer(lock) as writer:
        for source, tree in zip(sources, trees, strict=True):
            done, report = _back_up(repository, writer, source, tree, snapshots, request, observer)
            root.adopt(tree, done.history.folder)
            advances.append(done)
            reports.append(report)
        unchanged = all(done.plan.method is Method.NOTHING for done in advances)
        snapshot_id = None
        if not (request.skip_if_unchanged and unchanged):
            known = Manifest(manifest.VERSION, tuple(done.record for done in advances))
            root.put(manifest.NAME, _store(writer, known.encode()))
            tree_id = root.store(writer)
            assert tree_id is not None
            snapshot = Snapshot(
                time=golang.format_moment(time),
                tree=tree_id.hex(),
                paths=tuple(str(source.path) for source in sources),
                hostname=request.hostname,
                username=request.username,
                tags=request.tags,
                program_version=request.program_version,
            )
            snapshot_id = writer.commit(snapshot)
        return BackupReport(
            snapshot_id=None if request.dry_run else snapshot_id,
            sources=tuple(reports),
            bytes_read=sum(report.bytes_read for report in reports),
            bytes_added=writer.added_bytes,
            seconds=(clock() - started).total_seconds(),
        )


def _back_up(
    repository: Repository,
    writer: Writer,
    source: FileStorageSource,
    tree: str,
    snapshots: Sequence[Listed],
    request: BackupRequest,
    observer: Observer,
) -> tuple[Advance, SourceReport]:
    """Bring the history of one source up to its cut."""
    earlier = _earlier(repository, source.name, snapshots, observer)
    identity = SourceRecord(
        name=source.name,
        kind=source.kind,
        path=str(source.path),
        tree=tree,
        cut=NO_TID,
        size=0,
        last_packed=NO_TID,
        transactions=0,
        records=0,
    )
    with source.cut() as cut:
        plan = decide(cut, earlier, verify=request.verify_source, observer=observer)
        if plan.method is Method.NOTHING and earlier is not None:
            done = unchanged(earlier, identity, plan)
        else:
            from perdure.history.advancing import (
                advance,  # columns and what they need: not for nothing
            )

            done = advance(cut, identity, earlier, plan, repository, writer, observer)
        if request.verify_source:
            verify(cut, done, observer)
        if cut.replaced:
            observer.warning(
                f"{source.path} is another file by now: a pack has ended, or it was replaced."
                " What was read is a whole state of the storage; the next run reads the new file"
            )
        read = cut.bytes_read
    _warn_of_detached_writers(source, observer)
    return done, _report(done, read)


def _earlier(
    repository: Repository, name: str, snapshots: Sequence[Listed], observer: Observer
) -> Earlier | None:
    """Find what the newest readable snapshot of a source has of it."""
    for listed in reversed(snapshots):
        try:
            found = next(sources_in(repository, [listed], name), None)
            if found is not None:
                found.history.names()  # nothing can be built upon a history that cannot tell them
        except DamageFound as error:
            observer.warning(f"{error}; what snapshot {listed[0][:8]} has is not built upon")
            continue
        if found is not None:
            return Earlier(found.record, found.history)
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


def _report(done: Advance, read: int) -> SourceReport:
    record = done.record
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
        bytes_read=read,
    )


def _tree_names(sources: Sequence[FileStorageSource]) -> list[str]:
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
        base, number = f"{source.path.name}{history.SUFFIX}", 2
        tree = base
        while tree in trees:
            tree, number = f"{number}-{base}", number + 1
        trees.append(tree)
    return trees


def _store(writer: Writer, data: bytes) -> StoredFile:
    return StoredFile((writer.add(ChunkKind.DATA, data).result(),), len(data))


def _warn_of_detached_writers(source: FileStorageSource, observer: Observer) -> None:
    for process in detached_writers(source.path):
        observer.warning(
            f"process {process} writes to a file that was {source.path} and is so no more: what it commits"
            " is in no backup and is lost when it stops. Copy the file from /proc before you stop it"
        )

"""Back up: one snapshot of some sources, each at its cut."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import PurePosixPath

from perdure.errors import DamageFound, UsageError
from perdure.formats import golang, history, manifest
from perdure.formats.manifest import INCOMPLETE, Manifest
from perdure.formats.snapshot import Snapshot
from perdure.history.blobs import MOST_WARNINGS
from perdure.history.deciding import Earlier
from perdure.history.folders import Folder, StoredFile
from perdure.history.updating import Updated, Updating, note_whole
from perdure.model import ChunkKind, Observer, SnapshotId, Tid
from perdure.repository import Lock, Repository, Writer
from perdure.snapshots import sources_in
from perdure.sources.protocol import Cut, Source

Listed = tuple[SnapshotId, Snapshot]
_ATTEMPTS = 3


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
    time: datetime | None = None
    """When the sources were as they are, for what an older backup had; None: now."""


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
    if request.time is None:
        time = _time(started, snapshots, observer)
    else:
        time = request.time
        snapshots = [listed for listed in snapshots if listed[1].moment < time]
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
            writer.flush()
            if not request.dry_run:
                note_whole(repository, done)
            snapshot_id = writer.commit(snapshot)
        return BackupReport(
            snapshot_id=None if request.dry_run else snapshot_id,
            sources=tuple(map(_report, done)),
            bytes_read=sum(each.bytes_read for each in done),
            bytes_added=writer.added_bytes,
            seconds=(clock() - started).total_seconds(),
            incomplete=any(each.record.status == INCOMPLETE for each in done),
        )


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
        self._updating = Updating(
            repository, writer, observer, request.hostname, verify=request.verify_source
        )

    def read(self, sources: Sequence[Source], trees: Sequence[str]) -> list[Updated]:
        """Read the sources, all at cuts taken together before the first is read.

        Once more if a pack has meanwhile taken blobs away that a cut had.
        """
        for attempt in range(_ATTEMPTS):
            with ExitStack() as stack:
                cuts = [stack.enter_context(source.cut()) for source in sources]
                done = [self._update(*each) for each in zip(sources, cuts, trees, strict=True)]
                packed = [
                    source.place
                    for source, cut, each in zip(sources, cuts, done, strict=True)
                    if cut.replaced and each.blobs.missing
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

    def _update(self, source: Source, cut: Cut, tree: str) -> Updated:
        def earlier() -> Earlier | None:
            return _earlier(self._repository, source.name, self._snapshots, self._observer)

        return self._updating.update(source, cut, tree, earlier)


def _warn(source: Source, cut: Cut, done: Updated, observer: Observer) -> None:
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
    for blob, why in list(done.blobs.missing.items())[:MOST_WARNINGS]:
        observer.warning(f"{source.place}: blob {blob} {why}; it is not in the snapshot")
    if len(done.blobs.missing) > MOST_WARNINGS:
        observer.warning(
            f"{source.place}: {len(done.blobs.missing) - MOST_WARNINGS} more blobs are missing"
        )
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
            return Earlier(found.record, found.history, found.blobs, found.snapshot.hostname)
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


def _report(done: Updated) -> SourceReport:
    record, kept, facts = done.record, done.blobs, done.record.blobs
    blobs = None
    if facts is not None:
        blobs = BlobsReport(facts.count, facts.size, kept.new, len(facts.missing), facts.unseen)
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
        bytes_read=done.bytes_read,
        database=record.database,
        blobs=blobs,
    )


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

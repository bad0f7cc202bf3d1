"""Restore: a source as a snapshot has it, or as it was at any moment that the snapshots tell."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from perdure.errors import PerdureError, RepositoryDamaged, UsageError
from perdure.formats import fsindex
from perdure.formats.snapshot import Snapshot
from perdure.history.rebuilding import Rebuilt, rebuild
from perdure.model import NO_TID, ChunkId, ChunkKind, Observer, SnapshotId, Tid
from perdure.plan import Candidate, RestoreChoice, choose_snapshot
from perdure.repository import Repository
from perdure.snapshots import Found, history_of, only_source, read_manifest, select, sources_in
from perdure.sources.filestorage_writer import new_filestorage
from perdure.sources.tree_writer import TreeWriter

LATEST = "latest"


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore, and where to."""

    target: Path
    snapshot: str = LATEST
    """``latest``, or the beginning of an id."""
    at: Tid | datetime | None = None
    source: str | None = None
    hostname: str | None = None
    tags: tuple[str, ...] = ()
    force: bool = False
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored from where, and why from there."""

    snapshot_id: SnapshotId
    source: str
    files: tuple[Path, ...]
    cut: Tid
    size: int
    reason: str


def restore(repository: Repository, request: RestoreRequest, observer: Observer) -> RestoreReport:
    """Restore a source into a directory: under the final name only what is whole and proved.

    Raises UsageError, TargetInUse, RepositoryDamaged, StoreError.
    """
    foreign = _foreign(repository, request)
    if foreign is not None:
        return _restore_tree(repository, *foreign, request, observer)
    found, choice = _choose(repository, request)
    target = request.target / _file_name(found.record.path)
    if request.dry_run:
        cut = found.record.cut if choice.until is None else min(choice.until, found.record.cut)
        return _report(found, choice, target, cut, found.record.size)
    with new_filestorage(target, repository.pool, force=request.force) as new:
        rebuilt = rebuild(found.history, new, choice.until, observer)
        _check_whole(rebuilt, choice, found)
        new.commit(fsindex.encode(rebuilt.revisions, rebuilt.size))
    return _report(found, choice, target, rebuilt.cut, rebuilt.size)


def _foreign(repository: Repository, request: RestoreRequest) -> tuple[SnapshotId, Snapshot] | None:
    """Give the snapshot that is meant, if another program wrote it."""
    if request.at is not None or request.source is not None:
        return None
    if request.snapshot == LATEST:
        chosen = next(reversed(list(select(repository, request.hostname, request.tags))), None)
    else:
        chosen = repository.find_snapshot(request.snapshot)
    return chosen if chosen and read_manifest(repository, chosen[1]) is None else None


def _restore_tree(
    repository: Repository,
    name: SnapshotId,
    snapshot: Snapshot,
    request: RestoreRequest,
    observer: Observer,
) -> RestoreReport:
    """Restore all files of a snapshot that another program wrote."""
    target = request.target
    if not request.force and target.is_dir() and any(target.iterdir()):
        raise UsageError(
            f"{target} is not empty", hint="restore into another directory, or say --force"
        )

    def load(chunks: Iterable[ChunkId]) -> Iterator[bytes]:
        return repository.load_many(ChunkKind.DATA, chunks)

    writer = TreeWriter(repository.load_tree, load, observer)
    if not request.dry_run:
        writer.write(snapshot.root, target)
    return RestoreReport(
        snapshot_id=name,
        source=", ".join(snapshot.paths or ()),
        files=(target,),
        cut=NO_TID,
        size=writer.size,
        reason=f"all files of snapshot {name[:8]}, which another program wrote",
    )


def _file_name(path: str) -> str:
    """Give the name that a source's file had. Raises RepositoryDamaged when it would lead elsewhere."""
    name = PurePosixPath(path).name
    if name in ("", "..") or "\0" in name:
        raise RepositoryDamaged(f"{path!r} is not the path of a file")
    return name


def _choose(repository: Repository, request: RestoreRequest) -> tuple[Found, RestoreChoice]:
    if request.snapshot != LATEST:
        found = [_named(repository, request)]
    elif request.at is None:
        found = [_newest(repository, request)]
    else:
        found = list(_of_one_source(repository, request))
    candidates = [
        Candidate(f.id[:8], f.snapshot.moment, f.record.cut, f.record.last_packed) for f in found
    ]
    choice = choose_snapshot(candidates, request.at)
    return found[choice.candidate], choice


def _named(repository: Repository, request: RestoreRequest) -> Found:
    name, snapshot = repository.find_snapshot(request.snapshot)
    return _found(repository, name, snapshot, request.source)


def _newest(repository: Repository, request: RestoreRequest) -> Found:
    snapshots = list(select(repository, request.hostname, request.tags))
    for name, snapshot in reversed(snapshots):
        known = read_manifest(repository, snapshot)
        if known and request.source in (None, *(record.name for record in known.sources)):
            return _found(repository, name, snapshot, request.source)
    raise _none_matches(request)


def _found(
    repository: Repository, name: SnapshotId, snapshot: Snapshot, source: str | None
) -> Found:
    known = read_manifest(repository, snapshot)
    if known is None:
        raise UsageError(
            f"snapshot {name[:8]} holds no history: another program than Perdure wrote it",
            hint="restore it as files: leave --at and --source out",
        )
    record = only_source(known, source, f"snapshot {name[:8]}")
    return Found(name, snapshot, record, history_of(repository, snapshot, record))


def _of_one_source(repository: Repository, request: RestoreRequest) -> list[Found]:
    snapshots = select(repository, request.hostname, request.tags)
    found = list(sources_in(repository, snapshots, request.source))
    names = sorted({each.record.name for each in found})
    if not names:
        raise _none_matches(request)
    if len(names) > 1:
        raise UsageError(
            f"the repository has snapshots of {len(names)} sources",
            hint=f"choose one with --source; there are: {', '.join(map(repr, names))}",
        )
    return found


def _none_matches(request: RestoreRequest) -> PerdureError:
    what = "" if request.source is None else f" of the source {request.source!r}"
    return PerdureError(
        f"the repository has no snapshot{what} that matches",
        hint="see what there is with: perdure snapshots",
    )


def _check_whole(rebuilt: Rebuilt, choice: RestoreChoice, found: Found) -> None:
    if choice.until is None and rebuilt.size != found.record.size:
        raise RepositoryDamaged(
            f"the history of {found.record.name} in snapshot {found.id[:8]} gives {rebuilt.size} bytes,"
            f" not {found.record.size}"
        )
    if choice.until is not None and rebuilt.cut == NO_TID:
        raise UsageError(
            f"at {choice.until.time:%Y-%m-%d %H:%M:%S} (UTC) the storage had no transaction yet",
            hint="see the transactions that there are with: perdure log",
        )


def _report(
    found: Found, choice: RestoreChoice, target: Path, cut: Tid, size: int
) -> RestoreReport:
    return RestoreReport(
        snapshot_id=found.id,
        source=found.record.name,
        files=(target, target.with_name(f"{target.name}.index")),
        cut=cut,
        size=size,
        reason=choice.reason,
    )

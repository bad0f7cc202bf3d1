"""What a restore takes from which snapshot, and where it puts it; with the reason."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from perdure.errors import PerdureError, RepositoryDamaged, UsageError
from perdure.formats.manifest import SourceRecord
from perdure.formats.snapshot import Snapshot
from perdure.model import SnapshotId, Tid
from perdure.plan import Candidate, choose_snapshot
from perdure.repository import Repository
from perdure.snapshots import Found, found_in, is_named, names_of, read_manifest, select, sources_in

LATEST = "latest"
_DATABASE, _BLOBS = "Data.fs", "blobstorage"
"""Names for files that had none of their own."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which sources of which snapshot are wanted, as they were when."""

    snapshot: str = LATEST
    """``latest``, or the beginning of an id."""
    at: Tid | datetime | None = None
    source: str | None = None
    """None: all sources of the snapshot."""
    hostname: str | None = None
    tags: tuple[str, ...] = ()
    found: tuple[SnapshotId, Snapshot] | None = None
    """The snapshot that is meant, once it was looked for: see `settled`."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A source in the snapshot to restore it from, up to which transaction, and why from there."""

    found: Found
    until: Tid | None
    reason: str


@dataclass(frozen=True, slots=True)
class Planned:
    """A source to restore: from where, why, and the places of its Data.fs and its blob directory."""

    chosen: Chosen
    path: Path
    blobs: Path | None
    alone: bool = True
    """No other source of the snapshot has blobs in that directory."""

    @property
    def record(self) -> SourceRecord:
        """What the snapshot says of the source."""
        return self.chosen.found.record

    @property
    def cut(self) -> Tid:
        """The moment that is restored."""
        return min(self.chosen.until or self.record.cut, self.record.cut)


def choose(repository: Repository, wanted: Wanted) -> list[Chosen]:
    """Choose a snapshot for each database that is wanted. Raises UsageError, PerdureError."""
    chosen = _choose(repository, wanted)
    if not chosen:
        raise UsageError(
            "there are files, not databases: they have no transactions",
            hint="choose a database with --source, or another snapshot",
        )
    return chosen


def _choose(repository: Repository, wanted: Wanted) -> list[Chosen]:
    name, snapshot = named(repository, wanted)
    sources = _sources(repository, name, snapshot, wanted.source)
    if wanted.at is None or wanted.snapshot != LATEST:
        return [_chosen([found], wanted.at) for found in sources]
    snapshots = list(select(repository, wanted.hostname, wanted.tags))
    told = list(sources_in(repository, snapshots, None))
    return [
        _chosen([each for each in told if each.record.name == found.record.name], wanted.at)
        for found in sources
    ]


def plan_restore(repository: Repository, wanted: Wanted, target: Path | None) -> list[Planned]:
    """Say which databases are restored from where to where, in the order in which they are put into place.

    ``target`` is a folder; None: the places that the sources were read from. Empty when the snapshot is
    another program's, or has files only: those are restored in another way. Raises UsageError.
    """
    if foreign(repository, wanted) is not None:
        if target is None:
            raise UsageError("what another program backed up is restored with --to")
        return []
    chosen = _choose(repository, wanted)
    labels = _labels([each.found.record for each in chosen])
    plans = [
        replace(_planned(each, target, label), alone=_alone(repository, each))
        for each, label in zip(chosen, labels, strict=True)
    ]
    for number, plan in enumerate(plans):
        if any(plan.path == other.path for other in plans[:number]):
            raise UsageError(
                f"two sources would be restored to {plan.path}", hint="choose one with --source"
            )
    return plans


def foreign(repository: Repository, wanted: Wanted) -> tuple[SnapshotId, Snapshot] | None:
    """Give the snapshot that is meant, if another program wrote it: for ``latest``, if it wrote all."""
    if wanted.at is not None or wanted.source is not None or wanted.found:
        return None
    if wanted.snapshot != LATEST:
        chosen = repository.find_snapshot(wanted.snapshot)
        return chosen if read_manifest(repository, chosen[1]) is None else None
    snapshots = list(select(repository, wanted.hostname, wanted.tags))
    if any(read_manifest(repository, snapshot) for _, snapshot in reversed(snapshots)):
        return None  # the latest is the latest of a site
    return snapshots[-1] if snapshots else None


def settled(repository: Repository, wanted: Wanted) -> Wanted:
    """Look for the snapshot that is meant, once: the latest may be another one in a moment.

    One of another program stays unsettled: see `foreign`. Raises UsageError, PerdureError.
    """
    if wanted.found or foreign(repository, wanted) is not None:
        return wanted
    return replace(wanted, found=named(repository, wanted))


def named(repository: Repository, wanted: Wanted) -> tuple[SnapshotId, Snapshot]:
    """Give the snapshot that is meant; the latest is that of a source that is wanted. Raises UsageError."""
    if wanted.found:
        return wanted.found
    if wanted.snapshot != LATEST:
        return repository.find_snapshot(wanted.snapshot)
    for listed in reversed(list(select(repository, wanted.hostname, wanted.tags))):
        known = read_manifest(repository, listed[1])
        if known and (
            wanted.source is None or any(is_named(each, wanted.source) for each in known.sources)
        ):
            return listed
    what = "" if wanted.source is None else f" of the source {wanted.source!r}"
    raise PerdureError(
        f"the repository has no snapshot{what} that matches",
        hint="see what there is with: perdure snapshots",
    )


def _sources(
    repository: Repository, name: SnapshotId, snapshot: Snapshot, source: str | None
) -> list[Found]:
    known = read_manifest(repository, snapshot)
    if known is None:
        raise UsageError(
            f"snapshot {name[:8]} holds no history: another program than Perdure wrote it",
            hint="restore it as files: leave --at and --source out",
        )
    found = [
        found_in(repository, name, snapshot, record)
        for record in known.histories
        if source is None or is_named(record, source)
    ]
    if not any(source is None or is_named(record, source) for record in known.sources):
        raise UsageError(
            f"snapshot {name[:8]} has no source named {source!r}",
            hint=f"there are: {names_of(known.sources)}",
        )
    return found


def _chosen(found: Sequence[Found], at: Tid | datetime | None) -> Chosen:
    candidates = [
        Candidate(f.id[:8], f.snapshot.moment, f.record.cut, f.record.last_packed) for f in found
    ]
    choice = choose_snapshot(candidates, at)
    return Chosen(found[choice.candidate], choice.until, choice.reason)


def _planned(chosen: Chosen, target: Path | None, label: str) -> Planned:
    record = chosen.found.record
    place = record.blobs.place if record.blobs else None
    if target is None:
        if record.kind != "filestorage":
            raise UsageError(
                f"{record.name} is no FileStorage, and cannot be restored in place",
                hint="restore it into a folder with --to, into a storage with --into, or to a new HOME with"
                " --into-directorystorage",
            )
        if place is None and record.blobs and record.blobs.count:
            raise UsageError(
                f"where {record.name} had its blobs is not known, so it cannot be restored in place",
                hint="restore it into a folder with --to",
            )
        return Planned(chosen, _absolute(record.path), _absolute(place) if place else None)
    folder = target / label if label else target
    name = blobs = ""
    if record.kind == "filestorage":
        name, blobs = _file_name(record.path), _file_name(place) if place else ""
    name = name or _DATABASE
    if not blobs or blobs.lstrip(".").startswith(name):
        blobs = _BLOBS
    has_blobs = place is not None or (record.blobs is not None and record.blobs.count)
    return Planned(chosen, folder / name, folder / blobs if has_blobs else None)


def _alone(repository: Repository, chosen: Chosen) -> bool:
    """Whether no other source that the snapshot knows has its blobs in the same directory."""
    found = chosen.found
    known = read_manifest(repository, found.snapshot)
    places = [each.blobs.place for each in (known.sources if known else ()) if each.blobs]
    return found.record.blobs is None or places.count(found.record.blobs.place) <= 1


def _absolute(path: str) -> Path:
    """Give the place that a source was read from. Raises RepositoryDamaged when that is no place."""
    if not path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
        raise RepositoryDamaged(f"{path!r} is not the path of a file")
    return Path(path)


def _labels(records: Sequence[SourceRecord]) -> list[str]:
    """Name a folder for each of several sources; none for a single one."""
    if len(records) == 1:
        return [""]
    labels: list[str] = []
    for record in records:
        base = _file_name(record.database or PurePosixPath(record.path).stem)
        label, number = base, 2
        while label in labels:
            label, number = f"{base}-{number}", number + 1
        labels.append(label)
    return labels


def _file_name(path: str) -> str:
    """Give the name that a source's file had. Raises RepositoryDamaged when it would lead elsewhere."""
    name = PurePosixPath(path).name
    if name in ("", "..") or "\0" in name:
        raise RepositoryDamaged(f"{path!r} is not the path of a file")
    return name

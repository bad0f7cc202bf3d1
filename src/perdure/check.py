"""Check: is everything in a repository whole, and if not, what is lost of which source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from perdure.errors import DamageFound
from perdure.formats.snapshot import Snapshot
from perdure.history.losses import lost_blobs, lost_ranges
from perdure.model import Observer, SnapshotId, Subset
from perdure.repository import Repository
from perdure.repository.checking import Report, check_repository
from perdure.snapshots import history_of, read_manifest

ERROR, WARNING = "error", "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is not as it should be; for a loss, of which snapshots and what."""

    severity: str
    what: str
    snapshots: tuple[SnapshotId, ...] = ()
    lost: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What a check found, and how much it looked at."""

    findings: tuple[Finding, ...]
    snapshots: int
    packfiles: int
    chunks: int
    bytes_read: int

    @property
    def damaged(self) -> bool:
        """Whether anything is damaged."""
        return any(finding.severity == ERROR for finding in self.findings)


@dataclass(frozen=True, slots=True)
class _Lost:
    source: str
    what: str


def check(repository: Repository, *, read_data: Subset | None, observer: Observer) -> CheckReport:
    """Check a repository, under a lock of the caller's; ``read_data`` says what to read of the data.

    Raises StoreError.
    """
    whole = read_data == Subset()
    report = check_repository(
        repository, observer, read_data=whole, subset=None if whole else read_data
    )
    findings = [
        Finding(ERROR if found.is_damage else WARNING, found.message) for found in report.findings
    ]
    return CheckReport(
        findings=(*findings, *_losses(repository, report)),
        snapshots=report.snapshots,
        packfiles=report.packfiles,
        chunks=report.chunks,
        bytes_read=report.bytes_read,
    )


def lost_paths(report: Report) -> dict[SnapshotId, list[str]]:
    """Give the lost paths of each snapshot that lost any."""
    lost: defaultdict[SnapshotId, list[str]] = defaultdict(list)
    for loss in report.losses:
        lost[loss.snapshot].append(loss.path)
    return dict(lost)


def below(tree: str, paths: list[str]) -> list[str]:
    """Give those of some lost paths that lie in a folder, as paths below it; "" is all of it."""
    folder = f"/{tree}"
    if "/" in paths or folder in paths:
        return [""]
    return [path.removeprefix(f"{folder}/") for path in paths if path.startswith(f"{folder}/")]


def _losses(repository: Repository, report: Report) -> Iterator[Finding]:
    """Say what is lost, and of which snapshots: the same loss once, however many share it."""
    snapshots = dict(repository.snapshots())
    shared: defaultdict[_Lost, list[SnapshotId]] = defaultdict(list)
    for name, paths in lost_paths(report).items():
        for lost in _lost_of(repository, snapshots[name], paths):
            shared[lost].append(name)
    for lost, names in shared.items():
        yield Finding(
            ERROR,
            f"{lost.source}: lost in {len(names)} snapshots ({', '.join(name[:8] for name in names)})",
            tuple(names),
            (lost.what,),
        )


def _lost_of(repository: Repository, snapshot: Snapshot, paths: list[str]) -> Iterator[_Lost]:
    try:
        known = read_manifest(repository, snapshot)
    except DamageFound:
        yield _Lost(
            ", ".join(snapshot.paths or ()), "everything: what the snapshot holds is not known"
        )
        return
    if known is None:
        yield from (_Lost("files", path) for path in paths)
        return
    for record in known.trees:
        for path in below(record.tree, paths) if record.tree else paths:
            yield _Lost(f"source {record.name!r}", f"file {path}" if path else "all files")
    for record in known.histories:
        inside = below(record.tree, paths)
        if inside:
            history = history_of(repository, snapshot, record)
            for lost in lost_ranges(history, record, inside):
                yield _Lost(f"source {record.name!r}", str(lost))
        if record.blobs is not None:
            for what in lost_blobs(below(record.blobs.tree, paths)):
                yield _Lost(f"source {record.name!r}", what)

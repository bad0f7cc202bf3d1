"""Turn the backups in a repozo repository into snapshots: each state one, dated as its backup was.

The states of a chain are recovered into one working file, each by appending what it has more than the one
before; so that each backup of that file reads what is new, as of a Data.fs that grows. A new full is a new
file, as after a pack: what was stored before is found again. A state that is a snapshot already is left
out, so that an import that was interrupted, or is repeated, goes on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from perdure.backup import BackupRequest
from perdure.backup import backup as take_snapshot
from perdure.dropin.repozo.chain import State
from perdure.dropin.repozo.choosing import Choice
from perdure.dropin.repozo.failures import NoFiles
from perdure.dropin.repozo.folder import list_folder
from perdure.dropin.repozo.recovering import RecoverRequest, recover_choice
from perdure.errors import DamageFound, RepositoryDamaged
from perdure.history.rebuilding import Standing, rebuild
from perdure.model import Observer, SnapshotId, Tid
from perdure.repository import Lock, Repository
from perdure.snapshots import found_in, sources_in
from perdure.sources.filestorage import FileStorageSource


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """What to import, and what the snapshots say."""

    folder: Path
    """The repozo repository."""
    name: str
    """Name of the source: the one that later backups of the same database have."""
    place: Path
    """Where the database is or was."""
    workspace: Path
    """A folder with room for the largest state; what is put there is removed."""
    snapshot: BackupRequest
    """Of each snapshot, but for its time."""
    skip_damaged: bool = False
    """Import what can be recovered, and report the rest; otherwise the first damage ends the import."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of one state; sizes in bytes."""

    state: State
    snapshot_id: SnapshotId | None
    """None: it could not be recovered, or this was a rehearsal."""
    tid: Tid | None
    size: int
    added: int
    """By how much the repository grew."""
    known: bool = False
    """It was a snapshot already."""
    damage: str = ""


def import_states(
    repository: Repository,
    lock: Lock,
    request: ImportRequest,
    clock: Callable[[], datetime],
    observer: Observer,
) -> Iterator[Imported]:
    """Make a snapshot of each state, oldest first, prove it by reading it back, and tell of it.

    Raises NoFiles, NoRepository, VerificationFail, SourceDamaged, RepositoryDamaged, StoreError.
    """
    chains = list_folder(request.folder).chains
    if not chains:
        raise NoFiles(f"No files in repository {request.folder}")
    done = _snapshots_before(repository, request)
    for chain in chains:
        work = request.workspace / f"{chain.stamp}.fs"
        try:
            for state in chain.states:
                if state.time in done:
                    identity, size, tid = done[state.time]
                    yield Imported(state, identity, tid, size, 0, known=True)
                else:
                    yield _import(repository, lock, request, state, work, clock, observer)
        finally:
            for path in (work, work.with_name(f"{work.name}.index")):
                path.unlink(missing_ok=True)


def _snapshots_before(
    repository: Repository, request: ImportRequest
) -> dict[datetime, tuple[SnapshotId, int, Tid]]:
    """Find the snapshots of the source, by their time."""
    return {
        found.snapshot.moment: (found.id, found.record.size, found.record.cut)
        for found in sources_in(repository, repository.snapshots(), request.name)
    }


def _import(
    repository: Repository,
    lock: Lock,
    request: ImportRequest,
    state: State,
    work: Path,
    clock: Callable[[], datetime],
    observer: Observer,
) -> Imported:
    try:
        recover = RecoverRequest(request.folder, incremental=True, quick=True)
        recovered = recover_choice(Choice(state), recover, work, observer)
    except DamageFound as error:
        if not request.skip_damaged:
            raise
        observer.warning(f"the backup of {state.stamp} is left out: {error}")
        return Imported(state, None, None, 0, 0, damage=str(error))
    source = FileStorageSource(work, request.name, without_blobs=True)
    source.place = str(request.place)
    report = take_snapshot(
        repository,
        lock,
        [source],
        replace(request.snapshot, made=state.time),
        clock,
        observer,
    )
    if report.snapshot_id is not None:
        _read_back(repository, report.snapshot_id, request.name, work, observer)
    cut = report.sources[0].cut
    return Imported(
        state,
        report.snapshot_id,
        cut if cut.value else None,
        recovered.size,
        report.bytes_added,
    )


def _read_back(
    repository: Repository, identity: SnapshotId, name: str, work: Path, observer: Observer
) -> None:
    """Rebuild the database of a snapshot, and compare it with what it was made of."""
    snapshot = next(each for known, each in repository.snapshots() if known == identity)
    record = next(sources_in(repository, [(identity, snapshot)], name)).record
    history = found_in(repository, identity, snapshot, record).history
    descriptor = os.open(work, os.O_RDONLY | os.O_CLOEXEC)
    try:
        there = _Compared(descriptor)
        rebuilt = rebuild(history, there, None, observer)
        if rebuilt.size != os.fstat(descriptor).st_size:
            raise there.differs(rebuilt.size)
    finally:
        os.close(descriptor)


class _Compared:
    """An output that keeps nothing, but compares what it gets with a file."""

    standing: Standing | None = None

    def __init__(self, descriptor: int) -> None:
        self._descriptor, self._at = descriptor, 0

    def keep(self, place: Path, size: int) -> bytes:
        """Nothing stands here."""
        raise AssertionError

    def write(self, data: bytes) -> None:
        """Compare what comes next. Raises RepositoryDamaged."""
        if os.pread(self._descriptor, len(data), self._at) != data:
            raise self.differs(self._at)
        self._at += len(data)

    def read(self, position: int, size: int) -> bytes:
        """Give what was the same there."""
        return os.pread(self._descriptor, size, position)

    def differs(self, position: int) -> RepositoryDamaged:
        """Say that the snapshot is not what it was made of."""
        return RepositoryDamaged(
            f"a snapshot differs from the backup it was made of, behind byte {position}",
            hint="this should not be: keep the repozo repository, and report it",
        )

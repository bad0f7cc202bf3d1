"""Backups as files, brought into a repository: a snapshot for each run, dated as that was, each compared.

Every run is restored into a scratch folder, with exactly its blobs, and is backed up from there under the
names and places that the live storages have: so the next `perdure backup` goes on from the last one imported.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import msgspec

from perdure.backup import BackupRequest, backup
from perdure.dropin import repozo
from perdure.dropin.recipe.dates import moment_of, stamp_of
from perdure.dropin.recipe.part import Part, Place, Storage
from perdure.dropin.recipe.restoring import RestoreRequest, restore
from perdure.dropin.recipe.undoing import unfinished
from perdure.errors import DamageFound, RepositoryDamaged, UsageError
from perdure.model import Observer, SnapshotId
from perdure.repository import Lock, Repository
from perdure.restore import RestoreRequest as SnapshotRequest
from perdure.restore import restore as restore_snapshot
from perdure.restore_plan import Wanted
from perdure.sources.filestorage import FileStorageCut, FileStorageSource

TAG = "imported"


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a run: the snapshot that it is now, or why it is none."""

    stamp: str
    snapshot: SnapshotId | None
    bytes_added: int = 0
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class ImportRequest:
    """Which runs to import (``stamps`` as `runs_of` gives them), and what snapshots say of their making."""

    part: Part
    places: Sequence[Place]
    stamps: Sequence[str]
    snapshot: BackupRequest
    scratch: Path
    """An empty folder with room for the site, twice."""


def runs_of(part: Part, places: Sequence[Place]) -> list[str]:
    """Give the stamps of the runs, oldest first: of each the last of those that its storages have.

    Storages of one run may have stamps of their own, one after the other, the main one last. Raises
    PerdureError.
    """
    marked = unfinished(Path(places[-1].files))
    found: list[tuple[str, int]] = []
    for number, place in enumerate(places):
        folder = Path(place.files)
        for chain in repozo.chains(folder) if folder.is_dir() else ():
            found += [(state.stamp, number) for state in chain.states if state.stamp not in marked]
    runs: list[tuple[str, int]] = []
    for stamp, number in sorted(found):
        if runs and runs[-1][1] < number:
            runs.pop()
        runs.append((stamp, number))
    return [stamp for stamp, _ in runs]


def import_runs(
    request: ImportRequest, repository: Repository, lock: Lock, observer: Observer
) -> Iterator[Imported]:
    """Import runs, one after the other. Raises UsageError, StoreError, RepositoryDamaged."""
    known = {stamp_of(snapshot.moment): snapshot for _, snapshot in repository.snapshots()}
    present = {stamp for stamp, each in known.items() if TAG in (each.tags or ())}
    wanted = [stamp for stamp in request.stamps if stamp not in present]
    newest = max(known, default="")
    if wanted and newest >= wanted[0]:
        raise UsageError(
            f"the repository has a snapshot of {newest}, and {wanted[0]} is to be imported",
            hint="snapshots are made in the order of their times: import into a new repository",
        )
    made = _Scratch(request)
    for number, stamp in enumerate(wanted):
        observer.progress("runs", number, len(wanted))
        yield _import_run(made, stamp, repository, lock, observer)


class _Scratch:
    """The scratch folder: what is restored there, and what is restored again to compare."""

    def __init__(self, request: ImportRequest) -> None:
        self.request = request
        live = request.part.storages
        self.storages = [self._storage(each) for each in live]
        self.part = msgspec.structs.replace(request.part, storages=tuple(self.storages))
        self.sources = [_Source(*pair) for pair in zip(self.storages, live, strict=True)]
        self.again = request.scratch / "again"

    def _storage(self, live: Storage) -> Storage:
        folder = self.request.scratch / f"restored{live.suffix}"
        blobs = str(folder / "blobs") if self.request.part.blobs and live.blobs else None
        return Storage(live.name, str(folder / Path(live.datafs).name), blobs)


class _Source(FileStorageSource):
    """A storage in the scratch folder that says it is the live one."""

    def __init__(self, there: Storage, live: Storage) -> None:
        super().__init__(
            Path(there.datafs),
            live.datafs,
            blobs=Path(there.blobs) if there.blobs else None,
            without_blobs=there.blobs is None,
            database=live.name or "main",
        )
        self.place = live.datafs
        self._live = live

    @contextmanager
    def cut(self) -> Iterator[FileStorageCut]:
        """Open the file; its blobs are said to be where the live ones are."""
        with super().cut() as cut:
            blobs = cut.blobs
            if blobs is not None and hasattr(blobs, "path"):
                blobs.place = self._live.blobs  # type: ignore[misc]
            yield cut


def _import_run(
    made: _Scratch, stamp: str, repository: Repository, lock: Lock, observer: Observer
) -> Imported:
    request = made.request
    wanted = RestoreRequest(part=made.part, places=request.places, limit=stamp)
    try:
        restore(wanted, observer)
    except (UsageError, DamageFound) as error:
        return Imported(stamp, None, problem=str(error))
    clock: Callable[[], datetime] = lambda: moment_of(stamp)  # noqa: E731
    report = backup(repository, lock, made.sources, request.snapshot, clock, observer)
    if report.incomplete or report.snapshot_id is None:
        return Imported(stamp, report.snapshot_id, problem="blobs are missing from the snapshot")
    _compare(made, repository, report.snapshot_id, observer)
    return Imported(stamp, report.snapshot_id, report.bytes_added)


def _compare(
    made: _Scratch, repository: Repository, snapshot: SnapshotId, observer: Observer
) -> None:
    """Restore a snapshot, and compare every byte. Raises RepositoryDamaged."""
    request = SnapshotRequest(made.again, Wanted(snapshot=snapshot), force=True)
    by_place = {storage.datafs: storage for storage in made.request.part.storages}
    scratch = {
        live.name: there for live, there in zip(by_place.values(), made.storages, strict=True)
    }
    for restored in restore_snapshot(repository, request, observer):
        there = scratch[by_place[restored.name].name]
        same = filecmp.cmp(restored.files[0], there.datafs, shallow=False)
        if same and there.blobs is not None and len(restored.files) > 2:
            same = same_files(restored.files[2], Path(there.blobs))
        if not same:
            raise RepositoryDamaged(f"snapshot {snapshot[:8]} does not give back what was imported")


def same_files(one: Path, other: Path) -> bool:
    """Tell whether two blob directories have the same files. Raises OSError."""
    names = [_blob_files(folder) for folder in (one, other)]
    if names[0] != names[1]:
        return False
    filecmp.clear_cache()
    return all(filecmp.cmp(one / name, other / name, shallow=False) for name in names[0])


def _blob_files(folder: Path) -> list[str]:
    return sorted(
        os.path.relpath(os.path.join(place, name), folder)
        for place, _, files in os.walk(folder)
        for name in files
        if name.endswith(".blob")
    )

"""Restore: the sources of a site as a snapshot has them, or as they were at any moment that is told.

The order is that of docs/guarantees.md: all locks; all databases and blobs made whole beside what is
there; then each database put in its place, the one that refers to the others last; then what does not
belong to the restored state is removed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from perdure.copy_into import CopyReport, copy_into
from perdure.errors import RepositoryDamaged, UsageError
from perdure.formats import fsindex
from perdure.formats.snapshot import Snapshot
from perdure.history.rebuilding import Rebuilt, rebuild, standing_size
from perdure.history.restoring_blobs import BlobsRestored, RestoringBlobs
from perdure.model import NO_TID, ChunkId, ChunkKind, Observer, SnapshotId, Tid
from perdure.repository import Repository
from perdure.restore_plan import Planned, Wanted, foreign, named, plan_restore, settled
from perdure.restore_trees import FilesRestored, PlannedTree, plan_trees, survey_tree, write_tree
from perdure.snapshots import names_of, read_manifest
from perdure.sources.blobs import BlobDirectory
from perdure.sources.filestorage_writer import (
    NewFileStorage,
    StandingFiles,
    new_filestorage,
    writing,
)
from perdure.sources.tree_writer import TreeWriter


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore, and where to: into a folder, or (None) to where it was backed up from."""

    target: Path | None
    wanted: Wanted = field(default_factory=Wanted)
    force: bool = False
    """Replace what is there; in place it always is."""

    @property
    def replaces(self) -> bool:
        """Whether what is there may be replaced."""
        return self.force or self.target is None


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored of a source; sizes in bytes."""

    name: str
    database: str
    snapshot_id: SnapshotId
    files: tuple[Path, ...]
    cut: Tid
    size: int
    reason: str
    kept: int = 0
    """Bytes of the database that were there already, and right."""
    blobs: BlobsRestored | None = None
    tree: FilesRestored | None = None


def survey(repository: Repository, request: RestoreRequest, observer: Observer) -> list[Restored]:
    """Say what a restore would find right already and what it would write; nothing is written."""
    request = replace(request, wanted=settled(repository, request.wanted))
    if foreign(repository, request.wanted) is not None:
        plan_restore(repository, request.wanted, request.target)
        return [_foreign_report(repository, request)[0]]
    plans, trees = _plans(repository, request)
    return [
        *(_survey(repository, plan, observer) for plan in plans),
        *(_tree_restored(plan, survey_tree(repository, plan)) for plan in trees),
    ]


def restore(repository: Repository, request: RestoreRequest, observer: Observer) -> list[Restored]:
    """Restore sources: under the final name only what is whole and proved.

    Databases are made whole first, then trees are written, then the databases are put in their places.
    Raises UsageError, TargetInUse, RepositoryDamaged, StoreError.
    """
    request = replace(request, wanted=settled(repository, request.wanted))
    if foreign(repository, request.wanted) is not None:
        plan_restore(repository, request.wanted, request.target)
        return [_restore_foreign(repository, request, observer)]
    plans, trees = _plans(repository, request)
    _warn_of_failed(repository, request.wanted, observer)
    with ExitStack() as stack:
        new = [
            stack.enter_context(new_filestorage(plan.path, repository.pool, force=request.replaces))
            for plan in plans
        ]
        made = [
            _Restoring(repository, plan, each, observer)
            for plan, each in zip(plans, new, strict=True)
        ]
        for each in made:
            each.prepare()
        written = [
            _tree_restored(plan, write_tree(repository, plan, observer, replaces=request.replaces))
            for plan in trees
        ]
        for each in made:
            each.commit()
        return [*(each.clear() for each in made), *written]


def _plans(
    repository: Repository, request: RestoreRequest
) -> tuple[list[Planned], list[PlannedTree]]:
    plans = plan_restore(repository, request.wanted, request.target)
    taken = [path for plan in plans for path in (plan.path, plan.path.parent, plan.blobs) if path]
    return plans, plan_trees(repository, request.wanted, request.target, taken)


def _warn_of_failed(repository: Repository, wanted: Wanted, observer: Observer) -> None:
    """Say which sources a restore of all does not give back, since the snapshot lacks them."""
    name, snapshot = named(repository, wanted)
    known = read_manifest(repository, snapshot)
    for failed in known.failed if known and wanted.source is None else ():
        observer.warning(
            f"{failed.name} is not in snapshot {name[:8]}: it could not be read then. An earlier one may"
            " have it: choose it with --source"
        )


def restore_into(
    repository: Repository, request: RestoreRequest, zconfig: str, observer: Observer
) -> tuple[Restored, CopyReport]:
    """Copy one source, restored into a scratch folder first, into the storage of a ZConfig text.

    Raises UsageError, SourceUnusable, RepositoryDamaged, StoreError.
    """
    request = replace(request, wanted=settled(repository, request.wanted))
    plans = plan_restore(repository, request.wanted, request.target)
    if len(plans) != 1:
        names = names_of(plan.record for plan in plans)
        raise UsageError(
            f"one source is copied into a storage, and there are {len(plans)}",
            hint=f"choose one with --source; there are: {names or 'none that Perdure wrote'}",
        )
    wanted = replace(request.wanted, source=plans[0].record.name)
    [restored] = restore(repository, replace(request, wanted=wanted), observer)
    folder = plans[0].blobs
    blobs = BlobDirectory(folder) if folder is not None and folder.exists() else None
    return restored, copy_into(restored.files[0], blobs, zconfig, observer)


class _Restoring:
    """One source on its way back."""

    def __init__(
        self, repository: Repository, plan: Planned, new: NewFileStorage, observer: Observer
    ) -> None:
        self._repository, self._plan, self._new = repository, plan, new
        self._observer = observer
        self._rebuilt: Rebuilt | None = None
        self._blobs: RestoringBlobs | None = None

    def prepare(self) -> None:
        """Make everything whole beside what is there."""
        plan = self._plan
        with writing(self._new):
            rebuilt = rebuild(
                plan.chosen.found.history, self._new, plan.chosen.until, self._observer
            )
            _check_whole(rebuilt, plan)
            self._new.finish(fsindex.encode(rebuilt.revisions, rebuilt.size))
        self._rebuilt = rebuilt
        self._blobs = _blobs(self._repository, plan, self._observer)
        if self._blobs is not None:
            self._blobs.write()

    def commit(self) -> None:
        """Put the database in its place."""
        with writing(self._new):
            self._new.commit()

    def clear(self) -> Restored:
        """Remove what does not belong to the restored state."""
        assert self._rebuilt is not None
        rebuilt = self._rebuilt
        blobs = self._blobs.clear() if self._blobs else None
        return _restored(self._plan, rebuilt.cut, rebuilt.size, rebuilt.kept, blobs)


def _survey(repository: Repository, plan: Planned, observer: Observer) -> Restored:
    with closing(StandingFiles(plan.path)) as standing:
        found = plan.chosen.found
        kept = standing_size(found.history, plan.chosen.until, standing, observer)
    blobs = _blobs(repository, plan, observer)
    return _restored(plan, plan.cut, plan.record.size, kept, blobs.survey() if blobs else None)


def _blobs(repository: Repository, plan: Planned, observer: Observer) -> RestoringBlobs | None:
    kept = plan.chosen.found.blobs
    if kept is None or plan.blobs is None:
        return None
    return RestoringBlobs(
        repository, kept, plan.chosen.until, plan.blobs, observer, alone=plan.alone
    )


def _restored(
    plan: Planned, cut: Tid, size: int, kept: int, blobs: BlobsRestored | None
) -> Restored:
    index = plan.path.with_name(f"{plan.path.name}.index")
    return Restored(
        name=plan.record.name,
        database=plan.record.database,
        snapshot_id=plan.chosen.found.id,
        files=(plan.path, index, *([plan.blobs] if plan.blobs else [])),
        cut=cut,
        size=size,
        reason=plan.chosen.reason,
        kept=kept,
        blobs=blobs,
    )


def _check_whole(rebuilt: Rebuilt, plan: Planned) -> None:
    found = plan.chosen.found
    if plan.chosen.until is None and rebuilt.size != found.record.size:
        raise RepositoryDamaged(
            f"the history of {found.record.name} in snapshot {found.id[:8]} gives {rebuilt.size} bytes,"
            f" not {found.record.size}"
        )
    if plan.chosen.until is not None and rebuilt.cut == NO_TID:
        raise UsageError(
            f"at {plan.chosen.until.time:%Y-%m-%d %H:%M:%S} (UTC) {found.record.name} had no"
            " transaction yet",
            hint="see the transactions that there are with: perdure log",
        )


def _tree_restored(plan: PlannedTree, files: FilesRestored) -> Restored:
    return Restored(
        name=plan.record.name,
        database=plan.record.database,
        snapshot_id=plan.found.id,
        files=(plan.path,),
        cut=plan.record.cut,
        size=files.size,
        reason=plan.reason,
        kept=files.kept_size,
        tree=files,
    )


def _restore_foreign(
    repository: Repository, request: RestoreRequest, observer: Observer
) -> Restored:
    """Restore all files of a snapshot that another program wrote."""
    assert request.target is not None
    target = request.target
    if not request.force and target.is_dir() and any(target.iterdir()):
        raise UsageError(
            f"{target} is not empty", hint="restore into another directory, or say --force"
        )

    def load(chunks: Iterable[ChunkId]) -> Iterator[bytes]:
        return repository.load_many(ChunkKind.DATA, chunks)

    report, snapshot = _foreign_report(repository, request)
    writer = TreeWriter(repository.load_tree, load, observer)
    writer.write(snapshot.root, target)
    return replace(report, size=writer.size)


def _foreign_report(repository: Repository, request: RestoreRequest) -> tuple[Restored, Snapshot]:
    chosen = foreign(repository, request.wanted)
    assert chosen is not None
    assert request.target is not None
    name, snapshot = chosen
    report = Restored(
        name=", ".join(snapshot.paths or ()),
        database="",
        snapshot_id=name,
        files=(request.target,),
        cut=NO_TID,
        size=0,
        reason=f"all files of snapshot {name[:8]}, which another program wrote",
    )
    return report, snapshot

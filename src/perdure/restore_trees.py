"""Restore file trees: from which snapshot, to which place, and what of them is there already."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath

from perdure.errors import RepositoryDamaged, UsageError
from perdure.formats.manifest import SourceRecord
from perdure.model import ChunkId, ChunkKind, Observer, Tid
from perdure.repository import Repository
from perdure.restore_plan import LATEST, Wanted, named
from perdure.snapshots import (
    FoundTree,
    is_named,
    own_names,
    read_manifest,
    select,
    tree_in,
    trees_in,
)
from perdure.sources.tree_survey import survey_files
from perdure.sources.tree_writer import LoadContent, TreeWriter

_ROOT = "root"
"""What the root of a file system is called in a folder."""


@dataclass(frozen=True, slots=True)
class PlannedTree:
    """A file tree to restore: from which snapshot, why from there, and to which place."""

    found: FoundTree
    path: Path
    reason: str
    leave_out: frozenset[str] = frozenset()
    """Names at its top that are not its own but the snapshot's, if it is the root."""

    @property
    def record(self) -> SourceRecord:
        """What the snapshot says of the source."""
        return self.found.record


@dataclass(frozen=True, slots=True)
class FilesRestored:
    """What became of the files of a tree; sizes in bytes."""

    files: int
    size: int
    kept: int
    """Files that were there already, and right."""
    kept_size: int


def plan_trees(
    repository: Repository,
    wanted: Wanted,
    target: Path | None,
    taken: Collection[Path] = (),
) -> list[PlannedTree]:
    """Say which trees are restored from where to where; none for a snapshot without them.

    ``target`` is a folder; None: the places that they were read from. ``taken`` are paths that are not to
    be used. Raises UsageError, PerdureError.
    """
    identity, snapshot = named(repository, wanted)
    known = read_manifest(repository, snapshot)
    if known is None:
        return []
    trees = [
        record for record in known.trees if wanted.source is None or is_named(record, wanted.source)
    ]
    if wanted.at is None:
        reason = f"snapshot {identity[:8]} as it is"
        found = [(tree_in(repository, identity, snapshot, record), reason) for record in trees]
    else:
        listed = [(identity, snapshot)]
        if wanted.snapshot == LATEST:
            listed = list(select(repository, wanted.hostname, wanted.tags))
        told = list(trees_in(repository, listed, None))
        found = [
            _at([each for each in told if each.record.name == record.name], wanted.at)
            for record in trees
        ]
    plans: list[PlannedTree] = []
    for tree, reason in found:
        path = _place(tree.record, target, {*taken, *(plan.path for plan in plans)})
        own = _own_names(repository, tree) if not tree.record.tree else frozenset()
        plans.append(PlannedTree(tree, path, reason, own))
    return plans


def write_tree(
    repository: Repository, plan: PlannedTree, observer: Observer, *, replaces: bool
) -> FilesRestored:
    """Write a tree to its place; what is right there is left alone.

    Raises UsageError when there is something and it may not be replaced, RepositoryDamaged, StoreError.
    """
    if not replaces and _occupied(plan.path):
        raise UsageError(
            f"{plan.path} is there already", hint="restore into another folder, or say --force"
        )
    files = plan.record.files
    writer = TreeWriter(
        repository.load_tree,
        _loader(repository),
        observer,
        lambda chunk: chunk_size(repository, chunk),
        total=files.files if files else 0,
    )
    top = plan.found.top
    if plan.record.tree:
        writer.write_node(top, plan.path)
    else:
        assert top.tree is not None
        writer.write(top.tree, plan.path, plan.leave_out)
    return FilesRestored(writer.files, writer.size + writer.kept, writer.kept_files, writer.kept)


def survey_tree(repository: Repository, plan: PlannedTree) -> FilesRestored:
    """Say what a restore of a tree would find right already; nothing is written."""
    survey = survey_files(
        repository.load_tree,
        lambda chunk: chunk_size(repository, chunk),
        plan.found.top,
        plan.path,
        plan.leave_out,
    )
    return FilesRestored(survey.files, survey.size, survey.kept, survey.kept_size)


def chunk_size(repository: Repository, chunk: ChunkId) -> int:
    """Give the size of a chunk's content. Raises RepositoryDamaged when there is no such chunk."""
    places = repository.index.find(ChunkKind.DATA, chunk)
    if not places:
        raise RepositoryDamaged(f"data chunk {chunk.hex()} is not in the index")
    return places[0].entry.size


def _loader(repository: Repository) -> LoadContent:
    def load(chunks: Iterable[ChunkId]) -> Iterator[bytes]:
        return repository.load_many(ChunkKind.DATA, chunks)

    return load


def _at(found: Sequence[FoundTree], at: Tid | datetime) -> tuple[FoundTree, str]:
    """Choose the newest that had been read at a moment: a tree is known as it was at its backups only."""
    moment = at if isinstance(at, Tid) else Tid.at(at)
    before = [each for each in found if each.record.cut <= moment]
    if not before:
        moments = ", ".join(f"{each.record.cut.time:%Y-%m-%d %H:%M:%S}" for each in found)
        raise UsageError(
            f"{found[0].record.name} was not backed up yet at {moment.time:%Y-%m-%d %H:%M:%S} (UTC)",
            hint=f"these moments can be had (UTC): {moments}; --source restores another source alone",
        )
    newest = max(before, key=lambda each: each.record.cut)
    when = f"{newest.record.cut.time:%Y-%m-%d %H:%M:%S}"
    return newest, f"snapshot {newest.id[:8]} has the files as they were at {when} (UTC)"


def _place(record: SourceRecord, target: Path | None, taken: Collection[Path]) -> Path:
    path = record.path
    if not path.startswith("/") or "\0" in path or ".." in PurePosixPath(path).parts:
        raise RepositoryDamaged(f"{path!r} is not the path of a file tree")
    if target is None:
        return Path(path)
    base = PurePosixPath(path).name or _ROOT
    place, number = target / base, 2
    while place in taken:
        place, number = target / f"{base}-{number}", number + 1
    return place


def _own_names(repository: Repository, tree: FoundTree) -> frozenset[str]:
    known = read_manifest(repository, tree.snapshot)
    return own_names(known) if known else frozenset()


def _occupied(path: Path) -> bool:
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return path.exists() or path.is_symlink()

"""Diff: what came and went between two snapshots - transactions, objects by class, blobs; or files."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.errors import UsageError
from perdure.formats.columns import Numbers
from perdure.formats.manifest import Manifest
from perdure.formats.object_records import read_class
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node
from perdure.history.changes import FileChange, file_changes, node_changes
from perdure.history.objects import Objects, survey_objects
from perdure.history.records import read_records
from perdure.history.rows import Mask, Ordinals
from perdure.model import ChunkId, Observer, SnapshotId, Tid
from perdure.repository import Repository
from perdure.snapshots import (
    Found,
    found_in,
    is_named,
    names_of,
    own_names,
    read_manifest,
    tree_in,
)


@dataclass(frozen=True, slots=True)
class ClassChange:
    """How many objects of a class came, went and changed, and the bytes of these before and after."""

    class_name: str
    added: int
    removed: int
    changed: int
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Side:
    """A database in one of the snapshots; sizes in bytes."""

    snapshot: SnapshotId
    cut: Tid
    size: int
    last_packed: Tid


@dataclass(frozen=True, slots=True)
class DatabaseChange:
    """What came and went in one database; a side is None where the snapshot does not have it."""

    name: str
    database: str
    before: Side | None
    after: Side | None
    transactions_added: int
    transactions_removed: int
    objects_added: int
    objects_removed: int
    objects_changed: int
    classes: tuple[ClassChange, ...]
    """Those with the most bytes first."""
    blobs_added: int
    blobs_added_bytes: int
    blobs_removed: int
    blobs_removed_bytes: int

    @property
    def packed(self) -> bool:
        """Whether the database was packed in between."""
        return bool(
            self.before and self.after and self.before.last_packed != self.after.last_packed
        )


@dataclass(frozen=True)
class Difference:
    """All that differs: databases, and, one after the other, files of everything else."""

    databases: tuple[DatabaseChange, ...]
    files: Iterator[FileChange]


def diff(
    repository: Repository, first: str, second: str, source: str | None, observer: Observer
) -> Difference:
    """Compare two snapshots, given by the beginnings of their ids, or as ``latest``.

    Where one of them is another program's, the files of both are compared as they are kept.
    Raises UsageError, DamageFound, StoreError.
    """
    before, after = repository.find_snapshot(first), repository.find_snapshot(second)
    old, new = read_manifest(repository, before[1]), read_manifest(repository, after[1])
    if old is None or new is None:
        if source is not None:
            raise UsageError(
                "--source names a source of Perdure's, and one of the snapshots is another program's"
            )
        return Difference((), file_changes(repository, before[1].root, after[1].root))
    pairs = _pairs(_sides(repository, *before, old), _sides(repository, *after, new), source)
    if not pairs:
        raise UsageError(
            f"neither snapshot has a source named {source!r}",
            hint=f"there are: {names_of((*old.sources, *new.sources)) or 'none'}",
        )
    databases = [pair for pair in pairs if not _is_files(pair)]
    others = [pair for pair in pairs if _is_files(pair)]
    return Difference(
        tuple(_compare(repository, *pair, observer) for pair in databases),
        (change for pair in others for change in _files(repository, *pair)),
    )


def _sides(
    repository: Repository, name: SnapshotId, snapshot: Snapshot, known: Manifest
) -> dict[str, Found]:
    return {each.name: found_in(repository, name, snapshot, each) for each in known.sources}


_Pair = tuple[Found | None, Found | None]


def _pairs(old: dict[str, Found], new: dict[str, Found], source: str | None) -> list[_Pair]:
    pairs = [(old.get(name), new.get(name)) for name in {**old, **new}]
    return [
        (before, after)
        for before, after in pairs
        if source is None
        or any(found is not None and is_named(found.record, source) for found in (before, after))
    ]


def _is_files(pair: _Pair) -> bool:
    return any(found is not None and found.record.files is not None for found in pair)


def _files(
    repository: Repository, before: Found | None, after: Found | None
) -> Iterator[FileChange]:
    """Give what differs between two states of a file tree."""
    one = after or before
    assert one is not None
    own = frozenset(
        name for found in (before, after) if found for name in _own_names(repository, found)
    )
    yield from node_changes(
        repository,
        _top(repository, before),
        _top(repository, after),
        one.record.tree,
        leave_out=frozenset() if one.record.tree else own,
    )


def _top(repository: Repository, found: Found | None) -> Node | None:
    return tree_in(repository, found.id, found.snapshot, found.record).top if found else None


def _own_names(repository: Repository, found: Found) -> frozenset[str]:
    known = read_manifest(repository, found.snapshot)
    return own_names(known) if known else frozenset()


def _tree(repository: Repository, found: Found | None, name: str) -> ChunkId | None:
    if found is None:
        return None
    nodes = repository.load_tree(found.snapshot.root).nodes
    return next((node.tree for node in nodes if node.name == name), None)


def _compare(
    repository: Repository, before: Found | None, after: Found | None, observer: Observer
) -> DatabaseChange:
    old, new = _objects(before, observer), _objects(after, observer)
    states = _States(old, new)
    one = after or before
    assert one is not None
    come, gone = _blob_changes(repository, before, after)
    return DatabaseChange(
        name=one.record.name,
        database=one.record.database,
        before=_side(before),
        after=_side(after),
        transactions_added=_only_in(new.transactions, old.transactions),
        transactions_removed=_only_in(old.transactions, new.transactions),
        objects_added=len(states.added),
        objects_removed=len(states.removed),
        objects_changed=len(states.changed),
        classes=_by_class(before, after, states),
        blobs_added=come.count,
        blobs_added_bytes=come.size,
        blobs_removed=gone.count,
        blobs_removed_bytes=gone.size,
    )


def _side(found: Found | None) -> Side | None:
    if found is None:
        return None
    record = found.record
    return Side(found.id, record.cut, record.size, record.last_packed)


def _objects(found: Found | None, observer: Observer) -> Objects:
    if found is None:
        none = np.zeros(0, np.uint64)
        return Objects((), none, none, none, none, none, 0, {})
    return survey_objects(found.history, None, observer)


def _only_in(first: Numbers, second: Numbers) -> int:
    return len(np.setdiff1d(first, second, assume_unique=True))


class _States:
    """Which objects came, went and changed, by their numbers on the sides that have them."""

    def __init__(self, old: Objects, new: Objects) -> None:
        self.old, self.new = old, new
        in_old, known = old.find(new.oid)
        living = ~new.gone
        self.added = np.flatnonzero(living & ~known)
        self.changed = np.flatnonzero(living & known)
        self.changed = self.changed[old.tid[in_old[self.changed]] != new.tid[self.changed]]
        self.changed_before = in_old[self.changed]
        self.removed = np.flatnonzero(~old.gone & ~new.find(old.oid)[1])


def _by_class(
    before: Found | None, after: Found | None, states: _States
) -> tuple[ClassChange, ...]:
    names: dict[str, int] = {}
    come = _classes(after, states.new, np.concatenate((states.added, states.changed)), names)
    gone = _classes(before, states.old, states.removed, names)
    count = len(names)
    columns = np.zeros((5, count), np.int64)
    for row, classes in (
        (0, come[states.added]),
        (1, gone[states.removed]),
        (2, come[states.changed]),
    ):
        columns[row] = np.bincount(classes, minlength=count)
    for row, classes, lengths in (
        (3, gone[states.removed], states.old.length[states.removed]),
        (3, come[states.changed], states.old.length[states.changed_before]),
        (4, come[states.added], states.new.length[states.added]),
        (4, come[states.changed], states.new.length[states.changed]),
    ):
        columns[row] += np.bincount(classes, weights=lengths, minlength=count).astype(np.int64)
    found = [
        ClassChange(name, *(int(n) for n in columns[:, number]))
        for name, number in names.items()
        if columns[:3, number].any()
    ]
    return tuple(sorted(found, key=lambda each: (-(each.before + each.after), each.class_name)))


def _classes(
    found: Found | None, objects: Objects, numbers: Ordinals, names: dict[str, int]
) -> NDArray[np.int64]:
    """Say of some objects which class they have, as a number in ``names``; "?" where it is not told."""
    classes = np.full(len(objects), names.setdefault("?", len(names)), np.int64)
    if found is None or not len(numbers):
        return classes
    wanted = np.zeros(len(objects), bool)
    wanted[numbers] = True

    def choose(oids: Numbers, tids: Numbers) -> Mask:
        places, there = objects.find(oids)
        mask: Mask = there & wanted[places] & (objects.content[places] == tids)
        return mask

    layouts = objects.holding(np.unique(objects.content[numbers]))
    for batch in read_records(found.history, layouts, None, choose):
        places, _ = objects.find(batch.oid)
        read = [read_class(bytes(data)) for data in batch.data]
        classes[places] = [names.setdefault(name, len(names)) for name in read]
    return classes


@dataclass(slots=True)
class _Sum:
    count: int = 0
    size: int = 0

    def add(self, size: int | None) -> None:
        if size is not None:
            self.count += 1
            self.size += size


def _blob_changes(
    repository: Repository, before: Found | None, after: Found | None
) -> tuple[_Sum, _Sum]:
    """Add up the blobs that came, and those that went."""
    come, gone = _Sum(), _Sum()
    for change in file_changes(repository, _blobs(repository, before), _blobs(repository, after)):
        come.add(change.after)
        gone.add(change.before)
    return come, gone


def _blobs(repository: Repository, found: Found | None) -> ChunkId | None:
    kept = found.record.blobs if found is not None else None
    return _tree(repository, found, kept.tree) if kept is not None else None

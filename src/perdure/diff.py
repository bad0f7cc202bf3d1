"""Diff: what came and went between two snapshots - transactions, objects by class, blobs; or files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from perdure.errors import UsageError
from perdure.formats.columns import Numbers
from perdure.formats.object_records import read_class
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node
from perdure.history.blob_table import blob_table
from perdure.history.changes import FileChange, file_changes, node_changes
from perdure.history.objects import Objects, survey_objects
from perdure.history.records import read_records
from perdure.history.rows import Mask, Ordinals
from perdure.history.streaming import size_until
from perdure.model import ChunkId, Observer, SnapshotId, Tid, parse_time
from perdure.repository import Repository
from perdure.restore_plan import LATEST, Wanted, choose
from perdure.snapshots import Found, found_in, is_named, own_names, read_manifest, tree_in

_DIGITS = re.compile("[0-9a-f]{1,64}")
_TID_DIGITS = 16


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


@dataclass(frozen=True, slots=True)
class _State:
    """A source in a snapshot, up to a transaction; None: all of it."""

    found: Found
    until: Tid | None = None


def diff(
    repository: Repository, first: str, second: str, source: str | None, observer: Observer
) -> Difference:
    """Compare two snapshots, given by the beginnings of their ids, or as ``latest``; or two moments.

    A moment (a time or a tid) means the databases of the latest snapshots as they were then, without file
    trees. Where one of two snapshots is another program's, the files of both are compared as they are
    kept. Raises UsageError, DamageFound, StoreError.
    """
    meant = [_meant(repository, text, source) for text in (first, second)]
    roots = [each.root for each in meant if isinstance(each, Snapshot)]
    if roots:
        if source is not None or (len(roots) < 2 and any(_is_cut(each) for each in meant)):
            raise UsageError("another program made one of the snapshots: it has no databases")
        first_root, second_root = (_root(each) for each in meant)
        return Difference((), file_changes(repository, first_root, second_root))
    old, new = (each for each in meant if not isinstance(each, Snapshot))
    pairs = [(old.get(name), new.get(name)) for name in {**old, **new}]
    if not pairs:
        raise UsageError(
            f"neither snapshot has a source named {source!r}",
            hint="perdure snapshots lists the sources",
        )
    databases = [pair for pair in pairs if not _is_files(pair)]
    moments = any(_moment(repository, text) is not None for text in (first, second))
    others = [] if moments else [pair for pair in pairs if _is_files(pair)]
    return Difference(
        tuple(_compare(repository, *pair, observer) for pair in databases),
        (change for pair in others for change in _files(repository, *pair)),
    )


_States = dict[str, _State]
_Pair = tuple[_State | None, _State | None]


def _meant(repository: Repository, text: str, source: str | None) -> _States | Snapshot:
    """Give the sources that are meant, by their names; or a snapshot that another program made."""
    moment = _moment(repository, text)
    if moment is not None:
        chosen = choose(repository, Wanted(at=moment, source=source))
        return {each.found.record.name: _State(each.found, each.until) for each in chosen}
    name, snapshot = repository.find_snapshot(text)
    known = read_manifest(repository, snapshot)
    if known is None:
        return snapshot
    return {
        record.name: _State(found_in(repository, name, snapshot, record))
        for record in known.sources
        if source is None or is_named(record, source)
    }


def _moment(repository: Repository, text: str) -> Tid | datetime | None:
    """Read a moment; None for what names a snapshot. Raises UsageError."""
    if text == LATEST:
        return None
    if not _DIGITS.fullmatch(text):
        return parse_time(text)
    if len(text) != _TID_DIGITS or any(name.startswith(text) for name, _ in repository.snapshots()):
        return None
    return Tid.from_text(text)


def _is_cut(meant: _States | Snapshot) -> bool:
    return isinstance(meant, dict) and any(each.until is not None for each in meant.values())


def _root(meant: _States | Snapshot) -> ChunkId | None:
    if isinstance(meant, Snapshot):
        return meant.root
    return next((each.found.snapshot.root for each in meant.values()), None)


def _is_files(pair: _Pair) -> bool:
    return any(state is not None and state.found.record.files is not None for state in pair)


def _files(
    repository: Repository, before: _State | None, after: _State | None
) -> Iterator[FileChange]:
    """Give what differs between two states of a file tree."""
    one = after or before
    assert one is not None
    path = one.found.record.tree
    own = {name for each in (before, after) if each for name in _own_names(repository, each.found)}
    yield from node_changes(
        repository,
        _top(repository, before),
        _top(repository, after),
        path,
        leave_out=() if path else own,
    )


def _top(repository: Repository, state: _State | None) -> Node | None:
    if state is None:
        return None
    found = state.found
    return tree_in(repository, found.id, found.snapshot, found.record).top


def _own_names(repository: Repository, found: Found) -> frozenset[str]:
    known = read_manifest(repository, found.snapshot)
    return own_names(known) if known else frozenset()


def _tree(repository: Repository, state: _State | None, name: str) -> ChunkId | None:
    if state is None:
        return None
    nodes = repository.load_tree(state.found.snapshot.root).nodes
    return next((node.tree for node in nodes if node.name == name), None)


def _compare(
    repository: Repository, before: _State | None, after: _State | None, observer: Observer
) -> DatabaseChange:
    old, new = _objects(before, observer), _objects(after, observer)
    changes = _Changes(old, new)
    one = after or before
    assert one is not None
    come, gone = _blob_changes(repository, before, after)
    return DatabaseChange(
        name=one.found.record.name,
        database=one.found.record.database,
        before=_side(before),
        after=_side(after),
        transactions_added=_only_in(new.transactions, old.transactions),
        transactions_removed=_only_in(old.transactions, new.transactions),
        objects_added=len(changes.added),
        objects_removed=len(changes.removed),
        objects_changed=len(changes.changed),
        classes=_by_class(before, after, changes),
        blobs_added=come[0],
        blobs_added_bytes=come[1],
        blobs_removed=gone[0],
        blobs_removed_bytes=gone[1],
    )


def _side(state: _State | None) -> Side | None:
    if state is None:
        return None
    record, until = state.found.record, state.until
    size = record.size
    if until is not None and until < record.cut:
        size = size_until(state.found.history, until)
    return Side(state.found.id, min(until or record.cut, record.cut), size, record.last_packed)


def _objects(state: _State | None, observer: Observer) -> Objects:
    if state is None:
        none = np.zeros(0, np.uint64)
        return Objects((), none, none, none, none, none, 0, {})
    return survey_objects(state.found.history, state.until, observer)


def _only_in(first: Numbers, second: Numbers) -> int:
    return len(np.setdiff1d(first, second, assume_unique=True))


class _Changes:
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
    before: _State | None, after: _State | None, changes: _Changes
) -> tuple[ClassChange, ...]:
    names: dict[str, int] = {}
    come = _classes(after, changes.new, np.concatenate((changes.added, changes.changed)), names)
    gone = _classes(before, changes.old, changes.removed, names)
    count = len(names)
    columns = np.zeros((5, count), np.int64)
    for row, classes in (
        (0, come[changes.added]),
        (1, gone[changes.removed]),
        (2, come[changes.changed]),
    ):
        columns[row] = np.bincount(classes, minlength=count)
    for row, classes, lengths in (
        (3, gone[changes.removed], changes.old.length[changes.removed]),
        (3, come[changes.changed], changes.old.length[changes.changed_before]),
        (4, come[changes.added], changes.new.length[changes.added]),
        (4, come[changes.changed], changes.new.length[changes.changed]),
    ):
        columns[row] += np.bincount(classes, weights=lengths, minlength=count).astype(np.int64)
    found = [
        ClassChange(name, *(int(n) for n in columns[:, number]))
        for name, number in names.items()
        if columns[:3, number].any()
    ]
    return tuple(sorted(found, key=lambda each: (-(each.before + each.after), each.class_name)))


def _classes(
    state: _State | None, objects: Objects, numbers: Ordinals, names: dict[str, int]
) -> NDArray[np.int64]:
    """Say of some objects which class they have, as a number in ``names``; "?" where it is not told."""
    classes = np.full(len(objects), names.setdefault("?", len(names)), np.int64)
    if state is None or not len(numbers):
        return classes
    wanted = np.zeros(len(objects), bool)
    wanted[numbers] = True

    def wants(oids: Numbers, tids: Numbers) -> Mask:
        places, there = objects.find(oids)
        mask: Mask = there & wanted[places] & (objects.content[places] == tids)
        return mask

    layouts = objects.holding(np.unique(objects.content[numbers]))
    for batch in read_records(state.found.history, layouts, state.until, wants):
        places, _ = objects.find(batch.oid)
        read = [read_class(bytes(data)) for data in batch.data]
        classes[places] = [names.setdefault(name, len(names)) for name in read]
    return classes


def _blob_changes(
    repository: Repository, before: _State | None, after: _State | None
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Add up the blobs that came, and those that went: number and bytes."""
    if any(state is not None and state.until is not None for state in (before, after)):
        old, new = (
            blob_table(state.found.blobs, state.until) if state else blob_table(None, None)
            for state in (before, after)
        )
        return new.lacking_in(old), old.lacking_in(new)
    come = gone = (0, 0)
    for change in file_changes(repository, _blobs(repository, before), _blobs(repository, after)):
        if change.after is not None:
            come = come[0] + 1, come[1] + change.after
        if change.before is not None:
            gone = gone[0] + 1, gone[1] + change.before
    return come, gone


def _blobs(repository: Repository, state: _State | None) -> ChunkId | None:
    kept = state.found.record.blobs if state is not None else None
    return _tree(repository, state, kept.tree) if kept is not None else None

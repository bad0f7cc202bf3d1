"""Copy: snapshots from one repository into another with a key of its own.

Chunks keep their names, which are those of their contents; so what is in both is not copied, and what a
snapshot consists of is the same in both. A copied snapshot says in ``original`` which one it was, as one
that restic's copy made does; by that it is known, and not copied again.

Only trees that differ from those of a snapshot that is in both are walked: all that a listed snapshot
needs is there. That a tree by itself is there proves nothing of what it refers to. Snapshots are written
after everything that they need is durable, several together where they are small.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node, Tree
from perdure.model import ChunkId, ChunkKind, Observer, SnapshotId
from perdure.repository import Lock, Repository, Writer
from perdure.selection import Selection, selected

Listed = tuple[SnapshotId, Snapshot]
TOGETHER = 256 << 20
"""Bytes of content after which what was copied is committed."""


@dataclass(frozen=True, slots=True)
class Copied:
    """A snapshot that was copied: its id there, and here (empty in a rehearsal)."""

    origin: SnapshotId
    name: str


@dataclass(frozen=True, slots=True)
class CopyReport:
    """What was copied; sizes in bytes."""

    copied: tuple[Copied, ...]
    already_there: int
    chunks: int
    content_bytes: int
    stored_bytes: int
    seconds: float


@dataclass(slots=True)
class _Needed:
    """What a snapshot needs that is not here."""

    trees: list[ChunkId] = field(default_factory=list)
    chunks: list[ChunkId] = field(default_factory=list)


def plan_copy(wanted: Iterable[Listed], here: Iterable[Listed]) -> list[Listed]:
    """Decide which snapshots are to be copied, oldest first: those that are not here already."""
    known = {_identity(name, snapshot) for name, snapshot in here}
    missing = [each for each in wanted if _identity(*each) not in known]
    return sorted(missing, key=lambda each: (each[1].moment, each[0]))


def copy_snapshots(
    origin: Repository,
    repository: Repository,
    lock: Lock,
    selection: Selection,
    clock: Callable[[], datetime],
    observer: Observer,
    *,
    dry_run: bool = False,
) -> CopyReport:
    """Copy the snapshots of a selection from ``origin``, under locks of the caller's.

    Raises UsageError, RepositoryDamaged when something that a snapshot needs cannot be read,
    RepositoryLocked, StoreError; what was committed before stays.
    """
    started = clock()
    wanted = list(selected(origin, selection))
    here = repository.snapshots()
    missing = plan_copy(wanted, here)
    with repository.writer(lock) as writer:
        work = _Copying(origin, repository, writer, lock, observer, dry_run=dry_run)
        work.settle(origin.snapshots(), here)
        for done, listed in enumerate(missing, 1):
            work.copy(listed)
            observer.progress("copying snapshots", done, len(missing))
        work.commit()
        added = writer.added
        return CopyReport(
            copied=tuple(work.copied),
            already_there=len(wanted) - len(missing),
            chunks=work.chunks if dry_run else added.data_chunks + added.tree_chunks,
            content_bytes=work.content_bytes if dry_run else added.content_bytes,
            stored_bytes=work.sealed_bytes if dry_run else added.stored_bytes,
            seconds=(clock() - started).total_seconds(),
        )


class _Copying:
    def __init__(
        self,
        origin: Repository,
        repository: Repository,
        writer: Writer,
        lock: Lock,
        observer: Observer,
        *,
        dry_run: bool,
    ) -> None:
        self._origin, self._repository, self._writer = origin, repository, writer
        self._lock, self._observer, self._dry_run = lock, observer, dry_run
        self._base: list[Listed] = []
        self._seen: dict[ChunkKind, set[ChunkId]] = {kind: set() for kind in ChunkKind}
        self._waiting: list[Listed] = []
        self._committed_at = 0
        self.copied: list[Copied] = []
        self.chunks = self.content_bytes = self.sealed_bytes = 0

    def settle(self, there: Sequence[Listed], here: Sequence[Listed]) -> None:
        """Take note of the snapshots that are in both: what they need is here."""
        known = {_identity(name, snapshot) for name, snapshot in here}
        self._base = [each for each in there if _identity(*each) in known]
        # A snapshot may be here under an id that is no longer there; its root is enough.
        self._seen[ChunkKind.TREE] |= {snapshot.root for _, snapshot in here}

    def copy(self, listed: Listed) -> None:
        """Copy what a snapshot needs; it is committed later, with others."""
        needed = self._look(listed[1])
        if self._dry_run:
            self._count(needed)
        else:
            self._send(needed)
        self._base.append(listed)
        self._waiting.append(listed)
        if self._writer.added.content_bytes - self._committed_at >= TOGETHER:
            self.commit()

    def commit(self) -> None:
        """Make durable what was copied, and list the snapshots that it belongs to."""
        if self._dry_run:
            self.copied += [Copied(name, "") for name, _ in self._waiting]
        elif self._waiting:
            self._writer.flush()
            self._lock.verify()
            for name, snapshot in self._waiting:
                made = self._repository.save_snapshot(_copy_of(name, snapshot))
                self.copied.append(Copied(name, made))
        self._committed_at = self._writer.added.content_bytes
        self._waiting = []

    def _look(self, snapshot: Snapshot) -> _Needed:
        """Walk the trees of a snapshot beside those of the one before it that is the same source's."""
        needed, seen = _Needed(), self._seen[ChunkKind.TREE]
        base = self._like(snapshot)
        pending: list[tuple[ChunkId, ChunkId | None]] = [
            (snapshot.root, base.root if base else None)
        ]
        while pending:
            tree_id, other_id = pending.pop()
            if tree_id == other_id or tree_id in seen:
                continue
            seen.add(tree_id)
            text = self._origin.load(ChunkKind.TREE, tree_id)
            tree = Tree.decode(text, f"tree {tree_id.hex()}")
            if not self._repository.has(ChunkKind.TREE, tree_id):
                needed.trees.append(tree_id)
            known = self._nodes(other_id)
            for node in tree.nodes:
                twin = known.get(node.name)
                if node.tree:
                    pending.append((node.tree, twin.tree if twin else None))
                elif twin is None or twin.content != node.content:
                    needed.chunks += self._missing(node)
        return needed

    def _like(self, snapshot: Snapshot) -> Snapshot | None:
        """Give the newest snapshot that is in both, best one of the same paths."""
        same = [each for _, each in self._base if each.paths == snapshot.paths]
        settled = same or [each for _, each in self._base]
        return settled[-1] if settled else None

    def _nodes(self, tree_id: ChunkId | None) -> Mapping[str, Node]:
        if tree_id is None:
            return {}
        try:
            return {node.name: node for node in self._origin.load_tree(tree_id).nodes}
        except (
            RepositoryDamaged
        ):  # of a snapshot that nobody asked for; then there is more to look at
            return {}

    def _missing(self, node: Node) -> Iterator[ChunkId]:
        seen = self._seen[ChunkKind.DATA]
        for chunk in node.chunks:
            if chunk not in seen and not self._repository.has(ChunkKind.DATA, chunk):
                seen.add(chunk)
                yield chunk

    def _send(self, needed: _Needed) -> None:
        """Copy chunks, in the order in which they lie there."""
        for kind, ids in ((ChunkKind.DATA, needed.chunks), (ChunkKind.TREE, needed.trees)):
            ordered = self._in_order(kind, ids)
            for number, content in enumerate(self._origin.load_many(kind, ordered), 1):
                self._writer.add(kind, content)
                if kind is ChunkKind.DATA:
                    self._observer.progress("copying chunks", number, len(ordered))

    def _count(self, needed: _Needed) -> None:
        for kind, ids in ((ChunkKind.DATA, needed.chunks), (ChunkKind.TREE, needed.trees)):
            for chunk in ids:
                for location in self._origin.index.find(kind, chunk)[:1]:
                    self.chunks += 1
                    self.content_bytes += location.entry.size
                    self.sealed_bytes += location.entry.length

    def _in_order(self, kind: ChunkKind, ids: Iterable[ChunkId]) -> list[ChunkId]:
        def place(chunk: ChunkId) -> tuple[bytes, int]:
            places = self._origin.index.find(kind, chunk)
            return (places[0].packfile, places[0].entry.offset) if places else (b"", 0)

        return sorted(ids, key=place)


def _copy_of(name: SnapshotId, snapshot: Snapshot) -> Snapshot:
    """Give a snapshot as it is written elsewhere: its parent is not there."""
    return msgspec.structs.replace(snapshot, parent=None, original=snapshot.original or name)


def _identity(name: SnapshotId, snapshot: Snapshot) -> tuple[str, bytes]:
    """Give what a snapshot and its copies have in common: where it came from, and all that it says."""
    origin = snapshot.original or name
    return origin, msgspec.structs.replace(snapshot, parent=None, original=None).encode()

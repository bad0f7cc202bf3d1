"""Checking a repository: what is damaged, and which parts of which snapshots are lost by it.

A check looks at the index, at the names and sizes of all packfiles, at the snapshots and at all
trees; if it is told to, it reads packfiles whole and verifies every byte. It gives findings as
values, and raises only what is no answer to the question: StoreError.

The order of reading is the reverse of the order of writing - snapshots, then index, then packfiles
- so that a backup that runs meanwhile is never mistaken for damage.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator

import msgspec

from perdure.errors import NameNotFound, RepositoryDamaged
from perdure.formats.index import Packed
from perdure.formats.packfile import Entry, expected_size
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node, Tree
from perdure.model import ChunkId, ChunkKind, Observer, SnapshotId, Subset
from perdure.repository.index import FOLDER as INDEX
from perdure.repository.index import Index, read_index_file
from perdure.repository.inspecting import inspect
from perdure.repository.reading import packfile_name
from perdure.repository.repository import Repository
from perdure.repository.runs import Location, Run, chunk_key
from perdure.repository.snapshots import FOLDER as SNAPSHOTS

MOST_NESTED = 400
"""Folders inside folders; what lies deeper is reported and not entered."""


class Finding(msgspec.Struct, frozen=True):
    """Something that is not as it should be. A leftover is no damage: nothing refers to it."""

    message: str
    is_damage: bool = True


class Loss(msgspec.Struct, frozen=True):
    """What cannot be restored of a snapshot: a path in it; "/" is all of it."""

    snapshot: SnapshotId
    path: str


class Report(msgspec.Struct, frozen=True):
    """What a check has found and how much it has looked at."""

    findings: tuple[Finding, ...]
    losses: tuple[Loss, ...]
    snapshots: int
    packfiles: int
    chunks: int
    bytes_read: int

    @property
    def damaged(self) -> bool:
        """Whether anything is damaged."""
        return bool(self.losses) or any(finding.is_damage for finding in self.findings)


def check_repository(
    repository: Repository,
    observer: Observer,
    *,
    read_data: bool = False,
    subset: Subset | None = None,
) -> Report:
    """Check a repository under a lock of the caller's; ``subset`` is what to read of the data."""
    check = _Check(repository, observer)
    check.compare_sizes()
    check.look_for_leftovers()
    if read_data or subset:
        check.read_packfiles(subset)
    return check.report()


def choose(packfiles: Iterable[bytes], subset: Subset | None) -> list[bytes]:
    """Give the packfiles of a subset: by their first byte for n/t, as restic does, or at random."""
    chosen = sorted(packfiles)
    if subset is None:
        return chosen
    if subset.percent is not None:
        count = max(1, round(len(chosen) * subset.percent / 100)) if chosen else 0
        return sorted(random.sample(chosen, count))
    return [packfile for packfile in chosen if packfile[0] % subset.count == subset.number - 1]


class _Check:
    def __init__(self, repository: Repository, observer: Observer) -> None:
        self._repository = repository
        self._observer = observer
        self._findings: list[Finding] = []
        self._lost_in: defaultdict[bytes, set[bytes]] = defaultdict(set)
        self._snapshots = list(self._read_snapshots())
        self._packed = self._read_index()
        run = Run.of((), (Packed(packfile, found) for packfile, found in self._packed.items()))
        self._index = Index([run])
        self._bytes_read = 0

    def _read_snapshots(self) -> Iterator[tuple[SnapshotId, Snapshot]]:
        files = self._repository.files
        for name, _ in files.list(SNAPSHOTS):
            try:
                text = files.load(SNAPSHOTS, name)
                yield SnapshotId(name), Snapshot.decode(text, files.where(SNAPSHOTS, name))
            except NameNotFound:  # forgotten meanwhile
                continue
            except RepositoryDamaged as error:
                self._damage(str(error))

    def _read_index(self) -> dict[bytes, list[Entry]]:
        packed: defaultdict[bytes, set[Entry]] = defaultdict(set)
        for name, _ in self._repository.files.list(INDEX):
            try:
                for packfile in read_index_file(self._repository.files, name):
                    packed[packfile.id].update(packfile.entries)
            except RepositoryDamaged as error:
                self._damage(str(error))
        return {
            packfile: sorted(entries, key=lambda entry: entry.offset)
            for packfile, entries in packed.items()
        }

    def compare_sizes(self) -> None:
        """Compare the packfiles that are there with what the index says."""
        sizes = self._repository.reader.packfiles()
        for packfile, entries in self._packed.items():
            size = sizes.pop(packfile, None)
            if size is None:
                self._damage(f"{packfile_name(packfile)} is missing")
                self._mark(packfile, entries)
            elif size != expected_size(entries):
                self._damage(
                    f"{packfile_name(packfile)} has {size} bytes, by the index it should have"
                    f" {expected_size(entries)}"
                )
                cut = [entry for entry in entries if entry.offset + entry.length > size]
                self._mark(packfile, cut)
        if sizes:
            message = (
                f"{len(sizes)} packfiles ({sum(sizes.values())} bytes) are in no index:"
                " left by an interrupted backup, which perdure prune clears away, or of one that runs now"
            )
            self._findings.append(Finding(message, is_damage=False))

    def look_for_leftovers(self) -> None:
        """Look for temporary files of killed processes."""
        found = self._repository.leftovers()
        if found:
            message = (
                f"{len(found)} temporary files ({sum(size for _, size in found)} bytes) of processes"
                " that were killed take up room: perdure prune removes them"
            )
            self._findings.append(Finding(message, is_damage=False))

    def read_packfiles(self, subset: Subset | None) -> None:
        """Read packfiles, all or a part of them, and verify every chunk in them."""
        chosen = choose(self._packed, subset)
        jobs = [(expected_size(self._packed[packfile]), packfile) for packfile in chosen]
        total = sum(size for size, _ in jobs)
        results = self._repository.pool.in_order(self._inspect, jobs)
        for (size, packfile), (messages, bad) in zip(jobs, results, strict=True):
            self._bytes_read += size
            for message in messages:
                self._damage(message)
            self._mark(packfile, bad)
            self._observer.progress("reading packfiles", self._bytes_read, total)

    def _inspect(self, packfile: bytes) -> tuple[tuple[str, ...], Iterable[Entry]]:
        """Give what is wrong with a packfile, and which of its chunks are."""
        entries = self._packed[packfile]
        try:
            found = inspect(self._repository.reader, packfile, entries)
        except NameNotFound:
            return (), entries  # known from the sizes
        return found.messages, found.bad

    def report(self) -> Report:
        """Walk the trees of all snapshots, and say what was found and what is lost by it."""
        survey = Survey(self._repository, self._places, self._damage)
        losses = []
        for done, (name, snapshot) in enumerate(self._snapshots, 1):
            losses += [Loss(name, path) for path in survey.lost(snapshot.root)]
            self._observer.progress("checking snapshots", done, len(self._snapshots))
        return Report(
            findings=tuple(self._findings),
            losses=tuple(losses),
            snapshots=len(self._snapshots),
            packfiles=len(self._packed),
            chunks=sum(map(len, self._packed.values())),
            bytes_read=self._bytes_read,
        )

    def _damage(self, message: str) -> None:
        self._findings.append(Finding(message))

    def _mark(self, packfile: bytes, bad: Iterable[Entry]) -> None:
        for entry in bad:
            self._lost_in[chunk_key(entry.kind, entry.id)].add(packfile)

    def _places(self, kind: ChunkKind, chunk_id: ChunkId) -> list[Location]:
        """Give the places where a chunk is, as far as is known, whole."""
        bad = self._lost_in.get(chunk_key(kind, chunk_id), ())
        return [place for place in self._index.find(kind, chunk_id) if place.packfile not in bad]


class Survey:
    """Walks trees, each once, and knows which paths below them are lost.

    ``places`` is asked for every tree and every chunk that is met; ``damage`` is told what is wrong.
    """

    def __init__(
        self,
        repository: Repository,
        places: Callable[[ChunkKind, ChunkId], list[Location]],
        damage: Callable[[str], None],
    ) -> None:
        self._repository = repository
        self._places = places
        self._damage = damage
        self._lost: dict[ChunkId, tuple[str, ...]] = {}

    def lost(self, tree_id: ChunkId, depth: int = 0) -> tuple[str, ...]:
        """Give the lost paths below a tree, "/" if it is the tree itself."""
        known = self._lost.get(tree_id)
        if known is None:
            known = self._lost[tree_id] = self._look(tree_id, depth)
        return known

    def _look(self, tree_id: ChunkId, depth: int) -> tuple[str, ...]:
        tree = self._load(tree_id)
        if tree is None:
            return ("/",)
        if depth > MOST_NESTED:
            self._damage(f"tree {tree_id.hex()} lies in more than {MOST_NESTED} folders")
            return ("/",)
        lost: list[str] = []
        for node in tree.nodes:
            if node.tree:
                below = self.lost(node.tree, depth + 1)
                lost += [f"/{node.name}{'' if path == '/' else path}" for path in below]
            elif self._is_lost(node, tree_id):
                lost.append(f"/{node.name}")
        return tuple(lost)

    def _load(self, tree_id: ChunkId) -> Tree | None:
        name = f"tree {tree_id.hex()}"
        places = self._places(ChunkKind.TREE, tree_id)
        if not places:
            self._damage(f"{name} is in no packfile")
            return None
        try:
            tree = Tree.decode(self._repository.read_tree_afresh(places), name)
            tree.check()
        except (RepositoryDamaged, ValueError) as error:
            self._damage(f"{name}: {error}")
            return None
        return tree

    def _is_lost(self, node: Node, tree_id: ChunkId) -> bool:
        where = f"{node.name!r} in tree {tree_id.hex()}"
        if node.type == "dir":
            self._damage(f"folder {where} has no tree")
            return True
        size = 0
        for chunk_id in node.chunks:
            places = self._places(ChunkKind.DATA, chunk_id)
            if not places:
                self._damage(f"file {where} needs data chunk {chunk_id.hex()}, which is lost")
                return True
            size += places[0].entry.size
        if node.type == "file" and size != node.size:
            self._damage(f"file {where} has {node.size} bytes, its chunks have {size}")
            return True
        return False

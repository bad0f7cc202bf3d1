"""Stats: what each snapshot and each source costs, and how a repository grows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import PurePosixPath

from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node
from perdure.model import ChunkKind, Observer, SnapshotId
from perdure.repository import Repository
from perdure.repository.costs import Costs
from perdure.snapshots import read_manifest, root_of, top_of

_LIST = ""
"""The owner of what says which sources a snapshot has."""


@dataclass(frozen=True, slots=True)
class SnapshotCost:
    """A snapshot, in bytes: what it gives back, what it added when it came, what it alone needs.

    ``alone`` is what forgetting it, and then pruning, would free.
    """

    id: SnapshotId
    time: datetime
    hostname: str
    sources: tuple[str, ...]
    restored: int
    added: int
    alone: int


@dataclass(frozen=True, slots=True)
class SourceCost:
    """A source, in bytes: what its newest snapshot gives back, and what is stored of it in all of them."""

    name: str
    database: str
    snapshots: int
    restored: int
    stored: int


@dataclass(frozen=True, slots=True)
class DayGrowth:
    """A day (UTC) with snapshots: what they added, and how large all sources were in the end; in bytes."""

    day: date
    snapshots: int
    added: int
    restored: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A repository in numbers; bytes. What snapshots share is ``restored`` for each, and stored once."""

    snapshots: tuple[SnapshotCost, ...]
    sources: tuple[SourceCost, ...]
    days: tuple[DayGrowth, ...]
    restored: int
    content: int
    """Bytes of all chunks that are needed, before compression."""
    stored: int
    """The same, compressed and sealed."""
    unneeded: int
    """Stored bytes that no snapshot needs: a prune frees them."""

    @property
    def compression(self) -> float:
        """How many bytes of content there are for each that is stored."""
        return self.content / self.stored if self.stored else 1.0

    @property
    def deduplication(self) -> float:
        """How many bytes all snapshots give back for each byte of content."""
        return self.restored / self.content if self.content else 1.0


def stats(repository: Repository, observer: Observer) -> Stats:
    """Add up what a repository holds, under a lock of the caller's. Raises RepositoryDamaged, StoreError."""
    listed = repository.snapshots()
    ledger = _Ledger(Costs(repository))
    for number, (_, snapshot) in enumerate(listed):
        ledger.enter(repository, number, snapshot)
        observer.progress("snapshots", number + 1, 2 * len(listed))
    for number in reversed(range(len(listed))):
        ledger.costs.enter_again(number, listed[number][1].root)
        observer.progress("snapshots", 2 * len(listed) - number, 2 * len(listed))
    costs, entered = ledger.costs, ledger.entered
    added, alone = costs.added(len(listed)), costs.alone(len(listed))
    snapshots = tuple(
        SnapshotCost(
            name,
            snapshot.moment,
            snapshot.hostname,
            tuple(entered[number]),
            sum(entered[number].values()),
            added[number],
            alone[number],
        )
        for number, (name, snapshot) in enumerate(listed)
    )
    return Stats(
        snapshots,
        tuple(ledger.sources()),
        tuple(_days(snapshots, entered)),
        sum(each.restored for each in snapshots),
        costs.content,
        costs.needed,
        costs.unneeded,
    )


class _Ledger:
    """Enters snapshots, and knows which sources they have."""

    def __init__(self, costs: Costs) -> None:
        self.costs = costs
        self.entered: list[dict[str, int]] = []
        """For each snapshot: its sources, and how many bytes each gives back."""
        self._owners: dict[str, int] = {_LIST: 0}
        self._databases: dict[str, str] = {}

    def enter(self, repository: Repository, number: int, snapshot: Snapshot) -> None:
        """Enter a snapshot, source by source."""
        known = read_manifest(repository, snapshot)
        if known is None:
            name = f"{snapshot.hostname}: {', '.join(snapshot.paths or ())}"
            self.costs.enter(number, self._owner(name), ChunkKind.TREE, snapshot.root)
            self.entered.append({name: self.costs.size_of(snapshot.root)})
            return
        root = root_of(repository, snapshot)
        for record in known.sources:
            owner = self._owner(record.name)
            self._databases[record.name] = record.database
            for path in filter(None, (record.tree, record.blobs.tree if record.blobs else "")):
                if PurePosixPath(path).parts[0] in root:
                    self._enter_node(number, owner, top_of(root, snapshot.root, path))
        for record in known.trees:
            if not record.tree:  # all of the snapshot that is nobody else's
                self._enter_node(
                    number, self._owner(record.name), top_of(root, snapshot.root, record.tree)
                )
        self.costs.enter(number, 0, ChunkKind.TREE, snapshot.root)
        self.entered.append(
            {
                each.name: each.size + (each.blobs.size if each.blobs else 0)
                for each in known.sources
            }
        )

    def _enter_node(self, number: int, owner: int, node: Node) -> None:
        if node.tree is not None:
            self.costs.enter(number, owner, ChunkKind.TREE, node.tree)
        for chunk in node.chunks:
            self.costs.enter(number, owner, ChunkKind.DATA, chunk)

    def sources(self) -> list[SourceCost]:
        """Give what each source costs, the most costly first."""
        stored = self.costs.owned(len(self._owners))
        found = []
        for name, owner in self._owners.items():
            sizes = [sources[name] for sources in self.entered if name in sources]
            if sizes:
                database = self._databases.get(name, "")
                found.append(SourceCost(name, database, len(sizes), sizes[-1], stored[owner]))
        return sorted(found, key=lambda each: (-each.stored, each.name))

    def _owner(self, name: str) -> int:
        return self._owners.setdefault(name, len(self._owners))


def _days(snapshots: Sequence[SnapshotCost], entered: Sequence[dict[str, int]]) -> list[DayGrowth]:
    days: dict[date, DayGrowth] = {}
    sizes: dict[str, int] = {}
    for snapshot, sources in zip(snapshots, entered, strict=True):
        sizes |= sources
        day = snapshot.time.date()
        before = days.get(day, DayGrowth(day, 0, 0, 0))
        days[day] = DayGrowth(
            day, before.snapshots + 1, before.added + snapshot.added, sum(sizes.values())
        )
    return list(days.values())

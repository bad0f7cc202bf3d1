"""Select: which snapshots a command is about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from perdure.errors import UsageError
from perdure.formats.snapshot import Snapshot
from perdure.model import SnapshotId
from perdure.repository import Repository
from perdure.snapshots import is_named, read_manifest, select


@dataclass(frozen=True, slots=True)
class Selection:
    """Snapshots by the beginnings of their ids, or all that match what is given."""

    snapshots: tuple[str, ...] = ()
    host: str | None = None
    tags: tuple[str, ...] = ()
    source: str | None = None

    def __post_init__(self) -> None:
        if self.snapshots and self.filters:
            raise UsageError(
                "snapshots are named, and selected by host, tag or source, too", hint="do only one"
            )

    @property
    def filters(self) -> bool:
        """Whether some property is asked for."""
        return self.host is not None or bool(self.tags) or self.source is not None


def selected(repository: Repository, selection: Selection) -> Iterator[tuple[SnapshotId, Snapshot]]:
    """Give the snapshots of a selection, each once. Raises UsageError, RepositoryDamaged, StoreError."""
    if selection.snapshots:
        yield from {name: repository.find_snapshot(name) for name in selection.snapshots}.values()
        return
    for name, snapshot in select(repository, selection.host, selection.tags):
        if selection.source is None or _has(repository, snapshot, selection.source):
            yield name, snapshot


def _has(repository: Repository, snapshot: Snapshot, source: str) -> bool:
    known = read_manifest(repository, snapshot)
    return any(is_named(record, source) for record in known.sources) if known else False

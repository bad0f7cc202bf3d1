"""Tag: change the tags of snapshots. A snapshot never changes, so another one takes its place."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import msgspec

from perdure.errors import NameNotFound, PerdureError, UsageError
from perdure.formats.snapshot import Snapshot
from perdure.model import SnapshotId
from perdure.repository import Lock, Repository
from perdure.selection import Selection, selected


@dataclass(frozen=True, slots=True)
class TagChange:
    """What becomes of tags: all replaced by ``set`` if that is not None, or some added and removed."""

    add: tuple[str, ...] = ()
    remove: tuple[str, ...] = ()
    set: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.set is not None and (self.add or self.remove):
            raise UsageError("--set replaces all tags; it excludes --add and --remove")
        if self.set is None and not (self.add or self.remove):
            raise UsageError("nothing is to be changed", hint="give --add, --remove or --set")

    def apply(self, tags: tuple[str, ...]) -> tuple[str, ...]:
        """Give the tags that come of some, each once."""
        if self.set is not None:
            return tuple(dict.fromkeys(self.set))
        after = (tag for tag in (*tags, *self.add) if tag not in self.remove)
        return tuple(dict.fromkeys(after))


@dataclass(frozen=True, slots=True)
class Tagged:
    """A snapshot whose tags were changed, and the one that stands for it now (None: a rehearsal)."""

    before: SnapshotId
    snapshot: SnapshotId | None
    tags: tuple[str, ...]


def tag(
    repository: Repository,
    lock: Lock,
    selection: Selection,
    change: TagChange,
    *,
    dry_run: bool = False,
) -> list[Tagged]:
    """Change tags, under an exclusive lock: the new snapshot is written before the old one is deleted.

    Raises UsageError, RepositoryDamaged, RepositoryLocked, StoreError.
    """
    if not lock.exclusive and not dry_run:
        raise PerdureError("to change tags takes an exclusive lock")
    listed = {snapshot: name for name, snapshot in repository.snapshots()}
    chosen = list(selected(repository, selection))
    lock.verify()
    tagged = []
    for name, snapshot in chosen:
        tags = change.apply(snapshot.tags)
        if tags != snapshot.tags:
            new = msgspec.structs.replace(snapshot, tags=tags, original=snapshot.original or name)
            lock.keep()
            saved = None if dry_run else _replace(repository, name, new, listed.get(new))
            tagged.append(Tagged(name, saved, tags))
    return tagged


def _replace(
    repository: Repository, old: SnapshotId, new: Snapshot, saved: SnapshotId | None
) -> SnapshotId:
    """Put a snapshot in the place of another; a run that was interrupted may have saved it already."""
    saved = saved or repository.save_snapshot(new)
    with suppress(NameNotFound):
        repository.delete_snapshot(old)
    return saved

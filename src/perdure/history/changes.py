"""Which files differ between two folders of snapshots; what is the same on both sides is not looked into."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

from perdure.errors import RepositoryDamaged
from perdure.formats.tree import Node
from perdure.model import ChunkId
from perdure.repository import Repository
from perdure.repository.checking import MOST_NESTED

ADDED, REMOVED, CHANGED = "added", "removed", "changed"


@dataclass(frozen=True, slots=True)
class FileChange:
    """A file that is on one side only, or has other content; sizes in bytes, None where it is not there."""

    path: str
    change: str
    before: int | None
    after: int | None


def file_changes(
    repository: Repository,
    before: ChunkId | None,
    after: ChunkId | None,
    path: str = "",
    depth: int = 0,
    leave_out: Collection[str] = (),
) -> Iterator[FileChange]:
    """Give what differs between two trees (None: there is none), by the path, without some names.

    Owners, modes and times do not count. Raises RepositoryDamaged, StoreError.
    """
    if before == after:
        return
    if depth > MOST_NESTED:
        raise RepositoryDamaged(f"{path} lies in more than {MOST_NESTED} folders")
    old, new = _nodes(repository, before), _nodes(repository, after)
    for name in sorted((old.keys() | new.keys()).difference(leave_out)):
        below = f"{path}/{name}" if path else name
        yield from node_changes(repository, old.get(name), new.get(name), below, depth)


def node_changes(
    repository: Repository,
    was: Node | None,
    now: Node | None,
    path: str,
    depth: int = 0,
    leave_out: Collection[str] = (),
) -> Iterator[FileChange]:
    """Give what differs between two files or folders that have, or had, one place."""
    was_tree, is_tree = was.tree if was else None, now.tree if now else None
    if was_tree or is_tree:
        yield from file_changes(repository, was_tree, is_tree, path, depth + 1, leave_out)
        was, now = None if was_tree else was, None if is_tree else now
    change = _change(was, now)
    if change:
        yield FileChange(path, change, was.size if was else None, now.size if now else None)


def _nodes(repository: Repository, tree: ChunkId | None) -> dict[str, Node]:
    return {node.name: node for node in repository.load_tree(tree).nodes} if tree else {}


def _change(was: Node | None, now: Node | None) -> str:
    if was is None or now is None:
        return ADDED if now is not None else REMOVED if was is not None else ""
    same = (was.type, was.content, was.linktarget, was.device)
    return "" if same == (now.type, now.content, now.linktarget, now.device) else CHANGED

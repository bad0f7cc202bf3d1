"""What a snapshot holds: its files as a restore would give them, or as they are stored; listed and read."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Protocol

from perdure.errors import RepositoryDamaged, UsageError
from perdure.formats.blobs import BUSHY, LAYOUTS, blob_at, path_in_directory
from perdure.formats.golang import parse_moment
from perdure.formats.tree import Node, unix_mode
from perdure.history.blobs import SnapshotBlobs
from perdure.history.streaming import size_until, stream
from perdure.model import BlobId, ChunkId, ChunkKind, Observer, Tid
from perdure.repository import Repository
from perdure.repository.checking import MOST_NESTED
from perdure.restore_plan import Planned, Wanted, foreign, named, plan_restore, settled
from perdure.restore_trees import PlannedTree, plan_trees

FILE, FOLDER = "file", "dir"


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder; ``kind`` is restic's word for it, ``size`` is in bytes."""

    path: str
    kind: str
    size: int
    time: datetime | None
    mode: int | None = None
    """The permission bits, where they are kept."""
    target: str = ""
    """Where a symbolic link leads."""


class Contents(Protocol):
    """The files of a snapshot; paths have no slash at their ends."""

    def list(self, path: str, *, recursive: bool) -> Iterator[Entry]:
        """Give what is in a folder ("" for all), or the file itself. Raises UsageError."""

    def read(self, path: str, observer: Observer) -> Iterator[bytes]:
        """Give the content of a file, verified. Raises UsageError, DamageFound."""


def contents_of(repository: Repository, wanted: Wanted, *, stored: bool) -> Contents:
    """Give the contents of a snapshot: ``stored``, as they are kept, not as a restore gives them.

    What another program backed up is always given as it is kept. Raises UsageError.
    """
    wanted = settled(repository, wanted)
    other = foreign(repository, wanted)
    if other is not None:
        return StoredContents(repository, other[1].root)
    if not stored:
        plans = plan_restore(repository, wanted, Path("/"))
        taken = [path for plan in plans for path in (plan.path, plan.path.parent) if path.name]
        return RestoredContents(repository, plans, plan_trees(repository, wanted, Path("/"), taken))
    if wanted.at is not None or wanted.source is not None:
        raise UsageError(
            "--stored shows a snapshot as it is kept: leave --at and --source out",
        )
    return StoredContents(repository, named(repository, wanted)[1].root)


def _missing(path: str) -> UsageError:
    return UsageError(
        f"there is no {path!r} in the snapshot", hint="see what there is with: perdure ls"
    )


def _is_folder(path: str) -> UsageError:
    return UsageError(
        f"{path or '/'!r} is a folder",
        hint="list it with perdure ls; perdure restore gives back all that is in it",
    )


class StoredContents:
    """The folders and files of a snapshot as the repository keeps them."""

    def __init__(
        self, repository: Repository, root: ChunkId, leave_out: Collection[str] = ()
    ) -> None:
        self._repository, self._root = repository, root
        self._leave_out = leave_out
        """Names at the top that are not shown."""

    def list(self, path: str, *, recursive: bool) -> Iterator[Entry]:
        """Give what is in a folder, or the file itself."""
        node = self._node(path)
        if node is not None and node.tree is None:
            return iter([_entry(path, node)])
        root = self._root if node is None else node.tree
        assert root is not None
        return self._inside(root, path, recursive, 0)

    def read(self, path: str, observer: Observer) -> Iterator[bytes]:
        """Give the content of a file, verified."""
        node = self._node(path)
        if node is None or node.tree is not None:
            raise _is_folder(path)
        if node.type != "file":
            raise UsageError(f"{path!r} is a {node.type}, and has no content")
        done = 0
        for chunk in self._repository.load_many(ChunkKind.DATA, node.chunks):
            yield chunk
            done += len(chunk)
            observer.progress("dump", done, node.size)

    def _inside(self, tree: ChunkId, path: str, recursive: bool, depth: int) -> Iterator[Entry]:
        if depth > MOST_NESTED:
            raise RepositoryDamaged(f"{path} lies in more than {MOST_NESTED} folders")
        for node in self._repository.load_tree(tree).nodes:
            if not path and node.name in self._leave_out:
                continue
            below = f"{path}/{node.name}" if path else node.name
            yield _entry(below, node)
            if recursive and node.tree is not None:
                yield from self._inside(node.tree, below, recursive, depth + 1)

    def _node(self, path: str) -> Node | None:
        """Find a node; None for the root."""
        tree: ChunkId | None = self._root
        node: Node | None = None
        if path.partition("/")[0] in self._leave_out:
            raise _missing(path)
        for name in PurePosixPath(path).parts:
            nodes = self._repository.load_tree(tree).nodes if tree is not None else ()
            node = next((each for each in nodes if each.name == name), None)
            if node is None:
                raise _missing(path)
            tree = node.tree
        return node


def _entry(path: str, node: Node) -> Entry:
    return Entry(
        path,
        node.type,
        node.size,
        parse_moment(node.mtime),
        stat.S_IMODE(unix_mode(node.mode)),
        node.linktarget,
    )


class RestoredContents:
    """The databases, blob directories and file trees of a snapshot, named as a restore names them."""

    def __init__(
        self, repository: Repository, plans: Sequence[Planned], trees: Sequence[PlannedTree]
    ) -> None:
        self._repository = repository
        self._trees = {_below(plan.path): plan for plan in trees}
        self._files = {_below(plan.path): plan for plan in plans}
        self._blobs: dict[str, list[Planned]] = {}
        for plan in plans:
            if plan.blobs is not None and plan.chosen.found.blobs is not None:
                self._blobs.setdefault(_below(plan.blobs), []).append(plan)

    def list(self, path: str, *, recursive: bool) -> Iterator[Entry]:
        """Give what is in a folder, or the file itself."""
        found = self._entries(path, recursive=recursive)
        first = next(found, None)
        if first is None:
            if path and path not in self._blobs:
                raise _missing(path)
            return
        yield first
        yield from found

    def read(self, path: str, observer: Observer) -> Iterator[bytes]:
        """Give the content of a file, verified."""
        plan = self._files.get(path) or self._only_named(path)
        if plan is not None:
            return stream(plan.chosen.found.history, plan.chosen.until, observer)
        for folder, plans in self._blobs.items():
            if path.startswith(f"{folder}/"):
                chunks = _blob_chunks(plans, path.removeprefix(f"{folder}/"))
                if chunks is not None:
                    return self._repository.load_many(ChunkKind.DATA, chunks)
        for known, tree in self._trees.items():
            if path == known and tree.found.top.type == "file":
                return self._repository.load_many(ChunkKind.DATA, tree.found.top.chunks)
            if _is_in(path, known):
                return self._in_tree(tree).read(path[len(known) + 1 :], observer)
        if next(self._entries(path, recursive=False), None) is not None:
            raise _is_folder(path)
        raise _missing(path)

    def _only_named(self, name: str) -> Planned | None:
        """Give the one database with that file name, wherever it is."""
        named = [plan for path, plan in self._files.items() if path.endswith(f"/{name}")]
        if len(named) > 1:
            paths = ", ".join(map(repr, self._files))
            raise UsageError(f"there are {len(named)} files {name!r}", hint=f"name one of {paths}")
        return named[0] if named else None

    def _entries(self, path: str, *, recursive: bool) -> Iterator[Entry]:
        folders: set[str] = set()
        for known, plan in self._files.items():
            if known == path or _is_in(known, path):
                yield from _folded(_database(known, plan), path, recursive, folders)
        for known, plans in self._blobs.items():
            if _is_in(known, path) and not recursive:
                total = sum(p.chosen.found.blobs.record.size for p in plans if p.chosen.found.blobs)
                whole = Entry(known, FOLDER, total, plans[0].cut.time)
                yield from _folded(whole, path, recursive, folders)
            elif known == path or _is_in(known, path) or _is_in(path, known):
                for entry in _blob_entries(known, plans):
                    if entry.path == path or _is_in(entry.path, path):
                        yield from _folded(entry, path, recursive, folders)
        for known, tree in self._trees.items():
            yield from self._tree_entries(known, tree, path, recursive, folders)

    def _tree_entries(
        self, known: str, plan: PlannedTree, path: str, recursive: bool, folders: set[str]
    ) -> Iterator[Entry]:
        top = plan.found.top
        if _is_in(known, path):
            entry = _entry(known, top)
            if top.tree is not None:
                entry = Entry(known, FOLDER, plan.record.size, plan.record.cut.time)
            yield from _folded(entry, path, recursive, folders)
            inner = "" if recursive and top.tree is not None else None
        elif known == path and top.tree is None:
            yield _entry(known, top)
            return
        else:
            inside = known == path or _is_in(path, known)
            inner = path[len(known) + 1 :] if inside else None
        if inner is not None:
            for entry in self._in_tree(plan).list(inner, recursive=recursive):
                yield replace(entry, path=f"{known}/{entry.path}")

    def _in_tree(self, plan: PlannedTree) -> StoredContents:
        top = plan.found.top
        if top.tree is None:
            raise _missing(str(plan.path))
        return StoredContents(self._repository, top.tree, plan.leave_out)


def _below(path: Path) -> str:
    return str(path).lstrip("/")


def _is_in(path: str, folder: str) -> bool:
    return not folder or path.startswith(f"{folder}/")


def _folded(entry: Entry, path: str, recursive: bool, folders: set[str]) -> Iterator[Entry]:
    """Give an entry, or, where it lies deeper than one level below ``path``, its folder there, once."""
    start = len(path) + 1 if path else 0
    inner, _, deeper = entry.path[start:].partition("/")
    if recursive or not deeper:
        yield entry
        return
    folder = entry.path[: start + len(inner)]
    if folder not in folders:
        folders.add(folder)
        yield Entry(folder, FOLDER, 0, None)


def _database(path: str, plan: Planned) -> Entry:
    until = plan.chosen.until
    size = plan.record.size
    if until is not None and until < plan.record.cut:
        size = size_until(plan.chosen.found.history, until)
    return Entry(path, FILE, size, plan.cut.time if plan.cut.value else None)


def _blob_entries(folder: str, plans: Sequence[Planned]) -> Iterator[Entry]:
    for plan in plans:
        kept = plan.chosen.found.blobs
        assert kept is not None
        for blob, file in kept.folder.files(plan.chosen.until):
            path = f"{folder}/{path_in_directory(blob, _layout(kept))}"
            yield Entry(path, FILE, file.size, Tid(blob.tid).time, 0o444)


def _blob_chunks(plans: Sequence[Planned], path: str) -> Sequence[ChunkId] | None:
    for plan in plans:
        kept, until = plan.chosen.found.blobs, plan.chosen.until
        blob: BlobId | None = blob_at(path, _layout(kept)) if kept else None
        if kept and blob and (until is None or blob.tid <= until.value):
            file = kept.folder.find(blob)
            if file is not None:
                return file.chunks
    return None


def _layout(kept: SnapshotBlobs) -> str:
    return kept.record.layout if kept.record.layout in LAYOUTS else BUSHY

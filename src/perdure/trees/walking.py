"""Walk a file tree and store it: read what has changed, keep what has not.

A folder is looked at once. What is in it is compared with the last snapshot; what has changed is read by the
pool while the walk goes on; and a folder is stored when all in it are. So the trees are stored from the
leaves to the root, and an unchanged folder is the chunk that it was.
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from perdure.errors import DamageFound, SourceUnusable
from perdure.formats.golang import format_time, quote
from perdure.formats.manifest import SourceRecord
from perdure.formats.tree import ExtendedAttribute, Node, Tree
from perdure.model import ChunkId, ChunkKind, Observer
from perdure.repository import Repository, Writer
from perdure.repository.chunks import chunk_id
from perdure.sources.excluding import Excluding
from perdure.sources.files import FilesCut
from perdure.trees.contents import Content, Contents
from perdure.trees.describing import (
    describe,
    group_name,
    plain,
    read_attributes,
    type_of,
    user_name,
)

MOST_NAMED = 1000
"""Files with which something was the matter that a snapshot names."""
MOST_NESTED = 400
"""Folders within folders; a restore does not go deeper."""
_IN_WORK = 20_000
"""Files whose folders are walked and not stored yet."""
_TICK = timedelta(milliseconds=50)
"""A file system's clock may be so far behind: two changes within a tick have the same time."""


@dataclass(slots=True)
class FileCounts:
    """What was met on a walk; sizes in bytes."""

    files: int = 0
    folders: int = 0
    others: int = 0
    size: int = 0
    new: int = 0
    changed: int = 0
    bytes_read: int = 0
    unread: list[tuple[str, str]] = field(default_factory=list)
    unread_count: int = 0
    changing: list[str] = field(default_factory=list)

    @property
    def same(self) -> int:
        """How many files were as they were at the last snapshot."""
        return self.files - self.new - self.changed

    def lacking(self, path: str, why: str) -> None:
        """Note what could not be read."""
        self.unread_count += 1
        if len(self.unread) < MOST_NAMED:
            self.unread.append((quote(path), why))


@dataclass(frozen=True, slots=True)
class EarlierTree:
    """What the last snapshot of a source has of it: its record, its top, and whether all of it is there."""

    record: SourceRecord
    top: Node | None
    whole: bool = False
    hostname: str = ""


class _Open:
    """A folder that is walked, and not stored yet."""

    __slots__ = (
        *("before", "expected", "gone", "nodes", "parent", "path", "pending", "prefix", "same"),
        *("status", "weight"),
    )

    def __init__(
        self, path: str, status: os.stat_result, parent: _Open | None, before: Node | None
    ) -> None:
        self.path, self.status, self.parent = path, status, parent
        self.prefix = f"{path.rstrip('/')}/"
        """What the paths of all that is in it begin with."""
        self.before = before
        """Its node in the last snapshot."""
        self.nodes: list[Node] = []
        self.pending: list[tuple[str, Content, Node | None]] = []
        self.same = before is not None
        """Whether all that was met in it is as it was."""
        self.expected = 0
        """How much was in it then."""
        self.weight = 0
        self.gone = False
        """It was removed before it was listed."""


def named(node: Node, name: str) -> Node:
    """Give a node another name: what was made for the backup goes by another one in a snapshot."""
    return msgspec.structs.replace(node, name=name)


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000) * 1000


class TreeWalk:
    """A walk through one tree, which stores what is new in it; ``counts`` says what was met."""

    def __init__(
        self,
        cut: FilesCut,
        earlier: EarlierTree | None,
        repository: Repository,
        writer: Writer,
        observer: Observer,
        *,
        read_all: bool,
    ) -> None:
        self._cut, self._earlier = cut, earlier
        self._repository, self._writer, self._observer = repository, writer, observer
        self._read_all = read_all or cut.plain
        self._whole = earlier is not None and earlier.whole
        self._settled = _nanoseconds(earlier.record.cut.time - _TICK) if earlier else 0
        self._contents = Contents(writer, repository.chunker_polynomial)
        self._walked: deque[_Open] = deque()
        self._in_work = 0
        self.counts = FileCounts()
        self.in_top: tuple[Node, ...] = ()
        """What is directly in the top, if that is a folder."""

    def store(self) -> Node:
        """Walk the tree, and store it; gives its top. Raises SourceUnusable, StoreError."""
        path = str(self._cut.path)
        try:
            status = os.lstat(path)
        except OSError as error:
            raise SourceUnusable(f"{path} cannot be read: {error.strerror}") from None
        self._excluding = Excluding(self._cut.excludes, status.st_dev)
        folder, _, name = path.rpartition("/")
        top = self._earlier.top if self._earlier is not None else None
        before = named(top, name or "/") if top is not None else None
        above = _Open(folder or "/", status, None, None)
        if stat.S_ISDIR(status.st_mode):
            self._walk(_Open(path, status, above, before))
        else:
            self._note(name, status, above, before)
        while self._walked:
            self._finish()
        self._finish_entries(above)
        if not above.nodes:
            why = self.counts.unread[0][1] if self.counts.unread else "it is a socket, or left out"
            raise SourceUnusable(f"{path} cannot be backed up: {why}")
        return named(above.nodes[0], name or "/")

    def _walk(self, top: _Open) -> None:
        stack = [(top, self._scan(top, 0))]
        while stack:
            folder, inner = stack[-1]
            following = next(inner, None)
            if following is not None:
                stack.append((following, self._scan(following, len(stack))))
                continue
            stack.pop()
            self._walked.append(folder)
            folder.weight = len(folder.nodes) + len(folder.pending) + 1
            self._in_work += folder.weight
            while self._in_work > _IN_WORK and len(self._walked) > 1:
                self._finish()

    def _scan(self, folder: _Open, depth: int) -> Iterator[_Open]:
        """Look at all that is in a folder, and give the folders in it."""
        entries = self._entries(folder, depth)
        before = self._before(folder)
        folders: list[tuple[str, os.stat_result]] = []
        for name, status in entries:
            if stat.S_ISDIR(status.st_mode):
                folders.append((name, status))
            else:
                self._note(name, status, folder, before.get(name))
        folder.expected = len(before)
        return self._folders(folder, folders, before)

    def _entries(self, folder: _Open, depth: int) -> list[tuple[str, os.stat_result]]:
        """List a folder: the names in it that are not left out, with what they are."""
        path, excluding = folder.path, self._excluding
        if excluding.elsewhere(folder.status):
            return []  # where another file system is mounted
        if depth >= MOST_NESTED:
            self._lacking(path, f"it lies in more than {MOST_NESTED} folders")
            return []
        found: list[tuple[str, os.stat_result]] = []
        prefix, places = folder.prefix, excluding.places_in(path)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        if entry.name in places:
                            continue
                        if excluding.by_pattern and excluding.matches(f"{prefix}{entry.name}"):
                            continue
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue  # it was removed meanwhile
                        if not excluding.unwanted(status):
                            found.append((entry.name, status))
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            folder.gone = True
            return []
        except OSError as error:
            self._lacking(path, error.strerror or str(error))
            return []
        tag = excluding.tag_in(path, {name for name, _ in found}) if found else None
        return [each for each in found if each[0] == tag] if tag else found

    def _before(self, folder: _Open) -> Mapping[str, Node]:
        """Give what the last snapshot has in a folder."""
        before = folder.before
        if before is None or before.tree is None:
            folder.same = False
            return {}
        try:
            return {node.name: node for node in self._repository.load_tree(before.tree).nodes}
        except DamageFound as error:
            self._observer.warning(f"{error}; {folder.path} is read anew")
            folder.same = False
            return {}

    def _folders(
        self,
        folder: _Open,
        folders: list[tuple[str, os.stat_result]],
        before: Mapping[str, Node],
    ) -> Iterator[_Open]:
        for name, status in folders:
            known = before.get(name)
            if known is None or known.type != "dir":
                known = None
                folder.same = False
            yield _Open(f"{folder.prefix}{name}", status, folder, known)

    def _note(self, name: str, status: os.stat_result, folder: _Open, before: Node | None) -> None:
        """Take what is not a folder: as it was, or else as it is."""
        kind = type_of(status)
        if kind is None:
            return
        if kind == "file":
            if before is not None and self._unchanged(before, status):
                folder.nodes.append(before)
                self.counts.files += 1
                self.counts.size += before.size
                return
            path = f"{folder.prefix}{name}"
            content = self._contents.begin(path, status)
            folder.pending.append((name, content, before))
            return
        path = f"{folder.prefix}{name}"
        try:
            node = describe(name, path, status, self._attributes(path))
        except FileNotFoundError:
            return
        except OSError as error:
            self._lacking(path, error.strerror or str(error))
            return
        folder.same = folder.same and node == before
        folder.nodes.append(node)
        self.counts.others += 1

    def _unchanged(self, before: Node, status: os.stat_result) -> bool:
        """Whether a file is what it was, as far as can be told without reading it.

        What changed just before the last snapshot was begun may have changed once more in the same tick
        of the clock.
        """
        if self._read_all or before.inode != status.st_ino or before.size != status.st_size:
            return False
        changed = format_time(status.st_ctime_ns)
        same = status.st_mtime_ns == status.st_ctime_ns
        return (
            before.type == "file"
            and before.device_id == status.st_dev
            and before.links == status.st_nlink
            and before.ctime == changed
            and before.mtime == (changed if same else format_time(status.st_mtime_ns))
            and status.st_ctime_ns < self._settled
            and before.user == user_name(status.st_uid)
            and before.group == group_name(status.st_gid)
            and (self._whole or self._has(before))
        )

    def _has(self, node: Node) -> bool:
        return all(self._repository.has(ChunkKind.DATA, chunk) for chunk in node.chunks)

    def _finish(self) -> None:
        """Store the folder that was walked first of those that are not stored."""
        folder = self._walked.popleft()
        self._in_work -= folder.weight
        self._finish_entries(folder)
        before, parent = folder.before, folder.parent
        assert parent is not None
        same = folder.same and len(folder.nodes) == folder.expected
        tree = before.tree if same and before is not None else None
        tree = tree or self._store(folder)
        name = folder.path.rpartition("/")[2]
        if folder.gone:
            parent.same = False
            return
        node = self._node(name, folder.path, folder.status, subtree=tree.hex())
        self.counts.folders += 1
        if parent.parent is None:
            self.in_top = tuple(folder.nodes)
        parent.same = parent.same and node == before
        parent.nodes.append(node)

    def _store(self, folder: _Open) -> ChunkId:
        """Store the tree of a folder; what becomes of it the writer tells before the commit."""
        text = Tree.of(folder.nodes).encode()
        name = chunk_id(text)
        if not self._repository.has(ChunkKind.TREE, name):
            self._writer.add(ChunkKind.TREE, text)
        return name

    def _finish_entries(self, folder: _Open) -> None:
        """Enter the files of a folder that had to be read."""
        for name, file, before in folder.pending:
            folder.same = False
            self._contents.finish(file)
            if file.gone:
                continue
            if file.problem:
                self._lacking(file.path, file.problem)
                continue
            content = tuple(chunk.hex() for chunk in file.chunks)
            node = self._node(name, file.path, file.status, size=file.size, content=content)
            folder.nodes.append(node)
            self.counts.files += 1
            self.counts.new += before is None
            self.counts.changed += before is not None and node != before
            self.counts.size += file.size
            self.counts.bytes_read += file.size
            if not file.steady and len(self.counts.changing) < MOST_NAMED:
                self.counts.changing.append(quote(file.path))
        folder.pending.clear()
        known = self._earlier.record.files if self._earlier is not None else None
        done = self.counts.files
        self._observer.progress("files", done, max(done, known.files if known else 0))

    def _node(self, name: str, path: str, status: os.stat_result, **content: Any) -> Node:
        """Describe a file or a folder that is stored."""
        if self._cut.plain:
            return plain(name, status, **content)
        return describe(name, path, status, self._attributes(path), **content)

    def _attributes(self, path: str) -> tuple[ExtendedAttribute, ...]:
        try:
            return read_attributes(path)
        except FileNotFoundError:
            return ()
        except OSError as error:
            self._lacking(path, f"extended attributes: {error.strerror}")
            return ()

    def _lacking(self, path: str, why: str) -> None:
        self.counts.lacking(path, why)

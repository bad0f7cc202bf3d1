"""Bring what is kept of a file tree up to date: walk it, read what has changed, store what is new.

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

import msgspec

from perdure.errors import DamageFound, SourceUnusable, UsageError
from perdure.formats.golang import format_time, quote
from perdure.formats.manifest import COMPLETE, INCOMPLETE, FilesRecord, SourceRecord
from perdure.formats.tree import Node, Tree
from perdure.history.folders import Folder
from perdure.model import ChunkId, ChunkKind, Observer, Tid
from perdure.repository import Repository, Writer
from perdure.repository.chunks import chunk_id
from perdure.sources.excluding import Excluding
from perdure.sources.files import FilesCut
from perdure.trees.contents import Content, Contents
from perdure.trees.describing import describe, group_name, plain, type_of, user_name

MOST_NAMED = 1000
"""Files with which something was the matter that a snapshot names."""
MOST_NESTED = 400
"""Folders within folders; a restore does not go deeper."""
_IN_WORK = 20_000
"""Files whose folders are walked and not stored yet."""
_TOGETHER = 256
"""Trees of the last snapshot that are loaded at once."""
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


@dataclass(frozen=True, slots=True)
class KeptTree:
    """A file tree in the repository: its record, its top, and the folders that lead to it."""

    record: SourceRecord
    top: tuple[Node, ...]
    """One node; of the root all that is in it."""
    parents: tuple[Node, ...]
    counts: FileCounts
    method: str
    reason: str
    unchanged: bool

    @property
    def bytes_read(self) -> int:
        """Bytes of the files that were read."""
        return self.counts.bytes_read

    @property
    def note(self) -> str:
        """Under which name it is noted that all of it is in the repository."""
        return note_of(self.record.name)

    def enter(self, root: Folder) -> None:
        """Enter it into the root of a snapshot."""
        folder = root
        for parent in self.parents:
            folder = folder.folder(parent.name)
            folder.describe(parent)
        for node in self.top:
            if node.name in folder:
                raise UsageError(
                    f"/{node.name} cannot be backed up: a snapshot has something of its own of that name",
                    hint="leave it out with --exclude",
                )
            folder.enter(node)


def note_of(name: str) -> str:
    """Say under which name it is noted that all of a tree is in the repository."""
    return f"files of {name}"


def keep_tree(
    cut: FilesCut,
    identity: SourceRecord,
    earlier: EarlierTree | None,
    repository: Repository,
    writer: Writer,
    observer: Observer,
    *,
    began: datetime,
    read_all: bool = False,
) -> KeptTree:
    """Store what is new in a tree. What cannot be read is named, and left out.

    A file whose type, size, times and inode are those of the last snapshot is not read, unless ``read_all``.
    Raises SourceUnusable when its top cannot be read, RepositoryDamaged, StoreError.
    """
    keeper = _Keeper(cut, earlier, repository, writer, observer, read_all=read_all)
    top = keeper.keep()
    counts = keeper.counts
    record = msgspec.structs.replace(
        identity,
        tree=cut.tree,
        cut=Tid.at(began),
        last_packed=Tid.at(began),
        size=counts.size,
        status=INCOMPLETE if counts.unread_count else COMPLETE,
        files=FilesRecord(
            files=counts.files,
            folders=counts.folders,
            others=counts.others,
            unread=tuple(counts.unread),
            unread_count=counts.unread_count,
            changing=tuple(counts.changing),
            excluding=cut.excludes.spoken(),
        ),
    )
    unchanged = earlier is not None and top == earlier.top and not counts.unread_count
    return KeptTree(
        record=record,
        top=(top,) if cut.tree else keeper.in_top,
        parents=() if cut.plain else _parents(cut),
        counts=counts,
        method="files",
        reason=_reason(earlier, counts, read_all=read_all),
        unchanged=unchanged,
    )


def _reason(earlier: EarlierTree | None, counts: FileCounts, *, read_all: bool) -> str:
    if earlier is None:
        return "the source has no earlier snapshot in this repository"
    same = counts.files - counts.new - counts.changed
    how = "all were read" if read_all else "only new and changed ones were read"
    return f"{counts.new} files are new, {counts.changed} changed, {same} as they were; {how}"


def _parents(cut: FilesCut) -> tuple[Node, ...]:
    """Describe the folders above a tree, as restic has them in a snapshot."""
    above = list(reversed(cut.path.parents))[1:]
    return tuple(describe(path.name, str(path), os.stat(path)) for path in above)


class _Open:
    """A folder that is walked, and not stored yet."""

    __slots__ = (
        *("before", "expected", "nodes", "parent", "path", "pending", "same", "status", "weight"),
    )

    def __init__(
        self, path: str, status: os.stat_result, parent: _Open | None, before: Node | None
    ) -> None:
        self.path, self.status, self.parent = path, status, parent
        self.before = before
        """Its node in the last snapshot."""
        self.nodes: list[Node] = []
        self.pending: list[tuple[str, Content]] = []
        self.same = before is not None
        """Whether all that was met in it is as it was."""
        self.expected = 0
        """How much was in it then."""
        self.weight = 0


def _nanoseconds(time: datetime) -> int:
    return round(time.timestamp() * 1_000_000) * 1000


class _Keeper:
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

    def keep(self) -> Node:
        """Walk the tree, and store it. Raises SourceUnusable."""
        path = str(self._cut.path)
        try:
            status = os.lstat(path)
        except OSError as error:
            raise SourceUnusable(f"{path} cannot be read: {error.strerror}") from None
        self._excluding = Excluding(self._cut.excludes, status.st_dev)
        before = self._earlier.top if self._earlier is not None else None
        folder, _, name = path.rpartition("/")
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
        return msgspec.structs.replace(above.nodes[0], name=name or "/")

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
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                with os.scandir(descriptor) as entries:
                    for entry in entries:
                        if excluding.by_name and excluding.named(os.path.join(path, entry.name)):
                            continue
                        try:
                            status = entry.stat(follow_symlinks=False)
                        except FileNotFoundError:
                            continue  # it was removed meanwhile
                        if not excluding.unwanted(status):
                            found.append((entry.name, status))
            finally:
                os.close(descriptor)
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
            yield _Open(os.path.join(folder.path, name), status, folder, known)

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
            path = os.path.join(folder.path, name)
            folder.pending.append((name, self._contents.begin(path, status)))
            self.counts.new += before is None
            self.counts.changed += before is not None
            return
        path = os.path.join(folder.path, name)
        try:
            node = describe(name, path, status)
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
        return (
            not self._read_all
            and before.type == "file"
            and before.inode == status.st_ino
            and before.size == status.st_size
            and before.device_id == status.st_dev
            and before.links == status.st_nlink
            and before.mtime == format_time(status.st_mtime_ns)
            and before.ctime == format_time(status.st_ctime_ns)
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
        try:
            if self._cut.plain:
                node = plain(name, folder.status, subtree=tree.hex())
            else:
                node = describe(name, folder.path, folder.status, subtree=tree.hex())
        except OSError as error:
            self._lacking(folder.path, error.strerror or str(error))
            parent.same = False
            return
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
        for name, file in folder.pending:
            folder.same = False
            self._contents.finish(file)
            if file.problem:
                self._lacking(file.path, file.problem)
                continue
            content = tuple(chunk.hex() for chunk in file.chunks)
            try:
                if self._cut.plain:
                    node = plain(name, file.status, size=file.size, content=content)
                else:
                    node = describe(name, file.path, file.status, size=file.size, content=content)
            except OSError as error:
                self._lacking(file.path, error.strerror or str(error))
                continue
            folder.nodes.append(node)
            self.counts.files += 1
            self.counts.size += file.size
            self.counts.bytes_read += file.size
            if not file.steady and len(self.counts.changing) < MOST_NAMED:
                self.counts.changing.append(quote(file.path))
        folder.pending.clear()
        known = self._earlier.record.files if self._earlier is not None else None
        done = self.counts.files
        self._observer.progress("files", done, max(done, known.files if known else 0))

    def _lacking(self, path: str, why: str) -> None:
        self.counts.lacking(path, why)

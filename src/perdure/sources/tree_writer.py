"""Write files and folders back as a snapshot has them, never outside the folder that was named.

Folders are entered by descriptor, without following symbolic links, so that neither a name from the
snapshot nor a link that is already there leads elsewhere. A file appears under its name when it is whole;
one that is there and has the right bytes stays. A folder gets its mode and times when all in it is done.
The contents of some hundred files are loaded together.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from perdure.errors import RepositoryDamaged, StoreError
from perdure.formats.golang import parse_time
from perdure.formats.tree import Node, Tree, unix_mode
from perdure.model import ChunkId, Observer
from perdure.sources.durable import sync_filesystem
from perdure.sources.file_metadata import give_metadata, give_metadata_by_name

LoadTree = Callable[[ChunkId], Tree]
LoadContent = Callable[[Iterable[ChunkId]], Iterator[bytes]]
ChunkSize = Callable[[ChunkId], int]

_TOP = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_ENTER = _TOP | os.O_NOFOLLOW
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
STANDING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PART = ".perdure-part"
MOST_NESTED = 400
_MOST_FILES, _MOST_BYTES, _MOST_FOLDERS = 1000, 32 << 20, 200
"""What is loaded and written together."""
_HOLE = bytes(64 << 10)
"""So many zeros, at a multiple of so many bytes, are not written but left out."""


@dataclass(slots=True)
class _Folder:
    """A folder that is being filled; ``node`` says what it is like at the end."""

    descriptor: int
    path: str
    node: Node | None = None


@dataclass(slots=True)
class _File:
    """A file that is to be written, or linked to one that was written before."""

    node: Node
    folder: _Folder
    replaces: bool

    @property
    def path(self) -> str:
        return f"{self.folder.path}/{self.node.name}"


@dataclass(slots=True)
class _Written:
    """A file of several names: where the first is, and which file it was then."""

    path: str
    identity: tuple[int, int]


@dataclass(slots=True)
class TreeWriter:
    """Writes trees below a folder; counts what it wrote, and what was there already (sizes in bytes).

    Without ``chunk_size`` every file is written anew.
    """

    load_tree: LoadTree
    load_content: LoadContent
    observer: Observer
    chunk_size: ChunkSize | None = None
    total: int = 0
    """Files that are expected, for the progress."""
    files: int = 0
    size: int = 0
    kept_files: int = 0
    kept: int = 0
    _linked: dict[tuple[int, int], _Written] = field(default_factory=dict)
    _jobs: list[_File | _Folder] = field(default_factory=list)
    _waiting: int = 0
    _path: str = ""

    def write(self, root: ChunkId, target: Path, leave_out: frozenset[str] = frozenset()) -> None:
        """Write a tree into a folder, which is made if it is not there; some names at its top are left out.

        Raises RepositoryDamaged for names that lead elsewhere, StoreError when something cannot be written.
        """
        with self._writing(target) as descriptor:
            top = _Folder(descriptor, str(target))
            nodes = [node for node in self._nodes(root, top.path) if node.name not in leave_out]
            self._walk(top, nodes)

    def write_node(self, node: Node, target: Path) -> None:
        """Write a file, a folder with all that is in it, or anything else, as ``target``.

        Raises as `write` does.
        """
        with self._writing(target.parent) as descriptor:
            self._walk(_Folder(descriptor, str(target.parent)), [_renamed(node, target.name)])

    @contextmanager
    def _writing(self, target: Path) -> Iterator[int]:
        self._path = str(target)
        try:
            target.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, _TOP)
            try:
                yield descriptor
                sync_filesystem(descriptor)
            finally:
                self._abandon()
                os.close(descriptor)
        except OSError as error:
            raise StoreError(
                f"{self._path} cannot be written: {error.strerror}",
                hint="restore into an empty folder that this user may write to",
            ) from error

    def _abandon(self) -> None:
        """Close the folders that are still open, when something went wrong."""
        for job in self._jobs:
            if isinstance(job, _Folder) and job.node is not None:
                os.close(job.descriptor)
        self._jobs = []

    def _inside(self, identity: ChunkId, path: str) -> Iterator[Node]:
        yield from self._nodes(identity, path)

    def _nodes(self, identity: ChunkId, path: str) -> tuple[Node, ...]:
        tree = self.load_tree(identity)
        try:
            tree.check()
        except ValueError as error:
            raise RepositoryDamaged(f"{path} cannot be restored: {error}") from None
        return tree.nodes

    def _walk(self, top: _Folder, nodes: Iterable[Node]) -> None:
        stack = [(top, iter(nodes))]
        try:
            while stack:
                folder, inside = stack[-1]
                node = next(inside, None)
                if node is None:
                    stack.pop()
                    self._jobs.append(folder)
                elif node.tree is not None:
                    if len(stack) > MOST_NESTED:
                        raise RepositoryDamaged(
                            f"{folder.path} lies in more than {MOST_NESTED} folders"
                        )
                    inner = self._enter(node, folder)
                    stack.append((inner, self._inside(node.tree, inner.path)))
                else:
                    self._take(node, folder)
                if len(self._jobs) >= _MOST_FOLDERS or self._waiting >= _MOST_BYTES:
                    self._flush()
            self._flush()
        finally:
            for folder, _ in stack[1:]:
                os.close(folder.descriptor)

    def _enter(self, node: Node, folder: _Folder) -> _Folder:
        """Make a folder, or enter the one that is there; what else is there gives way."""
        name = os.fsencode(node.name)
        path = self._path = f"{folder.path}/{node.name}"
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder.descriptor)
        try:
            descriptor = os.open(name, _ENTER, dir_fd=folder.descriptor)
        except OSError as error:
            if error.errno not in (errno.ENOTDIR, errno.ELOOP):
                raise
            os.unlink(name, dir_fd=folder.descriptor)
            os.mkdir(name, 0o700, dir_fd=folder.descriptor)
            descriptor = os.open(name, _ENTER, dir_fd=folder.descriptor)
        mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
        if mode & 0o700 != 0o700 and os.geteuid() != 0:
            os.fchmod(descriptor, mode | 0o700)  # until all in it is done
        return _Folder(descriptor, path, node)

    def _take(self, node: Node, folder: _Folder) -> None:
        """Leave what is right as it is, and have written what is not."""
        self._path = f"{folder.path}/{node.name}"
        try:
            standing = os.stat(
                os.fsencode(node.name), dir_fd=folder.descriptor, follow_symlinks=False
            )
        except FileNotFoundError:
            standing = None
        if node.type != "file":
            if standing is None or not _is_special(node, standing, folder.descriptor):
                self._write_special(node, folder)
            return
        self.files += 1
        if standing is None or not self._keep(node, folder, standing):
            self._jobs.append(_File(node, folder, standing is not None))
            self._waiting += node.size + (_MOST_BYTES // _MOST_FILES)

    def _keep(self, node: Node, folder: _Folder, standing: os.stat_result) -> bool:
        """Keep the file that is there, if its bytes are right; its metadata are put right."""
        if self.chunk_size is None or not stat.S_ISREG(standing.st_mode):
            return False
        identity = (standing.st_dev, standing.st_ino)
        first = self._linked.get((node.device_id, node.inode)) if node.links > 1 else None
        if standing.st_size != node.size or (first is not None and first.identity != identity):
            return False
        if node.links <= 1 < standing.st_nlink:
            return False  # another name of it may have to stay what it is
        try:
            descriptor = os.open(os.fsencode(node.name), STANDING, dir_fd=folder.descriptor)
        except PermissionError:
            return False
        try:
            if first is None and not has_content(descriptor, node, self.chunk_size):
                return False
            self._give(node, descriptor, new=False)
        finally:
            os.close(descriptor)
        self._note_link(node, self._path, identity)
        self.kept_files += 1
        self.kept += node.size
        return True

    def _flush(self) -> None:
        """Write what waits, in its order; a folder comes after all that is in it."""
        jobs, self._jobs, self._waiting = self._jobs, [], 0
        written = [job for job in jobs if isinstance(job, _File) and not self._is_linked(job.node)]
        contents = self.load_content(chunk for job in written for chunk in job.node.chunks)
        done = 0
        try:
            for job in jobs:
                if isinstance(job, _File):
                    self._path = job.path
                    self._write_file(job, contents)
                elif job.node is not None:
                    self._path = job.path
                    self._give(job.node, job.descriptor, new=False)
                    os.close(job.descriptor)
                done += 1
        finally:
            self._jobs = jobs[done:]
        self.observer.progress("files", self.files, max(self.files, self.total))

    def _is_linked(self, node: Node) -> bool:
        """Whether a file is a further name of one; if it is the first, the next ones are."""
        if node.links <= 1 or not node.inode:
            return False
        key = (node.device_id, node.inode)
        if key in self._linked:
            return True
        self._linked[key] = _Written("", (0, 0))
        return False

    def _write_file(self, job: _File, contents: Iterator[bytes]) -> None:
        node = job.node
        first = self._linked.get((node.device_id, node.inode)) if node.links > 1 else None
        with _replacing(node.name, job.folder.descriptor) as part:
            if first is not None and first.path:
                self._link(first, part, job)
                return
            descriptor = os.open(part, _NEW, 0o600, dir_fd=job.folder.descriptor)
            try:
                size = 0
                for _ in node.content or ():
                    chunk = next(contents)
                    _write(descriptor, chunk, size)
                    size += len(chunk)
                os.ftruncate(descriptor, size)
                self.size += size
                self._give(node, descriptor, new=True)
                if job.replaces:
                    os.fsync(descriptor)  # the old file goes when the new one is on the disk
                status = os.fstat(descriptor)
            finally:
                os.close(descriptor)
        self._note_link(node, job.path, (status.st_dev, status.st_ino))

    def _link(self, first: _Written, part: bytes, job: _File) -> None:
        os.link(first.path, part, dst_dir_fd=job.folder.descriptor, follow_symlinks=False)
        status = os.stat(part, dir_fd=job.folder.descriptor, follow_symlinks=False)
        if (status.st_dev, status.st_ino) != first.identity:
            raise StoreError(f"{first.path} was replaced while it was restored")

    def _note_link(self, node: Node, path: str, identity: tuple[int, int]) -> None:
        if node.links > 1 and node.inode:
            self._linked[node.device_id, node.inode] = _Written(path, identity)

    def _write_special(self, node: Node, folder: _Folder) -> None:
        if node.type != "symlink" and not _may_make(node.type):
            self.observer.warning(f"{self._path} is a {node.type}, which this user cannot restore")
            return
        with _replacing(node.name, folder.descriptor) as part:
            if node.type == "symlink":
                os.symlink(os.fsencode(node.linktarget), part, dir_fd=folder.descriptor)
            else:
                kind = _SPECIAL[node.type] | 0o600
                os.mknod(part, kind, node.device, dir_fd=folder.descriptor)
            self._warn(give_metadata_by_name(node, part, folder.descriptor))

    def _give(self, node: Node, descriptor: int, *, new: bool) -> None:
        self._warn(give_metadata(node, descriptor, new=new))

    def _warn(self, attributes: list[str]) -> None:
        if attributes:
            self.observer.warning(
                f"{self._path}: extended attributes cannot be set here: {', '.join(attributes)}"
            )


_SPECIAL = {
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "dev": stat.S_IFBLK,
    "chardev": stat.S_IFCHR,
}


def _may_make(kind: str) -> bool:
    return kind in ("fifo", "socket") or (kind in _SPECIAL and os.geteuid() == 0)


def _renamed(node: Node, name: str) -> Node:
    return node if node.name == name else msgspec.structs.replace(node, name=name)


def _is_special(node: Node, standing: os.stat_result, folder: int) -> bool:
    """Whether a link, a pipe or a device is there as it should be."""
    if node.type == "symlink":
        if not stat.S_ISLNK(standing.st_mode):
            return False
        if os.readlink(os.fsencode(node.name), dir_fd=folder) != os.fsencode(node.linktarget):
            return False
    elif (
        _SPECIAL.get(node.type) != stat.S_IFMT(standing.st_mode)
        or stat.S_IMODE(standing.st_mode) != unix_mode(node.mode)
        or (node.type in ("dev", "chardev") and standing.st_rdev != node.device)
    ):
        return False
    owned = os.geteuid() != 0 or (standing.st_uid, standing.st_gid) == (node.uid, node.gid)
    return owned and standing.st_mtime_ns == parse_time(node.mtime)


def has_content(descriptor: int, node: Node, size_of: ChunkSize) -> bool:
    """Tell whether the bytes of an open file are those of a node, by the SHA-256 of each chunk."""
    for chunk in node.chunks:
        data = _read(descriptor, size_of(chunk))
        if hashlib.sha256(data).digest() != chunk:
            return False
    return not os.read(descriptor, 1)


def _read(descriptor: int, size: int) -> bytes:
    data = os.read(descriptor, size)
    while len(data) < size and (more := os.read(descriptor, size - len(data))):
        data += more
    return data


@contextmanager
def _replacing(name: str, folder: int) -> Iterator[bytes]:
    """Give a temporary name, which takes the place of the final one when all went well."""
    final = os.fsencode(name)
    part = b"." + final[:200] + _PART.encode()
    _unlink(part, folder)
    try:
        yield part
        os.rename(part, final, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _unlink(part, folder)
        raise


def _unlink(name: bytes, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _write(descriptor: int, data: bytes, position: int) -> None:
    """Write a chunk; long runs of zeros are left out, so that they become holes."""
    view = memoryview(data)
    start = 0
    for at in range(-position % len(_HOLE), len(data) - len(_HOLE) + 1, len(_HOLE)):
        if data.startswith(_HOLE, at):
            _write_all(descriptor, view[start:at], position + start)
            start = at + len(_HOLE)
    _write_all(descriptor, view[start:], position + start)


def _write_all(descriptor: int, view: memoryview, position: int) -> None:
    while view:
        done = os.pwrite(descriptor, view, position)
        view, position = view[done:], position + done

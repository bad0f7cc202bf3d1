"""Write files and folders back as a snapshot has them, never outside the folder that was named.

Folders are entered by descriptor, without following symbolic links, so that neither a name from the
snapshot nor a link that is already there leads elsewhere. A file appears under its name when it is whole.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from perdure.errors import RepositoryDamaged, StoreError
from perdure.formats.golang import parse_time
from perdure.formats.tree import Node, Tree, unix_mode
from perdure.model import ChunkId, Observer

LoadTree = Callable[[ChunkId], Tree]
LoadContent = Callable[[Iterable[ChunkId]], Iterator[bytes]]

_ENTER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PART = ".perdure-part"
MOST_NESTED = 400


@dataclass(slots=True)
class TreeWriter:
    """Writes trees below a folder; counts what it wrote."""

    load_tree: LoadTree
    load_content: LoadContent
    observer: Observer
    files: int = 0
    size: int = 0
    _linked: dict[tuple[int, int], Path] = field(default_factory=dict)
    _path: Path = field(default_factory=Path)

    def write(self, root: ChunkId, target: Path) -> None:
        """Write a tree into a folder, which is made if it is not there.

        Raises RepositoryDamaged for names that lead elsewhere, StoreError when something cannot be written.
        """
        self._path = target
        try:
            target.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._write_tree(root, descriptor, target, 0)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(
                f"{error.filename or self._path} cannot be written: {error.strerror}",
                hint="restore into an empty folder that this user may write to",
            ) from error

    def _write_tree(self, identity: ChunkId, folder: int, path: Path, depth: int) -> None:
        if depth > MOST_NESTED:
            raise RepositoryDamaged(f"{path} lies in more than {MOST_NESTED} folders")
        tree = self.load_tree(identity)
        try:
            tree.check()
        except ValueError as error:
            raise RepositoryDamaged(f"{path} cannot be restored: {error}") from None
        for node in tree.nodes:
            self._path = path / node.name
            self._write_node(node, folder, self._path, depth)
        os.fsync(folder)

    def _write_node(self, node: Node, folder: int, path: Path, depth: int) -> None:
        if node.tree is not None:
            self._write_folder(node, folder, path, depth)
        elif node.type == "file":
            self._write_file(node, folder, path)
        elif node.type == "symlink":
            with _replacing(node.name, folder) as part:
                os.symlink(os.fsencode(node.linktarget), part, dir_fd=folder)
                _set_owner(node, part, folder)
                _set_times(node, part, folder)
        elif node.type in _SPECIAL and _may_make(node.type):
            with _replacing(node.name, folder) as part:
                os.mknod(part, _SPECIAL[node.type] | 0o600, node.device, dir_fd=folder)
                os.chmod(part, unix_mode(node.mode), dir_fd=folder)
                _set_owner(node, part, folder)
                _set_times(node, part, folder)
        else:
            self.observer.warning(f"{path} is a {node.type}, which this user cannot restore")

    def _write_folder(self, node: Node, folder: int, path: Path, depth: int) -> None:
        assert node.tree is not None
        name = os.fsencode(node.name)
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=folder)
        inner = os.open(name, _ENTER, dir_fd=folder)
        try:
            self._write_tree(node.tree, inner, path, depth + 1)
            self._set_all(node, inner, path)
        finally:
            os.close(inner)

    def _write_file(self, node: Node, folder: int, path: Path) -> None:
        self.files += 1
        known = self._linked.get((node.device_id, node.inode)) if node.links > 1 else None
        with _replacing(node.name, folder) as part:
            if known is not None:
                os.link(known, part, dst_dir_fd=folder, follow_symlinks=False)
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(part, flags, 0o600, dir_fd=folder)
            try:
                for chunk in self.load_content(node.chunks):
                    self.size += len(chunk)
                    _write_all(descriptor, chunk)
                self._set_all(node, descriptor, path)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        if node.links > 1 and node.inode:
            self._linked[node.device_id, node.inode] = path

    def _set_all(self, node: Node, descriptor: int, path: Path) -> None:
        """Set owner, mode, extended attributes and times of an open file or folder."""
        if os.geteuid() == 0:
            os.fchown(descriptor, node.uid, node.gid)
        for attribute in node.extended_attributes:
            try:
                os.setxattr(descriptor, attribute.name, attribute.value or b"")
            except OSError as error:
                self.observer.warning(
                    f"{path}: attribute {attribute.name} not set: {error.strerror}"
                )
        os.fchmod(descriptor, unix_mode(node.mode))
        os.utime(descriptor, ns=(parse_time(node.atime), parse_time(node.mtime)))


_SPECIAL = {
    "fifo": stat.S_IFIFO,
    "socket": stat.S_IFSOCK,
    "dev": stat.S_IFBLK,
    "chardev": stat.S_IFCHR,
}


def _may_make(kind: str) -> bool:
    return kind in ("fifo", "socket") or os.geteuid() == 0


@contextmanager
def _replacing(name: str, folder: int) -> Iterator[bytes]:
    """Give a temporary name, which takes the place of the final one when all went well."""
    final = os.fsencode(name)
    part = b"." + final[:200] + _PART.encode()
    _unlink(part, folder)
    try:
        yield part
        os.rename(part, final, src_dir_fd=folder, dst_dir_fd=folder)
    finally:
        _unlink(part, folder)


def _unlink(name: bytes, folder: int) -> None:
    try:
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _set_owner(node: Node, name: bytes, folder: int) -> None:
    if os.geteuid() == 0:
        os.chown(name, node.uid, node.gid, dir_fd=folder, follow_symlinks=False)


def _set_times(node: Node, name: bytes, folder: int) -> None:
    times = (parse_time(node.atime), parse_time(node.mtime))
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)

"""The folders of a snapshot: loaded when they are looked into, stored again only where they changed."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.tree import Node, Tree, go_mode
from perdure.model import ChunkId, ChunkKind
from perdure.repository import Repository, Writer

_EPOCH = "1970-01-01T00:00:00Z"
_FILE_MODE = go_mode(stat.S_IFREG | 0o600)
_FOLDER_MODE = go_mode(stat.S_IFDIR | 0o700)


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file of a snapshot: the chunks of its content, in order, and its size in bytes."""

    chunks: tuple[ChunkId, ...]
    size: int


class Folder:
    """A folder of a snapshot, at ``path`` in it; a new one where ``identity`` is None.

    Everything in it has the same owner, mode and time in every snapshot, so that a folder with the same
    content is the same chunk.
    """

    def __init__(
        self, repository: Repository, path: PurePosixPath, identity: ChunkId | None
    ) -> None:
        self.path = path
        self._repository = repository
        self._identity = identity
        self._nodes: dict[str, Node] | None = {} if identity is None else None
        self._folders: dict[str, Folder] = {}
        self._described: Node | None = None

    def as_stored(self) -> Folder:
        """Give the folder once more, which changes of this one do not reach; it must not have any yet."""
        return Folder(self._repository, self.path, self._identity)

    @property
    def nodes(self) -> dict[str, Node]:
        """The entries as they are stored, by name. Raises RepositoryDamaged."""
        if self._nodes is None:
            assert self._identity is not None
            tree = self._repository.load_tree(self._identity)
            self._nodes = {node.name: node for node in tree.nodes}
        return self._nodes

    def folder(self, name: str) -> Folder:
        """Give the folder of that name, a new one where there is none."""
        if name not in self._folders:
            node = self.nodes.get(name)
            if node is not None and node.tree is None:
                raise RepositoryDamaged(f"{self.path / name} is a {node.type}, not a folder")
            tree = node.tree if node is not None else None
            self._folders[name] = Folder(self._repository, self.path / name, tree)
        return self._folders[name]

    def adopt(self, name: str, folder: Folder) -> None:
        """Enter a folder that may belong to another snapshot, whole."""
        self._folders[name] = folder

    def enter(self, node: Node) -> None:
        """Enter what is stored already, as it is."""
        self.nodes[node.name] = node
        self._identity = None

    def describe(self, node: Node) -> None:
        """Have the folder named with the owner, mode and times of ``node``: it stands for a real one."""
        self._described = node

    def __contains__(self, name: str) -> bool:
        return name in self.nodes or name in self._folders

    def folders(self) -> Iterator[Folder]:
        """Give all folders in it, by ascending name."""
        names = {
            name for name, node in self.nodes.items() if node.type == "dir"
        } | self._folders.keys()
        for name in sorted(names):
            yield self.folder(name)

    def files(self) -> Iterator[str]:
        """Give the names of all files in it, ascending."""
        yield from sorted(name for name, node in self.nodes.items() if node.type == "file")

    def file(self, name: str) -> StoredFile:
        """Give a file. Raises RepositoryDamaged when there is none of that name."""
        node = self.nodes.get(name)
        if node is None or node.type != "file":
            raise RepositoryDamaged(f"{self.path / name} is missing from the snapshot")
        return StoredFile(tuple(node.chunks), node.size)

    def put(self, name: str, file: StoredFile) -> None:
        """Enter a file, in the place of one that had the name."""
        self.nodes[name] = Node(
            name=name,
            type="file",
            mode=_FILE_MODE,
            mtime=_EPOCH,
            atime=_EPOCH,
            ctime=_EPOCH,
            uid=0,
            gid=0,
            size=file.size,
            links=1,
            content=tuple(chunk.hex() for chunk in file.chunks),
        )
        self._identity = None

    def remove(self, name: str) -> None:
        """Take a file out, if it is there."""
        if self.nodes.pop(name, None) is not None:
            self._identity = None

    def store(self, writer: Writer) -> ChunkId | None:
        """Store what has changed, folders within first.

        Returns the chunk of the tree; None for an empty folder.
        """
        store_together([self], writer)
        return self._stored

    @property
    def _stored(self) -> ChunkId | None:
        """The chunk of a folder that is stored; None for an empty one."""
        return None if self._nodes is not None and not self._nodes else self._identity

    def _submit(self, writer: Writer) -> Future[ChunkId] | None:
        """Store this folder, whose folders are stored; None if it is as it was, or empty."""
        for name, folder in self._folders.items():
            after = folder._stored
            if after is None:
                self.remove(name)
            elif name not in self.nodes or self.nodes[name].tree != after:
                self.nodes[name] = folder._node(name, after, self.nodes.get(name))
                self._identity = None
        if self._identity is not None or not self._nodes:
            return None
        return writer.add(ChunkKind.TREE, Tree.of(self.nodes.values()).encode())

    def _node(self, name: str, tree: ChunkId, before: Node | None) -> Node:
        """Make its node: one that stands for a real folder stays what it is, but for what is in it."""
        described = self._described or before
        if described is not None:
            return msgspec.structs.replace(described, name=name, subtree=tree.hex())
        return folder_node(name, tree)

    def prefetch(self) -> None:
        """Load all folders directly in it, together. Raises RepositoryDamaged."""
        inner = [folder for folder in self.folders() if folder._nodes is None]
        wanted = (folder._identity for folder in inner if folder._identity is not None)
        for folder, data in zip(
            inner, self._repository.load_many(ChunkKind.TREE, wanted), strict=True
        ):
            tree = Tree.decode(data, str(folder.path))
            folder._nodes = {node.name: node for node in tree.nodes}

    def forget(self) -> None:
        """Let go of what was loaded, or stored, below it; it is loaded again when it is asked for."""
        if self._clean:
            self._nodes = None
            self._folders.clear()

    @property
    def _clean(self) -> bool:
        """Whether nothing in it has changed since it was loaded or stored."""
        return self._identity is not None and all(each._clean for each in self._folders.values())

    def whole(self, name: str) -> bool:
        """Whether the repository has all chunks of the file of that name."""
        return self.has_chunks(self.file(name))

    def has_chunks(self, file: StoredFile) -> bool:
        """Whether the repository has all chunks of a file."""
        return all(self._repository.has(ChunkKind.DATA, chunk) for chunk in file.chunks)


def store_together(folders: Sequence[Folder], writer: Writer) -> None:
    """Store what has changed of some folders: those of the same depth together, the deepest first."""
    levels: list[list[Folder]] = [list(folders)]
    while levels[-1]:
        levels.append([inner for folder in levels[-1] for inner in folder._folders.values()])
    for level in reversed(levels):
        stored = [(folder, folder._submit(writer)) for folder in level]
        for folder, chunk in stored:
            if chunk is not None:
                folder._identity = chunk.result()


def folder_node(name: str, tree: ChunkId) -> Node:
    """Make the node of a folder that is Perdure's own, not the image of a real one."""
    return Node(
        name=name,
        type="dir",
        mode=_FOLDER_MODE,
        mtime=_EPOCH,
        atime=_EPOCH,
        ctime=_EPOCH,
        uid=0,
        gid=0,
        content=None,
        subtree=tree.hex(),
    )

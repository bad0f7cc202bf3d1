"""A small repository, and short ways to write to it."""

from __future__ import annotations

import os
from datetime import UTC, datetime

from doubles import Clock

from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node, Tree
from perdure.model import ChunkId, ChunkKind, SnapshotId
from perdure.repository import Repository
from perdure.stores.memory import MemoryStore

TIME = "2026-11-21T03:15:00Z"


class Site:
    """A store with a repository, and short ways to write to it."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.clock = Clock()
        Repository.create(
            self.store,
            "secret",
            kdf=FOR_KEY_FILES,
            now=datetime(2026, 11, 21, tzinfo=UTC),
            username="plone",
            hostname="www1",
        )
        self.repository = self.open()

    def open(self) -> Repository:
        return Repository.open(self.store, "secret", cache=None, clock=self.clock, workers=2)

    def backup(self, files: dict[str, list[bytes]]) -> SnapshotId:
        return backup(self.repository, files)

    def names(self, folder: str) -> list[str]:
        return sorted(name for name, _ in self.store.list(f"{folder}/"))


def backup(repository: Repository, files: dict[str, list[bytes]]) -> SnapshotId:
    """Store files, given as their chunks, under one folder."""
    with repository.lock() as lock, repository.writer(lock) as writer:
        nodes = []
        for name, chunks in files.items():
            ids = [future.result() for future in [writer.add(ChunkKind.DATA, c) for c in chunks]]
            nodes.append(file_node(name, ids, sum(map(len, chunks))))
        folder = writer.add_tree(Tree.of(nodes))
        root = writer.add_tree(Tree((dir_node("folder", folder),)))
        return writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/folder",)))


def file_node(name: str, ids: list[ChunkId], size: int) -> Node:
    content = tuple(chunk.hex() for chunk in ids)
    return Node(
        name=name,
        type="file",
        mode=0o644,
        mtime=TIME,
        atime=TIME,
        ctime=TIME,
        uid=os.getuid(),
        gid=os.getgid(),
        size=size,
        content=content,
    )


def dir_node(name: str, tree: ChunkId) -> Node:
    return Node(
        name=name,
        type="dir",
        mode=1 << 31 | 0o755,
        mtime=TIME,
        atime=TIME,
        ctime=TIME,
        uid=os.getuid(),
        gid=os.getgid(),
        content=None,
        subtree=tree.hex(),
    )

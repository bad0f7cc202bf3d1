"""Files written back: whole, in their place, and nowhere else."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from small_repository import TIME, dir_node, file_node

from perdure.errors import RepositoryDamaged, StoreError
from perdure.formats.golang import parse_time
from perdure.formats.tree import ExtendedAttribute, Node, Tree
from perdure.model import ChunkId, SilentObserver
from perdure.sources import tree_writer
from perdure.sources.tree_survey import survey_files
from perdure.sources.tree_writer import TreeWriter


class Store:
    """Trees and chunks in memory."""

    def __init__(self) -> None:
        self.trees: dict[ChunkId, Tree] = {}
        self.chunks: dict[ChunkId, bytes] = {}
        self.observer = SilentObserver()
        self.loaded = 0

    def file(self, name: str, *contents: bytes, **more: object) -> Node:
        ids = [self._keep(content) for content in contents]
        node = file_node(name, ids, sum(map(len, contents)))
        return msgspec.structs.replace(node, **{"links": 1} | more)

    def _keep(self, content: bytes) -> ChunkId:
        name = ChunkId(hashlib.sha256(content).digest())
        self.chunks[name] = content
        return name

    def folder(self, name: str, *nodes: Node) -> Node:
        tree = Tree(tuple(sorted(nodes, key=lambda node: node.raw_name)))
        identity = ChunkId(hashlib.sha256(repr(tree).encode()).digest())
        self.trees[identity] = tree
        return dir_node(name, identity)

    def load(self, chunks: Iterable[ChunkId]) -> Iterator[bytes]:
        for chunk in chunks:
            self.loaded += 1
            yield self.chunks[chunk]

    def write(self, node: Node, target: Path) -> TreeWriter:
        writer = TreeWriter(
            self.trees.__getitem__, self.load, self.observer, lambda chunk: len(self.chunks[chunk])
        )
        writer.write_node(node, target)
        return writer


@pytest.fixture
def store() -> Store:
    return Store()


def link(name: str, target: str) -> Node:
    return Node(
        name=name,
        type="symlink",
        mode=1 << 27 | 0o777,
        mtime=TIME,
        atime=TIME,
        ctime=TIME,
        uid=os.getuid(),
        gid=os.getgid(),
        linktarget=target,
        content=None,
    )


def test_files_folders_and_what_is_there_already(store: Store, tmp_path: Path) -> None:
    top = store.folder(
        "top", store.file("a", b"one", b"two"), store.folder("sub", store.file("b", b"b"))
    )
    first = store.write(top, tmp_path / "out")
    assert (first.files, first.size, first.kept_files) == (2, 7, 0)
    assert (tmp_path / "out/a").read_bytes() == b"onetwo"
    assert (tmp_path / "out/a").stat().st_mtime_ns == parse_time(TIME)
    assert (tmp_path / "out").stat().st_mtime_ns == parse_time(TIME)
    before = os.stat(tmp_path / "out/a")
    store.loaded = 0
    again = store.write(top, tmp_path / "out")
    assert (again.files, again.kept_files, again.kept, store.loaded) == (2, 2, 7, 0)
    assert os.stat(tmp_path / "out/a") == before, "not even its times of change are touched"


@pytest.mark.parametrize("content", [b"onetwX", b"onetw", b"onetwoX", b""])
def test_what_differs_is_written_anew(store: Store, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    node = store.file("a", b"one", b"two")
    assert (
        survey_files(
            store.trees.__getitem__, lambda chunk: len(store.chunks[chunk]), node, tmp_path / "a"
        ).kept
        == 0
    )
    store.write(node, tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"onetwo"


def test_metadata_of_what_stays_are_put_right(store: Store, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one")
    (tmp_path / "a").chmod(0o700)
    supported = False
    with suppress(OSError):
        os.setxattr(tmp_path / "a", "user.extra", b"x")
        supported = True
    attributes = (ExtendedAttribute("user.wanted", b"w"),) if supported else ()
    node = store.file("a", b"one", mode=0o604, extended_attributes=attributes)
    assert store.write(node, tmp_path / "a").kept_files == 1
    status = os.stat(tmp_path / "a")
    assert stat.S_IMODE(status.st_mode) == 0o604
    assert status.st_mtime_ns == parse_time(TIME)
    if supported:
        assert os.listxattr(tmp_path / "a") == ["user.wanted"]


def test_other_kinds_give_way(store: Store, tmp_path: Path) -> None:
    """Where a link, a pipe or a folder stands that is to be another thing; links are not followed."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "file").write_bytes(b"safe")
    target = tmp_path / "out"
    target.mkdir()
    (target / "folder").symlink_to(outside)
    (target / "file").symlink_to(outside / "file")
    os.mkfifo(target / "pipe")
    (target / "link").write_bytes(b"x")
    top = store.folder(
        "top",
        store.folder("folder", store.file("file", b"inside")),
        store.file("file", b"written"),
        store.file("pipe", b"no pipe"),
        link("link", "../elsewhere"),
    )
    store.write(top, target)
    assert (outside / "file").read_bytes() == b"safe"
    assert not (target / "folder").is_symlink()
    assert (target / "folder/file").read_bytes() == b"inside"
    assert (target / "file").read_bytes() == b"written"
    assert (target / "pipe").read_bytes() == b"no pipe"
    assert os.readlink(target / "link") == "../elsewhere"


def test_a_folder_in_the_place_of_a_file(store: Store, tmp_path: Path) -> None:
    (tmp_path / "out/a/inside").mkdir(parents=True)
    with pytest.raises(StoreError, match="cannot be written: Is a directory"):
        store.write(store.folder("top", store.file("a", b"x")), tmp_path / "out")


@pytest.mark.parametrize("name", ["..", ".", "", "a/b", "/etc/passwd", "a\0b"])
def test_names_that_lead_elsewhere(store: Store, tmp_path: Path, name: str) -> None:
    node = store.file("x", b"evil")
    identity = ChunkId(bytes(32))
    store.trees[identity] = Tree((msgspec.structs.replace(node, name=name),))
    with pytest.raises(RepositoryDamaged, match="cannot be restored"):
        store.write(dir_node("top", identity), tmp_path / "out/top")
    assert not any((tmp_path / "out/top").iterdir())


def test_a_link_and_a_folder_of_one_name(store: Store, tmp_path: Path) -> None:
    """A snapshot cannot first lay a link and then write through it."""
    identity = ChunkId(bytes(32))
    inner = store.folder("a", store.file("evil", b"evil"))
    store.trees[identity] = Tree((link("a", str(tmp_path)), inner))
    with pytest.raises(RepositoryDamaged, match="cannot be restored"):
        store.write(dir_node("top", identity), tmp_path / "out")
    assert not (tmp_path / "evil").exists()


def test_files_of_several_names(store: Store, tmp_path: Path) -> None:
    more = {"links": 3, "inode": 7, "device_id": 1}
    nodes = [store.file(name, b"shared", **more | {"links": 3}) for name in "abc"]
    top = store.folder("top", nodes[0], store.folder("sub", nodes[1]), nodes[2])
    store.write(top, tmp_path / "out")
    assert store.loaded == 1
    assert (tmp_path / "out/a").stat().st_nlink == 3
    (tmp_path / "out/a").unlink()
    (tmp_path / "out/a").write_bytes(b"shared")
    store.write(top, tmp_path / "out")
    assert (tmp_path / "out/a").stat().st_nlink == 3
    alone = store.folder("top", store.file("a", b"alone"))
    store.write(alone, tmp_path / "out")
    assert (tmp_path / "out/c").read_bytes() == b"shared"
    assert (tmp_path / "out/a").stat().st_nlink == 1


def test_zeros_become_holes(store: Store, tmp_path: Path) -> None:
    parts = [b"x" * 1000 + bytes(3 << 20), bytes(1 << 20), bytes(100) + b"y", bytes(1 << 20)]
    store.write(store.file("a", *parts), tmp_path / "a")
    assert (tmp_path / "a").read_bytes() == b"".join(parts)
    assert os.stat(tmp_path / "a").st_blocks * 512 < 1 << 20


def test_many_files_are_written_in_portions(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tree_writer, "_MOST_FOLDERS", 3)
    monkeypatch.setattr(tree_writer, "_MOST_BYTES", 1)
    folders = [
        store.folder(f"d{n}", *(store.file(f"f{m}", b"%d" % (n * m)) for m in range(5)))
        for n in range(5)
    ]
    assert store.write(store.folder("top", *folders), tmp_path / "out").files == 25
    assert (tmp_path / "out/d4/f3").read_bytes() == b"12"
    assert (tmp_path / "out/d4").stat().st_mtime_ns == parse_time(TIME)


def test_folders_that_are_too_deep(store: Store, tmp_path: Path) -> None:
    node = store.folder("a")
    for _ in range(tree_writer.MOST_NESTED + 1):
        node = store.folder("a", node)
    with pytest.raises(RepositoryDamaged, match="more than 400 folders"):
        store.write(node, tmp_path / "out")


def test_no_descriptor_is_left_open(store: Store, tmp_path: Path) -> None:
    before = len(list(Path("/proc/self/fd").iterdir()))
    top = store.folder("top", store.folder("sub", store.file("f", b"x"), store.folder("inner")))
    store.write(top, tmp_path / "out")
    store.chunks.clear()
    with pytest.raises(KeyError):
        store.write(top, tmp_path / "other")
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_what_this_user_cannot_make(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    device = msgspec.structs.replace(link("null", ""), type="chardev", device=259)
    store.write(store.folder("top", device), tmp_path / "out")
    assert "cannot restore" in store.observer.warnings[0]
    assert not (tmp_path / "out/null").exists()

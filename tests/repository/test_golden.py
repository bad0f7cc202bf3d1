"""Repositories that other programs wrote, kept as they were: they must always be readable.

``restic-0.14`` was written by restic 0.14 (password "secret") from what `odd_files` makes, in
summer time of Berlin, twice; for the second snapshot the file "empty" was removed.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import odd_files
from doubles import Clock

from perdure.formats.tree import Node, Tree, unix_mode
from perdure.model import ChunkKind, SilentObserver
from perdure.repository import Repository
from perdure.repository.checking import check_repository
from perdure.stores.local import LocalStore

GOLDEN = Path(__file__).parent.parent / "golden" / "restic-0.14"


def open_golden() -> Repository:
    return Repository.open(LocalStore(GOLDEN), "secret", cache=None, clock=Clock())


def nodes_of(repository: Repository, wanted: str) -> dict[str, Node]:
    _, snapshot = repository.find_snapshot(wanted)
    tree = repository.load_tree(snapshot.root)
    while len(tree.nodes) == 1 and tree.nodes[0].tree:
        tree = repository.load_tree(tree.nodes[0].tree)
    return {node.name: node for node in tree.nodes}


def test_it_is_sound() -> None:
    report = check_repository(open_golden(), SilentObserver(), read_data=True)

    assert not report.findings
    assert (report.snapshots, report.packfiles) == (2, 3)


def test_snapshots() -> None:
    snapshots = open_golden().snapshots()

    assert [(s.moment, s.tags, s.hostname) for _, s in snapshots] == [
        (datetime(2022, 8, 25, 8, tzinfo=UTC), ("first",), "golden"),
        (datetime(2022, 8, 26, 8, tzinfo=UTC), ("second",), "golden"),
    ]
    assert all("+02:00" in snapshot.time for _, snapshot in snapshots)
    assert snapshots[1][1].parent == snapshots[0][0]


def test_files() -> None:
    repository = open_golden()
    first = nodes_of(repository, repository.snapshots()[0][0])
    last = nodes_of(repository, "latest")

    assert first.keys() - last.keys() == {"empty"}
    assert first["empty"].content == ()
    for number, raw in enumerate(odd_files.NAMES):
        node = last[raw.decode("utf-8", "surrogateescape")]
        content = b"".join(repository.load_many(ChunkKind.DATA, node.chunks))
        assert content == b"%d" % number * (number * 1000)
        assert node.size == len(content)
    assert last["big"].inode == last["hard"].inode
    assert last["big"].content == last["hard"].content
    assert [(x.name, x.value) for x in last["big"].extended_attributes] == [
        ("user.comment", b"\x00\xffvalue")
    ]
    assert last["link"].linktarget == "plain.txt"
    assert last["dangling<&>"].linktarget == "nowhere<&>\u2028"
    assert last["fifo"].content is None
    assert unix_mode(last["sub"].mode) == 0o1775


def test_trees_are_written_again_to_the_byte() -> None:
    repository = open_golden()
    found = [
        repository.load(ChunkKind.TREE, place.entry.id)
        for place in repository.index.locations()
        if place.entry.kind is ChunkKind.TREE
    ]

    assert len(found) >= 5
    for text in found:
        assert Tree.decode(text, "it").encode() == text

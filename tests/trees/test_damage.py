"""Damage in a repository that holds file trees: what is lost is named, what is whole is kept."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from tree_site import TreeSite, back_up_trees, seen

from perdure.check import check
from perdure.formats.tree import Node
from perdure.model import ChunkId, ChunkKind, SilentObserver, Subset
from perdure.repair import repair_index, repair_snapshots
from perdure.snapshots import read_manifest, trees_in


@pytest.fixture
def site() -> Iterator[TreeSite]:
    """A repository in memory; what is damaged in it is part of the test."""
    made = TreeSite()
    yield made
    made.repository.close()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "srv" / "www"
    (folder / "sub").mkdir(parents=True)
    for name in ("a", "sub/b", "sub/c"):
        (folder / name).write_bytes(os.urandom(2000))
        os.utime(folder / name, ns=(7, 7))
    (folder / "sub").chmod(0o750)
    os.utime(folder / "sub", ns=(9, 9))
    return folder


def node_of(site: TreeSite, *names: str) -> Node:
    [found] = trees_in(site.repository, site.repository.snapshots()[-1:], None)
    node = found.top
    for name in names:
        assert node.tree is not None
        node = site.repository.load_tree(node.tree)[name]
    return node


def lose(site: TreeSite, kind: ChunkKind, chunk: ChunkId) -> None:
    """Damage a chunk where it lies."""
    place, *_ = site.repository.index.find(kind, chunk)
    name = f"data/{place.packfile.hex()[:2]}/{place.packfile.hex()}"
    raw = bytearray(site.store.contents[name])
    raw[place.entry.offset + 20] ^= 1
    site.store.contents[name] = bytes(raw)


def test_a_check_names_the_files_that_are_lost(site: TreeSite, tree: Path) -> None:
    site.back_up(tree)
    lose(site, ChunkKind.DATA, next(node_of(site, "sub", "b").chunks))
    with site.repository.lock():
        report = check(site.repository, read_data=Subset(), observer=SilentObserver())
    assert report.damaged
    lost = [what for finding in report.findings for what in finding.lost]
    assert lost == ["file sub/b"]
    assert any(str(tree) in finding.what for finding in report.findings)


def test_what_is_whole_stays(site: TreeSite, tree: Path, tmp_path: Path) -> None:
    site.back_up(tree)
    lose(site, ChunkKind.DATA, next(node_of(site, "sub", "b").chunks))
    with site.repository.lock(exclusive=True) as lock:
        repair_index(site.repository, lock, SilentObserver(), read_data=True)
        report = repair_snapshots(
            site.repository, lock, forget=True, dry_run=False, observer=SilentObserver()
        )
    [repaired] = report.repaired
    assert repaired.what == f"all but sub/b of {str(tree)!r}"
    [(_, snapshot)] = site.repository.snapshots()
    known = read_manifest(site.repository, snapshot)
    assert known is not None
    assert known.sources[0].status == "repaired"
    site.give_back(tmp_path / "out")
    wanted = seen(tree)
    del wanted[b"/sub/b"]
    assert seen(tmp_path / "out/www") == wanted, "folders keep their modes and times"
    site.end()


def test_a_folder_is_lost(site: TreeSite, tree: Path, tmp_path: Path) -> None:
    site.back_up(tree)
    folder = node_of(site, "sub").tree
    assert folder is not None
    lose(site, ChunkKind.TREE, folder)
    with site.repository.lock(exclusive=True) as lock:
        repair_index(site.repository, lock, SilentObserver(), read_data=True)
        [repaired] = repair_snapshots(
            site.repository, lock, forget=True, dry_run=False, observer=SilentObserver()
        ).repaired
    assert repaired.what == f"all but sub of {str(tree)!r}"
    site.give_back(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/www").iterdir()) == ["a"]
    site.end()


def test_the_next_backup_heals(site: TreeSite, tree: Path, tmp_path: Path) -> None:
    site.back_up(tree)
    lose(site, ChunkKind.DATA, next(node_of(site, "sub", "b").chunks))
    with site.repository.lock(exclusive=True) as lock:
        repair_index(site.repository, lock, SilentObserver(), read_data=True)
    again = back_up_trees(site.repository, tree)
    assert again.bytes_read == (tree / "sub/b").stat().st_size, "what the index lacks is read again"
    site.give_back(tmp_path / "out")
    assert seen(tmp_path / "out/www") == seen(tree)
    site.end()


def test_trees_of_two_machines(tree: Path, tmp_path: Path) -> None:
    site = TreeSite()
    site.back_up(tree)
    (tree / "a").write_bytes(b"other")
    observer = SilentObserver()
    for name in ("sub/b", "sub/c"):
        (tree / name).unlink()
    site.back_up(tree, observer=observer)
    assert not observer.warnings
    other = tmp_path / "elsewhere"
    tree.rename(other)
    (tree / "sub").mkdir(parents=True)
    (tree / "a").write_bytes(b"another machine's")
    back_up_trees(site.repository, tree, observer=observer, hostname="www2")
    assert any("is this another machine's" in warning for warning in observer.warnings)
    site.end()

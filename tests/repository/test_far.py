"""A repository in a store that is far: copies near by, and what an interrupted backup has sent."""

from __future__ import annotations

import os
import random
from datetime import timedelta
from pathlib import Path

import pytest
from doubles import Clock
from small_repository import Site, backup

from perdure.errors import RepositoryDamaged
from perdure.model import ChunkKind, SilentObserver
from perdure.repository import Repository
from perdure.repository import packer as packer_module
from perdure.repository import reading as reading_module
from perdure.repository.checking import check_repository
from perdure.repository.chunks import chunk_id
from perdure.repository.reading import packfile_name
from perdure.stores import Store
from perdure.stores.wrappers import CountingStore

CHUNKS = [os.urandom(600) for _ in range(6)]


@pytest.fixture(autouse=True)
def small_packfiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 500)


def open_far(store: Store, cache: Path) -> Repository:
    return Repository.open(store, "secret", cache=cache, clock=Clock(), workers=2, far=True)


def interrupt(site: Site, cache: Path) -> None:
    """Send all chunks, but for the index: as a backup that is killed."""
    repository = open_far(site.store, cache)
    with repository.lock() as lock:
        writer = repository.writer(lock)
        for chunk in CHUNKS:
            writer.add(ChunkKind.DATA, chunk).result()
        writer.close()
    repository.close()
    assert len(site.names("data")) == 6
    assert not site.names("index")


def resumed(site: Site, cache: Path) -> int:
    """Back the same up; gives how many chunks were stored."""
    with (
        open_far(site.store, cache) as repository,
        repository.lock() as lock,
        repository.writer(lock) as writer,
    ):
        for chunk in CHUNKS:
            writer.add(ChunkKind.DATA, chunk).result()
        writer.flush()
        return writer.added_chunks


def assert_sound(site: Site) -> None:
    report = check_repository(site.open(), SilentObserver(), read_data=True)
    assert not report.findings


def test_an_interrupted_backup_goes_on(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path)
    assert resumed(site, tmp_path) == 0
    assert len(site.names("data")) == 6
    assert len(site.names("index")) == 1
    assert not list(tmp_path.rglob("*.notes"))
    assert_sound(site)
    assert resumed(site, tmp_path) == 0
    assert len(site.names("index")) == 1


def test_notes_are_believed_only_of_what_is_there(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path)
    first, second, *_ = site.names("data")
    site.store.delete(first)
    site.store.put(second, b"short")
    assert resumed(site, tmp_path) == 2
    site.store.delete(second)
    assert_sound(site)


def test_damaged_notes_are_none(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path)
    (notes,) = tmp_path.rglob("*.notes")
    lines = notes.read_bytes().splitlines(keepends=True)
    lines[0] = lines[0].replace(b'"offset":0', b'"offset":1')
    lines[1] = b"nonsense\n"
    notes.write_bytes(b"".join(lines)[:-20])
    assert resumed(site, tmp_path) == 3


def test_the_notes_of_a_run_that_goes_on_are_its_own(site: Site, tmp_path: Path) -> None:
    going = open_far(site.store, tmp_path)
    with going.lock() as lock, going.writer(lock) as writer:
        writer.add(ChunkKind.DATA, CHUNKS[0]).result()
        assert resumed(site, tmp_path) == 6
        assert len(list(tmp_path.rglob("*.notes"))) == 1
    going.close()
    assert resumed(site, tmp_path) == 0


def test_a_prune_takes_what_was_sent_away(site: Site, tmp_path: Path) -> None:
    interrupt(site, tmp_path)
    for name in site.names("data"):
        site.store.delete(name)
    assert resumed(site, tmp_path) == 6
    assert_sound(site)


def test_trees_are_asked_for_once(site: Site, tmp_path: Path) -> None:
    backup(site.repository, {"a": [b"one"], "b": [b"two"]})
    gets = []
    for _ in range(2):
        store = CountingStore(site.store)
        with open_far(store, tmp_path) as repository:
            root = repository.find_snapshot("latest")[1].root
            tree = repository.load_tree(root)
            assert tree.nodes[0].tree
            repository.load_tree(tree.nodes[0].tree)
        gets.append(store.calls["get"])
    assert gets[0] - gets[1] == 3  # an index file, two packfiles of trees


def test_a_damaged_copy_does_no_harm(site: Site, tmp_path: Path) -> None:
    backup(site.repository, {"a": [b"one"]})
    with open_far(site.store, tmp_path) as repository:
        root = repository.find_snapshot("latest")[1].root
        expected = repository.load_tree(root)
    for copy in (tmp_path / repository.id / "packfiles").iterdir():
        copy.write_bytes(bytes(copy.stat().st_size))
    with open_far(site.store, tmp_path) as repository:
        assert repository.load_tree(root) == expected
        (place,) = repository.index.find(ChunkKind.TREE, root)
    assert (tmp_path / repository.id / "packfiles").exists()
    assert packfile_name(place.packfile) in site.names("data")


def test_what_lies_near_each_other_is_read_together(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 1 << 20)
    chunks = [os.urandom(600) for _ in range(30)]
    backup(site.repository, {"a": chunks})
    wanted = [chunk_id(chunk) for chunk in chunks[::3]]
    store = CountingStore(site.store)
    with open_far(store, tmp_path) as repository:
        assert repository.index
        before = store.calls["get"]
        found = list(repository.load_many(ChunkKind.DATA, wanted))
        assert found == chunks[::3]
        assert store.calls["get"] - before == 1
        found = list(repository.load_many(ChunkKind.DATA, reversed(wanted)))
        assert found == chunks[::3][::-1]
        assert store.calls["get"] - before == 2


@pytest.mark.parametrize("window", [1, 3000, 1 << 20])
def test_chunks_come_in_the_order_that_is_wanted(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 5000)
    monkeypatch.setattr(reading_module, "_WINDOW", window)
    chunks = [os.urandom(600) for _ in range(30)]
    backup(site.repository, {"a": chunks})
    chance = random.Random(window)
    for _ in range(20):
        wanted = chance.choices(chunks, k=chance.randrange(40))
        store = CountingStore(site.store)
        with open_far(store, tmp_path) as repository:
            assert repository.index
            before = store.calls["get"]
            ids = [chunk_id(chunk) for chunk in wanted]
            assert list(repository.load_many(ChunkKind.DATA, ids)) == wanted
            if window > 1000 * len(wanted):
                assert store.calls["get"] - before <= len(site.names("data"))


def test_a_damaged_packfile_is_said_to_be(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 5000)
    chunks = [os.urandom(600) for _ in range(30)]
    backup(site.repository, {"a": chunks})
    with open_far(site.store, tmp_path) as repository:
        harmed = repository.index.find(ChunkKind.DATA, chunk_id(chunks[20]))[0].packfile
        site.store.put(packfile_name(harmed), b"short")
        found = repository.load_many(ChunkKind.DATA, map(chunk_id, chunks))
        with pytest.raises(RepositoryDamaged, match="has only 5 bytes"):
            list(found)


def test_what_a_killed_check_has_left_in_the_cache_goes(site: Site, tmp_path: Path) -> None:
    backup(site.repository, {"a": [b"one"]})
    killed = open_far(site.store, tmp_path)
    check_repository(killed, SilentObserver(), read_data=False)
    (left,) = tmp_path.glob("*/afresh-*")
    assert list(left.iterdir())
    open_far(site.store, tmp_path).close()
    assert left.exists()  # perhaps its run goes on
    long_ago = (killed.clock() - timedelta(days=2)).timestamp()
    os.utime(left, (long_ago, long_ago))
    open_far(site.store, tmp_path).close()
    assert not left.exists()

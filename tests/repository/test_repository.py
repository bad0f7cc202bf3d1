from __future__ import annotations

import hashlib
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doubles import Clock
from small_repository import TIME, Site

from perdure.errors import (
    NoRepository,
    PerdureError,
    RepositoryDamaged,
    RepositoryLocked,
    StoreError,
    UsageError,
    WrongPassword,
)
from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Tree
from perdure.model import ChunkId, ChunkKind
from perdure.repository import Repository
from perdure.stores.memory import MemoryStore
from perdure.stores.wrappers import CountingStore

TEXT = b"all work and no play " * 1000


def create(store: MemoryStore) -> Repository:
    now = datetime(2026, 11, 21, tzinfo=UTC)
    return Repository.create(
        store, "secret", kdf=FOR_KEY_FILES, now=now, username="u", hostname="h"
    )


def test_create_and_open() -> None:
    store = MemoryStore()
    made = create(store)
    opened = Repository.open(store, "secret", cache=None, clock=Clock())

    assert made.id == opened.id
    assert len(opened.id) == 64
    assert opened.snapshots() == []


def test_creating_twice_is_refused() -> None:
    store = MemoryStore()
    create(store)
    with pytest.raises(PerdureError, match="already"):
        create(store)
    del store.contents["config"]
    store.put("index/" + "ab" * 32, b"")
    with pytest.raises(PerdureError, match="no config"):
        create(store)


def test_an_interrupted_creation_can_begin_again() -> None:
    store = MemoryStore()
    create(store)
    del store.contents["config"]

    create(store)

    assert len(list(store.list("keys/"))) == 1
    Repository.open(store, "secret", cache=None, clock=Clock())


def test_nothing_there() -> None:
    with pytest.raises(NoRepository, match="no repository at memory"):
        Repository.open(MemoryStore(), "secret", cache=None, clock=Clock())


def test_wrong_password(site: Site) -> None:
    with pytest.raises(WrongPassword, match="none of the 1 keys"):
        Repository.open(site.store, "Secret", cache=None, clock=site.clock)


def test_damaged_config(site: Site) -> None:
    site.store.contents["config"] = site.store.contents["config"][:-1] + b"?"
    with pytest.raises(RepositoryDamaged, match="config in memory"):
        site.open()


def test_what_is_written_is_read(site: Site) -> None:
    random = os.urandom(5000)
    site.backup({"a": [TEXT, random, b""], "b": [TEXT]})
    repository = site.open()
    (name, snapshot) = repository.find_snapshot("latest")
    folder = repository.load_tree(snapshot.root)["folder"].tree
    assert folder
    files = repository.load_tree(folder)

    assert list(repository.load_many(ChunkKind.DATA, files["a"].chunks)) == [TEXT, random, b""]
    assert repository.load(ChunkKind.DATA, next(files["b"].chunks)) == TEXT
    assert repository.find_snapshot(name[:6])[0] == name


def test_chunks_are_stored_once(site: Site) -> None:
    repository = site.repository
    with repository.lock() as lock, repository.writer(lock) as writer:
        first = [writer.add(ChunkKind.DATA, TEXT) for _ in range(10)]
        others = [
            writer.add(ChunkKind.TREE, b'{"nodes":[]}\n'),
            writer.add(ChunkKind.DATA, b'{"nodes":[]}\n'),  # kinds are kept apart
        ]
        tree = writer.add_tree(Tree(()))
        assert {future.result() for future in first} == {hashlib.sha256(TEXT).digest()}
        assert {future.result() for future in others} == {tree}
        assert (writer.added.data_chunks, writer.added.tree_chunks) == (2, 1)
        writer.commit(Snapshot(time=TIME, tree=tree.hex(), paths=()))
        stored = sum(map(len, site.store.contents.values()))
        small = sum(len(site.store.contents[name]) for name in ["config", *site.names("keys")])
        locks = sum(len(site.store.contents[name]) for name in site.names("locks"))
        assert writer.added_bytes == stored - small - locks

    before = set(site.names("data"))
    with repository.lock() as lock, repository.writer(lock) as writer:
        writer.add(ChunkKind.DATA, memoryview(TEXT)).result()
        writer.add(ChunkKind.DATA, bytearray(TEXT)).result()
        writer.commit(Snapshot(time=TIME, tree=tree.hex(), paths=()))
        assert writer.added_chunks == 0
    assert set(site.names("data")) == before


def test_packfiles_are_of_one_kind_and_bounded(site: Site) -> None:
    repository = site.repository
    with repository.lock() as lock, repository.writer(lock) as writer:
        futures = [writer.add(ChunkKind.DATA, os.urandom(3 << 20)) for _ in range(16)]
        tree = writer.add_tree(Tree(()))
        writer.commit(Snapshot(time=TIME, tree=tree.hex(), paths=()))
    kinds: dict[bytes, set[ChunkKind]] = {}
    for location in site.open().index.locations():
        kinds.setdefault(location.packfile, set()).add(location.entry.kind)

    assert len(futures) == 16
    assert all(len(found) == 1 for found in kinds.values())
    assert all(len(site.store.contents[name]) < 20 << 20 for name in site.names("data"))
    assert len(kinds) >= 4


def test_without_a_commit_nothing_refers_to_anything(site: Site) -> None:
    with site.repository.lock() as lock, site.repository.writer(lock) as writer:
        writer.add(ChunkKind.DATA, TEXT).result()

    assert site.names("index") == site.names("snapshots") == []
    with pytest.raises(PerdureError, match="closed"):
        writer.add(ChunkKind.DATA, TEXT)


def test_errors_in_the_pool_come_out(site: Site) -> None:
    class Full(MemoryStore):
        def put(self, name: str, data: bytes) -> None:
            if name.startswith("data/"):
                raise StoreError("the disk is full")
            super().put(name, data)

    store = Full()
    store.contents = site.store.contents
    repository = Repository.open(store, "secret", cache=None, clock=site.clock)
    with repository.lock() as lock, repository.writer(lock) as writer:
        writer.add(ChunkKind.DATA, TEXT)
        with pytest.raises(StoreError, match="full"):
            writer.commit(Snapshot(time=TIME, tree="ab" * 32, paths=()))
    with (
        repository.lock() as lock,
        repository.writer(lock) as writer,
        pytest.raises(StoreError, match="full"),
    ):
        for _ in range(100):
            writer.add(ChunkKind.DATA, os.urandom(1 << 20))
    assert site.names("snapshots") == site.names("locks") == []
    repository.close()


def test_commit_needs_the_lock(site: Site) -> None:
    snapshot = Snapshot(time=TIME, tree="ab" * 32, paths=())
    with site.repository.lock() as lock, site.repository.writer(lock) as writer:
        site.open().unlock(everything=True)
        with pytest.raises(RepositoryLocked, match="was lost"):
            writer.commit(snapshot)
    with site.repository.lock() as lock, site.repository.writer(lock) as writer:
        site.clock.advance(minutes=31)
        with pytest.raises(RepositoryLocked, match="was lost"):
            writer.commit(snapshot)

    assert site.names("snapshots") == []


def test_every_damaged_byte_is_noticed(site: Site) -> None:
    site.backup({"a": [TEXT]})
    chunk = ChunkId(hashlib.sha256(TEXT).digest())
    (location,) = site.open().index.find(ChunkKind.DATA, chunk)
    name = f"data/{location.packfile.hex()[:2]}/{location.packfile.hex()}"
    whole = site.store.contents[name]
    for position in range(0, location.entry.length, 7):
        broken = bytearray(whole)
        broken[position] ^= 1
        site.store.contents[name] = bytes(broken)
        with pytest.raises(RepositoryDamaged, match=rf"chunk {chunk.hex()} in data/.*{name[-64:]}"):
            site.repository.load(ChunkKind.DATA, chunk)
    site.store.contents[name] = whole[:10]
    with pytest.raises(RepositoryDamaged, match="has only 10 bytes"):
        list(site.repository.load_many(ChunkKind.DATA, [chunk]))
    del site.store.contents[name]
    with pytest.raises(RepositoryDamaged, match="is not there"):
        site.repository.load(ChunkKind.DATA, chunk)


def test_another_copy_of_a_chunk_is_used(site: Site) -> None:
    # Two backups at the same time, neither of which knows what the other adds.
    first, second = site.open(), site.open()
    for repository in (first, second):
        assert not repository.has(ChunkKind.DATA, ChunkId(hashlib.sha256(TEXT).digest()))
    with (
        first.lock() as one,
        second.lock() as two,
        first.writer(one) as writer,
        second.writer(two) as other,
    ):
        for each in (writer, other):
            each.add(ChunkKind.DATA, TEXT)
            tree = each.add_tree(Tree(()))
        for each in (writer, other):
            each.commit(Snapshot(time=TIME, tree=tree.hex(), paths=()))
    chunk = ChunkId(hashlib.sha256(TEXT).digest())
    places = site.repository.index.find(ChunkKind.DATA, chunk)
    assert len(places) == 2
    for place in places:
        name = place.packfile.hex()
        kept = site.store.contents.pop(f"data/{name[:2]}/{name}")
        assert site.repository.load(ChunkKind.DATA, chunk) == TEXT
        assert list(site.repository.load_many(ChunkKind.DATA, [chunk] * 3)) == [TEXT] * 3
        site.store.contents[f"data/{name[:2]}/{name}"] = kept
    first.close()
    second.close()


def test_neighbours_are_read_together(site: Site) -> None:
    chunks = [os.urandom(1000) for _ in range(100)]
    site.backup({"a": chunks})
    store = CountingStore(site.store)
    repository = Repository.open(store, "secret", cache=None, clock=site.clock)
    ids = [ChunkId(hashlib.sha256(chunk).digest()) for chunk in chunks]
    in_order = sorted(ids, key=lambda i: repository.index.find(ChunkKind.DATA, i)[0].entry.offset)
    before = store.calls["get"]

    assert len(list(repository.load_many(ChunkKind.DATA, in_order))) == 100
    assert store.calls["get"] == before + 1
    assert list(repository.load_many(ChunkKind.DATA, ids)) == chunks
    repository.close()


def test_a_chunk_that_is_nowhere(site: Site) -> None:
    for read in (
        site.repository.load,
        lambda kind, name: list(site.repository.load_many(kind, [name])),
    ):
        with pytest.raises(RepositoryDamaged, match="is not in the index"):
            read(ChunkKind.DATA, ChunkId(b"x" * 32))


def test_snapshots_are_found_and_deleted(site: Site) -> None:
    with pytest.raises(UsageError, match="no snapshot"):
        site.repository.find_snapshot("latest")
    names = [
        site.repository.save_snapshot(
            Snapshot(time=f"2026-11-{day}T00:00:00Z", tree="ab" * 32, paths=())
        )
        for day in (20, 18, 19)
    ]

    assert [name for name, _ in site.repository.snapshots()] == [names[1], names[2], names[0]]
    assert site.repository.find_snapshot("latest")[0] == names[0]
    for wanted in ("", "zz"):
        with pytest.raises(UsageError, match="starts with"):
            site.repository.find_snapshot(wanted)
    site.repository.delete_snapshot(names[0])
    assert len(site.repository.snapshots()) == 2


def test_a_damaged_snapshot_is_named(site: Site) -> None:
    name = site.backup({})
    site.store.contents[f"snapshots/{name}"] += b"x"

    with pytest.raises(RepositoryDamaged, match=f"snapshots/{name}"):
        site.repository.snapshots()


def test_a_cache_that_cannot_be_written_is_done_without(site: Site, tmp_path: Path) -> None:
    site.backup({"a": [TEXT]})
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    repository = Repository.open(site.store, "secret", cache=blocked, clock=site.clock)

    assert repository.has(ChunkKind.DATA, ChunkId(hashlib.sha256(TEXT).digest()))
    with repository.lock():
        pass


def test_only_new_snapshots_are_read(site: Site, tmp_path: Path) -> None:
    def listed() -> tuple[list[str], int]:
        store = CountingStore(site.store)
        repository = Repository.open(store, "secret", cache=tmp_path, clock=site.clock)
        before = store.calls["get"]
        names: list[str] = [name for name, _ in repository.snapshots()]
        return names, store.calls["get"] - before

    names = [site.backup({"a": [b"%d" % number]}) for number in range(3)]
    assert listed() == (sorted(names), 3)
    assert listed() == (sorted(names), 0)
    names.append(site.backup({}))
    site.repository.delete_snapshot(names.pop(0))
    assert listed() == (sorted(names), 1)
    (cache,) = tmp_path.glob("*/snapshots")
    cache.write_bytes(cache.read_bytes().replace(b"2026", b"2025", 1))
    assert listed() == (sorted(names), 3)
    assert {s.moment.year for _, s in site.repository.snapshots()} == {2026}

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from doubles import Clock
from small_repository import TIME, Site, backup, dir_node, file_node

from perdure.errors import PerdureError, RepositoryDamaged, RepositoryLocked
from perdure.formats.index import Packed
from perdure.formats.sealing import NONCE_SIZE, seal
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Tree
from perdure.model import ChunkId, ChunkKind, SilentObserver, SnapshotId
from perdure.prune import PruneReport, PruneRequest, prune
from perdure.repository import Repository
from perdure.repository import packer as packer_module
from perdure.repository.checking import check_repository
from perdure.repository.chunks import chunk_id
from perdure.repository.index import Index, save_index
from perdure.repository.packer import Packer, assemble
from perdure.repository.prune_plan import ENOUGH, Allowance, Limits
from perdure.repository.pruning import carry_out, plan_prune
from perdure.repository.reading import packfile_name
from perdure.stores import open_store

NOTHING_MAY_STAY = Limits(Allowance(size=0))


def run(site: Site, limits: Limits = NOTHING_MAY_STAY, *, dry_run: bool = False) -> PruneReport:
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        report = prune(repository, lock, PruneRequest(limits, dry_run=dry_run), SilentObserver())
    repository.close()
    return report


def assert_sound(site: Site) -> None:
    repository = site.open()
    report = check_repository(repository, SilentObserver(), read_data=True)
    repository.close()
    assert not report.findings
    assert not report.losses


def drop(site: Site, *names: SnapshotId) -> None:
    for name in names:
        site.repository.delete_snapshot(name)


def chunks_in(site: Site) -> list[ChunkId]:
    """The data chunks of all packfiles, sorted; one in two packfiles is there twice."""
    places = site.open().index.locations()
    return sorted(place.entry.id for place in places if place.entry.kind is ChunkKind.DATA)


def random_chunks(count: int, size: int = 1000) -> list[bytes]:
    return [os.urandom(size) for _ in range(count)]


def test_what_is_not_needed_goes_and_all_else_stays(site: Site) -> None:
    shared, old, new = (random_chunks(5) for _ in range(3))
    first = site.backup({"shared": shared, "old": old})
    site.backup({"shared": shared, "new": new, "empty": []})
    assert run(site).idle
    drop(site, first)
    report = run(site)

    assert chunks_in(site) == sorted(map(chunk_id, [*shared, *new]))
    assert report.bytes_unused == 0
    assert report.bytes_freed > 5 * 1000
    assert 5 * 1000 < report.bytes_rewritten < 7 * 1000
    assert (report.index_files_written, report.index_files_deleted) == (1, 1)
    assert_sound(site)
    assert run(site).idle


def test_garbage_may_stay(site: Site) -> None:
    shared = random_chunks(50)
    first = site.backup({"shared": shared, "old": random_chunks(1)})
    site.backup({"shared": shared})
    drop(site, first)
    report = run(site, Limits())

    assert [(share.action.value, share.packfiles) for share in report.shares] == [
        ("keep", 1),
        ("keep", 1),
        ("delete", 1),
    ]
    assert 1000 < report.bytes_unused < 1100
    assert len(chunks_in(site)) == 51
    assert_sound(site)
    assert run(site, Limits(Allowance(size=0), rewrite=1000)).bytes_rewritten == 0
    assert run(site).bytes_rewritten > 50_000
    assert_sound(site)


def test_without_snapshots_nothing_is_needed(site: Site) -> None:
    drop(site, site.backup({"a": random_chunks(3)}))
    run(site)
    assert not site.names("data") + site.names("index")
    assert_sound(site)
    assert run(site).idle


def test_a_dry_run_changes_nothing(site: Site) -> None:
    shared = random_chunks(3)
    first = site.backup({"shared": shared, "old": random_chunks(3)})
    site.backup({"shared": shared})
    before = dict(site.store.contents)
    repository = site.open()
    with repository.lock() as lock:  # so a shared lock is enough
        request = PruneRequest(NOTHING_MAY_STAY, dry_run=True, forgotten=[first])
        rehearsed = prune(repository, lock, request, SilentObserver())
    assert site.store.contents == before
    drop(site, first)
    done = run(site)
    assert done.shares == rehearsed.shares
    assert done.bytes_rewritten == rehearsed.bytes_rewritten
    assert abs(done.bytes_freed - rehearsed.bytes_freed) < 200


def store_again(site: Site, chunks: list[bytes]) -> None:
    """Store chunks that the repository has already, as two backups at the same time do."""
    repository = site.open()
    with repository.lock() as lock, repository.writer(lock, Index([])) as writer:
        for chunk in chunks:
            writer.add(ChunkKind.DATA, chunk)
        writer.flush()
    repository.close()


def test_of_a_chunk_in_several_packfiles_one_stays(site: Site) -> None:
    chunks = random_chunks(6)
    site.backup({"a": chunks})
    store_again(site, chunks[:3])
    store_again(site, [*chunks[:2], *random_chunks(20)])
    assert len(chunks_in(site)) == 6 + 3 + 22
    report = run(site)

    assert chunks_in(site) == sorted(map(chunk_id, chunks))
    assert report.bytes_needed < 7500
    assert [share.reason for share in report.shares] == ["entirely needed", "not needed"]
    assert_sound(site)


def test_packfiles_in_no_index_go(site: Site) -> None:
    site.backup({"a": random_chunks(3)})
    repository = site.open()
    with repository.lock() as lock, repository.writer(lock) as writer:
        for _ in range(20):
            writer.add(ChunkKind.DATA, os.urandom(1 << 20)).result()
    repository.close()
    assert len(site.names("data")) == 3
    report = run(site)

    assert [
        (share.reason, share.packfiles) for share in report.shares if share.bytes > 1 << 20
    ] == [("in no index", 1)]
    assert len(site.names("data")) == 2
    assert_sound(site)


def test_index_files_say_only_what_is_there(site: Site) -> None:
    names = [site.backup({"a": random_chunks(1)}) for _ in range(ENOUGH - 1)]
    before = set(site.names("index"))
    drop(site, names[0])
    run(site)
    assert len(before & set(site.names("index"))) == ENOUGH - 2
    assert len(site.names("index")) == ENOUGH - 2


def test_small_files_are_merged(site: Site) -> None:
    chunks = random_chunks(ENOUGH + 1)
    for chunk in chunks:
        site.backup({"a": [chunk]})
    assert len(site.names("data")) == 2 * len(chunks)
    run(site)
    assert len(site.names("data")) == 2
    assert len(site.names("index")) == 1
    assert chunks_in(site) == sorted(map(chunk_id, chunks))
    assert_sound(site)
    assert run(site).idle


def put_packfile(site: Site, *, data: bytes, tree: bytes) -> None:
    """Store a packfile as old versions of restic did: both kinds in one, not compressed."""
    repository = site.open()
    packer = Packer()
    for kind, content in ((ChunkKind.DATA, data), (ChunkKind.TREE, tree)):
        packer.append(
            kind, chunk_id(content), seal(repository._key, content, os.urandom(NONCE_SIZE)), 0
        )
    packed, content = assemble(repository._key, *packer.take())
    repository.store.put(packfile_name(packed.id), content)
    assert list(save_index(repository.files, [Packed(packed.id, packed.entries)]))


def test_old_packfiles_are_written_anew(site: Site) -> None:
    data = b"text " * 1000
    tree = Tree((file_node("a", [chunk_id(data)], len(data)),)).encode()
    put_packfile(site, data=data, tree=tree)
    with site.repository.lock() as lock, site.repository.writer(lock) as writer:
        root = writer.add_tree(Tree((dir_node("folder", chunk_id(tree)),)))
        writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/folder",)))
    report = run(site, Limits(Allowance()))

    assert "data and trees in one" in [share.reason for share in report.shares]
    assert all(place.entry.content_length for place in site.open().index.locations())
    assert_sound(site)
    assert run(site).idle


def flip(site: Site, name: str, position: int = 100) -> None:
    raw = bytearray(site.store.contents[name])
    raw[position] ^= 1
    site.store.contents[name] = bytes(raw)


def lose_packfile(site: Site) -> None:
    del site.store.contents[
        max(site.names("data"), key=lambda name: len(site.store.contents[name]))
    ]


def cut_packfile(site: Site) -> None:
    name = site.names("data")[0]
    site.store.contents[name] = site.store.contents[name][:-1]


def lose_index(site: Site) -> None:
    del site.store.contents[site.names("index")[0]]


def damage_index(site: Site) -> None:
    flip(site, site.names("index")[0], 20)


def damage_snapshot(site: Site) -> None:
    flip(site, site.names("snapshots")[0], 20)


def damage_trees(site: Site) -> None:
    places = site.open().index.locations()
    for packfile in {place.packfile for place in places if place.entry.kind is ChunkKind.TREE}:
        flip(site, packfile_name(packfile), 20)


def damage_data(site: Site) -> None:
    """The chunk that has to be written anew."""
    root = site.repository.load_tree(site.repository.snapshots()[0][1].root)
    folder = root["folder"].tree
    assert folder
    (shared,) = site.repository.load_tree(folder)["shared"].chunks
    (place,) = site.open().index.find(ChunkKind.DATA, shared)
    flip(site, packfile_name(place.packfile), place.entry.offset + 20)


@pytest.mark.parametrize(
    "damage",
    [
        lose_packfile,
        cut_packfile,
        lose_index,
        damage_index,
        damage_snapshot,
        damage_trees,
        damage_data,
    ],
)
def test_where_there_is_damage_nothing_is_deleted(
    site: Site, damage: Callable[[Site], None]
) -> None:
    shared = random_chunks(1)
    first = site.backup({"shared": shared, "old": random_chunks(5)})
    site.backup({"shared": shared, "new": random_chunks(1)})
    drop(site, first)
    damage(site)
    before = dict(site.store.contents)
    with pytest.raises(RepositoryDamaged) as caught:
        run(site)
    assert caught.value.hint
    assert before.items() <= site.store.contents.items()


def test_a_prune_needs_an_exclusive_lock(site: Site) -> None:
    drop(site, site.backup({"a": random_chunks(1)}))
    before = dict(site.store.contents)
    with site.repository.lock() as lock, pytest.raises(PerdureError, match="exclusive"):
        prune(site.repository, lock, PruneRequest(), SilentObserver())
    assert site.store.contents == before


def test_nobody_may_work_on_it_meanwhile(site: Site) -> None:
    with site.repository.lock(), pytest.raises(RepositoryLocked):
        site.open().lock(exclusive=True)
    with site.repository.lock(exclusive=True), pytest.raises(RepositoryLocked):
        site.open().lock()


def test_a_lock_that_was_lost_ends_it(site: Site) -> None:
    drop(site, site.backup({"a": random_chunks(1)}))
    site.backup({"b": random_chunks(1)})
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        plan = plan_prune(repository, lock, Limits(), SilentObserver())
        before = {name for name in site.store.contents if not name.startswith("locks/")}
        site.open().unlock(everything=True)
        with pytest.raises(RepositoryLocked, match="was lost"):
            carry_out(repository, lock, plan, SilentObserver())
    assert before <= site.store.contents.keys()


def test_who_keeps_an_index_in_a_cache_learns_of_it(site: Site, tmp_path: Path) -> None:
    chunks = {"a": random_chunks(3)}

    def client() -> Repository:
        return Repository.open(site.store, "secret", cache=tmp_path, clock=site.clock, workers=2)

    name = backup(client(), chunks)
    assert client().has(ChunkKind.DATA, chunk_id(chunks["a"][0]))
    drop(site, name)
    run(site)
    backup(client(), chunks)
    assert_sound(site)


def test_temporary_files_go(tmp_path: Path) -> None:
    clock = Clock()
    site = Site()
    store = open_store(str(tmp_path / "repository"))
    for name, content in site.store.contents.items():
        store.put(name, content)
    repository = Repository.open(store, "secret", cache=None, clock=clock, workers=2)
    backup(repository, {"a": random_chunks(1)})
    folder = next((tmp_path / "repository/data").iterdir())
    made = _temporary(folder)
    os.utime(made, (0, 0))
    with repository.lock(exclusive=True) as lock:
        rehearsed = prune(repository, lock, PruneRequest(dry_run=True), SilentObserver())
        assert (rehearsed.leftovers, made.exists()) == (1, True)
        assert prune(repository, lock, PruneRequest(), SilentObserver()).leftovers == 1
    assert not made.exists()
    repository.close()


def _temporary(folder: Path) -> Path:
    from perdure.stores import local

    made = folder / f"name{local._TEMPORARY}1"
    made.write_bytes(b"half")
    return made


def test_full_packfiles_stay_as_they_are(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 5 << 20)
    shared = random_chunks(6, 1 << 20)
    first = site.backup({"shared": shared, "old": random_chunks(1)})
    site.backup({"shared": shared})
    full = {name for name in site.names("data") if len(site.store.contents[name]) > 5 << 20}
    drop(site, first)
    run(site)
    assert len(full) == 1
    assert full <= set(site.names("data"))
    assert_sound(site)

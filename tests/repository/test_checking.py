from __future__ import annotations

import os

import pytest
from small_repository import TIME, Site, file_node

from perdure.errors import PerdureError
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Tree
from perdure.model import ChunkId, ChunkKind, SilentObserver, Subset
from perdure.repository.checking import Loss, Report, check_repository, choose
from perdure.repository.repairing import IndexRepair, repair_index
from perdure.stores.memory import MemoryStore


def check(site: Site, *, read_data: bool = False, subset: Subset | None = None) -> Report:
    repository = site.open()
    with repository.lock():
        report = check_repository(repository, SilentObserver(), read_data=read_data, subset=subset)
    repository.close()
    return report


def repair(site: Site, *, read_data: bool = False) -> IndexRepair:
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        return repair_index(repository, lock, SilentObserver(), read_data=read_data)


def packfile_of(site: Site, kind: ChunkKind) -> str:
    (found,) = {
        place.packfile.hex() for place in site.open().index.locations() if place.entry.kind is kind
    }
    return f"data/{found[:2]}/{found}"


def damage(site: Site, name: str, position: int = 100) -> None:
    raw = bytearray(site.store.contents[name])
    raw[position] ^= 1
    site.store.contents[name] = bytes(raw)


CHUNKS = {"a": [os.urandom(1000), os.urandom(900)], "b": [os.urandom(800)]}


def test_a_sound_repository(site: Site) -> None:
    site.backup(CHUNKS)
    site.backup(CHUNKS | {"c": []})
    report = check(site, read_data=True)

    assert not report.findings
    assert not report.losses
    assert (report.snapshots, report.packfiles, report.chunks) == (2, 3, 7)
    assert report.bytes_read == sum(len(site.store.contents[name]) for name in site.names("data"))
    assert not check(site).bytes_read


def test_a_missing_packfile(site: Site) -> None:
    name = site.backup(CHUNKS)
    gone = packfile_of(site, ChunkKind.DATA)
    del site.store.contents[gone]
    report = check(site)

    assert report.damaged
    assert report.losses == (Loss(name, "/folder/a"), Loss(name, "/folder/b"))
    assert f"{gone} is missing" in [finding.message for finding in report.findings]
    assert not any("?" in finding.message for finding in check(site, read_data=True).findings)


def test_missing_trees(site: Site) -> None:
    name = site.backup(CHUNKS)
    del site.store.contents[packfile_of(site, ChunkKind.TREE)]

    assert check(site).losses == (Loss(name, "/"),)


def test_all_snapshots_that_lose_something_are_named(site: Site) -> None:
    names = [site.backup(CHUNKS) for _ in range(3)]
    site.store.contents[packfile_of(site, ChunkKind.DATA)] = b"short"

    assert {loss.snapshot for loss in check(site).losses} == set(names)


def test_a_damaged_byte(site: Site) -> None:
    name = site.backup(CHUNKS)
    damage(site, packfile_of(site, ChunkKind.DATA))

    assert not check(site).damaged  # only reading tells
    report = check(site, read_data=True)
    assert len(report.losses) == 1
    assert report.losses[0].snapshot == name
    assert any("its SHA-256 is not its name" in finding.message for finding in report.findings)


def test_a_damaged_header(site: Site) -> None:
    site.backup(CHUNKS)
    damage(site, packfile_of(site, ChunkKind.DATA), -20)
    report = check(site, read_data=True)

    assert report.damaged
    assert not report.losses


def test_leftovers_are_no_damage(site: Site) -> None:
    site.backup(CHUNKS)
    with site.repository.lock() as lock, site.repository.writer(lock) as writer:
        for _ in range(20):
            writer.add(ChunkKind.DATA, os.urandom(1 << 20)).result()
    report = check(site)

    assert not report.damaged
    assert ["are in no index" in finding.message for finding in report.findings] == [True]


def test_damaged_index_and_snapshots(site: Site) -> None:
    site.backup(CHUNKS)
    lost = site.backup({"c": [b"c"]})
    damage(site, f"snapshots/{lost}", 20)
    assert any(lost in finding.message for finding in check(site).findings)

    for name in site.names("index"):
        damage(site, name, 20)
    report = check(site)
    assert report.damaged
    assert len(report.losses) == 1


def test_trees_that_cannot_be(site: Site) -> None:
    wrong = Tree((file_node("b", [], 5), file_node("a", [], 0)))
    with pytest.raises(ValueError, match="must not follow"):
        wrong.encode()
    with site.repository.lock() as lock, site.repository.writer(lock) as writer:
        text = Tree((file_node("b", [], 5),)).encode()
        sizes = writer.add(ChunkKind.TREE, text).result()
        climbing = writer.add(ChunkKind.TREE, text.replace(b'"b"', b'".."')).result()
        for tree in (sizes, climbing):
            writer.commit(Snapshot(time=TIME, tree=tree.hex(), paths=()))
            writer._closed = False
    report = check(site)

    assert {loss.path for loss in report.losses} == {"/", "/b"}
    assert any("has 5 bytes, its chunks have 0" in finding.message for finding in report.findings)
    assert any("cannot be the name" in finding.message for finding in report.findings)


def test_subsets() -> None:
    packfiles = [bytes([number]) + b"x" * 31 for number in range(100)]
    parts = [choose(packfiles, Subset(number, 7)) for number in range(1, 8)]

    assert sorted(packfile for part in parts for packfile in part) == packfiles
    assert len(choose(packfiles, Subset(percent=10))) == 10
    assert choose([], Subset(percent=10)) == []
    assert choose(packfiles[:3], Subset(percent=1)) != []


def test_the_index_is_made_anew(site: Site) -> None:
    site.backup(CHUNKS)
    site.backup({"c": [b"c"]})
    before = sorted(map(repr, site.open().index.locations()))
    for name in site.names("index"):
        site.store.delete(name)
    result = repair(site)

    assert (result.packfiles_kept, result.packfiles_read, result.lost) == (0, 4, ())
    assert sorted(map(repr, site.open().index.locations())) == before
    assert not check(site, read_data=True).findings


def test_a_sound_index_stays(site: Site) -> None:
    site.backup(CHUNKS)
    before = site.names("index")

    assert repair(site).index_files_written == 0
    assert site.names("index") == before
    assert repair(site, read_data=True) == repair(site)
    assert site.names("index") == before
    assert not check(site).findings


def test_repair_keeps_what_can_be_kept(site: Site) -> None:
    site.backup(CHUNKS)
    keep = site.names("index")
    site.backup({"c": [b"c"]})
    for name in set(site.names("index")) - set(keep):
        damage(site, name, 20)
    for name in site.names("data"):
        if len(site.store.contents[name]) > 2000:
            site.store.contents[name] = site.store.contents[name][:-1]
    result = repair(site)

    assert (result.packfiles_kept, result.packfiles_read) == (1, 2)
    assert (len(result.set_aside), result.chunks_saved, result.chunks_lost) == (1, 3, 0)
    assert not check(site, read_data=True).findings


def test_repair_needs_an_exclusive_lock(site: Site) -> None:
    with site.repository.lock() as lock, pytest.raises(PerdureError, match="exclusive"):
        repair_index(site.repository, lock, SilentObserver())


def test_nothing_is_missing_in_between(site: Site) -> None:
    site.backup(CHUNKS)

    class Watching(MemoryStore):
        def delete(self, name: str) -> None:
            if name.startswith("index/"):
                assert len(list(self.list("index/"))) == 2
            super().delete(name)

    watching = Watching()
    watching.contents = site.store.contents
    site.store = watching
    (name,) = site.names("index")
    damage(site, name, 20)
    repair(site)

    assert site.open().has(ChunkKind.TREE, ChunkId(site.repository.snapshots()[0][1].root))

"""Damage in a repository: what a check says of it, and how the repository becomes whole again."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from command_line import Program
from datafs import DataFs, Record, Transaction
from doubles import Clock, FaultyStore, Restic
from history_site import NAME, HistorySite, back_up, rebuilt_from, snapshots_in
from small_repository import Site

from perdure import plan
from perdure.assemble import assemble
from perdure.check import CheckReport, check
from perdure.errors import RepositoryDamaged, StoreError
from perdure.formats.manifest import REPAIRED
from perdure.formats.packfile import Entry
from perdure.model import ChunkId, ChunkKind, SilentObserver, Subset
from perdure.repair import RepairReport, repair_index, repair_snapshots
from perdure.repository import Repository, repairing
from perdure.repository import packer as packer_module
from perdure.stores import Store
from perdure.stores.local import LocalStore
from perdure.stores.memory import MemoryStore

WINDOW = 16 << 10


@pytest.fixture
def site(monkeypatch: pytest.MonkeyPatch) -> HistorySite:
    """Small segments, so that a small file has several."""
    monkeypatch.setattr(plan, "SEGMENT_SIZE", WINDOW)
    monkeypatch.setattr(plan, "REWRITE_BUDGET", 2 * WINDOW)
    return HistorySite(WINDOW)


def random_file(count: int) -> DataFs:
    """Transactions of a kilobyte that does not compress."""
    made = DataFs()
    for number in range(count):
        made.add(Transaction([Record(number, os.urandom(1000))], description=b"edit %d" % number))
    return made


def flip(store: MemoryStore, name: str, position: int) -> None:
    raw = bytearray(store.contents[name])
    raw[position] ^= 1
    store.contents[name] = bytes(raw)


def packfile(store: Store, chunk: ChunkId, kind: ChunkKind = ChunkKind.DATA) -> tuple[str, Entry]:
    """Find the packfile that has a chunk."""
    place, *_ = reopened(store).index.find(kind, chunk)
    name = place.packfile.hex()
    return f"data/{name[:2]}/{name}", place.entry


def damage(site: Site, chunk: ChunkId, kind: ChunkKind = ChunkKind.DATA) -> str:
    """Flip a bit of a chunk; gives its packfile's name."""
    name, entry = packfile(site.store, chunk, kind)
    flip(site.store, name, entry.offset + entry.length // 2)
    return name


def reopened(store: Store, clock: Clock | None = None) -> Repository:
    return Repository.open(store, "secret", cache=None, clock=clock or Clock(), workers=2)


def checked(site: Site) -> CheckReport:
    repository = site.open()
    with repository.lock():
        return check(repository, read_data=Subset(), observer=SilentObserver())


def mended(site: Site) -> RepairReport:
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        return repair_index(repository, lock, SilentObserver(), read_data=True)


def cut_back(site: Site, *, forget: bool = False, dry_run: bool = False) -> RepairReport:
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        return repair_snapshots(
            repository, lock, forget=forget, dry_run=dry_run, observer=SilentObserver()
        )


def losses(report: CheckReport) -> list[str]:
    return [lost for finding in report.findings for lost in finding.lost]


def part_of(site: HistorySite, part: str) -> tuple[ChunkId, ChunkKind]:
    """Give a chunk of some part of the newest snapshot; of its history, of the second segment."""
    newest = site.newest()
    root = site.repository.load_tree(newest.snapshot.root)
    if part == "manifest":
        return next(iter(root["perdure.json"].chunks)), ChunkKind.DATA
    if part == "root":
        return newest.snapshot.root, ChunkKind.TREE
    tree = root[newest.record.tree].tree
    assert tree
    if part == "history":
        return tree, ChunkKind.TREE
    if part in ("segments", "layouts"):
        inner = site.repository.load_tree(tree)[part].tree
        assert inner
        return inner, ChunkKind.TREE
    name = newest.history.names()[1]
    (segment,) = newest.history.segments(newest.history.layout(name))
    assert segment.catalogue
    file = {
        "payload": segment.payload,
        "catalogue": segment.catalogue,
        "layout": newest.history.layout_file(name),
    }[part]
    return file.chunks[0], ChunkKind.DATA


PARTS = [
    "payload", "catalogue", "layout", "manifest", "root", "history", "segments", "layouts"
]  # fmt: skip


@pytest.mark.parametrize("grown", [False, True], ids=["unchanged", "grown"])
@pytest.mark.parametrize("part", PARTS)
def test_the_next_backup_heals(site: HistorySite, tmp_path: Path, part: str, grown: bool) -> None:
    path, made = tmp_path / "Data.fs", random_file(60)
    path.write_bytes(made.data)
    site.back_up(path)
    assert site.segments >= 3
    name = damage(site, *part_of(site, part))

    before = checked(site)
    assert before.damaged
    assert any(name in finding.what for finding in before.findings)
    assert losses(before)
    report = mended(site)
    assert any(f"{name}.damaged" in message for message in report.messages)
    assert name not in site.store.contents
    assert f"{name}.damaged" in site.store.contents

    if grown:
        path.write_bytes(made.add(Transaction([Record(1, b"new")])).data)
    site.repository = site.open()
    site.back_up(path)
    cut_back(site, forget=True)
    site.repository = site.open()
    found = {each.id: each for each in snapshots_in(site.repository)}
    newest = next(reversed(site.states))
    assert rebuilt_from(found[newest])[0] == path.read_bytes()
    assert not checked(site).findings


def test_a_check_names_what_is_lost(site: HistorySite, tmp_path: Path) -> None:
    path, made = tmp_path / "Data.fs", random_file(60)
    path.write_bytes(made.data)
    site.back_up(path)
    first, second, *_ = (name.start for name in site.newest().history.names()[1:])
    before, last = (made.tids[made.ends.index(end)] for end in (first, second))
    chunk, _ = part_of(site, "payload")
    damage(site, chunk)

    report = checked(site)
    (lost,) = losses(report)
    assert lost.startswith(f"bytes {first} to {second}: the transactions after {before:016x} (")
    assert f"up to {last:016x} (" in lost
    (finding,) = (finding for finding in report.findings if finding.lost)
    assert finding.what.startswith(f"source {NAME!r}: lost in 1 snapshots")
    with pytest.raises(RepositoryDamaged, match=chunk.hex()) as caught:
        rebuilt_from(site.newest())
    assert "repair index --read-data" in (caught.value.hint or "")


def test_only_what_is_lost_is_stored_again(site: HistorySite, tmp_path: Path) -> None:
    path, made = tmp_path / "Data.fs", random_file(60)
    path.write_bytes(made.data)
    site.back_up(path)
    damage(site, *part_of(site, "payload"))
    repository = site.open()
    with repository.lock(exclusive=True) as lock:
        done = repairing.repair_index(repository, lock, SilentObserver(), read_data=True)
    assert done.chunks_lost == 1
    assert done.chunks_saved >= 6

    site.repository = site.open()
    report = site.back_up(path)
    assert report.method == "increment"
    assert "no longer whole" in report.reason
    assert report.bytes_read < len(made.data) / 2
    assert not checked(site).findings  # of the first snapshot, too: its chunk is there again
    site.check_all()


def test_nothing_is_repaired_twice(site: HistorySite, tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    path.write_bytes(random_file(60).data)
    site.back_up(path)
    damage(site, *part_of(site, "payload"))
    mended(site)
    after = dict(site.store.contents)

    assert len(mended(site).messages) == 1
    assert site.store.contents.keys() == after.keys()


@pytest.mark.parametrize("position", [-1, -20], ids=["length", "header"])
def test_a_packfile_whose_header_is_gone(position: int) -> None:
    site = Site()
    site.backup({"a": [os.urandom(1000), os.urandom(900)]})
    before = known_chunks(site.store)
    for name in site.names("data"):
        flip(site.store, name, position)

    report = mended(site)
    assert any("4 whole chunks were stored anew, 0 are lost" in line for line in report.messages)
    assert known_chunks(site.store) == before
    assert not checked(site).findings


def test_a_damaged_leftover_is_set_aside() -> None:
    site = Site()
    site.backup({"a": [b"a"]})
    (index,) = site.names("index")
    site.backup({"b": [b"b"]})
    (new,) = set(site.names("index")) - {index}
    del site.store.contents[new]
    known = {place.packfile.hex() for place in site.open().index.locations()}
    leftover = next(name for name in site.names("data") if name[8:] not in known)
    flip(site.store, leftover, 5)

    mended(site)
    assert leftover not in site.store.contents
    assert f"{leftover}.damaged" in site.store.contents


def test_a_chunk_that_is_whole_elsewhere_is_not_stored_again() -> None:
    site = Site()
    content = os.urandom(1000)
    site.backup({"a": [content]})
    indexes = {name: site.store.contents.pop(name) for name in site.names("index")}
    site.repository = site.open()
    site.backup({"a": [content]})
    site.store.contents |= indexes
    repository = site.open()
    twice = [p for p in repository.index.locations() if p.entry.kind is ChunkKind.DATA]
    assert len(twice) == 2
    name = twice[0].packfile.hex()
    flip(site.store, f"data/{name[:2]}/{name}", 20)

    with repository.lock(exclusive=True) as lock:
        done = repairing.repair_index(repository, lock, SilentObserver(), read_data=True)
    assert (len(done.set_aside), done.chunks_saved, done.chunks_lost) == (1, 0, 0)
    assert not checked(site).findings


def known_chunks(store: Store) -> set[tuple[ChunkKind, ChunkId]]:
    """Give all chunks that are in the index and whole."""
    repository = reopened(store)
    found = set()
    for place in repository.index.locations():
        with suppress(RepositoryDamaged):
            repository.load(place.entry.kind, place.entry.id)
            found.add((place.entry.kind, place.entry.id))
    repository.close()
    return found


@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after it"])
def test_a_repair_that_fails_at_its_nth_call(after: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 3000)
    made = Site()
    made.backup({"a": [os.urandom(1000) for _ in range(4)]})
    last = made.backup({"b": [os.urandom(1000) for _ in range(8)]})
    damage(made, list(made.repository.load_tree(folder_of(made, last))["b"].chunks)[5])
    whole = known_chunks(made.store)
    assert len(whole) == 15
    for n in count(1):
        store = MemoryStore()
        store.contents = dict(made.store.contents)
        faulty = FaultyStore(store, n, after=after)
        with suppress(StoreError):
            repository = reopened(faulty)
            with repository.lock(exclusive=True) as lock:
                repair_index(repository, lock, SilentObserver(), read_data=True)
        assert known_chunks(store) == whole
        if not faulty.failed:
            break
        later = Clock()
        later.advance(minutes=31)  # the lock may have stayed
        repository = reopened(store, later)
        with repository.lock(exclusive=True) as lock:
            repair_index(repository, lock, SilentObserver(), read_data=True)
        assert known_chunks(store) == whole
        assert sum(name.endswith(".damaged") for name in store.contents) == 1
        with repository.lock():
            report = check(repository, read_data=Subset(), observer=SilentObserver())
        assert losses(report) == ["/folder/b"]
    assert n > 20


def folder_of(site: Site, name: str = "latest") -> ChunkId:
    _, snapshot = site.repository.find_snapshot(name)
    folder = site.repository.load_tree(snapshot.root)["folder"].tree
    assert folder
    return folder


def test_snapshots_are_cut_back_to_what_is_whole(site: HistorySite, tmp_path: Path) -> None:
    path, made = tmp_path / "Data.fs", random_file(60)
    path.write_bytes(made.data)
    site.back_up(path)
    old = site.newest().id
    end = site.newest().history.names()[1].start
    damage(site, *part_of(site, "payload"))
    path.unlink()  # the source cannot heal it any more

    (would,) = cut_back(site, dry_run=True).repaired
    assert (would.damaged, would.snapshot, would.forgotten) == (old, None, False)
    assert would.what.startswith(f"{NAME!r} up to ")

    (done,) = cut_back(site).repaired
    assert done.snapshot
    assert done.what == would.what
    site.repository = site.open()
    found = site.found()
    assert found.keys() == {old, done.snapshot}
    left = found[done.snapshot]
    assert left.record.status == REPAIRED
    assert "repaired" in left.snapshot.tags
    assert left.snapshot.original == old
    assert rebuilt_from(left)[0] == made.data[:end]

    again = cut_back(site, forget=True)
    assert [each.forgotten for each in again.repaired] == [True]
    mended(site)
    site.repository = site.open()
    assert old not in site.found()
    for each in site.found().values():
        assert rebuilt_from(each)[0] == made.data[:end]
    assert not checked(site).findings


def test_files_of_other_programs_lose_only_what_is_damaged() -> None:
    site = Site()
    content = os.urandom(500)
    old = site.backup({"a": [os.urandom(600), content], "b": [b"b"], "c": [content]})
    damage(site, next(iter(site.repository.load_tree(folder_of(site))["a"].chunks)))

    (done,) = cut_back(site, forget=True).repaired
    assert (done.damaged, done.what) == (old, "all files but /folder/a")
    site.repository = site.open()
    nodes = site.repository.load_tree(folder_of(site)).nodes
    assert [node.name for node in nodes] == ["b", "c"]
    assert [site.repository.load(ChunkKind.DATA, *node.chunks) for node in nodes] == [b"b", content]
    mended(site)
    assert not checked(site).findings


def damage_file(path: Path, position: int) -> None:
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.chmod(0o600)
    path.write_bytes(raw)


def largest(repository: Path) -> Path:
    """The packfile of the payload."""
    packfiles = [path for path in (repository / "data").glob("*/*") if path.is_file()]
    return max(packfiles, key=lambda path: path.stat().st_size)


def test_on_the_command_line(program: Program, repository: Path, tmp_path: Path) -> None:
    path, made = tmp_path / "Data.fs", random_file(100)
    path.write_bytes(made.data)
    program("backup", "--filestorage", str(path))
    packfile = largest(repository)
    damage_file(packfile, 5000)

    done = program("check", "--read-data", code=13)
    assert packfile.name in done.err
    assert (
        "hint: copy it as it is; then perdure repair index --read-data, perdure backup" in done.err
    )
    done = program("restore", "--to", str(tmp_path / "new"), code=13)
    assert (
        "after perdure repair index --read-data the next perdure backup --verify-source" in done.err
    )
    done = program("repair", "snapshots", "--dry-run")
    assert re.search(
        "^snapshot [0-9a-f]{8} is damaged; nothing of it is left$", done.out, re.MULTILINE
    )

    done = program("repair", "index", "--read-data")
    assert f"{packfile.name}.damaged is what a damaged packfile is called now" in done.out
    assert "whole chunks were stored anew, 1 are lost" in done.out
    program("check", code=13)
    program("backup", "--filestorage", str(path))
    program("check", "--read-data")
    program("restore", "--to", str(tmp_path / "new"))
    assert (tmp_path / "new" / "Data.fs").read_bytes() == made.data
    assert program("repair", "snapshots").out == "nothing is damaged\n"


def test_repaired_snapshots_on_the_command_line(
    program: Program, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "SEGMENT_SIZE", WINDOW)
    monkeypatch.chdir(tmp_path)
    made = random_file(10)
    Path("Other.fs").write_bytes(random_file(3).data)
    for number in range(2):
        Path("Data.fs").write_bytes(made.data)
        program("backup", "--filestorage", "Data.fs", "--filestorage", "Other.fs")
        if not number:
            first = largest(repository)
            for _ in range(30):
                made.add(Transaction([Record(100, os.urandom(1000))]))
    assert largest(repository) != first
    damage_file(largest(repository), 5000)

    pattern = (
        r"snapshot [0-9a-f]{8} is damaged; %s: '\S+/Data.fs' up to 03f2[0-9a-f]{12}"
        r" \(20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC\); all of '\S+/Other.fs'%s\n"
    )
    said = program("repair", "snapshots", "--dry-run").out
    assert re.fullmatch(pattern % ("this would be left", ""), said)
    said = program("repair", "snapshots", "--forget").out
    stands, gone = "[0-9a-f]{8} stands for what is left", "; the damaged one is forgotten"
    assert re.fullmatch(pattern % (stands, gone), said)
    source = str(tmp_path / "Data.fs")
    program("restore", "--source", source, "--to", "new")
    left = Path("new/Data.fs").read_bytes()
    assert len(left) >= made.ends[9]
    assert made.data.startswith(left)


def test_a_snapshot_whose_own_file_is_damaged(
    program: Program, repository: Path, tmp_path: Path
) -> None:
    made = random_file(10)
    Path("Data.fs").write_bytes(made.data)
    names = [
        program("backup", "--json", "--filestorage", "Data.fs").summary["snapshot_id"]
        for _ in range(2)
    ]
    damage_file(repository / "snapshots" / names[1], 50)
    said = program("snapshots", "--no-cache", code=13).err
    assert "perdure repair snapshots --forget" in said
    program("restore", "--no-cache", names[0], "--to", "by-id")
    assert Path("by-id/Data.fs").read_bytes() == made.data
    damaged = f"snapshot {names[1][:8]} is damaged; nothing of it is left"
    assert program("repair", "snapshots").out == f"{damaged}\n"
    assert program("repair", "snapshots", "--forget", "--dry-run").out == f"{damaged}\n"
    assert (repository / "snapshots" / names[1]).exists()
    gone = f"{damaged}; the damaged one is forgotten\n"
    assert program("repair", "snapshots", "--forget").out == gone
    program("check", "--read-data")
    program("restore", "--to", "new")
    assert Path("new/Data.fs").read_bytes() == made.data


@pytest.mark.slow
@pytest.mark.parametrize("part", ["payload", "segments"])
def test_stock_restic_finds_no_fault_after_it(
    restic: Restic, tmp_path: Path, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, path, made = tmp_path / "repository", tmp_path / "Data.fs", random_file(60)
    store = LocalStore(root)
    monkeypatch.setattr(plan, "SEGMENT_SIZE", WINDOW)
    made_in_memory = HistorySite(WINDOW)
    path.write_bytes(made.data)
    made_in_memory.back_up(path)
    chunk, kind = part_of(made_in_memory, part)
    for name, content in made_in_memory.store.contents.items():
        store.put(name, content)
    name, entry = packfile(store, chunk, kind)
    damage_file(root / name, entry.offset + 3)
    restic(root, "check", "--read-data", status=1)

    repository = reopened(store)
    with repository.lock(exclusive=True) as lock:
        repair_index(repository, lock, SilentObserver(), read_data=True)
    back_up(repository, path, window=WINDOW)
    with repository.lock(exclusive=True) as lock:
        repair_snapshots(repository, lock, forget=True, dry_run=False, observer=SilentObserver())
    restic(root, "check", "--read-data")
    restic(root, "restore", "latest", "--target", str(tmp_path / "files"))
    history = tmp_path / "files" / "Data.fs.history"
    assemble(history, tmp_path / "new.fs", at=None, force=False, observer=SilentObserver())
    assert (tmp_path / "new.fs").read_bytes() == made.data
    restic(root, "prune", "--max-unused", "0")
    restic(root, "check", "--read-data")
    assert (root / f"{name}.damaged").exists()


def test_temporary_files_of_killed_processes(program: Program, repository: Path) -> None:
    """They are told of and removed once they are a day old: a younger one may be in work."""
    (repository / "data" / "ab").mkdir(parents=True)
    old = [repository / "data/ab" / f"{'ab' * 32}-tmp-1", repository / "index" / "x-tmp-2"]
    young = repository / "snapshots" / "y-tmp-3"
    for path in (*old, young):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
    for path in old:
        os.utime(path, (1e9, 1e9))

    done = program("check")
    assert "warning: 2 temporary files (10 bytes) of processes that were killed" in done.err
    done = program("repair", "index")
    assert "2 temporary files (10 bytes) of processes that were killed are removed" in done.out
    assert [path.exists() for path in (*old, young)] == [False, False, True]
    assert "temporary" not in program("check").err + program("repair", "index").out

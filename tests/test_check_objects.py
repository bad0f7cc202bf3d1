"""Every object of a snapshot is looked at: what is damage is found, and nothing else is called so."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import transaction
import ZODB
from blob_storage import BlobStorage
from datafs import DataFs, Record, Transaction
from history_site import back_up
from persistent.mapping import PersistentMapping
from raw_storage import BROKEN, CLASS, raw_storage, referring
from small_repository import Site
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSKeyError
from ZODB.serialize import referencesf
from ZODB.utils import p64, u64

from perdure import check_objects as module
from perdure.backup import BackupRequest, backup
from perdure.check_objects import ObjectsReport, check_objects
from perdure.errors import UsageError
from perdure.model import BlobId, SilentObserver, Tid
from perdure.repository.checking import check_repository
from perdure.restore_plan import Wanted
from perdure.snapshots import root_of, sources_in
from perdure.sources.filestorage import FileStorageSource


@pytest.fixture(autouse=True)
def whole_repository(site: Site) -> Iterator[None]:
    """Every repository that a test wrote is whole."""
    yield
    assert not check_repository(site.repository, SilentObserver(), read_data=True).damaged


def look(site: Site, wanted: Wanted = Wanted()) -> list[ObjectsReport]:  # noqa: B008 - it is frozen
    return check_objects(site.repository, wanted, SilentObserver())


def looked_at(site: Site, path: Path, **options: Any) -> ObjectsReport:
    """Back a Data.fs up and look at its objects."""
    back_up(site.repository, path, **options)
    [report] = look(site)
    return report


def kinds(report: ObjectsReport) -> list[tuple[str, int, int, str]]:
    return [(each.kind, each.oid, each.tid, each.class_name) for each in report.findings]


MAPPING = "persistent.mapping.PersistentMapping"


def test_a_sound_database(site: Site, tmp_path: Path) -> None:
    raw_storage(
        tmp_path / "Data.fs",
        {0: referring(1, 2), 1: referring(2), 2: referring()},
        {1: referring(0)},
    )
    report = looked_at(site, tmp_path / "Data.fs")
    assert not report.damaged
    assert (report.objects, report.records, report.unreachable, report.blobs) == (3, 4, 0, 0)


def test_a_broken_pickle(site: Site, tmp_path: Path) -> None:
    tids = raw_storage(
        tmp_path / "Data.fs",
        {0: referring(1), 1: BROKEN},
        {1: CLASS + b"N", 2: b"no pickle at all"},
        {1: referring()},
    )
    report = looked_at(site, tmp_path / "Data.fs")
    assert sorted(kinds(report)) == sorted(
        [
            (module.BROKEN, 1, tids[0], MAPPING),
            (module.BROKEN, 1, tids[1], MAPPING),
            (module.BROKEN, 2, tids[1], "?"),
        ]
    )
    assert report.damaged
    assert report.counts == {module.BROKEN: 3}
    [_, second, third] = sorted(report.findings, key=lambda each: (each.tid, each.oid))
    assert "cut short" in second.what
    assert "pickle of its class" in third.what


def test_a_missing_object(site: Site, tmp_path: Path) -> None:
    tids = raw_storage(
        tmp_path / "Data.fs",
        {0: referring(1, 77), 1: referring(78)},
        {1: referring(79)},
        {5: referring(80)},  # nothing leads to it
        {1: referring(2), 2: referring(99, weak=True)},
        {2: referring(81)},
    )
    report = looked_at(site, tmp_path / "Data.fs")
    assert sorted(kinds(report)) == [
        (module.MISSING_OBJECT, 0, tids[0], MAPPING),
        (module.MISSING_OBJECT, 2, tids[4], MAPPING),
    ]
    assert "0x000000000000004d (other.Thing)" in min(report.findings, key=lambda f: f.oid).what
    assert (report.unreachable, report.missing_unreachable, report.missing_old) == (1, 1, 2)
    # ZODB agrees: this is what ends in a POSKeyError
    storage = FileStorage(str(tmp_path / "Data.fs"))
    for each in report.findings:
        data, _ = storage.load(p64(each.oid), "")
        with pytest.raises(POSKeyError):
            [storage.load(oid, "") for oid in referencesf(data)]
    storage.close()
    # ... and at an earlier moment other objects were missing
    [before] = look(site, Wanted(at=Tid(tids[1])))
    assert {(each.oid, each.tid) for each in before.findings} == {(0, tids[0]), (1, tids[1])}
    assert (before.records, before.objects, before.missing_old) == (3, 2, 1)


def test_more_findings_than_are_kept(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST", 5)
    raw_storage(
        tmp_path / "Data.fs",
        {0: referring(*range(100, 120), 1), 1: BROKEN, 7: referring(200, 201)}
        | dict.fromkeys(range(2, 7), BROKEN),
    )
    report = looked_at(site, tmp_path / "Data.fs")
    assert report.counts == {module.BROKEN: 6, module.MISSING_OBJECT: 20}
    assert len(report.findings) == 10
    assert report.missing_unreachable == 2


def test_no_root(site: Site, tmp_path: Path) -> None:
    raw_storage(tmp_path / "Data.fs", {1: referring(2)})
    report = looked_at(site, tmp_path / "Data.fs")
    assert {each.oid for each in report.findings} == {0, 1}


def test_an_empty_database(site: Site, tmp_path: Path) -> None:
    FileStorage(str(tmp_path / "Data.fs")).close()
    report = looked_at(site, tmp_path / "Data.fs")
    assert (report.damaged, report.objects) == (False, 0)


def test_an_object_whose_making_was_undone(site: Site, tmp_path: Path) -> None:
    file = DataFs()
    file.add(Transaction([Record(0, referring(1)), Record(1, referring())]))
    file.add(Transaction([Record(1, referring(), prev=file.at[1])]))
    file.add(Transaction([Record(1, file.at[1], prev=file.at[2])]))  # the change is undone
    path = tmp_path / "Data.fs"
    path.write_bytes(file.data)
    assert not looked_at(site, path).damaged
    file.add(Transaction([Record(1, 0, prev=file.at[3])]))  # ... and its making
    path.write_bytes(file.data)
    report = looked_at(site, path)
    assert kinds(report) == [(module.MISSING_OBJECT, 0, file.tids[0], MAPPING)]
    assert report.objects == 1


@pytest.mark.parametrize("window", [150, 1 << 20])
def test_back_pointers_that_lead_nowhere(site: Site, tmp_path: Path, window: int) -> None:
    file = DataFs()
    file.add(
        Transaction([Record(0, referring(1, 2, 3)), Record(1, referring()), Record(4, b"N.N.")])
    )
    file.add(Transaction([Record(1, 17, prev=file.at[1])]))  # into a header
    file.add(Transaction([Record(2, file.at[0], prev=0)]))  # to another object
    file.add(Transaction([Record(3, 1 << 40, prev=0)]))  # beyond the end
    path = tmp_path / "Data.fs"
    path.write_bytes(file.data)
    report = looked_at(site, path, window=window)
    assert sorted(kinds(report)) == [
        (module.MISSING_DATA, oid, file.tids[oid], "?") for oid in (1, 2, 3)
    ]


@pytest.mark.parametrize("seed", range(8))
def test_random_databases(site: Site, tmp_path: Path, seed: int) -> None:
    """What is found is what a plain walk from the root finds."""
    random_ = random.Random(seed)
    states: dict[int, bytes] = {}
    referred: dict[int, list[int]] = {}
    transactions = []
    for number in range(12):
        some = {0} if not number else set(random_.choices(range(60), k=random_.randint(1, 12)))
        records = {}
        for oid in some:
            referred[oid] = random_.choices(range(75), k=random_.randint(0, 4))
            records[oid] = BROKEN if random_.random() < 0.05 else referring(*referred[oid])
            if records[oid] == BROKEN:
                referred[oid] = []
        states |= records
        transactions.append(records)
    tids = raw_storage(tmp_path / "Data.fs", *transactions)
    reached, ahead = {0}, [0]
    while ahead:
        new = {oid for oid in referred[ahead.pop()] if oid in states} - reached
        reached |= new
        ahead += new
    newest = {oid: tid for tid, records in zip(tids, transactions, strict=True) for oid in records}
    expected = [
        (module.MISSING_OBJECT, oid, newest[oid])
        for oid in reached
        for to in referred[oid]
        if to not in states
    ]
    expected += [
        (module.BROKEN, oid, tid)
        for tid, records in zip(tids, transactions, strict=True)
        for oid, data in records.items()
        if data == BROKEN
    ]
    report = looked_at(site, tmp_path / "Data.fs", window=random_.choice([400, 3000]))
    assert sorted(each[:3] for each in kinds(report)) == sorted(expected)
    assert report.unreachable == len(states) - len(reached)


def test_records_that_are_wrapped(site: Site, tmp_path: Path) -> None:
    raw_storage(
        tmp_path / "Data.fs",
        {0: b".z" + zlib.compress(referring(1, 2)), 1: b".e????", 2: b".zrubbish"},
    )
    report = looked_at(site, tmp_path / "Data.fs")
    assert [each[1] for each in kinds(report)] == [2]
    assert report.encrypted == 1


def test_what_is_kept_verbatim(site: Site, tmp_path: Path) -> None:
    """Tids that fall, and records of versions: ranges that no layout can express."""
    file = DataFs()
    file.add(Transaction([Record(0, referring(1, 2)), Record(1, referring())], tid=5000))
    file.add(Transaction([Record(1, referring(9), prev=file.at[1])], tid=4000))
    file.add(Transaction([Record(2, file.at[0]), Record(3, BROKEN, version=b"old")], tid=6000))
    (tmp_path / "Data.fs").write_bytes(file.data)
    report = looked_at(site, tmp_path / "Data.fs")
    assert (module.MISSING_OBJECT, 1, 4000, MAPPING) in kinds(report)
    assert (module.BROKEN, 3, 6000, MAPPING) in kinds(report)
    [before] = look(site, Wanted(at=Tid(4500)))
    assert before.records == 0


@pytest.mark.parametrize("window", [300, 1000])
def test_transactions_that_were_cut(site: Site, tmp_path: Path, window: int) -> None:
    """Large transactions lie in several layouts, also verbatim ones."""
    many = {oid: referring((oid + 1) % 60) for oid in range(60)}
    raw_storage(tmp_path / "Data.fs", many, many | {30: referring(1000)})
    report = looked_at(site, tmp_path / "Data.fs", window=window)
    assert [each.oid for each in report.findings] == [30]
    assert (report.objects, report.records, report.unreachable) == (60, 120, 29)
    file = DataFs().add(Transaction([Record(n, referring(n + 1), version=b"v") for n in range(20)]))
    (tmp_path / "old.fs").write_bytes(file.data)
    back_up(site.repository, tmp_path / "old.fs", name="old", window=window)
    [report] = look(site, Wanted(source="old"))
    assert (report.objects, [each.oid for each in report.findings]) == (20, [19])


def test_long_records(site: Site, tmp_path: Path) -> None:
    """A record above 4 MiB lies in several chunks, with others beside it."""
    long = CLASS + b"\x80\x03(B" + (9 << 20).to_bytes(4, "little") + bytes(9 << 20)
    raw_storage(
        tmp_path / "Data.fs",
        {
            0: referring(1, 2, 3),
            1: long + b"C\x08" + p64(5) + b"Qt.",
            2: referring(6),
            3: long + b"t.",
        },
    )
    report = looked_at(site, tmp_path / "Data.fs")
    assert sorted((each.kind, each.oid) for each in report.findings) == [
        (module.MISSING_OBJECT, 1),
        (module.MISSING_OBJECT, 2),
    ]


def test_a_long_chain(site: Site, tmp_path: Path) -> None:
    count = 20_000
    raw_storage(tmp_path / "Data.fs", {oid: referring(oid + 1) for oid in range(count)})
    report = looked_at(site, tmp_path / "Data.fs")
    assert [each.oid for each in report.findings] == [count - 1]
    assert report.unreachable == 0


@pytest.mark.parametrize("seed", range(6))
def test_blobs_of_a_living_storage(site: Site, tmp_path: Path, seed: int) -> None:
    storage = BlobStorage(tmp_path / "site", seed=seed)
    storage.commit("blob1", "blob2")
    for _ in range(25):
        storage.step()
    back_up(site.repository, storage.path, blobs=storage.blobs)
    report = looked_at(site, storage.path, blobs=storage.blobs)
    assert not report.damaged, report.findings
    assert report.blobs == len(storage.contents())
    assert report.unreachable == unreachable_in(storage.storage)
    storage.pack()
    report = looked_at(site, storage.path, blobs=storage.blobs)
    assert (report.damaged, report.unreachable) == (False, 0)
    storage.close()


def unreachable_in(storage: Any) -> int:
    """What ZODB's own means say of it."""
    ahead, reached = [p64(0)], set()
    while ahead:
        oid = ahead.pop()
        if oid not in reached:
            reached.add(oid)
            ahead += referencesf(storage.load(oid, "")[0])
    there = 0
    for oid in storage._index:
        with suppress(POSKeyError):  # its making was undone
            there += bool(storage.load(oid, ""))
    return there - len(reached)


def test_a_blob_without_file(site: Site, tmp_path: Path) -> None:
    storage = BlobStorage(tmp_path / "site")
    storage.commit("one", "two")
    storage.close()
    lost = min(storage.blobs.rglob("*.blob"))
    lost.unlink()
    report = looked_at(site, storage.path, blobs=storage.blobs)
    assert report.counts == {module.MISSING_FILE: 1}
    [finding] = report.findings
    assert finding.class_name == "ZODB.blob.Blob"
    assert "could not be read when the snapshot was made" in finding.what
    assert f"{finding.oid:02x}/0x{finding.tid:016x}.blob" in str(lost)


def test_files_that_do_not_fit_to_records(site: Site, tmp_path: Path) -> None:
    """A snapshot that was put together wrongly: a blob's file is gone, one is too many."""
    storage = BlobStorage(tmp_path / "site")
    storage.commit("one", "two")
    storage.close()
    back_up(site.repository, storage.path, blobs=storage.blobs)
    repository = site.repository
    [(_, snapshot)] = repository.snapshots()
    [found] = sources_in(repository, repository.snapshots(), None)
    assert found.blobs is not None
    (blob, file), *_ = list(found.blobs.folder.files())
    found.blobs.folder.remove(blob)
    stray = BlobId(blob.oid, blob.tid + 1)
    found.blobs.folder.put(stray, file)
    with repository.lock() as lock, repository.writer(lock) as writer:
        root = root_of(repository, snapshot)
        root.adopt(found.blobs.folder.folder.path.name, found.blobs.folder.folder)
        tree = root.store(writer)
        assert tree is not None
        changed = msgspec.structs.replace(snapshot, tree=tree.hex(), time="2037-01-01T00:00:00Z")
        writer.commit(changed)
    [report] = look(site)
    assert sorted((each.kind, each.oid, each.tid) for each in report.findings) == [
        (module.MISSING_RECORD, *stray),
        (module.MISSING_FILE, *blob),
    ]


class Databases:
    """A multi-database of two FileStorages with a reference from one into the other."""

    def __init__(self, folder: Path) -> None:
        self.paths = {name: folder / f"{name}.fs" for name in ("main", "catalog")}
        together: dict[str, Any] = {}
        self.databases = [
            ZODB.DB(FileStorage(str(path)), database_name=name, databases=together)
            for name, path in self.paths.items()
        ]
        manager = transaction.TransactionManager()
        connection = self.databases[0].open(manager)
        other = connection.get_connection("catalog")
        entry = PersistentMapping({"key": PersistentMapping()})
        other.add(entry)
        connection.root()["entry"] = entry
        manager.commit()
        self.entry = u64(entry._p_oid)
        connection.close()

    def close(self) -> None:
        for database in self.databases:
            database.close()

    def back_up(self, site: Site) -> None:
        sources = [
            FileStorageSource(path, name, database=name) for name, path in self.paths.items()
        ]
        with site.repository.lock() as lock:
            request = BackupRequest("www1", "plone")
            backup(site.repository, lock, sources, request, site.clock, SilentObserver())


def test_several_databases(site: Site, tmp_path: Path) -> None:
    made = Databases(tmp_path)
    made.close()
    made.back_up(site)
    main, catalog = look(site)
    assert not main.damaged
    assert not catalog.damaged
    assert catalog.unreachable == 0  # main leads to what its own root does not
    [alone] = look(site, Wanted(source="main"))
    assert (alone.damaged, alone.outside) == (False, {"catalog": 1})


def test_what_is_missing_in_another_database(site: Site, tmp_path: Path) -> None:
    made = Databases(tmp_path)
    made.databases[1].pack()  # which does not know of main, and takes the entry for garbage
    made.close()
    made.back_up(site)
    main, catalog = look(site)
    assert [each.oid for each in main.findings] == [0]
    assert f"{made.entry:#018x}" in main.findings[0].what
    assert "of database 'catalog'" in main.findings[0].what
    assert not catalog.damaged


def test_snapshots_without_objects(site: Site) -> None:
    name = site.backup({"file": [b"content"]})
    with pytest.raises(UsageError, match="another program"):
        look(site, Wanted(name))

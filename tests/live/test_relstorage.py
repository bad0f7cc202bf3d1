"""Backups of RelStorage on a real PostgreSQL server, with and without history."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from postgresql import PostgreSQL, postgresql
from storage_site import StorageSite, contents_of, copied, current_of, opened, with_our_modules
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.utils import p64, u64

from perdure.check import check
from perdure.copy_into import copy_into
from perdure.errors import SourceUnusable, UsageError
from perdure.model import BlobId, SilentObserver, Subset, Tid
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.sources.storage import StorageSource

__all__ = ["postgresql"]
pytestmark = pytest.mark.slow
pytest.importorskip("relstorage", reason="RelStorage is not installed (pip install RelStorage)")


@dataclass
class Database:
    """A RelStorage with a ZODB in it; ``folder`` holds its blob cache."""

    dsn: str
    folder: Path
    keeps_history: bool
    random: random.Random = field(default_factory=lambda: random.Random(5))

    @property
    def zconfig(self) -> str:
        return (
            "%import relstorage\n<relstorage>\n"
            f" keep-history {self.keeps_history}\n blob-dir {self.folder / 'cache'}\n"
            " cache-local-mb 1\n"
            f" <postgresql>\n  dsn {self.dsn} password='geheim'\n </postgresql>\n</relstorage>\n"
        )

    def open(self) -> Any:
        from ZODB.config import storageFromString

        self.storage: Any = storageFromString(self.zconfig)
        self.db: Any = ZODB.DB(self.storage)
        return self

    def close(self) -> None:
        self.db.close()

    def commit(self, count: int = 4, size: int = 2000) -> bytes:
        """Change some objects; gives the tid."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        tree = connection.root().setdefault("tree", OOBTree())
        for _ in range(count):
            text = "".join(self.random.choices("abcdefgh", k=self.random.randint(1, size)))
            tree[self.random.randint(0, 60)] = PersistentMapping(text=text)
        manager.get().note("Größeres")
        manager.get().setUser("admin")
        manager.get().setExtendedInfo("portal", "plone")
        manager.commit()
        tid: bytes = connection.root()["tree"]._p_serial
        connection.close()
        return max(tid, self.last())

    def last(self) -> bytes:
        self.storage.sync()
        self.storage.poll_invalidations()
        tid: bytes = self.storage.lastTransaction()
        return tid

    def add_blob(self, content: bytes) -> BlobId:
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        blob: Any = Blob()
        with blob.open("w") as file:
            file.write(content)
        connection.root()[f"blob{self.random.random()}"] = blob
        manager.commit()
        blob._p_activate()
        made = BlobId(u64(blob._p_oid), u64(blob._p_serial))
        connection.close()
        return made

    def undo(self) -> None:
        self.db.undo(self.db.undoLog(0, 1)[0]["id"])
        transaction.commit()

    def pack(self) -> None:
        self.db.pack(time.time())


@pytest.fixture(params=[True, False], ids=["history", "history-free"])
def database(
    request: pytest.FixtureRequest, postgresql: PostgreSQL, tmp_path: Path
) -> Iterator[Database]:
    made = Database(postgresql.database(), tmp_path, request.param)
    made.open()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def site(database: Database) -> StorageSite:
    return StorageSite(database.zconfig)


def check_current(site: StorageSite, database: Database, folder: Path) -> None:
    """The newest snapshot opens in ZODB, and each object of the storage is in it as it is now."""
    [report] = restore(
        site.repository, RestoreRequest(folder / "out", force=True), SilentObserver()
    )
    path = str(report.files[0])
    with opened(database.zconfig) as storage:
        now = current_of(storage, contents_of(storage))
    restored: Any = FileStorage(path, read_only=True)
    then = current_of(restored, contents_of(restored))
    assert {oid: then[oid] for oid in now} == now
    assert u64(restored.lastTransaction()) == u64(database.last())
    db: Any = ZODB.DB(restored)
    for content in db.open().root()["tree"].values():
        assert content["text"]
    db.close()


def check_exact(site: StorageSite, database: Database, folder: Path) -> None:
    """The newest snapshot is the FileStorage that ZODB copies of the storage."""
    with opened(database.zconfig) as storage:
        assert site.restored() == copied(storage, folder / f"oracle{len(site.ids)}.fs")


def check_repository(site: StorageSite) -> None:
    checked = check(site.repository, read_data=Subset(), observer=SilentObserver())
    assert not checked.damaged, checked


def test_increments_and_packs(site: StorageSite, database: Database, tmp_path: Path) -> None:
    for _ in range(30):
        database.commit()
    first = site.back_up()
    assert first.method == "full"
    check_exact(site, database, tmp_path)
    check_current(site, database, tmp_path)

    assert site.back_up().method == "nothing"
    database.commit(1)
    report = site.back_up()
    assert report.method == "increment"
    assert report.transactions_new == 1
    assert 0 < report.bytes_new < first.bytes_new / 4
    check_current(site, database, tmp_path)

    if database.keeps_history:
        database.undo()
        site.back_up()
        check_exact(site, database, tmp_path)
    database.pack()
    database.commit(1)
    report = site.back_up()
    assert report.method == ("compare" if database.keeps_history else "increment")
    assert report.bytes_new < first.bytes_new / 4
    check_current(site, database, tmp_path)
    report = site.back_up(verify_source=True)
    assert report.method == ("nothing" if database.keeps_history else "compare")
    check_exact(site, database, tmp_path)
    assert not site.warnings
    check_repository(site)


def test_which_moments_can_be_had(site: StorageSite, database: Database, tmp_path: Path) -> None:
    tids = [Tid.from_bytes(database.commit()) for _ in range(5)]
    site.back_up()
    tids.append(Tid.from_bytes(database.commit()))
    site.back_up()
    target = tmp_path / "moment"

    def restore_at(tid: Tid) -> Tid:
        request = RestoreRequest(target, Wanted(at=tid), force=True)
        [restored] = restore(site.repository, request, SilentObserver())
        return restored.cut

    assert restore_at(tids[-1]) == tids[-1]
    assert restore_at(tids[-2]) == tids[-2]
    if database.keeps_history:
        assert restore_at(tids[1]) == tids[1]
    else:
        with pytest.raises(UsageError) as error:
            restore_at(tids[1])
        assert "these moments can be had" in str(error.value.hint)


def test_blobs(site: StorageSite, database: Database, tmp_path: Path) -> None:
    blobs = {database.add_blob(b"one" * 9000): b"one" * 9000}
    database.commit()
    assert site.back_up().blobs
    second = database.add_blob(b"two" * 50_000)
    blobs[second] = b"two" * 50_000
    report = site.back_up()
    assert report.blobs
    assert (report.blobs.count, report.blobs.new, report.blobs.missing) == (2, 1, 0)
    assert not report.blobs.unseen
    with StorageSource(database.zconfig).cut() as cut:
        assert cut.blobs is not None
        for blob, content in blobs.items():
            file = cut.blobs.open(blob)
            assert file is not None
            with file:
                assert file.read() == content
        assert cut.blobs.open(BlobId(second.oid, second.tid + 1)) is None
    check_current(site, database, tmp_path)
    folder = tmp_path / "out"
    restored: Any = FileStorage(str(folder / "Data.fs"), blob_dir=str(folder / "blobstorage"))
    for blob, content in blobs.items():
        path = restored.loadBlob(p64(blob.oid), p64(blob.tid))
        assert Path(path).read_bytes() == content
    restored.close()


def test_while_others_write(database: Database, tmp_path: Path) -> None:
    site = StorageSite(database.zconfig, window=20_000)
    for _ in range(10):
        database.commit()
    config = tmp_path / "storage.conf"
    config.write_text(database.zconfig)
    writers = [
        subprocess.Popen(
            [sys.executable, __file__, str(config), str(number), str(tmp_path)],
            env=with_our_modules(),
        )
        for number in range(2)
    ]
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and len(list(tmp_path.glob("wrote*"))) < 2:
            time.sleep(0.05)
        cuts = []
        for number in range(8):
            cuts.append(site.back_up().cut)
            if number == 4:
                database.pack()
    finally:
        (tmp_path / "stop").touch()
        statuses = [writer.wait(60) for writer in writers]
    assert statuses == [0, 0]
    site.back_up()
    check_current(site, database, tmp_path)
    assert cuts == sorted(cuts)
    for number in range(len(cuts)):
        check_pairs(site.restored(number), tmp_path / f"cut{number}.fs")
    check_repository(site)


def check_pairs(data: bytes, path: Path) -> None:
    """What was always committed together is together."""
    path.write_bytes(data)
    db: Any = ZODB.DB(FileStorage(str(path), read_only=True))
    root = db.open().root()
    for number in range(2):
        left, right = root.get(f"left{number}", {}), root.get(f"right{number}", {})
        assert left.get("count") == right.get("count")
    db.close()


def write(config: Path, number: int, folder: Path) -> None:
    """Commit until told to stop: always two objects together, which must agree at every cut."""
    database = Database("", folder, True)
    with opened(config.read_text()) as storage:
        database.storage, database.db = storage, ZODB.DB(storage)
        database.random = random.Random(number)
        manager = transaction.TransactionManager()
        connection = database.db.open(manager)
        mine = [f"left{number}", f"right{number}"]
        count = 0
        while not (folder / "stop").exists():
            count += 1
            try:
                manager.begin()
                for name in mine:
                    counter = connection.root().setdefault(name, PersistentMapping())
                    counter["count"] = count
                manager.commit()
            except ZODB.POSException.POSError:
                manager.abort()
            (folder / f"wrote{number}").touch()
            time.sleep(0.01)
        connection.close()


@pytest.mark.parametrize("keeps_history", [True, False], ids=["into-history", "into-history-free"])
def test_into_another_relstorage_and_back(
    site: StorageSite,
    database: Database,
    postgresql: PostgreSQL,
    tmp_path: Path,
    keeps_history: bool,
) -> None:
    for _ in range(4):
        database.commit()
    if database.keeps_history:
        database.undo()
    blob = database.add_blob(b"blob" * 9000)
    tids = [Tid.from_bytes(database.commit()) for _ in range(4)]
    site.back_up()
    file = restore(site.repository, RestoreRequest(tmp_path / "out"), SilentObserver())[0].files[0]
    other = Database(postgresql.database(), tmp_path / "other", keeps_history)
    with StorageSource(database.zconfig).cut() as cut:
        first = copy_into(file, cut.blobs, other.zconfig, SilentObserver(), until=tids[1])
        report = copy_into(file, cut.blobs, other.zconfig, SilentObserver())
    assert first.cut == tids[1]
    assert (report.cut, report.blobs_missing, report.copied) == (tids[-1], 0, 2)
    with opened(database.zconfig) as ours, opened(other.zconfig) as theirs:
        now = current_of(ours, contents_of(ours))
        assert current_of(theirs, contents_of(theirs)) == now
        if keeps_history and database.keeps_history:
            assert contents_of(theirs) == contents_of(ours)
    with StorageSource(other.zconfig).cut() as cut:
        assert cut.blobs is not None
        copy = cut.blobs.open(blob)
        assert copy is not None
        with copy:
            assert copy.read() == b"blob" * 9000
    other.open()
    other.commit()  # its oids do not collide with what was copied
    there = StorageSite(other.zconfig)
    there.back_up()
    check_current(there, other, tmp_path / "back")
    other.close()


def test_a_wrong_dsn_is_explained_without_the_password(postgresql: PostgreSQL) -> None:
    dsn = postgresql.database().replace("zodb", "nowhere")
    zconfig = (
        "%import relstorage\n<relstorage>\n <postgresql>\n"
        f"  dsn {dsn} password='geheim'\n </postgresql>\n</relstorage>\n"
    )
    source = StorageSource(zconfig)
    with pytest.raises(SourceUnusable) as error, source.cut():
        pass
    assert error.value.exit_code == 14
    assert error.value.hint
    assert "nowhere" in str(error.value)
    assert "geheim" not in f"{error.value} {source.place} {source.name}"


def test_nothing_is_created_in_an_empty_database(postgresql: PostgreSQL) -> None:
    import psycopg2

    dsn = postgresql.database()
    zconfig = (
        f"%import relstorage\n<relstorage>\n <postgresql>\n  dsn {dsn}\n"
        " </postgresql>\n</relstorage>\n"
    )
    with pytest.raises(SourceUnusable), StorageSource(zconfig).cut():
        pass
    connection = psycopg2.connect(dsn)
    with connection.cursor() as cursor:
        cursor.execute("select count(*) from pg_tables where schemaname = 'public'")
        assert cursor.fetchone() == (0,)
    connection.close()


if __name__ == "__main__":
    write(Path(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))

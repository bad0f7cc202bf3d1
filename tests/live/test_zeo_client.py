"""Backups through a ZEO client that has no access to the server's files."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZEO
import ZODB
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from storage_site import StorageSite, contents_of, copied, with_our_modules
from ZEO.Exceptions import ServerException
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSError
from ZODB.utils import u64

from perdure.check import check
from perdure.model import SilentObserver, Subset

pytestmark = pytest.mark.slow


@dataclass
class Server:
    """A ZEO server process with one FileStorage."""

    folder: Path
    process: subprocess.Popen[bytes] | None = None

    @property
    def path(self) -> Path:
        return self.folder / "Data.fs"

    @property
    def address(self) -> str:
        return str(self.folder / "zeo.sock")

    @property
    def zconfig(self) -> str:
        return f"<zeoclient>\n server {self.address}\n storage 1\n</zeoclient>\n"

    @property
    def component(self) -> str:
        """The section as ZEO's own component has it."""
        return (
            f"%import ZEO\n<clientstorage>\n server {self.address}\n storage 1\n</clientstorage>\n"
        )

    def start(self) -> None:
        configuration = self.folder / "zeo.conf"
        configuration.write_text(
            f"<zeo>\n address {self.address}\n</zeo>\n<filestorage 1>\n path {self.path}\n"
            f" blob-dir {self.folder / 'blobs'}\n</filestorage>\n"
        )
        with (self.folder / "log").open("ab") as log:
            command = [sys.executable, "-m", "ZEO.runzeo", "-C", str(configuration)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder)

    def stop(self) -> None:
        assert self.process
        self.process.terminate()
        self.process.wait(30)

    def db(self) -> Any:
        return ZEO.DB(self.address, wait_timeout=60, blob_dir=str(self.folder / "cache"))


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    folder = tmp_path / "server"
    folder.mkdir()
    made = Server(folder)
    made.start()
    try:
        yield made
    finally:
        made.stop()


def commit(db: Any, key: str, size: int) -> None:
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    root = connection.root()
    if key in root:
        root[key]["text"] = key * size
    else:
        root[key] = PersistentMapping(text=key * size)
    manager.get().note(f"/plone/{key}")
    manager.get().setExtendedInfo("portal", "plone")
    manager.commit()
    connection.close()


def add_blob(db: Any, content: bytes) -> None:
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    connection.root()["blob"] = Blob(content)
    manager.commit()
    connection.close()


def check_exact(site: StorageSite, server: Server, folder: Path) -> None:
    """The newest snapshot is what ZODB copies of the server's file."""
    storage: Any = FileStorage(str(server.path), read_only=True)
    try:
        assert site.restored() == copied(storage, folder / f"oracle{len(site.ids)}.fs")
        assert site.contents(folder) == contents_of(storage)
    finally:
        storage.close()


def test_increments_packs_and_blobs(server: Server, tmp_path: Path) -> None:
    site = StorageSite(server.zconfig)
    db = server.db()
    for number in range(40):
        commit(db, f"key{number % 15}", 30 * number)
    add_blob(db, b"blob" * 10_000)
    first = site.back_up()
    assert first.method == "full"
    assert first.blobs
    assert (first.blobs.count, first.blobs.missing, first.blobs.unseen) == (1, 0, False)
    check_exact(site, server, tmp_path)

    assert site.back_up().method == "nothing"
    commit(db, "new", 50)
    db.undo(db.undoLog(0, 1)[0]["id"])
    transaction.commit()
    report = site.back_up()
    assert (report.method, report.transactions_new) == ("increment", 2)
    assert report.bytes_read < first.bytes_read / 4
    check_exact(site, server, tmp_path)

    db.pack()
    commit(db, "after", 10)
    report = site.back_up()
    assert report.method == "compare"
    assert report.bytes_new < first.bytes_new / 4
    check_exact(site, server, tmp_path)
    site.zconfig = server.component
    assert site.back_up(verify_source=True).method == "nothing"
    assert not site.warnings
    db.close()


def test_while_others_write(server: Server, tmp_path: Path) -> None:
    site = StorageSite(server.zconfig, window=20_000)
    db = server.db()
    for number in range(10):
        commit(db, f"key{number}", 100)
    notes = [tmp_path / f"notes{number}" for number in range(2)]
    command = [sys.executable, __file__, server.address]
    writers = [
        subprocess.Popen([*command, str(number), str(path)], env=with_our_modules())
        for number, path in enumerate(notes)
    ]
    confirmed = []
    try:
        end = time.monotonic() + 60
        while time.monotonic() < end and not all(p.exists() and p.stat().st_size for p in notes):
            time.sleep(0.05)
        for number in range(8):
            confirmed.append({int(t, 16) for p in notes for t in p.read_text().split()})
            site.back_up()
            if number == 4:
                # Undo records that lead into what a pack drops make ZODB give up.
                with suppress(ServerException):
                    db.pack()
    finally:
        (tmp_path / "stop").touch()
        statuses = [each.wait(60) for each in writers]
    assert statuses == [0, 0]
    site.back_up()
    check_exact(site, server, tmp_path)
    for number, before in enumerate(confirmed):
        contents = site.contents(tmp_path, number)
        assert max(contents) >= max(before)
        check_opens(site.restored(number), tmp_path / f"opens{number}.fs")
    checked = check(site.repository, read_data=Subset(), observer=SilentObserver())
    assert not checked.damaged, checked
    db.close()


def check_opens(data: bytes, path: Path) -> None:
    """Each object that is referred to can be loaded."""
    path.write_bytes(data)
    storage: Any = FileStorage(str(path), read_only=True)
    db: Any = ZODB.DB(storage)
    root = db.open().root()
    for number in range(2):
        for content in root.get(f"writer{number}", {}).values():
            assert content["text"]
    assert u64(storage.lastTransaction()) == max(contents_of(storage))
    db.close()


def write(address: str, number: int, notes: Path) -> None:
    """Commit until told to stop, and note each tid that was confirmed."""
    source = random.Random(number)
    db: Any = ZEO.DB(address, wait_timeout=60)
    manager = transaction.TransactionManager()
    connection = db.open(manager)
    with notes.open("a") as file:
        while not notes.with_name("stop").exists():
            try:
                manager.begin()
                mine = connection.root().setdefault(f"writer{number}", OOBTree())
                text = "".join(source.choices("abcdefgh", k=source.randint(1, 3000)))
                mine[source.randint(0, 60)] = PersistentMapping(text=text)
                manager.commit()
                file.write(f"{db.storage.lastTransaction().hex()}\n")
                file.flush()
            except POSError:
                manager.abort()
            time.sleep(source.random() * 0.01)
    connection.close()
    db.close()


if __name__ == "__main__":
    write(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

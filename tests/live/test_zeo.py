"""Backups of a site that a real ZEO server serves, while several processes write to it and it is packed.

The site has two storages, and blobs; what to back up is found in the server's configuration.

``PERDURE_TEST_SECONDS`` says how long (15 unless told).
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import ZEO
import ZODB
from history_site import HistorySite, system_clock, transactions_in
from ZEO.Exceptions import ServerException
from ZODB.blob import is_blob_record
from ZODB.FileStorage import FileStorage

from perdure.backup import BackupReport, BackupRequest, backup
from perdure.check import check
from perdure.formats.extent import scan
from perdure.model import SilentObserver, SnapshotId, Subset
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.site import from_zeo_conf
from perdure.sources.filestorage import FileStorageSource

SECONDS = float(os.environ.get("PERDURE_TEST_SECONDS", "15"))
WINDOW = 256 << 10
WRITERS = 3

pytestmark = pytest.mark.slow


@dataclass
class Server:
    """A ZEO server process with its writers."""

    folder: Path
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def path(self) -> Path:
        return self.folder / "Data.fs"

    @property
    def blobs(self) -> Path:
        return self.folder / "blobs"

    @property
    def configuration(self) -> Path:
        return self.folder / "zeo.conf"

    @property
    def address(self) -> str:
        return str(self.folder / "zeo.sock")

    def start(self) -> None:
        self.configuration.write_text(
            f"<zeo>\n address {self.address}\n</zeo>\n"
            f"<filestorage main>\n path {self.path}\n blob-dir {self.blobs}\n</filestorage>\n"
            f"<filestorage catalog>\n path {self.folder}/catalog.fs\n</filestorage>\n"
        )
        self._run("-m", "ZEO.runzeo", "-C", str(self.configuration))
        writer = str(Path(__file__).with_name("writer.py"))
        for number in range(WRITERS):
            notes = str(self.folder / f"notes{number}")
            self._run(writer, self.address, str(number), notes, str(self.blobs))
            wait_for(self.confirmed)  # two that make the databases' roots at once conflict

    def _run(self, *arguments: str) -> None:
        log = (self.folder / "log").open("ab")
        command = [sys.executable, *arguments]
        self.processes.append(subprocess.Popen(command, stdout=log, stderr=log, cwd=self.folder))

    def stop_writers(self) -> None:
        (self.folder / "stop").touch()
        for writer in self.processes[1:]:
            assert writer.wait(60) == 0, (self.folder / "log").read_text()

    def stop(self) -> None:
        for process in reversed(self.processes):
            process.terminate()
            process.wait(60)

    def confirmed(self) -> set[str]:
        """The tids that the server told a writer it had committed."""
        notes = self.folder.glob("notes*")
        return {line for path in notes for line in path.read_text().splitlines()}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    made.start()
    try:
        yield made
    finally:
        made.stop()


@dataclass
class Cut:
    """What was confirmed before a backup began."""

    before: set[str]


def test_snapshots_of_a_living_server(server: Server, tmp_path: Path) -> None:
    source = random.Random(7)
    site = HistorySite(WINDOW)
    cuts: dict[SnapshotId, Cut] = {}
    generations: list[Path] = []
    observer = SilentObserver()
    wait_for(lambda: len(server.confirmed()) > 5)
    end = time.monotonic() + SECONDS
    with ThreadPoolExecutor() as pool:
        packing = pool.submit(pack_now_and_then, server, generations, end)
        while time.monotonic() < end:
            before = server.confirmed()
            report = back_up_site(site, server, observer)
            assert report.snapshot_id is not None
            assert not report.incomplete, observer.warnings
            cuts[report.snapshot_id] = Cut(before)
            time.sleep(source.random() * 0.2)
        packing.result()
    server.stop_writers()
    keep_generation(server.path, generations)

    assert len(cuts) > 5
    assert len(generations) > 1, "not one pack came about"
    for name, cut in cuts.items():
        restored = assert_opens(site, name, tmp_path / "out")
        assert_prefix(restored, cut, generations)
    checked = check(site.repository, read_data=Subset(), observer=SilentObserver())
    assert not checked.damaged, checked
    site.repository.close()
    print(
        f"{len(cuts)} snapshots, {len(generations)} packs, {len(server.confirmed())} transactions"
    )


def back_up_site(site: HistorySite, server: Server, observer: SilentObserver) -> BackupReport:
    """Back up what the server's configuration has."""
    found = from_zeo_conf([server.configuration], {})
    assert [storage.name for storage in found.storages] == ["catalog", "main"]
    sources = [
        FileStorageSource(storage.path, window=WINDOW, blobs=storage.blobs, database=storage.name)
        for storage in found.storages
        if storage.path is not None
    ]
    request = BackupRequest("www1", "plone")
    with site.repository.lock() as lock:
        return backup(site.repository, lock, sources, request, system_clock, observer)


def pack_now_and_then(server: Server, generations: list[Path], end: float) -> None:
    source = random.Random(8)
    client: Any = ZEO.DB(server.address, storage="main", wait_timeout=60)
    while time.monotonic() < end:
        keep_generation(server.path, generations)
        # Undo records that lead into what a pack drops make ZODB give up, and leave the file as it is.
        with suppress(ServerException):
            client.pack(time.time() - source.choice([0, 0.5, 2]))
        time.sleep(source.random())
    client.close()


def keep_generation(path: Path, generations: list[Path]) -> None:
    """Keep hold of the file that the next pack replaces; it grows until then."""
    kept = path.with_name(f"generation{len(generations)}.fs")
    os.link(path, kept)
    if not generations or not kept.samefile(generations[-1]):
        generations.append(kept)
    else:
        kept.unlink()


def assert_prefix(data: bytes, cut: Cut, generations: list[Path]) -> None:
    """The bytes begin one of the server's files, end behind a whole transaction, and lack none."""
    files = [path.read_bytes() for path in generations]
    assert any(file.startswith(data) for file in files)
    tids = {f"{header.tid:016x}" for header in transactions_in(data)}
    last = max(tids)
    everything = {f"{h.tid:016x}" for file in files for h in scan(file, 0, where="Data.fs").headers}
    assert tids <= everything
    assert last >= max(cut.before), "what was confirmed before the backup began is in it"
    of_this = next(file for file in files if file.startswith(data))
    missing = {
        f"{header.tid:016x}"
        for header in scan(of_this, 0, where="Data.fs").headers
        if f"{header.tid:016x}" <= last
    } - tids
    assert not missing


def assert_opens(site: HistorySite, name: SnapshotId, target: Path) -> bytes:
    """ZODB opens what a snapshot gives, and each blob is what was written; gives the main Data.fs."""
    request = RestoreRequest(target, Wanted(name), force=True)
    catalog, restored = restore(site.repository, request, SilentObserver())
    assert (catalog.database, restored.database) == ("catalog", "main")
    storage: Any = FileStorage(
        str(restored.files[0]), blob_dir=str(target / "main/blobs"), read_only=True
    )
    database: Any = ZODB.DB(storage)
    root = database.open().root()
    for number in range(WRITERS):
        for content in root.get(f"writer{number}", {}).values():
            assert content["text"]
    for each in storage.iterator():
        for record in each:
            if record.data and is_blob_record(record.data):
                with storage.openCommittedBlobFile(record.oid, record.tid) as file:
                    content = file.read()
                assert hashlib.sha256(content[32:]).digest() == content[:32]
    database.close()
    ZODB.DB(FileStorage(str(catalog.files[0]), read_only=True)).close()
    return restored.files[0].read_bytes()


def wait_for(condition: Any, seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.05)

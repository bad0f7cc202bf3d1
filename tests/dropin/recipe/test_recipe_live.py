"""Backups as files of a site that a real ZEO server serves, while processes write to it and it is packed."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import pytest
import ZEO
from command_line import Program
from ZEO.Exceptions import ServerException

from perdure.dropin.recipe.referenced import referenced_by
from perdure.sources.blobs import BlobDirectory

pytestmark = pytest.mark.slow

ROUNDS = 5
WRITER = Path(__file__).parents[2] / "live" / "writer.py"


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short name: a socket's path may not be long."""
    made = Path(mkdtemp(prefix="live-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def server(folder: Path) -> Iterator[str]:
    """A ZEO server with two writers; gives its address."""
    address = str(folder / "zeo.sock")
    (folder / "zeo.conf").write_text(
        f"<zeo>\n address {address}\n</zeo>\n"
        f"<filestorage main>\n path {folder}/var/filestorage/Data.fs\n blob-dir {folder}/var/blobs\n"
        f"</filestorage>\n<filestorage catalog>\n path {folder}/var/filestorage/catalog.fs\n"
        "</filestorage>\n"
    )
    (folder / "var" / "filestorage").mkdir(parents=True)
    commands = [["-m", "ZEO.runzeo", "-C", str(folder / "zeo.conf")]]
    for number in range(2):
        notes = str(folder / f"notes{number}")
        commands.append([str(WRITER), address, str(number), notes, str(folder / "var" / "blobs")])
    with (folder / "log").open("wb") as log:
        started = [
            subprocess.Popen([sys.executable, *each], stdout=log, stderr=log) for each in commands
        ]
        try:
            yield address
            assert started[0].poll() is None, (folder / "log").read_text()
        finally:
            (folder / "stop").touch()
            for process in reversed(started):
                process.terminate()
                process.wait(120)


def wait_for_commits(folder: Path, more: int) -> None:
    """Wait until the writers have committed so much more."""
    notes = [folder / "notes0", folder / "notes1"]

    def count() -> int:
        return sum(len(each.read_bytes().splitlines()) for each in notes if each.exists())

    target, end = count() + more, time.monotonic() + 120
    while count() < target:
        assert time.monotonic() < end, (folder / "log").read_text()
        time.sleep(0.05)


def pack(address: str) -> None:
    storage = ZEO.client(address, storage="main", wait_timeout=60)
    with suppress(ServerException):  # nothing to pack yet, or one that is under way
        storage.pack(time.time(), lambda data, oids: [])
    storage.close()


def test_every_backup_is_whole(folder: Path, server: str, program: Program) -> None:
    (folder / "perdure.toml").write_text("[site]\nkeep = 0\n")
    where = ("site", "--folder", str(folder))
    wait_for_commits(folder, 5)
    for number in range(ROUNDS):
        command = [sys.executable, "-m", "perdure", *where, "backup"]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        if number % 2:
            pack(server)
        _, said = process.communicate(timeout=120)
        assert process.returncode == 0, said
        wait_for_commits(folder, 5)
    program(*where, "snapshotbackup")

    (folder / "away").mkdir()
    (folder / "perdure.toml").write_text(
        f"[site]\nkeep = 0\ndatafs = 'away/main.fs'\nblob-storage = 'away/blobs'\n"
        f"additional-filestorages = ['catalog {folder}/away/catalog.fs']\n"
    )
    program(*where, "verify")
    program(*where, "restore", "-n")
    assert referenced_by(folder / "away" / "main.fs").certain == set(
        BlobDirectory(folder / "away" / "blobs").walk()
    )

"""Write the golden repository ``site-1``: run once, with the version that it is to remember.

    PYTHONPATH=src:tests python tests/golden/make_site_1.py

A site of two storages, one with blobs in a bushy, one in a lawn directory: full, increment with an undo,
after a pack, with a blob missing. The password is "golden". ``site-1.json`` has, for each snapshot, the
SHA-256 of each Data.fs and of each blob by its path in the blob directory.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from blob_storage import BlobStorage
from doubles import Clock

from perdure.backup import BackupRequest, backup
from perdure.formats.blobs import BUSHY, LAWN, path_in_directory
from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.model import SilentObserver
from perdure.repository import Repository
from perdure.sources.filestorage import FileStorageSource
from perdure.stores.local import LocalStore

TARGET = Path(__file__).parent / "site-1"
LAYOUTS = {"catalog": LAWN, "main": BUSHY}


def state(storage: BlobStorage) -> dict[str, Any]:
    """Give what must come back of a storage."""
    blobs = {
        path_in_directory(blob, storage.layout): hashlib.sha256(content).hexdigest()
        for blob, content in sorted(storage.contents().items())
    }
    return {"sha256": hashlib.sha256(storage.data).hexdigest(), "blobs": blobs}


def make(target: Path, work: Path) -> None:
    """Make the repository, and the file beside it."""
    clock = Clock(datetime(2026, 11, 21, 3, 15, tzinfo=UTC))
    repository = Repository.create(
        LocalStore(target),
        "golden",
        kdf=FOR_KEY_FILES,
        now=clock(),
        username="plone",
        hostname="golden",
        clock=clock,
    )
    storages = {name: BlobStorage(work / name, layout) for name, layout in LAYOUTS.items()}
    expected: list[dict[str, Any]] = []

    def back_up() -> None:
        clock.now += timedelta(hours=1)
        sources = [
            FileStorageSource(
                storage.path, f"/site/{name}/Data.fs", database=name, blobs=storage.blobs
            )
            for name, storage in storages.items()
        ]
        request = BackupRequest("golden", "plone", program_version="perdure golden")
        with repository.lock() as lock:
            report = backup(repository, lock, sources, request, clock, SilentObserver())
        expected.append(
            {
                "snapshot": report.snapshot_id,
                "incomplete": report.incomplete,
                "sources": {name: state(storage) for name, storage in storages.items()},
            }
        )

    for storage in storages.values():
        storage.commit("one", "two")
        storage.commit("empty", size=0)
    back_up()
    for storage in storages.values():
        storage.commit("two", "three")
        storage.undo()
    back_up()
    for storage in storages.values():
        storage.pack()
        storage.commit("four")
    back_up()
    lose_one(storages["main"], back_up)
    for storage in storages.values():
        storage.close()
    target.with_suffix(".json").write_text(f"{json.dumps(expected, indent=1)}\n")


def lose_one(storage: BlobStorage, back_up: Callable[[], None]) -> None:
    """Back up while the file of the newest blob is elsewhere; the state still tells of it."""
    storage.commit("five")
    contents = storage.contents()
    newest = max(contents, key=lambda blob: blob.tid)
    place = storage.blobs / path_in_directory(newest, storage.layout)
    place.rename(place.with_suffix(".lost"))
    storage.contents = lambda: contents  # type: ignore[method-assign]
    back_up()


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        make(TARGET, Path(folder))

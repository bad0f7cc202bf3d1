"""Write the golden repository ``perdure-1``: run once, with the version that it is to remember.

    PYTHONPATH=src:tests python tests/golden/make_perdure_1.py

The password is "golden". ``perdure-1.json`` has, for each snapshot and source, the SHA-256 of the whole
Data.fs and of what it was at some transactions. Everything else is in the repository itself.
"""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from time import time
from typing import Any

from doubles import Clock
from history_site import transactions_in
from living_storage import LivingStorage
from ZODB.serialize import referencesf

from perdure import plan
from perdure.backup import BackupRequest, backup
from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.model import SilentObserver
from perdure.repository import Repository
from perdure.sources.filestorage import FileStorageSource
from perdure.stores.local import LocalStore

TARGET = Path(__file__).parent / "perdure-1"
PASSWORD = "golden"
SOURCES = ("main", "other")
START = datetime(2026, 11, 21, 3, 15, tzinfo=UTC)
WINDOW = 8 << 10
"""Bytes of a segment, so that small files have several."""


class Maker:
    """Writes the repository, and notes what must come back."""

    def __init__(self, target: Path, work: Path) -> None:
        self.work = work
        self.clock = Clock(START)
        self.expected: list[dict[str, Any]] = []
        self.repository = Repository.create(
            LocalStore(target),
            PASSWORD,
            kdf=FOR_KEY_FILES,
            now=START,
            username="plone",
            hostname="golden",
            clock=self.clock,
        )

    def back_up(self, *names: str, tags: tuple[str, ...] = ()) -> None:
        """Back the Data.fs of some folders up, in one snapshot."""
        self.clock.now += timedelta(hours=1)
        paths = {name: self.work / name / "Data.fs" for name in names}
        sources = [FileStorageSource(path, name, WINDOW) for name, path in paths.items()]
        request = BackupRequest("golden", "plone", tags=tags, program_version="perdure golden")
        observer = SilentObserver()
        with self.repository.lock() as lock:
            report = backup(self.repository, lock, sources, request, self.clock, observer)
        assert not observer.warnings
        self.expected.append(
            {
                "snapshot": report.snapshot_id,
                "tags": tags,
                "methods": [source.method for source in report.sources],
                "sources": {name: states(path.read_bytes()) for name, path in paths.items()},
            }
        )


def states(data: bytes) -> dict[str, Any]:
    """Give the SHA-256 of a file, and of what it was at some of its transactions."""
    headers = transactions_in(data)
    starts = [*(header.position for header in headers), len(data)]
    some = range(len(headers) // 2, len(headers), max(1, len(headers) // 8))
    return {
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "at": {
            f"{headers[n].tid:016x}": hashlib.sha256(data[: starts[n + 1]]).hexdigest()
            for n in some
        },
    }


def make(target: Path, work: Path) -> None:
    """Full, increment, with a second source, after a pack."""
    plan.SEGMENT_SIZE, plan.REWRITE_BUDGET = WINDOW, 2 * WINDOW
    main, other = (LivingStorage(new(work / name), seed) for seed, name in enumerate(SOURCES))
    maker = Maker(target, work)
    for _ in range(8):
        main.commits()
    maker.back_up("main", tags=("first",))
    for step in (main.commits, main.undo, main.delete, main.large_transaction, main.large_oids):
        step()
    maker.back_up("main")
    for step in (main.metadata, main.restore_record, other.commits, other.large_record):
        step()
    maker.back_up("main", "other", tags=("both", "sources"))
    main.storage.pack(time(), referencesf)
    main.commits()
    maker.back_up("main", "other", tags=("packed",))
    main.close()
    other.close()
    text = json.dumps(maker.expected, indent=1)
    (target.parent / f"{target.name}.json").write_text(f"{text}\n")


def new(folder: Path) -> Path:
    """Make a folder."""
    folder.mkdir()
    return folder


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        make(TARGET, Path(folder))

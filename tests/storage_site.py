"""Storages that are backed up through their iterators, and what must come back of them."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from history_site import NAME, rebuilt_from, system_clock
from small_repository import Site
from ZODB.config import storageFromString
from ZODB.FileStorage import FileStorage
from ZODB.utils import u64

from perdure.backup import BackupRequest, SourceReport, backup
from perdure.formats.extent import scan
from perdure.formats.filestorage import TransactionHeader
from perdure.model import SilentObserver, SnapshotId
from perdure.repository import Repository
from perdure.snapshots import Found, sources_in
from perdure.sources.filestorage import WINDOW
from perdure.sources.storage import StorageSource

Contents = dict[int, dict[int, tuple[bytes, ...]]]
"""Of each tid, of each oid: the data of its records."""


def with_our_modules() -> dict[str, str]:
    """Give the environment for a process that imports what the tests do."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


class StorageSite(Site):
    """A repository, and a storage that is backed up to it."""

    def __init__(self, zconfig: str, window: int = WINDOW, cache: Path | None = None) -> None:
        super().__init__()
        if cache is not None:
            self.repository.close()
            self.repository = Repository.open(
                self.store, "secret", cache=cache, clock=self.clock, workers=2
            )
        self.zconfig, self.window = zconfig, window
        self.warnings: list[str] = []
        self.ids: list[SnapshotId] = []

    def back_up(self, *, verify_source: bool = False) -> SourceReport:
        request = BackupRequest("www1", "plone", verify_source=verify_source)
        source = StorageSource(self.zconfig, NAME, self.window)
        observer = SilentObserver()
        with self.repository.lock() as lock:
            report = backup(self.repository, lock, [source], request, system_clock, observer)
        self.warnings += observer.warnings
        assert report.snapshot_id is not None
        self.ids.append(report.snapshot_id)
        return report.sources[0]

    def found(self, number: int = -1) -> Found:
        wanted = self.ids[number]
        every = sources_in(self.repository, self.repository.snapshots(), None)
        return next(found for found in every if found.id == wanted)

    def restored(self, number: int = -1) -> bytes:
        """Give the bytes of a snapshot's file, whole."""
        found = self.found(number)
        data, rebuilt = rebuilt_from(found)
        assert rebuilt.size == len(data) == found.record.size
        return data

    def contents(self, folder: Path, number: int = -1) -> Contents:
        """Give what ZODB reads from a snapshot's file."""
        path = folder / f"restored-{number}-{len(self.ids)}.fs"
        path.write_bytes(self.restored(number))
        storage: Any = FileStorage(str(path), read_only=True)
        try:
            return contents_of(storage)
        finally:
            storage.close()


@contextmanager
def opened(zconfig: str) -> Iterator[Any]:
    storage: Any = storageFromString(zconfig)
    try:
        yield storage
    finally:
        storage.close()


def contents_of(storage: Any) -> Contents:
    """Give what a storage's iterator gives."""
    found: Contents = {}
    for transaction in storage.iterator():
        mine = found.setdefault(u64(transaction.tid), {})
        for record in transaction:
            mine[u64(record.oid)] = (*mine.get(u64(record.oid), ()), record.data or b"")
    return found


def current_of(storage: Any, contents: Contents) -> dict[int, bytes]:
    """Load the current revision of each object that a storage's iterator tells of."""
    from ZODB.utils import load_current, p64

    oids = {oid for records in contents.values() for oid in records}
    found = {}
    for oid in oids:
        try:
            found[oid] = load_current(storage, p64(oid))[0]
        except KeyError:
            continue
    return found


class _WithoutOrigins:
    """A storage whose records do not tell which earlier one has the same data."""

    def __init__(self, storage: Any) -> None:
        self._storage = storage

    def iterator(self) -> Iterator[Any]:
        for transaction in self._storage.iterator():
            yield _Transaction(transaction)


class _Transaction:
    def __init__(self, transaction: Any) -> None:
        self._transaction = transaction

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transaction, name)

    def __iter__(self) -> Iterator[Any]:
        for record in self._transaction:
            record.data_txn = None
            yield record


def copied(storage: Any, target: Path) -> bytes:
    """Give the FileStorage that ZODB's copyTransactionsFrom makes of a storage, prev of packed ones 0."""
    copy: Any = FileStorage(str(target), create=True)
    copy.copyTransactionsFrom(_WithoutOrigins(storage))
    copy.close()
    data = bytearray(target.read_bytes())
    extent = scan(bytes(data), 0, where=str(target))
    for at, packed in zip(extent.at.tolist(), extent.packed.tolist(), strict=True):
        if packed:
            data[at + 16 : at + 24] = bytes(8)
    return bytes(data)


def transactions_in(data: bytes) -> tuple[TransactionHeader, ...]:
    return scan(data, 0, where="Data.fs").headers

"""Write transactions into a storage with their own tids, through its restore API.

It is what ``copyTransactionsFrom`` does, a transaction at a time: each is committed by itself, so that what
was interrupted goes on behind the last one that is there.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

from perdure.errors import StoreError, UsageError
from perdure.formats.blob_records import is_blob
from perdure.model import BlobId
from perdure.sources.iterating import StorageReader
from perdure.sources.opening import describe, opened_storage, translated
from perdure.sources.protocol import Blobs

_ENCRYPTED = b".e"
"""How an encrypted record begins: it is a blob's if there is a file for it."""


class StorageWriter:
    """A storage that is open for writing."""

    def __init__(self, storage: Any, zconfig: str) -> None:
        self.place = describe(zconfig)
        self._storage, self._zconfig = storage, zconfig
        if not hasattr(storage, "restore"):
            raise UsageError(
                f"{self.place} cannot take transactions with their tids: it has no restore",
                hint="restore into a FileStorage or a RelStorage",
            )
        self.reader = StorageReader(storage, self.place, self._guard)

    def _guard(self) -> Any:
        return translated(self._zconfig, "cannot be written", StoreError)

    def last_tid(self) -> int:
        """Give the tid of the last transaction that is there; 0: the storage is empty."""
        last = 0
        for transaction in self.reader.transactions(0, None):
            last = int.from_bytes(transaction.tid, "big")
        return last

    def restore(self, transaction: Any, blobs: Blobs | None) -> tuple[int, int]:
        """Commit a transaction as it was; gives the bytes of its records, and how many blobs it lacks.

        Raises StoreError, UsageError.
        """
        size = lacking = 0
        with self._guard():
            self._storage.tpc_begin(transaction, transaction.tid, transaction.status)
            try:
                for record in transaction:
                    file, lacks = _blob_of(record, blobs)
                    self._restore(record, file, transaction)
                    size += len(record.data or b"")
                    lacking += lacks
                self._storage.tpc_vote(transaction)
            except BaseException:
                self._storage.tpc_abort(transaction)
                raise
            self._storage.tpc_finish(transaction)
        return size, lacking

    def _restore(self, record: Any, file: BinaryIO | None, transaction: Any) -> None:
        if file is None:
            self._storage.restore(record.oid, record.tid, record.data, "", None, transaction)
            return
        with file:
            if not hasattr(self._storage, "restoreBlob"):
                raise UsageError(
                    f"{self.place} has no room for blobs",
                    hint="name a blob-dir in its configuration, and start again: it goes on where it stopped",
                )
            with _copied(file, self._storage.temporaryDirectory()) as name:
                self._storage.restoreBlob(
                    record.oid, record.tid, record.data, name, None, transaction
                )


def _blob_of(record: Any, blobs: Blobs | None) -> tuple[BinaryIO | None, bool]:
    """Open the blob of a record, if it is one; and say whether it should be there and is not."""
    data = record.data or b""
    certain = is_blob(data)
    if not certain and not data.startswith(_ENCRYPTED):
        return None, False
    blob = BlobId(int.from_bytes(record.oid, "big"), int.from_bytes(record.tid, "big"))
    file = blobs.open(blob) if blobs is not None else None
    return file, certain and file is None


@contextmanager
def _copied(file: BinaryIO, folder: str) -> Iterator[str]:
    """Copy a file to where the storage takes it from."""
    descriptor, name = tempfile.mkstemp(prefix="perdure-", suffix=".tmp", dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(file, copy)
        yield name
    finally:
        with suppress(FileNotFoundError):
            os.unlink(name)


@contextmanager
def opened_writer(zconfig: str) -> Iterator[StorageWriter]:
    """Open the storage that a ZConfig text describes for writing. Raises SourceUnusable, UsageError."""
    with opened_storage(zconfig, read_only=False) as storage:
        yield StorageWriter(storage, zconfig)

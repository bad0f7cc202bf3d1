"""A real FileStorage that goes through everything a FileStorage goes through, step by step."""

from __future__ import annotations

import os
import random
import shutil
from base64 import encodebytes
from contextlib import suppress
from pathlib import Path
from typing import Any

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.Connection import TransactionMetaData
from ZODB.FileStorage import FileStorage
from ZODB.FileStorage.fspack import PackError
from ZODB.fsIndex import fsIndex
from ZODB.POSException import POSError
from ZODB.utils import p64, u64, z64

from perdure.formats.extent import scan
from perdure.formats.fsindex import encode
from perdure.formats.revisions import Revisions
from perdure.model import Tid

LARGE_OID = 1 << 41


class LivingStorage:
    """A FileStorage at ``folder``/Data.fs, open for writing; every step is decided by ``random``."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.path = folder / "Data.fs"
        self.random = random.Random(seed)
        self._open()

    def _open(self) -> None:
        self.storage: Any = FileStorage(str(self.path))
        self.db: Any = ZODB.DB(self.storage)

    def close(self) -> None:
        self.db.close()

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    # --- steps through ZODB's own API

    def commit(self) -> None:
        """A transaction over some objects below the root: new, changed, and dropped ones."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        root = connection.root()
        for _ in range(self.random.randint(1, 6)):
            key = f"key{self.random.randint(0, 11)}"
            if self.random.random() < 0.15:
                root.pop(key, None)
            elif key in root:
                root[key]["text"] = "x" * self.random.randint(0, 700) + str(self.random.random())
            else:
                root[key] = PersistentMapping(text=self.random.random())
        manager.get().note(f"/plone/edit {self.random.random()}")
        manager.get().setUser(self.random.choice(["admin", "Jürgen"]))
        try:
            manager.commit()
        except ValueError:  # ZODB gave an oid out again that a packed record still refers to
            manager.abort()
        connection.close()

    def commits(self) -> None:
        for _ in range(self.random.randint(3, 10)):
            self.commit()

    def undo(self) -> None:
        """Undo a transaction, or several at once (which writes an object several times)."""
        log = self.storage.undoLog(0, 8)[
            : len(self.storage.undoLog(0, 1 << 20)) - 1
        ]  # but for the root
        count = self.random.randint(1, 3)
        self._undo([entry["id"] for entry in log if self.random.random() < 0.5][:count])

    def _undo(self, transactions: list[bytes]) -> None:
        manager = transaction.TransactionManager()
        try:
            self.db.undoMultiple(transactions, manager.get())
            manager.commit()
        except POSError:
            manager.abort()

    def undo_creation(self) -> None:
        """Create an object that nothing refers to, and undo that: back pointer 0."""
        tid = self._store([(self._new_oid(), z64, self._bytes(50))])
        self._within(lambda t: self.storage.undo(encodebytes(tid), t))

    def undo_newest_twice(self) -> None:
        """Undo, and undo that: a back pointer to a record with a back pointer."""
        self.commit()
        for _ in range(2):
            self._undo([self.storage.undoLog(0, 1)[0]["id"]])

    def delete(self) -> None:
        """External garbage collection: deleteObject."""
        oid = self._new_oid()
        tid = self._store([(oid, z64, self._bytes(50))])
        self._within(lambda t: self.storage.deleteObject(oid, tid, t))

    def same_object_twice(self) -> None:
        oid = self._new_oid()
        self._store([(oid, z64, self._bytes(80)), (oid, z64, self._bytes(90))])

    def large_oids(self) -> None:
        oids = [p64(LARGE_OID + self.random.randint(0, 1 << 20)) for _ in range(3)]
        self._store([(oid, self._serial(oid), self._bytes(60)) for oid in dict.fromkeys(oids)])

    def large_transaction(self) -> None:
        """Larger than the windows that tests read with."""
        self._store([(self._new_oid(), z64, self._bytes(2000)) for _ in range(12)])

    def large_record(self) -> None:
        self._store([(self._new_oid(), z64, self._bytes(15_000))])

    def without_records(self) -> None:
        self._store([])

    def metadata(self) -> None:
        """Extension metadata, a long description, a long user."""
        data = TransactionMetaData("ü" * 150, "d" * 4000, {"portal": "plone", "size": 3})
        self._store([(self._new_oid(), z64, self._bytes(30))], data)

    def restore_record(self) -> None:
        """What copyTransactionsFrom does: records whose data stand in an earlier transaction."""
        oid = self._new_oid()
        data = self._bytes(70)
        tid = self._store([(oid, z64, data)])
        metadata = TransactionMetaData()
        self.storage.tpc_begin(metadata)
        self.storage.restore(oid, self.storage._tid, data, "", tid, metadata)
        self.storage.tpc_vote(metadata)
        self.storage.tpc_finish(metadata)

    def pack(self) -> None:
        """To now, or to the time of an earlier transaction; with and without garbage collection."""
        headers = scan(self.data, 0, where="Data.fs").headers
        if not headers:
            return
        tid = headers[-1].tid if self.random.random() < 0.4 else self.random.choice(headers).tid
        self.storage._pack_gc = self.random.random() < 0.6
        # Undo records that lead into what a pack drops make ZODB give up, and leave the file as it is.
        with suppress(PackError, AssertionError):
            self.db.pack(Tid(tid).time.timestamp() + 1e-5)

    def reopen(self) -> None:
        self.close()
        self._open()

    # --- steps behind ZODB's back

    def truncate(self) -> None:
        """What an operator does who goes back to an earlier state, in place."""
        ends = [h.end for h in scan(self.data, 0, where="Data.fs").headers]
        self.close()
        if len(ends) > 3:
            os.truncate(self.path, self.random.choice(ends[-3:-1]))
        Path(f"{self.path}.index").unlink(missing_ok=True)
        self._open()

    def copy(self) -> None:
        """The same bytes under another inode."""
        self.close()
        shutil.copy(self.path, f"{self.path}.copy")
        os.replace(f"{self.path}.copy", self.path)
        self._open()

    def vote(self) -> tuple[Any, int]:
        """Leave a voted transaction behind; gives it, and where the file ended before."""
        metadata = TransactionMetaData()
        usable = self.path.stat().st_size
        self.storage.tpc_begin(metadata)
        self.storage.store(self._new_oid(), z64, self._bytes(300), "", metadata)
        self.storage.tpc_vote(metadata)
        return metadata, usable

    def _new_oid(self) -> bytes:
        oid: bytes = self.storage.new_oid()
        return oid

    def _serial(self, oid: bytes) -> bytes:
        try:
            serial: bytes = self.storage.getTid(oid)
        except POSError:
            return bytes(8)
        return serial

    def _bytes(self, size: int) -> bytes:
        """A pickle of an object without references, and some text."""
        text = "".join(self.random.choices("abcdefgh ", k=size)).encode()
        head = b"cpersistent.mapping\nPersistentMapping\n."
        return head + b"}U\x04dataT" + len(text).to_bytes(4, "little") + text + b"s."

    def _store(
        self, records: list[tuple[bytes, bytes, bytes]], metadata: Any | None = None
    ) -> bytes:
        return self._within(
            lambda t: [
                self.storage.store(oid, serial, data, "", t) for oid, serial, data in records
            ],
            metadata,
        )

    def _within(self, work: Any, metadata: Any | None = None) -> bytes:
        metadata = metadata or TransactionMetaData()
        self.storage.tpc_begin(metadata)
        try:
            work(metadata)
            self.storage.tpc_vote(metadata)
        except POSError:
            self.storage.tpc_abort(metadata)
            return bytes(8)
        tid: bytes = self.storage.tpc_finish(metadata)
        return tid


STEPS = {
    LivingStorage.commit: 6,
    LivingStorage.commits: 3,
    LivingStorage.undo: 3,
    LivingStorage.undo_creation: 1,
    LivingStorage.undo_newest_twice: 1,
    LivingStorage.delete: 1,
    LivingStorage.same_object_twice: 1,
    LivingStorage.large_oids: 1,
    LivingStorage.large_transaction: 1,
    LivingStorage.large_record: 1,
    LivingStorage.without_records: 1,
    LivingStorage.metadata: 1,
    LivingStorage.restore_record: 1,
    LivingStorage.pack: 4,
    LivingStorage.reopen: 1,
    LivingStorage.truncate: 1,
    LivingStorage.copy: 1,
}
"""What may happen between two backups, and how often."""


def index_of_zodb(data: bytes, folder: Path) -> dict[int, int]:
    """The index that ZODB makes of a file that has none."""
    path = folder / "index-oracle.fs"
    path.write_bytes(data)
    storage: Any = FileStorage(str(path), read_only=True)
    try:
        assert storage._pos == len(data)
        return {u64(oid): position for oid, position in storage._index.items()}
    finally:
        storage.close()


def index_of_perdure(revisions: Revisions, end: int, folder: Path) -> dict[int, int]:
    """The index that a restore writes, as ZODB reads it."""
    path = folder / "restored.index"
    path.write_bytes(b"".join(encode(revisions, end)))
    loaded = fsIndex.load(str(path))
    assert loaded["pos"] == end
    return {u64(oid): position for oid, position in loaded["index"].items()}

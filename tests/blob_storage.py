"""A real FileStorage with blobs, and what ZODB itself says it holds."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import transaction
import ZODB
from ZODB.blob import Blob, FilesystemHelper, is_blob_record
from ZODB.FileStorage import FileStorage
from ZODB.POSException import POSError
from ZODB.utils import u64

from perdure.formats.blobs import BUSHY, path_in_directory
from perdure.model import BlobId

Contents = dict[BlobId, bytes]


class BlobStorage:
    """``folder``/Data.fs with ``folder``/blobs, open for writing."""

    def __init__(self, folder: Path, layout: str = BUSHY, seed: int = 0) -> None:
        folder.mkdir(exist_ok=True)
        self.path, self.blobs = folder / "Data.fs", folder / "blobs"
        self.layout = layout
        self.random = random.Random(seed)
        FilesystemHelper(str(self.blobs), layout).create()
        # The first FileStorage without a Data.fs would erase the blob directory, marker and all.
        FileStorage(str(self.path)).close()
        self.open()

    def open(self) -> None:
        self.storage: Any = FileStorage(str(self.path), blob_dir=str(self.blobs))
        self.db: Any = ZODB.DB(self.storage)

    def close(self) -> None:
        self.db.close()

    def commit(self, *names: str, size: int = 3000) -> None:
        """Write some blobs anew, in one transaction."""
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        root = connection.root()
        for name in names:
            if name not in root:
                root[name] = Blob()
            with root[name].open("w") as file:
                file.write(self.random.randbytes(self.random.randint(0, size)))
        root["note"] = self.random.random()
        manager.commit()
        connection.close()

    def drop(self, name: str) -> None:
        manager = transaction.TransactionManager()
        connection = self.db.open(manager)
        connection.root().pop(name, None)
        manager.commit()
        connection.close()

    def undo(self) -> None:
        log = self.storage.undoLog(0, 2)
        if len(log) < 2:  # the first one made the root
            return
        manager = transaction.TransactionManager()
        try:
            self.db.undo(log[0]["id"], manager.get())
            manager.commit()
        except POSError:
            manager.abort()

    def pack(self) -> None:
        self.db.pack()

    def step(self) -> None:
        """Do something of what is done to a database with blobs."""
        names = [f"blob{self.random.randint(0, 7)}" for _ in range(self.random.randint(0, 3))]
        choices = [lambda: self.commit(*names)] * 6 + [self.undo] * 2
        choices += [self.pack, lambda: self.drop("blob1")]
        self.random.choice(choices)()

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()

    def contents(self) -> Contents:
        """The content of each blob revision that ZODB's own iterator tells of."""
        found: Contents = {}
        for each in self.storage.iterator():
            for record in each:
                if record.data and is_blob_record(record.data):
                    blob = BlobId(u64(record.oid), u64(record.tid))
                    with self.storage.openCommittedBlobFile(record.oid, record.tid) as file:
                        found[blob] = file.read()
        return found


def blobs_in(folder: Path, layout: str) -> Contents:
    """The blobs in a directory, every file of it accounted for."""
    files = {path for path in folder.rglob("*") if path.is_file()}
    found: Contents = {}
    for path in files:
        if path.suffix == ".blob":
            digits = [part.removeprefix("0x") for part in path.parent.relative_to(folder).parts]
            blob = BlobId(int("".join(digits), 16), int(path.stem, 16))
            assert path == folder / path_in_directory(blob, layout)
            found[blob] = path.read_bytes()
    assert files - {folder / path_in_directory(blob, layout) for blob in found} == {
        folder / ".layout"
    }
    assert (folder / ".layout").read_text() == layout
    assert (folder / "tmp").is_dir()
    return found

"""A small real site with blobs on disk, changed step by step, whose states are remembered."""

from __future__ import annotations

import hashlib
import time
from pathlib import Path
from typing import Any

import ZODB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

from perdure.dropin.recipe.referenced import referenced_by
from perdure.formats.blobs import BUSHY, blob_at

State = dict[str, str]


class BlobSite:
    """A site below ``folder``: var/filestorage/Data.fs and var/blobstorage, or others that are named."""

    def __init__(
        self,
        folder: Path,
        database: str = "var/filestorage/Data.fs",
        blobs: str = "var/blobstorage",
    ) -> None:
        self.folder = folder
        self.database, self.blobs = folder / database, folder / blobs
        self.database.parent.mkdir(parents=True, exist_ok=True)
        self.blobs.parent.mkdir(parents=True, exist_ok=True)
        self._count = 0

    def open(self) -> Any:
        """Open the database."""
        return ZODB.DB(FileStorage(str(self.database), blob_dir=str(self.blobs)))

    def add(self, count: int = 2) -> None:
        """Commit some blobs, and change one that there is."""
        database = self.open()
        for _ in range(count):
            with database.transaction() as connection:
                root = connection.root()
                self._count += 1
                root[f"blob{self._count}"] = Blob(b"%d " % self._count * 200)
                if "blob1" in root and self._count > 1:
                    with root["blob1"].open("w") as file:
                        file.write(b"changed %d" % self._count)
        database.close()

    def pack(self) -> None:
        """Delete a blob, and pack: its file and older revisions go."""
        database = self.open()
        with database.transaction() as connection:
            root = connection.root()
            del root[max(root)]
        database.pack(time.time() + 1)
        database.close()

    def state(self) -> State:
        """Give the hashes of the Data.fs and of the blobs that belong to it."""
        found = {"Data.fs": _hash(self.database)}
        found |= {str(p.relative_to(self.blobs)): _hash(p) for p in self.blobs.rglob("*.blob")}
        return found

    def is_consistent(self) -> bool:
        """Whether there are exactly the blobs that the records name."""
        names = (path.relative_to(self.blobs) for path in self.blobs.rglob("*.blob"))
        there = {blob_at(str(name), BUSHY) for name in names}
        return there == referenced_by(self.database).certain


def _hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()

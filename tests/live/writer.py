"""A process that commits to a ZEO server until it is told to stop; it notes each tid that was confirmed.

writer.py ADDRESS NUMBER NOTES BLOBS

Each transaction writes to both storages of the server; some write blobs, whose content begins with the
SHA-256 of the rest.
"""

from __future__ import annotations

import hashlib
import random
import sys
import time
from pathlib import Path
from typing import Any

import transaction
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZODB import DB
from ZODB.blob import Blob
from ZODB.POSException import ConflictError, POSError


def opened(address: str, blobs: str) -> Any:
    """The main database, with the catalog beside it."""
    together: dict[str, Any] = {}
    main = ClientStorage(
        address, storage="main", blob_dir=blobs, shared_blob_dir=True, wait_timeout=60
    )
    catalog = ClientStorage(address, storage="catalog", wait_timeout=60)
    DB(catalog, databases=together, database_name="catalog")
    return DB(main, databases=together, database_name="main")


def write_blob(root: Any, source: random.Random) -> None:
    name = f"blob{source.randint(0, 20)}"
    if name not in root:
        root[name] = Blob()
    body = source.randbytes(source.randint(0, 20_000))
    with root[name].open("w") as file:
        file.write(hashlib.sha256(body).digest() + body)


def main(address: str, number: int, notes: Path, blobs: str) -> None:
    source = random.Random(number)
    database = opened(address, blobs)
    connection = database.open()
    key = f"writer{number}"
    with notes.open("a") as file:
        while not notes.with_name("stop").exists():
            try:
                mine = connection.root().setdefault(key, OOBTree())
                for _ in range(source.randint(1, 5)):
                    text = "".join(source.choices("abcdefgh", k=source.randint(1, 3000)))
                    mine[source.randint(0, 200)] = PersistentMapping(text=text)
                connection.root()["last"] = key
                connection.get_connection("catalog").root()[key] = source.random()
                if source.random() < 0.2:
                    write_blob(connection.root(), source)
                transaction.commit()
                file.write(f"{database.storage.lastTransaction().hex()}\n")
                file.flush()
                if source.random() < 0.05:
                    database.undo(database.undoLog(0, 1)[0]["id"])
                    transaction.commit()
            except (ConflictError, POSError):
                transaction.abort()
            time.sleep(source.random() * 0.01)
    connection.close()
    for each in database.databases.values():
        each.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])

"""The demonstration's site: a main database with blobs, a catalog of its own, both served by one ZEO server.

A blob's content begins with the SHA-256 of the rest, so that each can be checked by itself. The balances
of the accounts add up to the same sum at every transaction.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transaction
from BTrees.IOBTree import IOBTree
from persistent.mapping import PersistentMapping
from ZEO.ClientStorage import ClientStorage
from ZODB import DB
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

ACCOUNTS, BALANCE, DOCUMENTS, FILES = 40, 1000, 2500, 60
DIGEST = 64

CONFIGURATION = """\
<zeo>
  address {address}
</zeo>
<filestorage catalog>
  path {folder}/catalog.fs
</filestorage>
<filestorage main>
  path {folder}/Data.fs
  blob-dir {folder}/blobs
</filestorage>
"""


class Failed(Exception):
    """The demonstration did not show what it should."""


@contextmanager
def databases(main: Any, catalog: Any) -> Iterator[DB]:
    """Open both storages as one site; gives the main database."""
    together: dict[str, DB] = {}
    db = DB(main, databases=together, database_name="main")
    DB(catalog, databases=together, database_name="catalog")
    try:
        yield db
    finally:
        for each in together.values():
            each.close()


@contextmanager
def files(folder: Path, *, read_only: bool = False) -> Iterator[DB]:
    """Open the site's files, while no server does."""
    main = FileStorage(str(folder / "Data.fs"), blob_dir=str(folder / "blobs"), read_only=read_only)
    catalog = FileStorage(str(folder / "catalog.fs"), read_only=read_only)
    with databases(main, catalog) as db:
        yield db


@contextmanager
def client(folder: Path, address: str) -> Iterator[DB]:
    """Connect to the server, with the blob directory shared."""
    main = ClientStorage(
        address,
        storage="main",
        blob_dir=str(folder / "blobs"),
        shared_blob_dir=True,
        wait_timeout=60,
    )
    catalog = ClientStorage(address, storage="catalog", wait_timeout=60)
    with databases(main, catalog) as db:
        yield db


def found(folder: Path) -> None:
    """Make a site that has lived a little."""
    folder.mkdir()
    with files(folder) as db:
        connection = db.open()
        root, catalog = connection.root(), connection.get_connection("catalog").root()
        rng = random.Random(1)
        words = [
            "".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(2, 9))) for _ in range(4000)
        ]
        root["accounts"] = IOBTree({n: PersistentMapping(balance=BALANCE) for n in range(ACCOUNTS)})
        root["documents"], root["files"] = IOBTree(), IOBTree()
        catalog["lengths"] = IOBTree()
        for number in range(DOCUMENTS):
            text = " ".join(rng.choices(words, k=rng.randint(30, 900)))
            root["documents"][number] = PersistentMapping(title=words[number], text=text)
            catalog["lengths"][number] = len(text)
            if number % 20 == 19:
                commit(f"import up to {number}")
        for number in range(FILES):
            root["files"][number] = Blob()
            write(root["files"][number], rng)
            commit(f"upload file {number}")
        for _ in range(1500):
            number = int(DOCUMENTS ** rng.random()) - 1
            document = root["documents"][number]
            document["text"] += " " + " ".join(rng.choices(words, k=30))
            catalog["lengths"][number] = len(document["text"])
            commit(f"edit {document['title']}")
        connection.close()


def write(blob: Any, rng: random.Random) -> None:
    """Give a blob new content that can be checked."""
    body = rng.randbytes(rng.randint(1000, 60_000))
    with blob.open("w") as file:
        file.write(hashlib.sha256(body).hexdigest().encode() + body)


def look_at(db: DB) -> tuple[int, int, int, int]:
    """Read every object: gives how many documents there are, the sum, files, and the catalog's entries.

    Raises Failed where something does not hold together.
    """
    connection = db.open()
    root = connection.root()
    documents = sum(len(document["text"]) > 0 for document in root["documents"].values())
    total = sum(account["balance"] for account in root["accounts"].values())
    for number, blob in root["files"].items():
        with blob.open() as file:
            content = file.read()
        if hashlib.sha256(content[DIGEST:]).hexdigest().encode() != content[:DIGEST]:
            raise Failed(f"file {number} is not what was uploaded")
    catalog = connection.get_connection("catalog").root()
    entries = sum(length > 0 for length in catalog["lengths"].values())
    result = documents, total, len(root["files"]), entries
    connection.close()
    return result


def commit(note: str) -> None:
    """Commit with a description."""
    transaction.get().note(note)
    transaction.commit()

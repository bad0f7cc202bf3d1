"""A client of the demonstration's ZEO server that commits until it is told to stop.

``python writer.py FOLDER SOCKET NUMBER``: each transaction edits a document and its entry in the catalog,
and moves money between accounts; some upload a file, too.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import transaction
from living_site import client, commit, write
from ZODB.POSException import ConflictError


class Stop(Exception):
    """The demonstration is over."""


def stop(number: int, frame: FrameType | None) -> None:
    """End the loop."""
    raise Stop


def commit_once(connection: Any, rng: random.Random) -> None:
    """One transaction: a document edited, money moved, perhaps a file uploaded."""
    root, catalog = connection.root(), connection.get_connection("catalog").root()
    number = rng.randrange(len(root["documents"]))
    document = root["documents"][number]
    cut = rng.randrange(len(document["text"]))
    document["text"] = document["text"][cut:] + document["text"][:cut]
    catalog["lengths"][number] = len(document["text"])
    accounts = root["accounts"]
    giver, taker = rng.sample(sorted(accounts), 2)
    amount = rng.randint(1, 100)
    accounts[giver]["balance"] -= amount
    accounts[taker]["balance"] += amount
    if rng.random() < 0.1:
        write(root["files"][rng.randrange(len(root["files"]))], rng)
    commit(f"move {amount} from {giver} to {taker}")


def main() -> None:
    """Commit until SIGTERM."""
    folder, socket, number = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    signal.signal(signal.SIGTERM, stop)
    rng = random.Random(number)
    try:
        with client(folder, socket) as db:
            connection = db.open()
            while True:
                try:
                    commit_once(connection, rng)
                except ConflictError:
                    transaction.abort()
                time.sleep(0.01)
    except Stop:
        pass


if __name__ == "__main__":
    main()

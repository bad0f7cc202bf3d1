"""A client of the demonstration's ZEO server that commits until it is told to stop.

``python writer.py SOCKET NUMBER``: each transaction edits a document and moves money between accounts, so
that at every transaction the sum over all accounts is the same.
"""

from __future__ import annotations

import random
import signal
import sys
import time
from types import FrameType

import transaction
import ZEO
from ZODB.POSException import ConflictError


class Stop(Exception):
    """The demonstration is over."""


def stop(number: int, frame: FrameType | None) -> None:
    """End the loop."""
    raise Stop


def commit_once(root: dict[str, dict[int, object]], rng: random.Random) -> None:
    """One transaction: a document edited, money moved."""
    documents, accounts = root["documents"], root["accounts"]
    document = documents[rng.randrange(len(documents))]
    text = document["text"]  # type: ignore[index]
    cut = rng.randrange(len(text))
    document["text"] = text[cut:] + text[:cut]  # type: ignore[index]
    giver, taker = rng.sample(sorted(accounts), 2)
    amount = rng.randint(1, 100)
    accounts[giver]["balance"] -= amount  # type: ignore[index]
    accounts[taker]["balance"] += amount  # type: ignore[index]
    transaction.get().note(f"move {amount} from {giver} to {taker}")
    transaction.commit()


def main() -> None:
    """Commit until SIGTERM."""
    socket, number = sys.argv[1], sys.argv[2]
    signal.signal(signal.SIGTERM, stop)
    rng = random.Random(number)
    try:
        db = ZEO.DB(socket, wait_timeout=20)
        root = db.open().root()
        while True:
            try:
                commit_once(root, rng)
            except ConflictError:
                transaction.abort()
            time.sleep(0.01)
    except Stop:
        pass


if __name__ == "__main__":
    main()

"""A process that commits to a ZEO server until it is told to stop; it notes each tid that was confirmed.

writer.py ADDRESS NUMBER NOTES
"""

from __future__ import annotations

import random
import sys
import time
from pathlib import Path
from typing import Any

import transaction
import ZEO
from BTrees.OOBTree import OOBTree
from persistent.mapping import PersistentMapping
from ZODB.POSException import ConflictError, POSError


def main(address: str, number: int, notes: Path) -> None:
    source = random.Random(number)
    database: Any = ZEO.DB(address, wait_timeout=10)
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
    database.close()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

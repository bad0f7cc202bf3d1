"""Open a FileStorage with the old ZODB: say what is there, undo the newest transaction, commit one (Python 2.7)."""

from __future__ import print_function

import hashlib
import json
import sys

import transaction
import ZODB
from ZODB.FileStorage import FileStorage


def main():
    storage = FileStorage(sys.argv[1])
    records = [
        [
            each.tid.encode("hex"),
            each.user.encode("hex"),
            each.description.encode("hex"),
            [
                [r.oid.encode("hex"), hashlib.sha256(r.data).hexdigest() if r.data else None]
                for r in each
            ],
        ]
        for each in storage.iterator()
    ]
    db = ZODB.DB(storage)
    connection = db.open()
    keys = sorted(connection.root().keys())
    undoable = storage.undoLog(0, 1000)
    change = transaction.Transaction()
    storage.tpc_begin(change)
    storage.undo(undoable[0]["id"], change)
    storage.tpc_vote(change)
    storage.tpc_finish(change)
    connection.sync()
    connection.root()["new"] = 1
    transaction.commit()
    db.close()
    print(json.dumps({"records": records, "keys": keys, "undoable": len(undoable)}))


main()

"""A living DirectoryStorage (Python 2.7), told by lines on standard input what to do; see Living in old_zope.py.

Each line is a command with blank-separated arguments; each answer is one line of JSON: {"ok": ...} or
{"error": ...}.
"""

from __future__ import print_function

import asyncore
import base64
import hashlib
import json
import random
import sys
import threading
import time

import transaction
import ZODB
from BTrees.OOBTree import OOBTree
from DirectoryStorage.Storage import Storage
from DirectoryStorage.utils import ZODB_referencesf
from persistent.mapping import PersistentMapping
from SimpleXMLRPCServer import SimpleXMLRPCRequestHandler, SimpleXMLRPCServer
from ZEO.StorageServer import StorageServer
from ZODB.POSException import POSError

WORDS = "folder document index catalog portal workflow history".split()


class Living:
    def __init__(self, home):
        self.random = random.Random(42)
        self.storage = Storage(home)
        self.db = ZODB.DB(self.storage)
        self.lock = threading.Lock()
        self.thread = None
        self.wanted = False
        self.committed = 0

    def commit(self, count="1"):
        for _ in range(int(count)):
            with self.lock:
                while not self._commit():
                    pass
        return self.last()

    def _commit(self):
        connection = self.db.open()
        try:
            root = connection.root()
            if "tree" not in root:
                root["tree"] = OOBTree()
            tree = root["tree"]
            for _ in range(self.random.randint(1, 5)):
                key = "key%d" % self.random.randint(0, 30)
                if key in tree and self.random.random() < 0.2:
                    del tree[key]
                elif key in tree and self.random.random() < 0.7:
                    tree[key]["text"] = " ".join(
                        self.random.choice(WORDS) for _ in range(self.random.randint(1, 200))
                    )
                else:
                    tree[key] = PersistentMapping()
            transaction.get().note("/site/edit %d" % self.committed)
            transaction.get().setUser("admin")
            transaction.commit()
            self.committed += 1
            return True
        except POSError:  # a conflict with an undo
            transaction.abort()
            return False
        finally:
            connection.close()

    def undo(self):
        """Undo the newest transaction."""
        with self.lock:
            entry = self.storage.undoLog(0, 1)[0]
            change = transaction.Transaction()
            self.storage.tpc_begin(change)
            oids = self.storage.transactionalUndo(entry["id"], change)
            self.storage.tpc_vote(change)
            self.storage.tpc_finish(change)
            self.db.invalidate(self.storage.lastTransaction(), dict.fromkeys(oids, 1))
        return self.last()

    def pack(self):
        """Pack to now."""
        self.storage.pack(time.time(), ZODB_referencesf)
        return self.last()

    def run(self, pause="0.002"):
        """Commit on and on, in a thread, until "halt"."""
        self.wanted = True

        def work():
            while self.wanted:
                self.commit()
                time.sleep(float(pause))

        self.thread = threading.Thread(target=work)
        self.thread.setDaemon(True)
        self.thread.start()
        return True

    def halt(self):
        """End what "run" began; gives how many transactions there were."""
        self.wanted = False
        self.thread.join()
        return self.committed

    def enter(self, code):
        self.storage.enter_snapshot(code)
        return self.storage.get_snapshot_code()

    def leave(self, code):
        self.storage.leave_snapshot(code)
        return True

    def code(self):
        """The snapshot code; None, once nothing is recombined any more."""
        return self.storage.get_snapshot_code()

    def last(self):
        return self.storage.lastTransaction().encode("hex")

    def dump(self):
        """Of each current object: tid and SHA-256."""
        connection = self.db.open()
        seen, todo = {}, ["\0" * 8]
        while todo:
            oid = todo.pop()
            if oid.encode("hex") in seen:
                continue
            data, tid = self.storage.load(oid, "")
            seen[oid.encode("hex")] = [tid.encode("hex"), hashlib.sha256(data).hexdigest()]
            found = []
            ZODB_referencesf(data, found)
            todo.extend(found)
        connection.close()
        return {"last": self.last(), "objects": seen}

    def zeo(self):
        """Serve the storage over ZEO; gives the port."""
        server = StorageServer(("127.0.0.1", 0), {"1": self.storage})
        port = server.dispatcher.socket.getsockname()[1]
        thread = threading.Thread(target=asyncore.loop, kwargs={"timeout": 0.1})
        thread.setDaemon(True)
        thread.start()
        return port

    def http(self, user="backup", password="secret"):
        """Answer XML-RPC as Zope's DirectoryStorageToolkit does; gives the port."""
        wanted = "Basic " + base64.b64encode(user + ":" + password)

        class Handler(SimpleXMLRPCRequestHandler):
            rpc_paths = ("/DSToolkit",)

            def do_POST(self):
                if self.headers.get("Authorization") != wanted:
                    self.send_error(401)
                else:
                    SimpleXMLRPCRequestHandler.do_POST(self)

        server = SimpleXMLRPCServer(
            ("127.0.0.1", 0), requestHandler=Handler, allow_none=True, logRequests=False
        )
        server.register_function(lambda code: self.enter(code) and None, "enterSnapshot")
        server.register_function(lambda code: self.leave(code) and None, "leaveSnapshot")
        server.register_function(self.code, "currentSnapshotCode")
        thread = threading.Thread(target=server.serve_forever)
        thread.setDaemon(True)
        thread.start()
        return server.server_address[1]

    def close(self):
        self.db.close()
        return True


def main():
    living = Living(sys.argv[1])
    print(json.dumps({"ok": living.last()}))
    for line in iter(sys.stdin.readline, ""):
        words = line.split()
        try:
            answer = {"ok": getattr(living, words[0])(*words[1:])}
        except Exception as error:
            answer = {"error": "%s: %s" % (error.__class__.__name__, error)}
        print(json.dumps(answer))
        if words[0] == "close":
            break


main()

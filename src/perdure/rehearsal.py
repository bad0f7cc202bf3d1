"""What `perdure drill` runs in a process of its own: open restored databases with ZODB, and load objects.

The text of this file is given to a Python, also to a site's own (3.7 or later), which knows the site's
classes and nothing of Perdure. Standard input has one JSON object::

    {"answer": FILE, "path": [FOLDER, ...] or null, "classes": false,
     "databases": [{"name": "main", "path": FILE, "blobs": FOLDER or null, "cut": TID,
                    "objects": [[OID, TID], ...]}]}

(``path``: where to look for modules; oids and tids are 16 hexadecimal digits, the root object comes first).
With ``classes`` objects are made, by the code that this Python can import; without, records are loaded and
walked through, and nothing is unpickled. The answer is written to its file: for each database ``{"loaded":
12, "root": "module.Class", "blobs": 3, "unknown": {"module.Class": 2}, "failures": ["..."]}``; ``unknown``
are classes that cannot be imported.
"""

from __future__ import annotations

import json
import sys
from typing import Any

_MOST = 100
"""Failures that are told of one database."""


def main() -> None:
    """Read the request, write the answer."""
    request = json.load(sys.stdin)
    if request["path"]:
        sys.path[:] = request["path"]
    databases = request["databases"]
    answers = (_make_objects if request["classes"] else _walk_records)(databases)
    with open(request["answer"], "w") as file:
        json.dump(answers, file)


def _new_answer() -> dict[str, Any]:
    return {"loaded": 0, "root": None, "blobs": 0, "unknown": {}, "failures": []}


def _fail(answer: dict[str, Any], oid: str, error: Exception) -> None:
    if len(answer["failures"]) < _MOST:
        where = "object 0x%s" % oid if oid else "the database"  # noqa: UP031
        answer["failures"].append("%s: %s: %s" % (where, type(error).__name__, error))  # noqa: UP031


def _open(database: dict[str, Any]) -> Any:
    from ZODB.FileStorage import FileStorage

    storage = FileStorage(database["path"], read_only=True, blob_dir=database["blobs"])
    cut = storage.lastTransaction().hex()
    if cut != database["cut"]:
        storage.close()
        raise ValueError("its last transaction is %s, not %s" % (cut, database["cut"]))  # noqa: UP031
    return storage


def _accept(path: str) -> None:
    """Let ZODB open what Python 2 wrote, too: the file is the same but for the magic (FS21, not FS30)."""
    from ZODB.FileStorage.FileStorage import FileStorage

    module = sys.modules[FileStorage.__module__]
    with open(path, "rb") as file:
        magic = file.read(4)
    if magic in (b"FS21", b"FS30"):
        module.packed_version = magic  # type: ignore[attr-defined]


def _walk_records(databases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Load records as ZODB finds them, and what they refer to; nothing is unpickled."""
    answers = []
    for database in databases:
        answer = _new_answer()
        answers.append(answer)
        try:
            _accept(database["path"])
            storage = _open(database)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the answer
            _fail(answer, "", error)
            continue
        for oid, tid in database["objects"]:
            try:
                _walk(storage, answer, oid, tid)
            except Exception as error:  # noqa: BLE001
                _fail(answer, oid, error)
        storage.close()
    return answers


def _walk(storage: Any, answer: dict[str, Any], oid: str, tid: str) -> None:
    from perdure.formats.object_records import is_encrypted, read_record

    data, serial = storage.load(bytes.fromhex(oid), "")
    _compare_tid(serial, tid)
    if not is_encrypted(data):
        record = read_record(data)
        for reference in record.references:
            if not (reference.weak or reference.database):
                storage.load(reference.oid.to_bytes(8, "big"), "")
        if record.class_name == "ZODB.blob.Blob" and storage.blob_dir:
            storage.loadBlob(bytes.fromhex(oid), serial)
            answer["blobs"] += 1
        answer["root"] = answer["root"] or record.class_name
    answer["loaded"] += 1


def _compare_tid(serial: bytes, tid: str) -> None:
    if serial.hex() != tid:
        raise ValueError("its revision is %s, not %s" % (serial.hex(), tid))  # noqa: UP031


def _make_objects(databases: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Make objects, as the site does: all databases together, since one may refer to another."""
    from ZODB.DB import DB

    answers = [_new_answer() for _ in databases]
    together: dict[str, Any] = {}
    opened: list[Any] = []
    for database, answer in zip(databases, answers):  # noqa: B905 - not in Python 3.9
        try:
            storage = _unwrapping(_open(database), database)
            opened.append(DB(storage, database_name=database["name"], databases=together))
        except Exception as error:  # noqa: BLE001
            opened.append(None)
            _fail(answer, "", error)
    for database, answer, made in zip(databases, answers, opened):  # noqa: B905
        if made is None:
            continue
        connection = made.open()
        for oid, tid in database["objects"]:
            try:
                _make(connection, answer, oid, tid)
            except Exception as error:  # noqa: BLE001
                _fail(answer, oid, error)
        connection.close()
    for made in opened:
        if made is not None:
            made.close()
    return answers


def _unwrapping(storage: Any, database: dict[str, Any]) -> Any:
    """Wrap a storage whose records are compressed as zc.zlibstorage does it."""
    for oid, _ in database["objects"][:1]:
        if storage.load(bytes.fromhex(oid), "")[0].startswith(b".z"):
            from zc.zlibstorage import ZlibStorage

            return ZlibStorage(storage)
    return storage


def _make(connection: Any, answer: dict[str, Any], oid: str, tid: str) -> None:
    from ZODB.blob import Blob
    from ZODB.broken import Broken

    found = connection.get(bytes.fromhex(oid))
    found._p_activate()
    _compare_tid(found._p_serial, tid)
    name = "%s.%s" % (type(found).__module__, type(found).__name__)  # noqa: UP031
    if isinstance(found, Broken):
        answer["unknown"][name] = answer["unknown"].get(name, 0) + 1
    if isinstance(found, Blob):
        with found.open("r") as file:
            file.read(1)
        answer["blobs"] += 1
    answer["root"] = answer["root"] or name
    answer["loaded"] += 1
    if hasattr(found, "_p_deactivate"):
        found._p_deactivate()


if __name__ == "__main__":
    main()

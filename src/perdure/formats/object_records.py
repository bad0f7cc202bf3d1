"""The data of an object's record: its class, and the objects that it refers to, found without unpickling.

The data is two pickles, one behind the other (protocols 0 to 5; Python 2 wrote 1, Python 3 writes 3):

* the class: a global (``GLOBAL`` or ``STACK_GLOBAL``), or a tuple that begins with one, or with a tuple
  of module and name as strings; the class may itself be a persistent object, and is not named then;
* the state. What it refers to stands in it as *persistent ids* (``BINPERSID``, ``PERSID``):

  ==========================  =================================================================
  persistent id               meaning
  ==========================  =================================================================
  oid                         an object of this database; an oid is 8 bytes, or 8 ASCII letters
  (oid, class)                the same, with its class
  ['w', (oid,)]               a weak reference, which may lead nowhere; [oid] is an old form
  ['w', (oid, database)]      a weak one into another database
  ['n', (database, oid)]      an object of another database
  ['m', (database, oid, c)]   the same, with its class
  ==========================  =================================================================

Opcodes are walked (formats/pickles.py), and both pickles share one memo. A pickle that no unpickler could
follow, or a persistent id of no known form, makes a record broken. Bytes behind the second pickle are
ignored, as ZODB does.

Storages may be wrapped: data that begins with ``.z`` is compressed with zlib (zc.zlibstorage), and is
unpacked here; ``.e`` is encrypted (cipher.encryptingstorage), and nothing can be known of it.

Source: ZODB/serialize.py; records that both Pythons wrote.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from perdure.errors import DamageFound
from perdure.formats.pickles import Name, Value, Walk

UNKNOWN = "?"
"""The name of a class that a record does not tell."""
UNPACKED_LIMIT = 1 << 30
_COMPRESSED, _ENCRYPTED = b".z", b".e"
_OID_SIZE = 8


class Reference(NamedTuple):
    """A reference to an object; ``database`` is "" for the object's own, ``class_name`` may be "?"."""

    oid: int
    weak: bool = False
    database: str = ""
    class_name: str = UNKNOWN


class ObjectRecord(NamedTuple):
    """What a record tells of an object: its class, as module.name, and what it refers to."""

    class_name: str
    references: list[Reference]


def is_encrypted(data: bytes) -> bool:
    """Tell whether nothing can be known of a record."""
    return data.startswith(_ENCRYPTED)


def read_record(data: bytes) -> ObjectRecord:
    """Walk through the data of a record, not an encrypted one. Raises DamageFound when it is broken."""
    references: list[Reference] = []

    def refer(persistent_id: Value) -> Reference:
        found = reference_of(persistent_id)
        references.append(found)
        return found

    walk = Walk(unwrapped(data), refer)
    described = walk.pickle("class")
    walk.pickle("state")
    return ObjectRecord(class_name_of(described), references)


def read_class(data: bytes) -> str:
    """Give the class of a record; "?" for one that is broken before the state, or encrypted."""
    if is_encrypted(data):
        return UNKNOWN
    try:
        return class_name_of(Walk(unwrapped(data), reference_of).pickle("class"))
    except DamageFound:
        return UNKNOWN


def unwrapped(data: bytes) -> bytes:
    """Give the two pickles of a record that may be compressed. Raises DamageFound."""
    if not data.startswith(_COMPRESSED):
        return data
    unpacking = zlib.decompressobj()
    try:
        found = unpacking.decompress(data[len(_COMPRESSED) :], UNPACKED_LIMIT)
    except zlib.error as error:
        raise DamageFound(f"its compressed data cannot be unpacked: {error}") from None
    if not unpacking.eof:
        raise DamageFound("its compressed data is cut short, or above 1 GiB")
    return found


def class_name_of(described: Value) -> str:
    """Give the name of the class that a record's first pickle, or a reference, describes; or "?"."""
    if _is_plain(described) and described and not _is_pair(described):
        described = described[0]
    if isinstance(described, Name) or _is_pair(described):
        return b".".join(described).decode("utf-8", "backslashreplace")
    return UNKNOWN


def _is_plain(value: Value) -> bool:
    return isinstance(value, tuple) and not isinstance(value, Name | Reference)


def _is_pair(value: Value) -> bool:
    """Whether a value is module and name of a class, as strings."""
    return _is_plain(value) and len(value) == 2 and all(isinstance(part, bytes) for part in value)


def reference_of(persistent_id: Value) -> Reference:
    """Take a persistent id apart. Raises ValueError for what is none."""
    if isinstance(persistent_id, bytes):
        return Reference(_oid(persistent_id))
    if isinstance(persistent_id, list):
        return _extended(persistent_id)
    if isinstance(persistent_id, tuple) and len(persistent_id) == 2:
        oid, described = persistent_id
        return Reference(_oid(oid), class_name=class_name_of(described))
    raise ValueError("a persistent id that is none")


def _extended(parts: list[Value]) -> Reference:
    if len(parts) == 1:
        return Reference(_oid(parts[0]), weak=True)
    if len(parts) == 2 and isinstance(parts[1], tuple):
        match parts[0], *parts[1]:
            case b"w", oid:
                return Reference(_oid(oid), weak=True)
            case b"w", oid, database:
                return Reference(_oid(oid), weak=True, database=_text(database))
            case b"n", database, oid:
                return Reference(_oid(oid), database=_text(database))
            case b"m", database, oid, described:
                return Reference(
                    _oid(oid), database=_text(database), class_name=class_name_of(described)
                )
    raise ValueError("an extended reference of an unknown kind")


def _oid(value: Value) -> int:
    if isinstance(value, bytes) and len(value) == _OID_SIZE:
        return int.from_bytes(value, "big")
    raise ValueError("a reference without an oid")


def _text(value: Value) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    raise ValueError("a reference into a database without a name")

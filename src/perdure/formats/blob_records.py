"""Which records of a Data.fs are blobs: those whose object is a ``ZODB.blob.Blob``.

A record's data is two pickles: the object's class, and its state. A blob's state is None, so its record is
small. The class is found by walking the opcodes; nothing is ever unpickled. As ZODB writes it, the
class is GLOBAL ``ZODB.blob Blob``, or a tuple that begins with it, or with the two names as strings.

Storages may be wrapped: data that begins with ``.z`` is compressed with zlib (zc.zlibstorage), and is
unpacked here, as far as a blob's record can reach. Data that begins with ``.e`` is encrypted
(cipher.encryptingstorage): only whether there is a file for a record tells that it is a blob.
"""

from __future__ import annotations

import pickletools
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from perdure.formats.extent import Extent
from perdure.formats.filestorage import POINTER_SIZE, RECORD_HEADER
from perdure.model import BlobId

RECORD_LIMIT = 512
"""Bytes of the data of the largest record that is looked at; ZODB's own have some 30."""
_MODULE, _CLASS = "ZODB.blob", "Blob"
_MARK = _MODULE.encode()
_COMPRESSED, _ENCRYPTED = b".z", b".e"
_NAMES = {"GLOBAL", "SHORT_BINSTRING", "BINSTRING", "STRING", "BINUNICODE", "SHORT_BINUNICODE"}

Resolve = Callable[[int], bytes | None]
"""From a back pointer to the data of the record that it leads to; None where that is not a small one."""


@dataclass(slots=True)
class BlobRecords:
    """The blobs that some records stand for; ``uncertain`` ones are encrypted, and may be no blobs."""

    certain: set[BlobId] = field(default_factory=set)
    uncertain: set[BlobId] = field(default_factory=set)

    def add(self, extent: Extent, resolve: Resolve) -> None:
        """Note the blobs among the records of an extent."""
        small = (extent.length <= RECORD_LIMIT) & ~extent.undone
        numbers = np.flatnonzero(small)
        starts = (extent.at[numbers] - extent.start + RECORD_HEADER.size).tolist()
        lengths = extent.length[numbers].tolist()
        for number, start, length in zip(numbers.tolist(), starts, lengths, strict=True):
            if length:
                data: bytes | None = bytes(extent.data[start : start + length])
            else:
                pointer = int.from_bytes(extent.data[start : start + POINTER_SIZE], "big")
                data = resolve(pointer) if pointer else None
            if data is None or not (_MARK in data or data[:2] in (_COMPRESSED, _ENCRYPTED)):
                continue
            self._note(BlobId(int(extent.oid[number]), int(extent.tid[number])), data)

    def _note(self, blob: BlobId, data: bytes) -> None:
        if data.startswith(_ENCRYPTED):
            self.uncertain.add(blob)
        elif is_blob(data):
            self.certain.add(blob)


def is_blob(data: bytes) -> bool:
    """Tell whether a record's data is that of a blob. Damaged pickles are not."""
    if data.startswith(_COMPRESSED):
        try:
            data = zlib.decompressobj().decompress(data[len(_COMPRESSED) :], RECORD_LIMIT)
        except zlib.error:
            return False
    if _MARK not in data[:RECORD_LIMIT]:
        return False
    names: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name in _NAMES and isinstance(argument, str):
                names += argument.split(" ") if opcode.name == "GLOBAL" else [argument]
            if len(names) >= 2 or opcode.name == "STOP":
                break
    except ValueError:
        return False
    return names[:2] == [_MODULE, _CLASS]

"""Packfiles in the making: sealed chunks are collected until they fill one."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from perdure.errors import PerdureError
from perdure.formats.index import Packed
from perdure.formats.packfile import Entry, decode_header, encode_header, encode_length
from perdure.formats.sealing import NONCE_SIZE, MasterKey, seal, unseal
from perdure.model import ChunkId, ChunkKind

PACKFILE_SIZE = 16 << 20
"""A packfile is full when its chunks have this many bytes; restic's default."""

MOST_CHUNKS = 10_000
"""A packfile is full, too, when it has this many chunks."""


class Packer:
    """Collects the sealed chunks of one kind until they fill a packfile."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._entries: list[Entry] = []
        self._size = 0

    def append(self, kind: ChunkKind, name: ChunkId, sealed: bytes, content_length: int) -> None:
        """Take a chunk."""
        self._entries.append(Entry(kind, name, self._size, len(sealed), content_length))
        self._parts.append(sealed)
        self._size += len(sealed)

    @property
    def full(self) -> bool:
        """Whether the packfile should be written."""
        return self._size >= PACKFILE_SIZE or len(self._entries) >= MOST_CHUNKS

    def take(self) -> tuple[list[bytes], list[Entry]]:
        """Give what was collected, and begin anew."""
        taken = self._parts, self._entries
        self._parts, self._entries, self._size = [], [], 0
        return taken


def assemble(key: MasterKey, parts: list[bytes], entries: Sequence[Entry]) -> tuple[Packed, bytes]:
    """Give a packfile's name and bytes; its header is decoded again before anything trusts it."""
    size = sum(map(len, parts))
    header = seal(key, encode_header(entries), os.urandom(NONCE_SIZE))
    if decode_header(unseal(key, header), size, "the new packfile") != list(entries):
        raise PerdureError("a packfile header that was just encoded does not decode to what it was")
    content = b"".join((*parts, header, encode_length(header)))
    return Packed(hashlib.sha256(content).digest(), tuple(entries)), content

"""One chunk: from content to sealed bytes and back, nothing taken on trust in either direction."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence

from perdure.errors import PerdureError, RepositoryDamaged
from perdure.formats import zstandard
from perdure.formats.packfile import Entry
from perdure.formats.sealing import (
    NONCE_SIZE,
    Bytes,
    MasterKey,
    seal,
    seal_many,
    unseal,
    unseal_many,
)
from perdure.model import ChunkId, ChunkKind

HEALING = (
    "perdure check --read-data names all that is lost; after perdure repair index --read-data the next"
    " perdure backup --verify-source stores again what the source still has"
)
"""What to do about a chunk that is damaged."""


def chunk_id(content: Bytes) -> ChunkId:
    """Give a chunk's name."""
    return ChunkId(hashlib.sha256(content).digest())


def encode(key: MasterKey, kind: ChunkKind, content: Bytes) -> tuple[bytes, int]:
    """Give the sealed chunk, and the length of its content if it was compressed, else 0.

    A tree is compressed even if it grows: restic's prune packs uncompressed trees again, each time.
    """
    compressed = zstandard.compress(content)
    if kind is ChunkKind.DATA and len(compressed) >= len(content):
        sealed, content_length = seal(key, content, os.urandom(NONCE_SIZE)), 0
    else:
        sealed, content_length = seal(key, compressed, os.urandom(NONCE_SIZE)), len(content)
    try:
        opened = unseal(key, sealed)
    except ValueError:
        raise _broken_machine() from None
    _prove(opened, content_length, content)
    return sealed, content_length


def encode_many(key: MasterKey, contents: Sequence[Bytes]) -> list[tuple[bytes, int]]:
    """Do the same for data chunks of files, many small ones at once: quickly, and at a usual level."""
    compressor = zstandard.QuickCompressor()
    plain = [compressor.compress(content) for content in contents]
    lengths = [
        len(content) if len(compressed) < len(content) else 0
        for content, compressed in zip(contents, plain, strict=True)
    ]
    chosen = [
        compressed if length else content
        for content, compressed, length in zip(contents, plain, lengths, strict=True)
    ]
    sealed = seal_many(key, chosen, os.urandom(NONCE_SIZE * len(contents)))
    try:
        opened = unseal_many(key, sealed)
    except ValueError:
        raise _broken_machine() from None
    _prove_many(opened, lengths, contents)
    return list(zip(sealed, lengths, strict=True))


def _prove_many(opened: Sequence[bytes], lengths: Sequence[int], contents: Sequence[Bytes]) -> None:
    """Prove many small chunks: all frames are decoded in one go, and compared with all contents."""
    frames = b"".join(each for each, length in zip(opened, lengths, strict=True) if length)
    framed = b"".join(each for each, length in zip(contents, lengths, strict=True) if length)
    try:
        whole = zstandard.decompress_many(frames, len(framed)) == framed
    except ValueError:
        whole = False
    rest = zip(opened, lengths, contents, strict=True)
    if not whole or any(not length and each != content for each, length, content in rest):
        raise _broken_machine()


def _prove(opened: bytes, content_length: int, content: Bytes) -> None:
    """Decode what was just encoded and unsealed again: the last moment to notice a broken machine."""
    again = opened
    try:
        if content_length:
            again = zstandard.decompress(opened, content_length)
    except ValueError:
        raise _broken_machine() from None
    if again != (bytes(content) if isinstance(content, memoryview) else content):
        raise _broken_machine()


def _broken_machine() -> PerdureError:
    return PerdureError(
        "a chunk that was just encoded does not decode to what it was",
        hint="memory or processor of this machine are failing; nothing of it was stored",
    )


def decode(key: MasterKey, sealed: Bytes, entry: Entry, where: str) -> bytes:
    """Give a chunk's verified content. Raises RepositoryDamaged, naming it and ``where``."""
    try:
        content = unseal(key, sealed)
        if entry.content_length:
            content = zstandard.decompress(content, entry.content_length)
    except ValueError as error:
        raise _damaged(entry, where, str(error)) from None
    if len(content) != entry.size:
        raise _damaged(entry, where, f"it has {len(content)} bytes, not {entry.size}")
    if chunk_id(content) != entry.id:
        raise _damaged(entry, where, "its SHA-256 is not its name")
    return content


def _damaged(entry: Entry, where: str, why: str) -> RepositoryDamaged:
    return RepositoryDamaged(
        f"chunk {entry.id.hex()} in {where} is damaged: {why}",
        hint=HEALING,
    )

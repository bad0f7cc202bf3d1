"""Packfiles, ``data/<first two digits>/<id>``: many chunks of one kind in one file.

A packfile is named by the SHA-256 of its bytes::

    size  content
    ...   the chunks, each sealed (see `perdure.formats.sealing`), one behind the other
    h     the header, sealed
    4     h, little-endian

The header has an entry for each chunk, in order, so that a chunk starts where the lengths before it
end::

    offset  size  content
    0       1     type: 0 data, 1 tree, 2 compressed data, 3 compressed tree
    1       4     length of the sealed chunk, little-endian
    5       4     only for types 2 and 3: length of the content, little-endian
    5 or 9  32    SHA-256 of the content: the chunk's id

A chunk of type 2 or 3 is compressed (one zstd frame) before it is sealed. All other types are
refused.

Bounds: a header has at most 16 MiB and lies inside its file; the entries' lengths add up to what
lies before it; a chunk's content has at most 1 GiB.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.sealing import OVERHEAD
from perdure.model import ChunkId, ChunkKind

MOST_HEADER = 16 << 20
MOST_CONTENT = 1 << 30
LENGTH_SIZE = 4

_PLAIN = struct.Struct("<BI32s")
_COMPRESSED = struct.Struct("<BII32s")
_LENGTH = struct.Struct("<I")
_TYPES = {ChunkKind.DATA: 0, ChunkKind.TREE: 1}
_KINDS = {number: kind for kind, number in _TYPES.items()}


class Entry(msgspec.Struct, frozen=True):
    """Where in a packfile a chunk lies.

    ``offset`` and ``length`` are those of the sealed chunk, in bytes; ``content_length`` is that of
    what was compressed, and 0 for a chunk that is not compressed.
    """

    kind: ChunkKind
    id: ChunkId
    offset: int
    length: int
    content_length: int

    @property
    def size(self) -> int:
        """How many bytes of content the chunk has."""
        return self.content_length or self.length - OVERHEAD


def encode_header(entries: Iterable[Entry]) -> bytes:
    """Give the header (unsealed) of chunks that lie one behind the other."""
    return b"".join(
        _COMPRESSED.pack(_TYPES[entry.kind] | 2, entry.length, entry.content_length, entry.id)
        if entry.content_length
        else _PLAIN.pack(_TYPES[entry.kind], entry.length, entry.id)
        for entry in entries
    )


def encode_length(sealed_header: bytes) -> bytes:
    """Give the last four bytes of a packfile."""
    return _LENGTH.pack(len(sealed_header))


def header_range(tail: bytes, size: int, where: str) -> tuple[int, int]:
    """Tell where the sealed header starts and stops, by a file's last four bytes and its size.

    Raises RepositoryDamaged if it cannot be there.
    """
    if len(tail) != LENGTH_SIZE or size < LENGTH_SIZE:
        raise RepositoryDamaged(f"{where} has {size} bytes, too few for a packfile")
    (length,) = _LENGTH.unpack(tail)
    stop = size - LENGTH_SIZE
    if not OVERHEAD < length <= min(stop, MOST_HEADER):
        raise RepositoryDamaged(f"{where} has {size} bytes and claims a header of {length}")
    return stop - length, stop


def decode_header(header: bytes, header_start: int, where: str) -> list[Entry]:
    """Read an unsealed header that was sealed at ``header_start``. Raises RepositoryDamaged."""
    entries: list[Entry] = []
    position = offset = 0
    while position < len(header):
        form = _COMPRESSED if header[position] & 2 else _PLAIN
        if header[position] > 3 or position + form.size > len(header):
            raise RepositoryDamaged(f"{where} has a header that is damaged at byte {position}")
        number, length, *content_length, name = form.unpack_from(header, position)
        entry = Entry(_KINDS[number & 1], ChunkId(name), offset, length, *(content_length or [0]))
        check_entry(entry, where)
        entries.append(entry)
        position += form.size
        offset += length
    if offset != header_start:
        raise RepositoryDamaged(
            f"{where} has chunks of {offset} bytes, its header is at {header_start}"
        )
    return entries


def check_entry(entry: Entry, where: str) -> None:
    """Raise RepositoryDamaged if the lengths that ``entry`` claims cannot be."""
    if entry.offset < 0 or entry.length < OVERHEAD or not 0 <= entry.content_length <= MOST_CONTENT:
        raise RepositoryDamaged(
            f"{where} claims impossible lengths for chunk {entry.id.hex()}: offset {entry.offset},"
            f" {entry.length} sealed, {entry.content_length} uncompressed"
        )


def expected_size(entries: Iterable[Entry]) -> int:
    """Give the size in bytes of a packfile that holds exactly these chunks."""
    size = OVERHEAD + LENGTH_SIZE
    for entry in entries:
        size += entry.length + (_COMPRESSED.size if entry.content_length else _PLAIN.size)
    return size

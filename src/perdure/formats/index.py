"""Index files, ``index/<id>``: which chunks lie where in which packfiles.

A sealed file of JSON (see `perdure.formats.envelope`), a newline at its end::

    {"packs":[{"id":"299c...",                       a packfile
               "blobs":[{"id":"c7c6...",             a chunk of it
                         "type":"data",              or "tree"
                         "offset":345,               as in `perdure.formats.packfile`
                         "length":387387,
                         "uncompressed_length":387337},   left out if it is not compressed
                        ...]},
              ...]}

What all index files say together is the index; they may say a thing twice. Older versions of restic
add ``"supersedes"``, a list of index files that this one replaced; they had been deleted by then,
so it is ignored. An index file can always be made again from the packfiles.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Annotated, Literal

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.golang import decode_json, encode_json
from perdure.formats.packfile import Entry, check_entry
from perdure.model import ChunkId, ChunkKind

MOST_ENTRIES = 50_000
"""How many chunks one index file may name: about 8 MiB of JSON."""

_Length = Annotated[int, msgspec.Meta(ge=0, le=(1 << 32) - 1)]
_Hash = Annotated[str, msgspec.Meta(min_length=64, max_length=64)]


class Packed(msgspec.Struct, frozen=True):
    """A packfile (32 bytes of id) and the chunks in it."""

    id: bytes
    entries: Sequence[Entry]


class _Chunk(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    id: _Hash
    type: Literal["data", "tree"]
    offset: _Length
    length: _Length
    uncompressed_length: _Length = 0


class _Packfile(msgspec.Struct, frozen=True):
    id: _Hash
    blobs: list[_Chunk]


class _Index(msgspec.Struct, frozen=True):
    packs: list[_Packfile] | None


def encode(packfiles: Iterable[Packed]) -> bytes:
    """Give the JSON of an index file."""
    packs = [
        _Packfile(
            packed.id.hex(),
            [
                _Chunk(
                    id=entry.id.hex(),
                    type=entry.kind.value,
                    offset=entry.offset,
                    length=entry.length,
                    uncompressed_length=entry.content_length,
                )
                for entry in packed.entries
            ],
        )
        for packed in packfiles
    ]
    return encode_json(_Index(packs)) + b"\n"


def decode(text: bytes, where: str) -> list[Packed]:
    """Read the JSON of an index file. Raises RepositoryDamaged, naming ``where``."""
    packfiles = decode_json(text, _Index, where).packs or []
    try:
        return [
            Packed(bytes.fromhex(packfile.id), [_entry(chunk, where) for chunk in packfile.blobs])
            for packfile in packfiles
        ]
    except ValueError:
        raise RepositoryDamaged(f"{where} has an id that is not hexadecimal") from None


def _entry(chunk: _Chunk, where: str) -> Entry:
    entry = Entry(
        ChunkKind(chunk.type),
        ChunkId(bytes.fromhex(chunk.id)),
        chunk.offset,
        chunk.length,
        chunk.uncompressed_length,
    )
    check_entry(entry, where)
    return entry

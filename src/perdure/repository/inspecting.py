"""Looking through one packfile: what it holds, by its header and by the index, and what is damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.packfile import Entry
from perdure.repository.reading import ChunkReader, packfile_name


class Inspection(msgspec.Struct, frozen=True):
    """What is in a packfile (32 bytes of id): every chunk that its header or the index names."""

    packfile: bytes
    header: tuple[Entry, ...]
    whole: tuple[Entry, ...]
    bad: tuple[Entry, ...]
    messages: tuple[str, ...]
    """What is wrong with it, or with what the index says of it."""
    sound: bool
    """Whether every byte is as it was written, and every chunk of the header is whole."""


def inspect(reader: ChunkReader, packfile: bytes, indexed: Sequence[Entry]) -> Inspection:
    """Read a packfile and verify every byte. Raises NameNotFound, StoreError.

    ``indexed`` is what the index says of it, nothing if the index does not know it.
    """
    name = packfile_name(packfile)
    content = reader.content(packfile)
    messages = []
    if hashlib.sha256(content).digest() != packfile:
        messages.append(f"{name} is damaged: its SHA-256 is not its name")
    header: list[Entry] = []
    try:
        header = reader.header_of(content, name)
    except RepositoryDamaged as error:
        messages.append(str(error))
    as_written = not messages
    whole, bad = [], []
    for entry in sorted({*header, *indexed}, key=lambda entry: entry.offset):
        sealed = memoryview(content)[entry.offset : entry.offset + entry.length]
        try:
            reader.decode(sealed, entry, name)
        except RepositoryDamaged as error:
            messages.append(str(error))
            bad.append(entry)
        else:
            whole.append(entry)
    if header and indexed and header != list(indexed):
        messages.append(f"{name} has a header that contradicts the index")
    sound = as_written and set(bad).isdisjoint(header)
    return Inspection(packfile, tuple(header), tuple(whole), tuple(bad), tuple(messages), sound)

"""A gzip file, made of blocks that are compressed side by side, and read without believing it.

A file has one or more members (RFC 1952). Ours has one: the header of ten bytes without a name or a time,
a raw deflate stream (RFC 1951), the CRC-32 and the length modulo 2**32 of what was compressed, both
little-endian. The stream is put together from blocks that end with a flush to a byte boundary; each was
compressed with the 32 KiB before it as its dictionary, so that nothing but a few bytes is lost by the
division. An empty last block ends the stream.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import cast

from zlib_ng import zlib_ng

from perdure.errors import DamageFound

BLOCK = 1 << 20
"""Bytes that are compressed together."""
LEVEL = 5
_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_LAST_BLOCK = b"\x03\x00"
_RAW, _GZIP = -15, 31
_MEMORY = 9
DICTIONARY = 32 << 10
_PIECE = 4 << 20
_ERROR = cast("type[Exception]", zlib_ng.error)  # its stubs declare it as a value


def compress(block: memoryview, before: bytes) -> tuple[bytes, int, int]:
    """Compress a block that follows ``before``; gives what to write, its CRC-32 and its length."""
    packer = (
        zlib_ng.compressobj(LEVEL, zlib.DEFLATED, _RAW, _MEMORY, zdict=before)
        if before
        else zlib_ng.compressobj(LEVEL, zlib.DEFLATED, _RAW, _MEMORY)
    )
    packed = packer.compress(block) + packer.flush(zlib_ng.Z_SYNC_FLUSH)
    return packed, zlib_ng.crc32(block), len(block)


class Member:
    """The frame around the blocks of a member: they are noted in order."""

    header = _HEADER

    def __init__(self) -> None:
        self._crc = 0
        self._size = 0

    def note(self, crc: int, size: int) -> None:
        """Count a block in."""
        self._crc = zlib_ng.crc32_combine(self._crc, crc, size)
        self._size += size

    def trailer(self) -> bytes:
        """Give what follows the last block."""
        size = self._size & 0xFFFFFFFF
        return _LAST_BLOCK + self._crc.to_bytes(4, "little") + size.to_bytes(4, "little")


def decompress(chunks: Iterator[bytes], faults: list[str]) -> Iterator[bytes]:
    """Give what a file of gzip members holds, some megabytes at a time.

    What is wrong around the data (a wrong or missing trailer, bytes that belong to no member) is added to
    ``faults``: whoever knows an MD5 of the data can tell whether it matters. Raises DamageFound where no
    more data can be had.
    """
    source = _Input(chunks)
    members = 0
    while True:
        magic = source.take(2)
        if magic != _HEADER[:2]:
            source.put_back(magic)
            break
        _skip_header(source)
        yield from _member(source, faults)
        members += 1
    rest = source.count_rest()
    if not members:
        raise DamageFound("it is not a gzip file" if rest else "it is empty, and no gzip file")
    if rest:
        faults.append(f"{rest} bytes that are no gzip follow its data")


def _member(source: _Input, faults: list[str]) -> Iterator[bytes]:
    inflater = zlib_ng.decompressobj(_RAW)
    crc = size = 0
    packed = b""
    while not inflater.eof:
        packed = packed or source.some()
        if not packed:
            raise DamageFound("it ends inside its compressed data")
        try:
            data = inflater.decompress(packed, _PIECE)
        except _ERROR as error:
            raise DamageFound(f"its compressed data cannot be read: {error}") from None
        packed = inflater.unconsumed_tail
        crc = zlib_ng.crc32(data, crc)
        size += len(data)
        if data:
            yield data
    source.put_back(inflater.unused_data)
    trailer = source.take(8)
    if len(trailer) < 8:
        faults.append("its last bytes, the CRC and the length, are missing")
    elif trailer != crc.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little"):
        faults.append("its CRC or length does not fit its data")


_EXTRA, _NAME, _COMMENT, _HEADER_CRC = 4, 8, 16, 2
_TEXT_LIMIT = 64 << 10


def _skip_header(source: _Input) -> None:
    """Go behind the header of a member, whose magic is read. Raises DamageFound."""
    rest = source.take(8)
    if len(rest) < 8 or rest[0] != 8:
        raise DamageFound("its gzip header cannot be read")
    flags = rest[1]
    if flags & _EXTRA:
        source.take(int.from_bytes(source.take(2), "little"))
    for _ in range(bool(flags & _NAME) + bool(flags & _COMMENT)):
        for _ in range(_TEXT_LIMIT):
            if source.take(1) in {b"", b"\0"}:
                break
    if flags & _HEADER_CRC:
        source.take(2)


class _Input:
    """Bytes that come in chunks, and can be given back."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._ahead = b""

    def some(self) -> bytes:
        """Give what comes next; nothing at the end."""
        data, self._ahead = self._ahead or next(self._chunks, b""), b""
        return data

    def take(self, count: int) -> bytes:
        """Give ``count`` bytes; fewer at the end."""
        while len(self._ahead) < count:
            more = next(self._chunks, b"")
            if not more:
                break
            self._ahead += more
        data, self._ahead = self._ahead[:count], self._ahead[count:]
        return data

    def put_back(self, data: bytes) -> None:
        """Have bytes come once more."""
        self._ahead = data + self._ahead

    def count_rest(self) -> int:
        """Read to the end; gives how many bytes there are from the first that is not zero."""
        rest = 0
        while data := self.some():
            rest += len(data if rest else data.lstrip(b"\0"))
        return rest

"""Zstandard frames: the one place that chooses between the standard library and its backport.

A chunk or a file of a repository is compressed into a single frame (RFC 8878). Nothing is decompressed
without a bound on its output.
"""

from __future__ import annotations

import sys

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

_OPTIONS: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.window_log: 22,
    zstd.CompressionParameter.hash_log: 18,
    zstd.CompressionParameter.min_match: 7,
}
"""Level 1 with a table and a window for chunks of 4 MiB: docs/decisions/0006 compares it with level 3."""


_SMALL, _SMALL_LEVEL = 1 << 20, 9
"""What is smaller than this (trees, layouts, catalogues, what a short increment adds) is worth more work."""


_USUAL_LEVEL = 3


def compress(data: bytes | bytearray | memoryview) -> bytes:
    """Compress into one frame."""
    if len(data) < _SMALL:
        return zstd.compress(data, _SMALL_LEVEL)
    return zstd.compress(data, options=_OPTIONS)


class QuickCompressor:
    """Compresses what is met once, such as the files of a tree: at zstd's usual level."""

    def __init__(self) -> None:
        self._small = zstd.ZstdCompressor(level=_USUAL_LEVEL)

    def compress(self, data: bytes | bytearray | memoryview) -> bytes:
        """Compress into one frame."""
        if len(data) < _SMALL:
            return self._small.compress(data, zstd.ZstdCompressor.FLUSH_FRAME)
        return zstd.compress(data, options=_OPTIONS)


def decompress(frame: bytes | memoryview, limit: int) -> bytes:
    """Give the content of one whole frame, of at most ``limit`` bytes.

    Raises ValueError if the frame is damaged, incomplete, longer than that, or followed by
    anything.
    """
    decompressor = zstd.ZstdDecompressor()
    try:
        content = decompressor.decompress(frame, max_length=limit + 1)
    except zstd.ZstdError as error:
        raise ValueError(f"it does not decompress: {error}") from None
    if len(content) > limit:
        raise ValueError(f"it decompresses to more than {limit} bytes")
    if not decompressor.eof or decompressor.unused_data:
        raise ValueError("it is not one whole compressed frame")
    return content


def decompress_many(frames: bytes, limit: int) -> bytes:
    """Give the contents, one behind the other, of whole frames that this program has just made.

    Raises ValueError if one is damaged, or they have more than ``limit`` bytes.
    """
    try:
        contents = zstd.decompress(frames) if frames else b""
    except zstd.ZstdError as error:
        raise ValueError(f"they do not decompress: {error}") from None
    if len(contents) > limit:
        raise ValueError(f"they decompress to more than {limit} bytes")
    return contents

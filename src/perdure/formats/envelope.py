"""The envelope of index files, snapshots and locks: how a JSON document becomes a file.

The document is encoded, the result is sealed (`perdure.formats.sealing`), and the file is named by
the SHA-256 of its bytes. The encoding::

    offset  size  content
    0       1     2: what follows is one zstd frame; "{" or "[": this byte is the document's first
    1       ...   the document

Anything else in the first byte is refused. A document has at most 512 MiB.
"""

from __future__ import annotations

from perdure.errors import RepositoryDamaged
from perdure.formats import zstandard

MOST_CONTENT = 512 << 20

_COMPRESSED = b"\x02"


def encode(document: bytes) -> bytes:
    """Give the bytes to be sealed."""
    return _COMPRESSED + zstandard.compress(document)


def decode(content: bytes, where: str) -> bytes:
    """Give the document of unsealed bytes. Raises RepositoryDamaged, naming ``where``."""
    if content[:1] in (b"{", b"["):
        return content
    if content[:1] != _COMPRESSED:
        raise RepositoryDamaged(
            f"{where} is encoded in an unknown way ({content[:1]!r})",
            hint="a newer Perdure or restic may have written it",
        )
    try:
        return zstandard.decompress(memoryview(content)[1:], MOST_CONTENT)
    except ValueError as error:
        raise RepositoryDamaged(f"{where} is damaged: {error}") from None

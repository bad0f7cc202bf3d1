"""Blobs: the files that a ZODB storage keeps beside its records, and where a snapshot has them.

ZODB writes one file for each record of class ``ZODB.blob.Blob``, once, and never changes it. Its blob
directory has a file ``.layout`` that names how it is arranged, and ``tmp/`` for what is not committed yet:

* ``bushy``: a folder for each of the oid's 8 bytes, ``0x00/0x00/0x00/0x00/0x00/0x00/0x0a/0x12/``;
* ``lawn``: one folder, the oid without leading zero bytes: ``0x0a12/`` (``0x00`` for oid 0);
* in it a file for each revision, ``0x03f2c1a7d4e00b11.blob`` (the tid, likewise), mode 0444.

A directory without ``.layout`` is a lawn if it has any entry that is not hidden, otherwise bushy. (An empty
one is not told apart by its content.) Before a pack drops blobs it may keep them in a directory with
``.old`` behind its name, arranged in the same way.

A snapshot has a blob as an ordinary file, by the minute of its tid, so that the past is unchanged folders::

    Data.fs.blobs/2026/11/21/0315/0000000000000a12.03f2c1a7d4e00b11.blob

Source: ZODB/blob.py; directories that it wrote.
"""

from __future__ import annotations

import re

from perdure.errors import DamageFound
from perdure.model import BlobId

SUFFIX = ".blobs"
LAYOUT_FILE = ".layout"
TEMPORARY = "tmp"
BUSHY, LAWN = "bushy", "lawn"
LAYOUTS = (BUSHY, LAWN)
OLD_SUFFIX = ".old"
FILE_SUFFIX = ".blob"
CHUNK_SIZE = 2 << 20
"""Bytes of a blob in a chunk; the last one has the rest."""

_DIGITS = re.compile("[0-9a-f]{1,16}")
_NAME = re.compile(r"([0-9a-f]{16})\.([0-9a-f]{16})\.blob")


def path_in_directory(blob: BlobId, layout: str) -> str:
    """Give the path of a blob below a blob directory."""
    digits = f"{blob.oid:016x}"
    pairs = [f"0x{digits[place : place + 2]}" for place in range(0, 16, 2)]
    folder = "/".join(pairs) if layout == BUSHY else f"0x{_without_zeros(digits)}"
    return f"{folder}/0x{_without_zeros(f'{blob.tid:016x}')}.blob"


def blob_at(path: str, layout: str) -> BlobId | None:
    """Say which blob has its file at a path below a blob directory; None where none would have it."""
    folders, _, name = path.rpartition("/")
    digits = folders.replace("/", "").replace("0x", "")
    tid = name.removeprefix("0x").removesuffix(FILE_SUFFIX)
    if not (_DIGITS.fullmatch(digits) and _DIGITS.fullmatch(tid)):
        return None
    blob = BlobId(int(digits, 16), int(tid, 16))
    return blob if path_in_directory(blob, layout) == path else None


def _without_zeros(digits: str) -> str:
    left = digits.lstrip("0") or "0"
    return left if len(left) % 2 == 0 else f"0{left}"


def folders_in_snapshot(blob: BlobId) -> tuple[str, str, str, str]:
    """Give the folders for year, month, day and minute that hold a blob in a snapshot."""
    minutes = blob.tid >> 32
    days, minute = divmod(minutes, 24 * 60)
    months, day = divmod(days, 31)
    hour, minute = divmod(minute, 60)
    return (
        f"{1900 + months // 12:04d}",
        f"{months % 12 + 1:02d}",
        f"{day + 1:02d}",
        f"{hour:02d}{minute:02d}",
    )


def name_in_snapshot(blob: BlobId) -> str:
    """Give the name of a blob's file in a snapshot."""
    return f"{blob.oid:016x}.{blob.tid:016x}.blob"


def parse_name(name: str, where: str) -> BlobId:
    """Read the name of a blob's file in a snapshot. Raises DamageFound."""
    match = _NAME.fullmatch(name)
    if match is None:
        raise DamageFound(f"{where}: {name!r} is not the name of a blob")
    return BlobId(int(match[1], 16), int(match[2], 16))

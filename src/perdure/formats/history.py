"""A history: a Data.fs rearranged so that what two states of it share is stored once, packs or not.

It is a directory of ordinary files, named like the file with ``.history`` behind it::

    Data.fs.history/
      layouts/000000/00000000000000-03f2c1a7d4e00b11.layout
      layouts/000000/00000004001f3a-03f2c9be7a1180cc.layout
      segments/2026/11/03f2c0a4b21e55aa-5c1b0f9e2d7a4c38.catalogue
      segments/2026/11/03f2c0a4b21e55aa-5c1b0f9e2d7a4c38.payload

* A **layout** (formats/layout.py) stands for a range of the file. Its name is the range's start (14
  hexadecimal digits), a hyphen and the last tid in the range (16 digits; zeros if it has none), in a
  folder for each 2**34 bytes of the file. In the order of their names the layouts cover the file from
  byte 0 to its end without a gap.
* A **segment** is a payload and its catalogue (formats/catalogue.py). Its name is its first tid, a hyphen
  and the first 16 hexadecimal digits of the SHA-256 of the catalogue (of the payload where it is
  verbatim and has no catalogue), in folders for the year and month of its first tid.

* A **companion** holds what the source has beside such a file: of a DirectoryStorage
  (formats/directorystorage_particulars.py). Other histories have none.

What a pack of the database leaves alone is in ``segments``; what it changes, and what only this state of
the file has, is in ``layouts``. Anyone can rebuild the file from the directory alone: ``perdure
assemble``, or the docstrings of formats/layout.py, catalogue.py and columns.py.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from perdure.errors import DamageFound
from perdure.model import Tid

SUFFIX = ".history"
LAYOUTS, SEGMENTS = "layouts", "segments"
COMPANION, PARTICULARS = "companion", "particulars"
"""The folder for what the source has beside the file, and the one in it for what grows with each run."""
FOLDER_BITS = 34
_LAYOUT_NAME = re.compile(r"([0-9a-f]{14})-([0-9a-f]{16})\.layout")
_SEGMENT_NAME = re.compile(r"[0-9a-f]{16}-[0-9a-f]{16}")


@dataclass(frozen=True, order=True, slots=True)
class LayoutName:
    """The name of a layout: where its range starts, and the last tid in it."""

    start: int
    last_tid: int

    def __str__(self) -> str:
        return f"{self.start:014x}-{self.last_tid:016x}.layout"

    @property
    def folder(self) -> str:
        """The folder of ``layouts`` that holds it."""
        return f"{self.start >> FOLDER_BITS:06x}"

    @classmethod
    def parse(cls, name: str, where: str) -> LayoutName:
        """Read a file name. Raises DamageFound."""
        match = _LAYOUT_NAME.fullmatch(name)
        if match is None:
            raise DamageFound(f"{where}: {name!r} is not the name of a layout")
        return cls(int(match[1], 16), int(match[2], 16))


def segment_name(first_tid: int, content: bytes) -> str:
    """Name a segment after its first tid and its catalogue (or payload, where that is all it has)."""
    return f"{first_tid:016x}-{hashlib.sha256(content).hexdigest()[:16]}"


def segment_folder(name: str, where: str) -> tuple[str, str]:
    """Give the two folders of ``segments`` that hold the segment: year and month. Raises DamageFound."""
    if _SEGMENT_NAME.fullmatch(name) is None:
        raise DamageFound(f"{where}: {name!r} is not the name of a segment")
    months = (Tid.from_text(name[:16]).value >> 32) // (60 * 24 * 31)
    return f"{1900 + months // 12:04d}", f"{months % 12 + 1:02d}"

"""A blob directory, read while a server uses it (formats/blobs.py says how it is arranged).

Nothing is walked: which blobs there are is known from the records. A blob's file is in place before its
record can be seen, and never changes; only a pack takes it away, perhaps into the ``.old`` directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from perdure.errors import SourceUnusable
from perdure.formats.blobs import (
    BUSHY,
    LAWN,
    LAYOUT_FILE,
    LAYOUTS,
    OLD_SUFFIX,
    blob_at,
    path_in_directory,
)
from perdure.model import BlobId

_CACHE_LAYOUT = "zeocache"
_LONGEST_LAYOUT = 64


class BlobDirectory:
    """The blob directory at ``path``. Raises SourceUnusable when it is none."""

    parallel = True

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.place: str | None = str(self.path)
        self._layout = _layout(self.path)
        self.layout: str | None = self._layout
        self._old = self.path.with_name(self.path.name + OLD_SUFFIX)

    def open(self, blob: BlobId) -> BinaryIO | None:
        """Open the file of a blob; None when there is none. Raises OSError when it cannot be read."""
        for place in self.places(blob):
            try:
                return open(place, "rb")
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None

    def places(self, blob: BlobId) -> tuple[str, str]:
        """Give the paths where the file of a blob may be: in the directory, and in what a pack kept."""
        below = path_in_directory(blob, self._layout)
        return f"{self.path}/{below}", f"{self._old}/{below}"

    def walk(self) -> Iterator[BlobId]:
        """Give all blobs whose files are in the directory. Raises OSError."""
        yield from (blob for blob, _ in walk(self.path, self._layout))


class NoBlobDirectory:
    """What stands for the blob directory of a storage for which none was given."""

    parallel = True
    place: str | None = None
    layout: str | None = None

    def open(self, blob: BlobId) -> BinaryIO | None:
        """There are no files."""
        return None


def blob_layout(path: Path) -> str | None:
    """Tell how a directory of blobs is arranged, by what is in it; None for an empty one.

    Raises OSError, UnicodeDecodeError.
    """
    try:
        with open(path / LAYOUT_FILE, encoding="ascii") as file:
            return file.read(_LONGEST_LAYOUT).strip()
    except FileNotFoundError:
        with os.scandir(path) as entries:
            return LAWN if any(not entry.name.startswith(".") for entry in entries) else None


def walk(folder: Path, layout: str) -> Iterator[tuple[BlobId, int]]:
    """Find the files of blobs below a folder, with their sizes in bytes. Raises OSError."""
    pending = [("", str(folder))]
    while pending:
        below, place = pending.pop()
        with os.scandir(place) as entries:
            for each in entries:
                path = f"{below}{each.name}"
                if each.is_dir(follow_symlinks=False):
                    pending.append((f"{path}/", each.path))
                elif (blob := blob_at(path, layout)) and each.is_file(follow_symlinks=False):
                    yield blob, each.stat(follow_symlinks=False).st_size


def _layout(path: Path) -> str:
    try:
        layout = blob_layout(path) or BUSHY
    except FileNotFoundError:
        raise SourceUnusable(
            f"the blob directory {path} does not exist",
            hint="give the one that the server uses (blob-dir in zope.conf or zeo.conf);"
            " --no-blobs backs up the database alone",
        ) from None
    except OSError as error:
        raise SourceUnusable(
            f"the blob directory {path} cannot be read: {error.strerror}",
            hint="run as the user of the server, or let that user's group read it",
        ) from error
    except UnicodeDecodeError:
        layout = "?"
    if layout == _CACHE_LAYOUT:
        raise SourceUnusable(
            f"{path} is the blob cache of a ZEO client, not a blob directory",
            hint="give the blob directory of the server",
        )
    if layout not in LAYOUTS:
        raise SourceUnusable(
            f"{path}/{LAYOUT_FILE} names a layout that is not known: {layout!r}",
            hint=f"ZODB knows {' and '.join(LAYOUTS)}; is this a blob directory?",
        )
    return layout

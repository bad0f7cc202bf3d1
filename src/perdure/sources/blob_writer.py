"""Write a blob directory back (formats/blobs.py says how it is arranged).

Where there is a directory, a blob appears under its name when it is whole. What is there already and right is
not written again; what does not belong there is removed only after the database that goes with the blobs is
in its place.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from perdure.errors import StoreError, UsageError
from perdure.formats.blobs import (
    BUSHY,
    CHUNK_SIZE,
    LAYOUT_FILE,
    LAYOUTS,
    TEMPORARY,
    blob_at,
    path_in_directory,
)
from perdure.model import BlobId, ChunkId
from perdure.sources.blobs import blob_layout
from perdure.sources.durable import give, make_directory, owner_for, sync_directory, write_new

_MODE = 0o444
_PART = "perdure-{}.part"


class BlobTarget:
    """A blob directory that is written to; ``layout`` is for one that is new or empty."""

    def __init__(self, path: Path, layout: str | None) -> None:
        self.path = path
        self.new = not path.exists()
        """Whether there is nothing yet."""
        self._layout = _layout_of(path, layout if layout in LAYOUTS else BUSHY)
        self._owner = owner_for(path)
        self._made: set[Path] = set()

    def stands(self, blob: BlobId, chunks: Sequence[ChunkId], size: int) -> bool:
        """Tell whether a blob's file is there with the right content."""
        try:
            with open(self.place(blob), "rb") as file:
                if os.fstat(file.fileno()).st_size != size:
                    return False
                blocks = iter(lambda: file.read(CHUNK_SIZE), b"")
                found = [hashlib.sha256(block).digest() for block in blocks]
        except OSError:
            return False
        return found == list(chunks)

    def there(self, blob: BlobId) -> bool:
        """Tell whether a blob has a file at all."""
        return self.place(blob).is_file()

    def begin(self) -> None:
        """Make the directory what ZODB knows as one, without what a killed restore left. Raises OSError."""
        temporary = self.path / TEMPORARY
        make_directory(temporary, self._owner)
        for part in temporary.glob(_PART.format("*")):
            part.unlink()
        marker = self.path / LAYOUT_FILE
        if not marker.exists():
            part = temporary / _PART.format("layout")
            self._dress(write_new(part, [self._layout.encode()]), 0o644)
            os.rename(part, marker)

    def write(self, blob: BlobId, content: Iterable[bytes]) -> None:
        """Write the file of a blob. Raises OSError."""
        place = self.place(blob)
        self._make_folders(place.parent)
        if self.new:  # nothing there is believed before the database is in its place
            self._dress(write_new(place, content), _MODE)
            return
        part = self.path / TEMPORARY / _PART.format(f"{blob.oid:016x}.{blob.tid:016x}")
        self._dress(write_new(part, content), _MODE)
        os.rename(part, place)

    def mend(self, blob: BlobId) -> None:
        """Give a file that stands the mode and owner that it should have. Raises OSError."""
        place = self.place(blob)
        status = place.stat()
        if status.st_mode & 0o777 != _MODE:
            place.chmod(_MODE)
        if self._owner and (status.st_uid, status.st_gid) != self._owner:
            give(place, self._owner)

    def settle(self) -> None:
        """Make everything durable that was written. Raises OSError."""
        # One sync of the disks: an fsync for each of a hundred thousand files takes hours.
        os.sync()
        if self.path.is_dir():
            sync_directory(self.path)

    def strays(self, wanted: Collection[BlobId]) -> Iterator[Path]:
        """Give the files of blobs that are not wanted; what is no blob of this directory is left alone."""
        places = {path_in_directory(blob, self._layout) for blob in wanted}
        for folder, _, files in os.walk(self.path):
            below = os.path.relpath(folder, self.path)
            for name in files:
                path = f"{below}/{name}"
                if path not in places and blob_at(path, self._layout):
                    yield Path(folder, name)

    def remove(self, stray: Path) -> None:
        """Remove a file that `strays` gave, and the folders that are empty without it. Raises OSError."""
        stray.unlink(missing_ok=True)
        with suppress(OSError):  # not empty
            for folder in stray.parents:
                if folder == self.path:
                    break
                folder.rmdir()

    def place(self, blob: BlobId) -> Path:
        """Say where the file of a blob belongs."""
        return self.path / path_in_directory(blob, self._layout)

    def _make_folders(self, folder: Path) -> None:
        if folder in self._made:
            return
        try:
            folder.mkdir()
        except FileNotFoundError:
            self._make_folders(folder.parent)
            self._make_folders(folder)
            return
        except FileExistsError:
            pass
        else:
            give(folder, self._owner)
        self._made.add(folder)

    def _dress(self, descriptor: int, mode: int) -> None:
        try:
            os.fchmod(descriptor, mode)
            if self._owner:
                os.fchown(descriptor, *self._owner)
        finally:
            os.close(descriptor)


def _layout_of(path: Path, otherwise: str) -> str:
    try:
        layout = blob_layout(path) or otherwise
    except FileNotFoundError:
        return otherwise
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the blob directory {path} cannot be read: {error}") from error
    if layout not in LAYOUTS:
        raise UsageError(
            f"{path} is no blob directory: its {LAYOUT_FILE} says {layout!r}",
            hint="restore into another directory",
        )
    return layout

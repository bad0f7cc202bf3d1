"""Write a blob directory back (formats/blobs.py says how it is arranged).

A blob appears under its name when it is whole. What is there already and right is not written again; what
does not belong there is removed only after the database that goes with the blobs is in its place.
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
    FILE_SUFFIX,
    LAYOUT_FILE,
    LAYOUTS,
    TEMPORARY,
    path_in_directory,
)
from perdure.model import BlobId, ChunkId
from perdure.sources.blobs import blob_layout
from perdure.sources.filestorage_writer import make_directory, sync_directory

_MODE = 0o444


class BlobTarget:
    """A blob directory that is written to; ``layout`` is for one that is new or empty."""

    def __init__(self, path: Path, layout: str | None) -> None:
        self.path = path
        self._layout = _layout_of(path, layout or BUSHY)
        self._owner = _owner(path)
        self._written: set[Path] = set()

    def stands(self, blob: BlobId, chunks: Sequence[ChunkId], size: int) -> bool:
        """Tell whether a blob's file is there with the right content."""
        try:
            with open(self._place(blob), "rb") as file:
                if os.fstat(file.fileno()).st_size != size:
                    return False
                found = [
                    hashlib.sha256(data).digest()
                    for data in iter(lambda: file.read(CHUNK_SIZE), b"")
                ]
        except OSError:
            return False
        return found == list(chunks)

    def begin(self) -> None:
        """Make the directory what ZODB knows as one. Raises OSError."""
        make_directory(self.path)
        for folder in (self.path, self.path / TEMPORARY):
            if not folder.is_dir():
                folder.mkdir()
                self._own(folder)
        marker = self.path / LAYOUT_FILE
        if not marker.exists():
            marker.write_text(self._layout)
            self._own(marker)

    def write(self, blob: BlobId, content: Iterable[bytes]) -> None:
        """Write the file of a blob. Raises OSError."""
        place = self._place(blob)
        part = self.path / TEMPORARY / f"perdure-{blob.oid:016x}.{blob.tid:016x}.part"
        part.unlink(missing_ok=True)
        descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            for data in content:
                _write_all(descriptor, data)
            os.fchmod(descriptor, _MODE)
            if self._owner:
                os.fchown(descriptor, *self._owner)
        finally:
            os.close(descriptor)
        self._make_folders(place.parent)
        os.rename(part, place)
        self._written.add(place.parent)

    def settle(self) -> None:
        """Make everything durable that was written. Raises OSError."""
        # One sync of the disks: an fsync for each of a hundred thousand files takes hours.
        os.sync()
        if self.path.is_dir():
            sync_directory(self.path)

    def strays(self, wanted: Collection[BlobId]) -> Iterator[Path]:
        """Give the files of blobs that are not wanted."""
        places = {path_in_directory(blob, self._layout) for blob in wanted}
        for folder, folders, files in os.walk(self.path):
            if Path(folder) == self.path and TEMPORARY in folders:
                folders.remove(TEMPORARY)
            below = os.path.relpath(folder, self.path)
            for name in files:
                if name.endswith(FILE_SUFFIX) and f"{below}/{name}" not in places:
                    yield Path(folder, name)

    def remove(self, stray: Path) -> None:
        """Remove a file that `strays` gave, and the folders that are empty without it."""
        stray.unlink(missing_ok=True)
        with suppress(OSError):
            for folder in stray.parents:
                if folder == self.path:
                    break
                folder.rmdir()

    def _place(self, blob: BlobId) -> Path:
        return self.path / path_in_directory(blob, self._layout)

    def _make_folders(self, folder: Path) -> None:
        if folder in self._written or folder.is_dir():
            return
        self._make_folders(folder.parent)
        folder.mkdir(exist_ok=True)
        self._own(folder)

    def _own(self, path: Path) -> None:
        """Give to the owner of the directory what root makes in it."""
        if self._owner:
            os.chown(path, *self._owner)


def _owner(path: Path) -> tuple[int, int] | None:
    """Say to whom files belong that root writes: to the owner of the nearest folder there is."""
    if os.geteuid() != 0:
        return None
    folder = next(each for each in (path, *path.parents) if each.exists())
    status = folder.stat()
    return status.st_uid, status.st_gid


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


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]

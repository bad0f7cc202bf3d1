"""Making a tar of blobs, as ``tar -c -C BLOBS .`` would: members that begin with ./, folders among them."""

from __future__ import annotations

import os
import tarfile
from collections.abc import Collection
from pathlib import Path

from perdure.dropin.recipe.copying import BlobCopy, Target
from perdure.dropin.recipe.naming import Form
from perdure.formats.blobs import LAYOUT_FILE, TEMPORARY, path_in_directory
from perdure.model import BlobId
from perdure.sources.blobs import BlobDirectory

_SHOW_EVERY = 256
_FORMAT = tarfile.GNU_FORMAT
_COMPRESSION = 6
"""gzip's own default; more takes long and gives little."""


class TarCopy(BlobCopy):
    """A tar of exactly the blobs that are wanted."""

    def __init__(self, live: BlobDirectory, target: Target, *, compress: bool) -> None:
        super().__init__(live, target)
        self.form = Form.COMPRESSED if compress else Form.TAR
        self._tar = _open(self.part, compress=compress)
        self._tar.dereference = True
        self._folders: set[str] = set()
        self._add_folder(".")
        self._add_folder(f"./{TEMPORARY}")
        layout = live.path / LAYOUT_FILE
        if layout.exists():
            self._tar.add(layout, f"./{LAYOUT_FILE}")

    def take(self, wanted: Collection[BlobId]) -> None:
        """Add files, those together that lie together."""
        assert self.live.layout
        for number, blob in enumerate(sorted(wanted)):
            if not number % _SHOW_EVERY:
                self.target.observer.progress("blobs", number, len(wanted))
            name = f"./{path_in_directory(blob, self.live.layout)}"
            file = self.live.open(blob)
            if file is None:
                continue
            with file:
                self._add_folders(name)
                self._tar.addfile(self._tar.gettarinfo(fileobj=file, arcname=name), file)
            self._tar.members.clear()  # type: ignore[attr-defined]  # there may be a million
            self.taken.add(blob)

    def _add_folders(self, name: str) -> None:
        parts = name.split("/")[:-1]
        for depth in range(2, len(parts) + 1):
            self._add_folder("/".join(parts[:depth]))

    def _add_folder(self, name: str) -> None:
        if name in self._folders:
            return
        self._folders.add(name)
        place = self.live.path / name
        member = tarfile.TarInfo(name)
        member.type, member.mode = tarfile.DIRTYPE, 0o700
        if place.is_dir():
            member = self._tar.gettarinfo(place, name)
        self._tar.addfile(member)

    def finish(self) -> None:
        """Close the tar, and bring it to the disk."""
        self._tar.close()
        descriptor = os.open(self.part, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def abandon(self) -> None:
        """Leave nothing behind."""
        if self._tar.fileobj is not None:
            self._tar.fileobj.close()
        super().abandon()


def _open(path: Path, *, compress: bool) -> tarfile.TarFile:
    if compress:
        return tarfile.open(path, "w:gz", format=_FORMAT, compresslevel=_COMPRESSION)
    return tarfile.open(path, "w", format=_FORMAT)

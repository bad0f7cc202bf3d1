"""Backups of blobs as they are read: directories and tars, each a place where the file of a blob may be.

Of a tar each member is one blob; a chain of incremental tars is some such places, and what a directory
listing in one of them says of removed files does not matter: the Data.fs says which blobs are wanted.
GNU tar's increments keep times where ``tarfile`` looks for the beginning of a name; that is left out here.
"""

from __future__ import annotations

import os
import tarfile
import zlib
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Protocol, Self

from perdure.dropin.recipe.dates import stamp_of
from perdure.dropin.recipe.naming import Entry, Form
from perdure.errors import PerdureError, StoreError
from perdure.formats.blobs import BUSHY, LAWN, LAYOUT_FILE, LAYOUTS, blob_at, path_in_directory
from perdure.model import BlobId
from perdure.sources.blobs import blob_layout, walk

_GNU_MAGIC = b"ustar  \0"
_FAULTS = (tarfile.TarError, EOFError, OSError, zlib.error, ValueError)
_LONGEST_LAYOUT = 64
_FORGET_EVERY = 1000


@dataclass(frozen=True, slots=True)
class Content:
    """The file of a blob, open for reading; size in bytes, ``changed`` in nanoseconds since 1970."""

    blob: BlobId
    file: IO[bytes]
    size: int
    changed: int


class Container(Protocol):
    """A backup of blobs."""

    entry: Entry
    path: Path
    time: str
    """Its stamp; of a numbered one, the stamp of its modification time."""

    @property
    def blobs(self) -> Mapping[BlobId, int]:
        """The blobs that are in it, with their sizes in bytes. Raises StoreError."""

    @property
    def layout(self) -> str | None:
        """How the blob directory was arranged; None where that is not told."""

    @property
    def damage(self) -> str | None:
        """What is the matter with it, as far as it was looked at."""

    def contents(self, wanted: Collection[BlobId]) -> Iterator[Content]:
        """Open the files of blobs that are in it, one after the other. Raises StoreError."""


@dataclass(slots=True)
class DirectoryContainer:
    """A directory of blobs."""

    entry: Entry
    path: Path
    time: str
    _inner: Path | None = None
    _found: dict[BlobId, int] | None = None
    _is_bushy: bool = True
    damage: str | None = None

    @property
    def inner(self) -> Path:
        """The blob directory in it: of the name before the stamp, or the only one that there is."""
        if self._inner is None:
            named = self.path / self.entry.base
            folders = [each for each in sorted(self.path.iterdir()) if each.is_dir()]
            self._inner = folders[0] if named not in folders and len(folders) == 1 else named
        return self._inner

    @property
    def layout(self) -> str | None:
        """How it is arranged: as its blobs are, or else as it says; what it says may be cut off."""
        if self.blobs:
            return BUSHY if self._is_bushy else LAWN
        try:
            said = blob_layout(self.inner) if (self.inner / LAYOUT_FILE).is_file() else BUSHY
        except (OSError, UnicodeDecodeError):
            return None
        return said if said in LAYOUTS else None

    @property
    def blobs(self) -> Mapping[BlobId, int]:
        """The blobs in it, by their files. Raises OSError."""
        if self._found is None:
            self._found = {}
            if self.inner.is_dir():
                self._found = dict(walk(self.inner, BUSHY))
                self._is_bushy = bool(self._found)
                self._found = self._found or dict(walk(self.inner, LAWN))
        return self._found

    def contents(self, wanted: Collection[BlobId]) -> Iterator[Content]:
        """Open files, in the order in which they are asked for."""
        layout = self.layout or BUSHY
        for blob in wanted:
            try:
                with open(self.inner / path_in_directory(blob, layout), "rb") as file:
                    status = os.fstat(file.fileno())
                    yield Content(blob, file, status.st_size, status.st_mtime_ns)
            except FileNotFoundError as error:
                raise _changed(self.path, blob) from error


class _Member(tarfile.TarInfo):
    """A member of a tar, also of one whose header has times where newer ones have part of the name."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        made = super().frombuf(buf, encoding, errors)
        if bytes(buf[257:265]) == _GNU_MAGIC:
            made.name = bytes(buf[:100]).split(b"\0", 1)[0].decode(encoding, errors)
        return made


@dataclass(slots=True)
class TarContainer:
    """A tar of blobs."""

    entry: Entry
    path: Path
    time: str
    damage: str | None = None
    _layout: str | None = None
    _found: dict[BlobId, int] | None = field(default=None)

    @property
    def layout(self) -> str | None:
        """How the directory was arranged, by the member .layout or the names of the others."""
        assert self.blobs is not None
        return self._layout

    @property
    def blobs(self) -> Mapping[BlobId, int]:
        """The blobs in it that are whole."""
        if self._found is None:
            self._found = {}
            try:
                self._look(self._found)
            except _FAULTS as error:
                self.damage = f"{self.path} is damaged: {error}"
        return self._found

    def _look(self, found: dict[BlobId, int]) -> None:
        last: tuple[BlobId, int] | None = None
        with tarfile.open(self.path, "r:*", tarinfo=_Member) as tar:
            for member in _members(tar):
                if last is not None:  # that there is something behind it proves it whole
                    found[last[0]] = last[1]
                blob = _blob_of(member)
                last = None if blob is None else (blob, member.size)
                self._note_layout(tar, member)
        if last is not None:
            found[last[0]] = last[1]

    def _note_layout(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        name = _below(member.name)
        if name == LAYOUT_FILE and member.isreg() and member.size <= _LONGEST_LAYOUT:
            file = tar.extractfile(member)
            layout = file.read().decode("ascii", "replace").strip() if file else ""
            self._layout = layout if layout in LAYOUTS else self._layout
        elif self._layout is None and blob_at(name, LAWN) and not blob_at(name, BUSHY):
            self._layout = LAWN

    def contents(self, wanted: Collection[BlobId]) -> Iterator[Content]:
        """Open members in the order of the tar."""
        left = set(wanted)
        try:
            with tarfile.open(self.path, "r:*", tarinfo=_Member) as tar:
                for member in _members(tar):
                    blob = _blob_of(member)
                    file = tar.extractfile(member) if blob in left else None
                    if blob is not None and file is not None:
                        left.remove(blob)
                        yield Content(blob, file, member.size, int(member.mtime * 10**9))
                    if not left:
                        return
        except _FAULTS as error:
            raise StoreError(f"{self.path} cannot be read: {error}") from error
        raise _changed(self.path, left.pop())


def _members(tar: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Give the members of a tar, without keeping all of them: there may be a million."""
    for number, member in enumerate(tar):
        yield member
        if number % _FORGET_EVERY == _FORGET_EVERY - 1:
            tar.members = tar.members[-1:]  # type: ignore[attr-defined]


def _blob_of(member: tarfile.TarInfo) -> BlobId | None:
    if not member.isreg():
        return None
    name = _below(member.name)
    return blob_at(name, BUSHY) or blob_at(name, LAWN)


def _below(name: str) -> str:
    return name.removeprefix("./")


def containers(folder: Path) -> list[Container]:
    """Give the backups of blobs in a folder, the oldest first. Raises StoreError."""
    made: list[Container] = []
    try:
        with os.scandir(folder) as entries:
            listed = list(entries)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(f"{folder} cannot be read: {error.strerror}") from error
    for each in listed:
        entry = Entry.parse(each.name)
        if entry is None or entry.form is Form.NOTES or each.is_symlink():
            continue
        directory = entry.form is Form.DIRECTORY
        if directory == each.is_dir():
            made.append(_container(entry, Path(each.path), directory=directory))
    made.sort(key=lambda one: (one.time, -(one.entry.number or 0), one.entry.name))
    return made


def _container(entry: Entry, path: Path, *, directory: bool) -> Container:
    changed = datetime.fromtimestamp(path.stat().st_mtime, UTC)
    time = entry.stamp or stamp_of(changed)
    return DirectoryContainer(entry, path, time) if directory else TarContainer(entry, path, time)


def _changed(path: Path, blob: BlobId) -> PerdureError:
    return StoreError(f"{path} has no blob {blob} any more: something else changes it")

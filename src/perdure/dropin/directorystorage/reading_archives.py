"""Reading an archive, whatever is in it: names that lead nowhere else, and a whole end.

What an archive may hold: folders and ordinary files directly in HOME, files in ``config``, and files of the
database below ``A``.
"""

from __future__ import annotations

import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from perdure.errors import DamageFound, SourceDamaged, SourceUnusable
from perdure.formats.directorystorage import MOST_BYTES
from perdure.formats.directorystorage_names import FORMATS, SERIAL, path_of
from perdure.sources.directorystorage.home import FOLDERS

IN_HOME = (*FOLDERS, "backups")
"""The folders of a HOME that its backups are in."""
_SLICE = 1 << 20


class TrailingBytes(DamageFound):
    """The archive is whole, and then there is more: the tail of an older file that was not truncated."""


@dataclass(frozen=True, slots=True)
class Found:
    """A member that may be extracted; a folder has no content."""

    path: str
    data: bytes | None
    mode: int
    user: str
    uid: int
    group: str
    gid: int


def read_archive(path: Path) -> Iterator[Found]:
    """Give the members of an archive, in its order.

    Raises SourceDamaged, also for a member that has no place in a HOME; TrailingBytes behind the last one.
    """
    try:
        with path.open("rb") as file:
            stream = _Unpacked(file)
            with tarfile.open(fileobj=stream, mode="r|") as tar:  # type: ignore[call-overload]
                for header in tar:
                    yield _member(path, tar, header)
            while data := stream.read(_SLICE):
                if not data.strip(b"\0"):
                    continue
                raise TrailingBytes(f"{path} goes on behind the end of its archive")
            if stream.goes_on():
                raise TrailingBytes(
                    f"{path} goes on behind its end: an older file of that name was not truncated",
                    hint="all of its members are whole, though tar ends with an error",
                )
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise SourceDamaged(f"{path} is damaged: {error}") from error
    except OSError as error:
        raise SourceUnusable(f"{path} cannot be read: {error.strerror}") from error


def layouts_of(paths: set[str]) -> list[str]:
    """Tell in which formats a storage may be that has these paths below ``A``: from where x.serial is."""
    return [layout for layout in FORMATS if path_of(SERIAL, layout) in paths]


class _Unpacked:
    """The content of a gzipped file, up to the end of what its writer wrote in one go."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._stream = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def read(self, size: int) -> bytes:
        """Give so many bytes at most; none at the end. Raises EOFError, zlib.error, OSError."""
        while not self._stream.eof:
            packed = self._stream.unconsumed_tail or self._file.read(_SLICE)
            if not packed:
                raise EOFError("it ends in the middle")
            if data := self._stream.decompress(packed, size):
                return data
        return b""

    def goes_on(self) -> bool:
        """Whether the file has anything behind the end; zeros, as tapes have them, do not count."""
        rest = self._stream.unused_data
        while rest:
            if rest.strip(b"\0"):
                return True
            rest = self._file.read(_SLICE)
        return bool(self._file.read(_SLICE).strip(b"\0"))


def _member(path: Path, tar: tarfile.TarFile, header: tarfile.TarInfo) -> Found:
    name = header.name.removeprefix("./").rstrip("/")
    parts = name.split("/")
    if name.startswith("/") or any(part in ("", ".", "..") for part in parts) or "\0" in name:
        raise SourceDamaged(f"{path} has a member that leads out of HOME: {header.name!r}")
    owner = (header.uname, header.uid, header.gname, header.gid)
    if header.isdir():
        if parts[0] not in IN_HOME:
            raise SourceDamaged(f"{path} has a folder that no HOME has: {name!r}")
        return Found(name, None, header.mode, *owner)
    if not header.isfile():
        raise SourceDamaged(f"{path} has a member that is no ordinary file: {name!r}")
    if len(parts) > 1 and parts[0] not in ("A", "config"):
        raise SourceDamaged(f"{path} has a file in a place that no backup has: {name!r}")
    if header.size > MOST_BYTES:
        raise SourceDamaged(f"{path} has a member of {header.size} bytes: {name!r}")
    content = tar.extractfile(header)
    assert content is not None
    data = content.read()
    if len(data) != header.size:
        raise SourceDamaged(f"{path} ends inside of {name!r}")
    return Found(name, data, header.mode, *owner)

"""Data without any configuration: Data.fs files and blob directories where such sites keep them.

``var/filestorage/Data.fs`` with ``var/blobstorage``, as buildout has them; ``filestorage/Data.fs`` with
``blobstorage`` on a container's ``/data``; ``instance/var/filestorage/Data.fs`` with ``instance/var/blobs``;
``var/Data.fs`` of a plain Zope; a Data.fs in the folder itself. A further database NAME is
``filestorage/NAME.fs`` or ``filestorage/NAME/NAME.fs``, its blobs are in ``blobstorage-NAME``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from perdure.formats.filestorage import MAGIC_SIZE, MAGICS
from perdure.site.collecting import Collector, holds_blobs
from perdure.site.found import FILESTORAGE, MAIN, FoundStorage, LeftOut

_PLACES = ("var", ".", "instance/var", "backend/instance/var")
_DATABASES = ("filestorage/*.fs", "filestorage/*/*.fs", "*.fs")
_BLOBS = ("blobstorage", "blobs")


def data_files(folder: Path) -> list[Path]:
    """Give the FileStorages in a folder, where a site without configuration would have them."""
    for place in _PLACES:
        found = [path for pattern in _DATABASES for path in _matching(folder / place, pattern)]
        if found:
            return found
    return []


def add_plain(collector: Collector, folder: Path) -> None:
    """Take the databases that lie in a folder, with their blobs."""
    files = data_files(folder)
    used: set[Path] = set()
    for path in files:
        is_main = path.name == "Data.fs" or len(files) == 1
        blobs = _blobs_of(path, is_main=is_main)
        used |= {blobs} if blobs else set()
        name = MAIN if is_main else path.stem
        found = FoundStorage(name, FILESTORAGE, path, blobs, None, (), f"{path.parent}")
        collector.add((FILESTORAGE, os.path.realpath(path)), found)
    for base in dict.fromkeys(_base_of(path) for path in files):
        for directory in _matching(base, "blob*"):
            if directory not in used and holds_blobs(directory):
                reason = "it is not known which database these blobs belong to"
                collector.left_out.append(LeftOut(directory.name, reason, str(directory)))


def is_part_of_site(path: Path) -> bool:
    """Tell whether a FileStorage lies where sites keep theirs, and not just anywhere."""
    return path.parent.name == "var" or "filestorage" in {path.parent.name, path.parent.parent.name}


def unnamed(paths: list[Path]) -> list[Path]:
    """Give the FileStorages that lie beside some others."""
    named = {os.path.realpath(path) for path in paths}
    beside = {path.parent for path in paths}
    return [
        path
        for folder in sorted(beside)
        for path in _matching(folder, "*.fs")
        if os.path.realpath(path) not in named
    ]


def _blobs_of(path: Path, *, is_main: bool) -> Path | None:
    names = _BLOBS if is_main else tuple(f"{name}-{path.stem}" for name in _BLOBS)
    candidates = (_base_of(path) / name for name in names)
    return next((each for each in candidates if each.is_dir()), None)


def _base_of(path: Path) -> Path:
    """Give the folder that holds ``filestorage`` and ``blobstorage``."""
    for folder in (path.parent, path.parent.parent):
        if folder.name == "filestorage":
            return folder.parent
    return path.parent


def _matching(folder: Path, pattern: str) -> Iterator[Path]:
    for path in sorted(folder.glob(pattern)):
        if path.suffix != ".fs" or _is_file_storage(path):
            yield path


def _is_file_storage(path: Path) -> bool:
    """Tell a FileStorage from other files. What cannot be read or is empty may be one: a backup says so."""
    if path.name == "Data.fs":
        return True
    try:
        with path.open("rb") as file:
            return file.read(MAGIC_SIZE) in MAGICS
    except PermissionError:
        return True
    except OSError:
        return False

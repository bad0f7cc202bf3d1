"""What a site has: its storages, and what is left out of a backup, with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

FILESTORAGE, DIRECTORYSTORAGE, STORAGE = "filestorage", "directorystorage", "storage"
MAIN = "main"
"""Name of the database that holds the root of the site."""


@dataclass(frozen=True, slots=True)
class FoundStorage:
    """A storage of a site, by the name of its database.

    ``kind`` is ``filestorage`` or ``directorystorage`` (then ``path`` is its Data.fs or its HOME, which need
    not exist) or ``storage`` (then ``zconfig`` is the text that `ZODB.config.storageFromString` opens).
    ``blobs`` is the directory that holds the blobs themselves, never a client's cache. ``origin`` is the
    place in a configuration.
    """

    name: str
    kind: str
    path: Path | None
    blobs: Path | None
    zconfig: str | None
    mount_points: tuple[str, ...]
    origin: str


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Something that a configuration or a folder has and that is not backed up, and why."""

    name: str
    reason: str
    origin: str


@dataclass(frozen=True, slots=True)
class Site:
    """The storages that belong together, in the order of backup: the main one last."""

    root: Path
    storages: tuple[FoundStorage, ...]
    left_out: tuple[LeftOut, ...]

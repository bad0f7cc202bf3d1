"""Collecting the storages that configurations name: each once, under a name of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from perdure.errors import UsageError
from perdure.repository.processes import host_name
from perdure.site.databases import (
    CLIENTS,
    IN_MEMORY,
    Innermost,
    innermost,
    opening_text,
    storages_of_database,
    storages_of_server,
)
from perdure.site.found import (
    DIRECTORYSTORAGE,
    FILESTORAGE,
    MAIN,
    STORAGE,
    FoundStorage,
    LeftOut,
    Site,
)
from perdure.site.servers import FIRST, served
from perdure.site.zconfig import Configuration, Section

_MOST_HOPS = 4
"""ZEO servers that serve what another one serves."""
_MOST_STEPS = 10_000
_CACHE_LAYOUT = "zeocache"
"""What a cache of blobs has in its file ``.layout``."""


@dataclass(frozen=True, slots=True)
class _Use:
    """A database that a configuration names, or a storage that it serves."""

    configuration: Configuration
    name: str
    mount_points: tuple[str, ...] = ()
    database: Section | None = None


class Collector:
    """What has been found of a site. A ZEO client leads to a storage of one of ``servers``, if it can."""

    def __init__(
        self, root: Path, environment: Mapping[str, str], servers: Sequence[Configuration] = ()
    ) -> None:
        self.root = root
        self.left_out: list[LeftOut] = []
        self._environment = environment
        self._servers = servers
        self._found: dict[object, FoundStorage] = {}
        self._this_host = host_name()
        self._steps = 0

    def add_databases(self, configuration: Configuration) -> None:
        """Take the databases of a zope.conf. Raises UsageError."""
        self._note_unread(configuration)
        for database in configuration.databases():
            mounted = tuple(database.all("mount-point"))
            use = _Use(configuration, database.name or MAIN, mounted, database)
            for storage in storages_of_database(database):
                self._add(use, storage)

    def add_server(self, configuration: Configuration) -> None:
        """Take what a zeo.conf serves. Raises UsageError."""
        self._note_unread(configuration)
        for section in storages_of_server(configuration.top):
            for storage in innermost(section):
                self._add(_Use(configuration, section.name or FIRST), storage)

    def add(self, key: object, storage: FoundStorage, instance: str = "") -> None:
        """Take a storage, known by ``key``; one that is known already is only told of what is new.

        Where its name is taken, that of the instance that names it is put behind it.
        """
        known = self._found.get(key)
        if known is None:
            self._found[key] = replace(storage, name=self._free_name(storage.name, instance))
            return
        mounted = dict.fromkeys((*known.mount_points, *storage.mount_points))
        blobs = known.blobs or storage.blobs
        self._found[key] = replace(known, mount_points=tuple(mounted), blobs=blobs)

    def site(self) -> Site:
        """Give all that was found, the main storage last."""
        found = list(self._found.values())
        main = _main_of(found)
        if main is not None:
            found.remove(main)
            found.sort(key=_holds_root)
            found.append(replace(main, name=MAIN))
        return Site(self.root, tuple(found), tuple(dict.fromkeys(self.left_out)))

    def place(self, file: Path, line: int) -> str:
        """Say where in which file something stands."""
        inside = file.relative_to(self.root) if file.is_relative_to(self.root) else file
        return f"{inside}, line {line}"

    def path(self, value: str) -> Path:
        """Give the path that a configuration means."""
        home = self._environment.get("HOME", "")
        if home and (value == "~" or value.startswith("~/")):
            value = home + value[1:]
        return self.root / value

    def _add(self, use: _Use, storage: Innermost, hops: int = 0) -> None:
        section = storage.section
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise UsageError(f"{use.configuration.path} names more than {_MOST_STEPS} storages")
        if section.kind in CLIENTS and hops < _MOST_HOPS:
            here = served(section, self._servers, self._this_host)
            if here:
                blobs = section.get("blob-dir") if section.flag("shared-blob-dir") else None
                for inner in innermost(here[1]):
                    merged = replace(
                        inner, suffix=storage.suffix + inner.suffix, blobs=inner.blobs or blobs
                    )
                    self._add(replace(use, configuration=here[0]), merged, hops + 1)
                return
        name = use.name + storage.suffix
        if section.kind in IN_MEMORY:
            self._leave_out(name, f"a {section.kind} is kept in memory", section)
            return
        if storage.bucket:
            reason = f"a <{storage.bucket.kind}> keeps them in a bucket, which is not copied"
            self._leave_out(f"blobs of {name}", reason, storage.bucket)
        mounted = () if storage.suffix else use.mount_points
        if section.kind in (FILESTORAGE, DIRECTORYSTORAGE):
            key, found = self._in_files(storage, name, mounted)
        else:
            key, found = self._other(use, storage, name, mounted)
        self.add(key, found, _instance_of(use.configuration.path))

    def _in_files(
        self, storage: Innermost, name: str, mounted: tuple[str, ...]
    ) -> tuple[object, FoundStorage]:
        section = storage.section
        value = section.get("path")
        if value is None:
            raise UsageError(
                f"{section.file}, line {section.line}: a <{section.kind}> without a path"
            )
        path = self.path(value)
        blobs = section.get("blob-dir") or storage.blobs
        found = FoundStorage(
            name,
            section.kind,
            path,
            self.path(blobs) if blobs and not storage.bucket else None,
            None,
            mounted,
            self.place(section.file, section.line),
        )
        return (section.kind, os.path.realpath(path)), found

    def _other(
        self, use: _Use, storage: Innermost, name: str, mounted: tuple[str, ...]
    ) -> tuple[object, FoundStorage]:
        section = storage.section
        value = section.get("blob-dir") or storage.blobs
        blobs = self.path(value) if value and not storage.bucket else None
        shared = section.flag("shared-blob-dir")
        if shared is None and section.kind == "relstorage" and blobs and holds_blobs(blobs):
            # RelStorage 3 shares unless told otherwise, later ones do not.
            shared = True
            section = replace(section, values=[*section.values, ("shared-blob-dir", "true")])
        if not shared and section.get("blob-dir"):
            blobs = None
        found = FoundStorage(
            name,
            STORAGE,
            None,
            blobs,
            opening_text(section, use.database, use.configuration.top),
            mounted,
            self.place(section.file, section.line),
        )
        return _identity(section), found

    def _note_unread(self, configuration: Configuration) -> None:
        for target, line in configuration.unread:
            place = self.place(configuration.path, line)
            self.left_out.append(LeftOut(target, "it is included, but is no file to read", place))

    def _leave_out(self, name: str, reason: str, section: Section) -> None:
        self.left_out.append(LeftOut(name, reason, self.place(section.file, section.line)))

    def _free_name(self, name: str, instance: str) -> str:
        taken = {each.name for each in self._found.values()}
        if name in taken and instance:
            name = f"{name}-{instance}"
        free, number = name, 2
        while free in taken:
            free = f"{name}-{number}"
            number += 1
        return free


def _main_of(found: Sequence[FoundStorage]) -> FoundStorage | None:
    """Give the storage that holds the root of the site, if that can be told."""
    mounted = [each for each in found if each.mount_points]
    candidates = (
        *(each for each in found if each.name == MAIN),
        *(each for each in mounted if _holds_root(each)),
        *(each for each in found if not mounted and each.name == FIRST),
        *(each for each in found if len(found) == 1 and not mounted),
        *(each for each in found if not mounted and each.path and each.path.name == "Data.fs"),
    )
    return next(iter(candidates), None)


def _holds_root(storage: FoundStorage) -> bool:
    return any(point.partition(":")[0] == "/" for point in storage.mount_points)


def _identity(section: Section) -> object:
    """Give what tells two storages apart, whatever caches and sizes their clients have."""
    if section.kind in CLIENTS:
        return section.kind, (section.get("storage") or FIRST), frozenset(section.all("server"))
    server = (section.get("dsn"), *(inner.text() for inner in section.sections))
    return (section.kind, *server) if any(server) else section.text()


def holds_blobs(folder: Path) -> bool:
    """Tell whether a directory holds blobs, and not a cache of them, by its ``.layout``."""
    try:
        with (folder / ".layout").open("rb") as file:
            layout = file.read(64).strip()
    except OSError:
        return False
    return layout != _CACHE_LAYOUT.encode()


def _instance_of(path: Path) -> str:
    """Give the name of the instance that a configuration belongs to: NAME in NAME/etc/zope.conf."""
    return path.parent.parent.name if path.parent.name == "etc" else path.stem

"""From options to the settings of a part: every path absolute, every contradiction found.

Relative locations are relative to the prefix, the prefix and the sources to the folder of the site. Where
nothing says otherwise the prefix is the site's ``var``, and the sources are those that were found there.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from perdure.config.site import SiteSection
from perdure.dropin.recipe.naming import folder_name
from perdure.dropin.recipe.part import Hooks, Keeping, Kind, Manner, Part, Place, Storage
from perdure.errors import UsageError

_LOCATIONS = {
    Kind.BACKUP: ("location", "blobbackuplocation"),
    Kind.SNAPSHOT: ("snapshotlocation", "blobsnapshotlocation"),
    Kind.ZIP: ("ziplocation", "blobziplocation"),
}
_MAIN_NAMES = ("data", "1")
"""What an alternative source may call the main storage."""
_RULES = ("last", "hourly", "daily", "weekly", "monthly", "yearly")


@dataclass(frozen=True, slots=True)
class Around:
    """What is known of the site before its options: its folders, and what was found in it."""

    base: Path
    """The folder above ``bin``."""
    var: Path
    datafs: Path | None = None
    blobs: Path | None = None
    additional: Mapping[str, tuple[Path, Path | None]] = field(default_factory=dict)
    """Databases, with their blobs, by name; backed up unless the option names others."""


def settle(options: SiteSection, around: Around) -> Part:
    """Give the part that options say. Raises UsageError for what contradicts itself or is missing."""
    _check(options)
    base, var = around.base, options.var_dir or around.var
    prefix = base / (options.locationprefix or var)
    places = {
        kind.value: Place(
            *(
                _absolute(prefix / (getattr(options, name) or folder_name(name, options.name)))
                for name in names
            )
        )
        for kind, names in _LOCATIONS.items()
    }
    datafs = base / (options.datafs or around.datafs or var / "filestorage" / "Data.fs")
    blobs = options.blob_storage or around.blobs
    if options.backup_blobs and blobs is None:
        raise UsageError(
            "no blob storage was found",
            hint="say where the blobs are with blob_storage, or set backup_blobs = false",
        )
    storages = (
        *(
            each
            for each in _additional(options, around, datafs)
            if each.blobs or not options.only_blobs
        ),
        Storage("", _absolute(datafs), _absolute(base / blobs) if blobs else None),
    )
    part = Part(
        name=options.name,
        base=str(base),
        storages=storages,
        places=places,
        alternative=dict(_alternatives(options, base, storages)),
        databases=not options.only_blobs,
        blobs=options.backup_blobs,
        manner=_manner(options),
        keeping=_keeping(options),
        hooks=_hooks(options),
        lock_timeout=options.lock_timeout.total_seconds(),
        debug=options.debug,
        repository=_repository(options, base),
        password_file=_absolute(base / options.password_file) if options.password_file else None,
        files=options.repository is None or options.keep_files,
        commands=tuple(_commands(options)),
    )
    _check_places(part)
    return part


def _check(options: SiteSection) -> None:
    if options.only_blobs and not options.backup_blobs:
        raise UsageError("backup_blobs = false and only_blobs = true leave nothing to back up")
    if options.enable_zipbackup and not options.backup_blobs:
        raise UsageError("enable_zipbackup = true needs blobs, and backup_blobs is false")
    if options.incremental_blobs and not options.blob_timestamps:
        raise UsageError("incremental_blobs = true needs names with times: blob_timestamps = true")
    if options.repository is not None and options.only_blobs:
        raise UsageError(
            "a repository takes databases with their blobs, and only_blobs = true is set",
            hint="the blobs of a RelStorage go there with: perdure backup --storage",
        )
    if not options.keep and any(getattr(options, f"keep_{rule}") for rule in _RULES):
        raise UsageError(
            "keep = 0 keeps all backups, and other keep_ options say which to keep",
            hint="set keep to the number of full backups that are kept in any case",
        )
    if not options.name or "/" in options.name or options.name.startswith("."):
        raise UsageError(f"{options.name!r} cannot be the name of a part: folders have it")


def _additional(options: SiteSection, around: Around, datafs: Path) -> Iterator[Storage]:
    """Give the storages beside the main one. Raises UsageError."""
    lines = [line.strip() for line in options.additional_filestorages]
    given: dict[str, Storage] = {}
    for line in lines:
        name, *paths = _words(line, "additional_filestorages")
        if len(paths) > 2 or "/" in name or name.startswith("."):
            raise UsageError(
                f"additional_filestorages: {line!r} is not NAME [PATH [BLOBS]]",
                hint="put a path with spaces into quotes",
            )
        path = around.base / paths[0] if paths else datafs.with_name(f"{name}.fs")
        blobs = _absolute(around.base / paths[1]) if len(paths) > 1 else None
        storage = Storage(name, _absolute(path), blobs)
        if given.setdefault(name, storage) != storage:
            raise UsageError(f"additional_filestorages names {name} twice, with different paths")
    yield from given.values()
    if not lines:
        for name, (path, blobs_found) in around.additional.items():
            yield Storage(name, _absolute(path), _absolute(blobs_found) if blobs_found else None)


def _alternatives(
    options: SiteSection, base: Path, storages: tuple[Storage, ...]
) -> Iterator[tuple[str, Place]]:
    """Give where altrestore finds each storage. Raises UsageError."""
    lines = [line.strip() for line in options.alternative_restore_source]
    seen = set()
    known = {storage.name: storage for storage in storages}
    for line in lines:
        if line.startswith("#"):
            continue
        given, *paths = _words(line, "alternative_restore_source")
        name = "" if given.lower() in _MAIN_NAMES and given not in known else given
        if not 1 <= len(paths) <= 2:
            raise UsageError(
                f"alternative_restore_source: {line!r} is not NAME BACKUPS [BLOBBACKUPS]"
            )
        if name not in known or name in seen:
            why = "twice" if name in seen else "which is no storage of this part"
            raise UsageError(
                f"alternative_restore_source names {given}, {why}",
                hint=f"there are: {', '.join(each or 'Data' for each in known)}",
            )
        seen.add(name)
        wanted = options.backup_blobs and known[name].blobs is not None
        if wanted != (len(paths) == 2):
            what = "lacks the folder of the blobs" if wanted else "has a folder of blobs too many"
            raise UsageError(f"alternative_restore_source: {line!r} {what}")
        yield name, Place(*(_absolute(base / path) for path in paths), *([""] * (2 - len(paths))))
    if seen and (left := known.keys() - seen):
        raise UsageError(
            f"alternative_restore_source says nothing of {', '.join(sorted(left)) or 'Data'}",
            hint="all storages are restored together: give a line for each",
        )


def _words(line: str, option: str) -> list[str]:
    try:
        words = shlex.split(line)
    except ValueError as error:
        raise UsageError(f"{option}: {line!r} cannot be read: {error}") from None
    if not words:
        raise UsageError(f"{option} has an empty line")
    return words


def _manner(options: SiteSection) -> Manner:
    return Manner(
        full=options.full,
        gzip=options.gzip,
        quick=options.quick,
        archive=options.archive_blob,
        compress=options.archive_blob and options.compress_blob,
        incremental=options.archive_blob and options.incremental_blobs,
        stamps=options.blob_timestamps,
        links=options.use_rsync,
        rsync=tuple(_words(options.rsync_options, "rsync_options"))
        if options.rsync_options
        else (),
        link_first=options.rsync_hard_links_on_first_copy,
    )


def _keeping(options: SiteSection) -> Keeping:
    rules: dict[str, Any] = {rule: int(getattr(options, f"keep_{rule}") or 0) for rule in _RULES}
    return Keeping(fulls=options.keep, blob_days=options.keep_blob_days, **rules)


def _hooks(options: SiteSection) -> Hooks:
    return Hooks(
        pre=options.pre_command or "",
        post=options.post_command or "",
        failed=options.failed_command or "",
        last=options.finally_command or "",
        timeout=options.command_timeout.total_seconds(),
    )


def _repository(options: SiteSection, base: Path) -> str | None:
    location = options.repository
    if location is None or location.is_url:
        return location
    return _absolute(base / location)


def _commands(options: SiteSection) -> Iterator[str]:
    yield "backup"
    if options.enable_fullbackup:
        yield "fullbackup"
    yield "snapshotbackup"
    if options.enable_zipbackup:
        yield "zipbackup"
    yield "restore"
    if options.enable_snapshotrestore:
        yield "snapshotrestore"
    if options.enable_zipbackup:
        yield "ziprestore"
    if options.alternative_restore_source:
        yield "altrestore"


def _check_places(part: Part) -> None:
    """Raise UsageError where two folders of backups are the same, or one is within what is backed up."""
    folders = {
        name: Path(path)
        for kind, names in _LOCATIONS.items()
        for name, path in zip(
            names, (part.places[kind.value].files, part.places[kind.value].blobs), strict=True
        )
    }
    for (one, first), (other, second) in combinations(folders.items(), 2):
        if first == second:
            raise UsageError(f"{one} and {other} are the same folder: {first}")
    for name, folder in folders.items():
        for storage in part.storages:
            if storage.blobs and folder.is_relative_to(storage.blobs):
                raise UsageError(f"{name} is {folder}, in the blob storage {storage.blobs} itself")
            if folder == Path(storage.datafs).parent:
                raise UsageError(f"{name} is {folder}, where {Path(storage.datafs).name} itself is")
        if folder == Path(part.base):
            raise UsageError(f"{name} is {folder}, the folder of the site itself")


def _absolute(path: Path) -> str:
    """Give a path without ``..`` and the like; links in it stay."""
    return os.path.normpath(path.absolute())

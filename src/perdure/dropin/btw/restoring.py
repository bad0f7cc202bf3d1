"""Getting a backup back: which one a time means, and writing it out, whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from perdure.dropin.btw import archives, dumps, offsite, rdiff
from perdure.dropin.btw.bucket import Remote
from perdure.dropin.btw.children import Children
from perdure.dropin.btw.destination import Contents, Repository, TarFile, sync_all
from perdure.dropin.btw.names import SCRATCH, TBZ, time_name, time_of
from perdure.dropin.btw.repository import DATA, Condition, sessions_in
from perdure.errors import PerdureError, SourceUnusable, UsageError
from perdure.sources.durable import sync_directory
from perdure.sources.scratch import scratch_folder

ARCHIVE = "backup.tar"


@dataclass(frozen=True, slots=True)
class Version:
    """A state of what was backed up. ``time`` is what it is called, ``session`` rdiff-backup's own time."""

    backup: TarFile | Repository
    time: datetime
    session: datetime


@dataclass(frozen=True, slots=True)
class Form:
    """How a version is written: unpacked, or the file as it was kept; or into a new database."""

    archive: bool = False
    database: str | None = None


def versions_of(contents: Contents) -> Iterator[Version]:
    """Give all versions, the oldest first."""
    for backup in contents.backups:
        if isinstance(backup, TarFile):
            yield Version(backup, backup.time, backup.time)
        else:
            for called, session in zip(backup.versions, backup.sessions.times, strict=True):
                yield Version(backup, called, session)


def choose(contents: Contents, at: datetime | None) -> Version:
    """Give the newest version that is not after a time. Raises SourceUnusable."""
    versions = list(versions_of(contents))
    if not versions:
        raise SourceUnusable("there is no backup at that destination")
    fitting = [version for version in versions if at is None or version.time <= at]
    if not fitting:
        raise SourceUnusable(
            f"there is no backup of {time_name(at) if at else ''} or before",
            hint=f"the oldest one is of {time_name(versions[0].time)}",
        )
    return max(fitting, key=lambda version: version.time)


def contents_there(remote: Remote, destination: str) -> Contents:
    """Give what the copy of a destination has. Raises StoreError."""
    backups: list[TarFile | Repository] = []
    names = {
        each.name.removeprefix(f"{destination}/").split("/")[0]
        for each in remote.objects(destination)
    }
    for name in sorted(names):
        time = time_of(name)
        path = Path(destination, name)
        if time and name.endswith(TBZ):
            backups.append(TarFile(path, time))
        elif time:
            inside = offsite.sources_of(remote, f"{destination}/{name}")
            found = sessions_in(each.removeprefix(f"{DATA}/") for each in inside)
            if found.condition is not Condition.UNFINISHED:
                backups.append(Repository(path, time, found))
    return Contents(tuple(backups), ())


def fetch(remote: Remote, version: Version, scratch: Path) -> Version:
    """Bring the copy of a version here, into a folder. Raises StoreError, OSError."""
    path = scratch / version.backup.path.name
    if isinstance(version.backup, TarFile):
        remote.fetch(str(version.backup.path), path)
        return Version(TarFile(path, version.time), version.time, version.session)
    offsite.fetch_repository(remote, str(version.backup.path), path)
    found = Repository(path, version.backup.time, version.backup.sessions)
    return Version(found, version.time, version.session)


def kept_file(children: Children, version: Version, scratch: Path) -> Path:
    """Give the file that a version consists of: an archive or a dump, restored into ``scratch`` if need be.

    Raises DamageFound, PerdureError, OSError.
    """
    backup = version.backup
    if isinstance(backup, TarFile):
        return backup.path
    if backup.sessions.condition is Condition.INTERRUPTED:
        rdiff.take_back(children, backup.path)
    target = scratch / backup.file.name
    rdiff.restore_file(children, backup.file, version.session, target)
    return target


def read_through(children: Children, file: Path) -> None:
    """Read an archive or a dump to its end. Raises PerdureError for one that is not whole."""
    if file.name == ARCHIVE or file.name.endswith(TBZ):
        archives.check_archive(children, file)
    else:
        dumps.content_of(children, file)


def restore(children: Children, version: Version, target: Path | None, form: Form) -> str:
    """Restore a version; says what was made. Raises UsageError, PerdureError, OSError."""
    beside = (
        (target.parent if target else Path())
        if form.database is None
        else version.backup.path.parent
    )
    with scratch_folder(beside, SCRATCH) as scratch:
        if form.database is not None:
            file = kept_file(children, version, scratch)
            if not file.name.endswith(".dump"):
                raise UsageError(
                    "no database can be made of this",
                    hint="restore it to a file; psql runs globals",
                )
            dumps.restore_database(children, file, form.database)
            return f"database {form.database}"
        if target is None:
            raise UsageError("nothing says where to restore to")
        _refuse_in_use(target)
        file = kept_file(children, version, scratch)
        if form.archive or not (file.name == ARCHIVE or file.name.endswith(TBZ)):
            read_through(children, file)
            return str(_place_file(file, target, scratch))
        unpacked = scratch / "unpacked"
        unpacked.mkdir()
        archives.unpack(children, file, unpacked)
        _place(unpacked, target)
        return str(target)


def _refuse_in_use(target: Path) -> None:
    if target.is_symlink() or (target.exists() and not target.is_dir()):
        raise UsageError(f"{target} is there already", hint="name something that is not")
    if target.is_dir() and any(target.iterdir()):
        raise UsageError(f"{target} is not empty", hint="name a new directory, or an empty one")


def _place_file(file: Path, target: Path, scratch: Path) -> Path:
    place = target / file.name if target.is_dir() else target
    made = scratch / "file"
    if file.parent == scratch:
        file.rename(made)
    else:
        shutil.copyfile(file, made)
    _place(made, place)
    return place


def _place(made: Path, target: Path) -> None:
    sync_all(made)
    try:
        made.rename(target)
    except OSError as error:
        raise PerdureError(f"cannot make {target}: {error.strerror}") from error
    sync_directory(target.parent)

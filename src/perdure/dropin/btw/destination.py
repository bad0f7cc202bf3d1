"""A destination below ROOT_PATH: the backups in it, and putting another one there, whole or not at all."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from perdure.dropin.btw.names import LOG, TBZ, UNFINISHED, time_name, time_of
from perdure.dropin.btw.repository import DATA, TEMPORARY, Condition, Sessions, sessions_in
from perdure.errors import DamageFound, UsageError
from perdure.sources.durable import Owner, give, sync_directory, write_all

_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class TarFile:
    """A ``.tbz`` file."""

    path: Path
    time: datetime


@dataclass(frozen=True, slots=True)
class Repository:
    """An rdiff-backup repository: a full backup, and what was added to it."""

    path: Path
    time: datetime
    """Its name; its first session may have been a second later."""
    sessions: Sessions

    @property
    def file(self) -> Path:
        """The one file that it keeps, as it was last. Raises DamageFound."""
        names = (DATA, TEMPORARY)
        entries = [entry for entry in self.path.iterdir() if not entry.name.startswith(names)]
        if len(entries) != 1 or not entries[0].is_file() or entries[0].is_symlink():
            raise DamageFound(f"{self.path} does not hold exactly one file")
        return entries[0]

    @property
    def versions(self) -> tuple[datetime, ...]:
        """The times by which its states are called: the first one by the directory's name."""
        return (self.time, *self.sessions.times[1:]) if self.sessions.times else ()


@dataclass(frozen=True, slots=True)
class Contents:
    """What is in a destination, the oldest first."""

    backups: tuple[TarFile | Repository, ...]
    unfinished: tuple[Path, ...]
    """Directories that never became a backup: btw-backup was killed in the first session."""

    @property
    def last_tar(self) -> TarFile | None:
        """The newest tar file."""
        return next((each for each in reversed(self.backups) if isinstance(each, TarFile)), None)

    @property
    def last_repository(self) -> Repository | None:
        """The newest repository."""
        return next((each for each in reversed(self.backups) if isinstance(each, Repository)), None)

    @property
    def newest(self) -> datetime | None:
        """The time of the newest version of anything."""
        times = [each.time for each in self.backups]
        for each in self.backups:
            times += each.sessions.times if isinstance(each, Repository) else ()
        return max(times, default=None)


class Destination:
    """A directory below ROOT_PATH."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        self.name = name
        self.path = root / name
        if not self.path.is_dir():
            raise UsageError(
                f"there is no directory {self.path}", hint="make it; btw-backup makes none"
            )

    def contents(self) -> Contents:
        """Look at the names in it. Raises OSError."""
        backups: list[TarFile | Repository] = []
        unfinished = []
        for entry in sorted(self.path.iterdir()):
            time = time_of(entry.name)
            if time is None or entry.is_symlink():
                continue
            if entry.name.endswith(TBZ):
                if entry.is_file():
                    backups.append(TarFile(entry, time))
            elif entry.is_dir():
                sessions = sessions_in(_names_in(entry / DATA))
                if sessions.condition is Condition.UNFINISHED:
                    unfinished.append(entry)
                else:
                    backups.append(Repository(entry, time, sessions))
        return Contents(tuple(backups), tuple(unfinished))

    def next_time(self, now: datetime, contents: Contents) -> datetime:
        """Give the time of the next backup: now, but later than all there are, whatever the clock says."""
        whole = now.astimezone(UTC).replace(microsecond=0)
        return max(
            [
                whole,
                *(
                    time + _SECOND
                    for time in [contents.newest, *map(_time, contents.unfinished)]
                    if time
                ),
            ]
        )

    def unfinished(self, name: str) -> Path:
        """Give the path under which something is made that will be called ``name``."""
        return self.path / f"{UNFINISHED}{name}"

    def clear(self) -> None:
        """Remove what killed runs left behind, under names that are never those of a backup."""
        for entry in self.path.iterdir():
            if entry.name.startswith(UNFINISHED):
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()

    def publish(self, made: Path, name: str, owner: Owner | None) -> None:
        """Give what is complete its name, durably."""
        sync_all(made)
        give_all(made, owner)
        made.rename(self.path / name)
        sync_directory(self.path)

    def log(self, line: str, owner: Owner | None) -> None:
        """Append a line to ``log.txt``, durably."""
        path = self.path / LOG
        new = not path.exists()
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            end = os.fstat(descriptor).st_size
            torn = end > 0 and os.pread(descriptor, 1, end - 1) != b"\n"
            before = b"\n" if torn else b""
            write_all(descriptor, before + line.encode() + b"\n", end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        give(path, owner)
        if new:
            sync_directory(self.path)

    def listing(self) -> Iterator[str]:
        """Give the lines that ``list`` prints."""
        for backup in self.contents().backups:
            yield backup.path.name
            if isinstance(backup, Repository):
                yield from (f" {time_name(time)}" for time in backup.versions[1:])


def _time(path: Path) -> datetime | None:
    return time_of(path.name)


def _names_in(path: Path) -> Sequence[str]:
    try:
        return [entry.name for entry in path.iterdir()]
    except (FileNotFoundError, NotADirectoryError):
        return ()


def sync_all(path: Path) -> None:
    """Make a file, or a directory with all that is in it, durable."""
    if not path.is_dir():
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    for entry in path.iterdir():
        if entry.is_dir() or entry.is_file():
            sync_all(entry)
    sync_directory(path)


def give_all(path: Path, owner: Owner | None) -> None:
    """Give a file, or a directory with all that is in it, to its owner."""
    if owner is None:
        return
    give(path, owner)
    if path.is_dir() and not path.is_symlink():
        for entry in path.iterdir():
            give_all(entry, owner)

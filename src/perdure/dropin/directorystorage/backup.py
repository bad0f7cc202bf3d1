"""Backup as DirectoryStorage's tool makes it: archives in ``HOME/backups``, and a row in its index.

The archives are whole and on the disk under temporary names, then they get their names, then the row is
written: a row never promises what is not there. A run that is stopped before has made nothing, and the
next one removes what it left. One that is stopped between names and row leaves archives that no row
names; their number is not used again.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.directorystorage.archive import write_archive
from perdure.dropin.directorystorage.locks import LockTaken
from perdure.dropin.directorystorage.members import LivingContents, StillContents
from perdure.errors import PerdureError, SourceUnusable, UsageError
from perdure.formats.directorystorage_archive import (
    DEFAULT_PREFIX,
    INDEX_HEADER,
    MOST_INDEX_BYTES,
    TEMPORARY,
    ArchiveName,
    Row,
    next_number,
    parse_index,
    reference_of,
)
from perdure.formats.directorystorage_settings import FULL
from perdure.model import Observer, Tid
from perdure.sources.directorystorage.home import Home, list_names, read_file
from perdure.sources.durable import give, owner_for, sync_directory, write_new

INDEX = "tindex"


@dataclass(frozen=True, slots=True)
class Request:
    """One thing that is asked for: a full backup, or an increment on what there was at a time."""

    prefix: str = DEFAULT_PREFIX
    since: int | None = None
    """Seconds since 1970; None: a full backup."""


@dataclass(frozen=True, slots=True)
class Planned:
    """An archive to be made, or why none is; ``after``: the tid that an increment begins behind."""

    reason: str
    name: ArchiveName | None = None
    after: int | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a run made: archives, the tid that they include, and damage that is inside them."""

    planned: tuple[Planned, ...]
    row: Row | None
    size: int = 0
    damage: tuple[str, ...] = ()


class PackedSince(PerdureError):
    """The storage was packed since what an increment is to refer to."""


def plan_archives(
    requests: Sequence[Request],
    rows: Sequence[Row],
    archives: Sequence[ArchiveName],
    serial: int,
    packed: int,
) -> tuple[Planned, ...]:
    """Decide what archives to make. Raises PackedSince."""
    number = next_number(rows, archives)
    planned: list[Planned] = []
    for request in requests:
        with_full = any(each.name and each.name.reference is None for each in planned)
        planned.append(_plan(request, number, rows, serial, packed, with_full=with_full))
    return tuple(planned)


def backup(
    home: Home,
    requests: Sequence[Request],
    timestamp: int,
    observer: Observer,
    *,
    live: bool = False,
    dry_run: bool = False,
) -> Report:
    """Make archives of a storage that the caller holds still, or, ``live``, of one that goes on.

    ``timestamp``: when the snapshot was asked for, seconds since 1970. Raises SourceUnusable, SourceDamaged,
    PackedSince, LockTaken, OSError.
    """
    if home.settings.classname != FULL:
        raise SourceUnusable(
            f"{home.path} is of class {home.settings.classname}, which has no transactions to tell one"
            " backup from the next",
            hint="hold it still and copy A: perdure directorystorage snapshot",
        )
    folder = home.path / "backups"
    if not folder.is_dir():
        raise SourceUnusable(
            f"there is no folder {folder}",
            hint=f"make it: mkdir {folder}; it may be a link to another disk",
        )
    with _alone(folder):
        if not live:  # nobody else works here, the older tool neither
            _remove_halves(folder)
        rows = read_index(folder)
        contents = LivingContents(home) if live else StillContents(home)
        planned = plan_archives(
            requests, rows, archives_in(folder), contents.serial, contents.packed
        )
        names = [each.name for each in planned if each.name]
        if dry_run or not names:
            return Report(planned, None)
        size = _write_all(folder, planned, contents, observer)
        row = Row(names[0].number, timestamp, contents.serial)
        _commit(folder, names, rows, row)
    return Report(planned, row, size, tuple(contents.damage))


def archives_in(folder: Path) -> list[ArchiveName]:
    """List the archives in a folder, by their names. Raises SourceUnusable."""
    names = (ArchiveName.parse(name) for name in list_names(folder))
    return [name for name in names if name]


def read_index(folder: Path) -> list[Row]:
    """Read the index in a folder of archives; no rows where there is none. Raises SourceDamaged."""
    raw = read_file(folder / INDEX, MOST_INDEX_BYTES)
    return parse_index((raw or b"").decode("utf-8", "replace"), str(folder / INDEX))


def _plan(
    request: Request, number: int, rows: Sequence[Row], serial: int, packed: int, *, with_full: bool
) -> Planned:
    if request.since is None:
        return Planned("all of it", ArchiveName(request.prefix, None, number))
    row = reference_of(rows, request.since)
    if row is None:
        return Planned("there is no backup that an increment could refer to")
    if not packed <= row.tid <= serial:
        why = "has been packed since" if row.tid < packed else "is older than"
        raise PackedSince(
            f"the storage {why} backup {row.number}, that an increment is to refer to:"
            f" its last transaction is {Tid(row.tid)}",
            hint="make a full backup; pack with more days than an increment reaches back",
        )
    if row.tid == serial and not with_full:
        return Planned(f"nothing was committed since backup {row.number}")
    name = ArchiveName(request.prefix, row.number, number)
    return Planned(f"what was committed since backup {row.number}", name, row.tid)


def _write_all(
    folder: Path, planned: Sequence[Planned], contents: StillContents, observer: Observer
) -> int:
    """Write the archives under temporary names; gives their size together."""
    size, written = 0, []
    try:
        for each in planned:
            if each.name is None:
                continue
            half = folder / f"{TEMPORARY}{each.name}"
            members = (
                contents.full()
                if each.after is None
                else contents.increment(each.after)
                if each.after < contents.serial
                else iter(())
            )
            written.append(half)
            count = write_archive(half, members)
            size += half.stat().st_size
            observer.progress(f"{each.name}: {count} members", 1, 1)
        contents.finish()
    except BaseException:
        for half in written:
            half.unlink(missing_ok=True)
        raise
    return size


def _commit(folder: Path, names: Sequence[ArchiveName], rows: Sequence[Row], row: Row) -> None:
    for name in names:
        if (folder / str(name)).exists():
            raise UsageError(f"{folder / str(name)} is there already")
        os.rename(folder / f"{TEMPORARY}{name}", folder / str(name))
    sync_directory(folder)
    _append(folder, row, is_new=not rows)


def _remove_halves(folder: Path) -> None:
    for name in list_names(folder):
        if name.startswith(TEMPORARY) and ArchiveName.parse(name.removeprefix(TEMPORARY)):
            (folder / name).unlink()


def _append(folder: Path, row: Row, *, is_new: bool) -> None:
    """Write the index with one more row; comments and everything else in it stay."""
    path = folder / INDEX
    raw = read_file(path, MOST_INDEX_BYTES)
    if raw is None:
        assert is_new
        raw = INDEX_HEADER.encode()
    if raw and not raw.endswith(b"\n"):
        raw += b"\n"
    half = folder / f"{TEMPORARY}{INDEX}"
    descriptor = write_new(half, [raw, f"{row}\n".encode()])
    try:
        mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    give(half, owner_for(folder))
    os.replace(half, path)
    sync_directory(folder)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Keep other runs out, which without a snapshot have no lock in common. Raises LockTaken."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise LockTaken(f"another backup writes to {folder}") from None
        yield
    finally:
        os.close(descriptor)

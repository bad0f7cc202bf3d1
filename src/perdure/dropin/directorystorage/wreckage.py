"""A copy of everything: of a storage that was shut down in an incoherent state, or crashed.

``A``, ``B`` and the journal belong together then, and only while nobody has the storage open. The copy is
for looking at it later; unpacked into an empty folder, it is a HOME that the storage rolls forward when
it starts. The archives in ``backups`` are left out, and nothing is judged: damaged files are copied as
they are.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from perdure.dropin.directorystorage.archive import write_archive
from perdure.dropin.directorystorage.locks import locked
from perdure.dropin.directorystorage.members import Member
from perdure.errors import UsageError
from perdure.formats.directorystorage import MOST_BYTES
from perdure.model import Observer
from perdure.sources.directorystorage.home import LOCK, SUBLOCK, Home, read_file, unreadable
from perdure.sources.durable import sync_directory

_LEFT_OUT = "backups"


def copy_wreckage(home: Home, archive: Path, observer: Observer) -> int:
    """Write an archive (gzipped tar) of a HOME that nobody has open; gives the number of its members.

    Raises LockTaken when somebody has it open, UsageError when the archive is there already,
    SourceUnusable, OSError.
    """
    if archive.exists():
        raise UsageError(f"{archive} is there already", hint="give another name")
    half = archive.with_name(f".tmp-{archive.name}")
    with locked(home.path, LOCK), locked(home.path, SUBLOCK):
        count = write_archive(half, _everything(home, observer, {half}))
    os.rename(half, archive)
    sync_directory(archive.absolute().parent)
    return count


def _everything(home: Home, observer: Observer, without: set[Path]) -> Iterator[Member]:
    count = 0
    to_do = [home.path]
    while to_do:
        folder = to_do.pop()
        try:
            with os.scandir(folder) as entries:
                paths = sorted(Path(entry.path) for entry in entries)
        except OSError as error:
            raise unreadable(folder, error) from error
        for path in paths:
            if path.absolute() in {each.absolute() for each in without}:
                continue
            status = path.lstat()
            inside = str(path.relative_to(home.path))
            if stat.S_ISLNK(status.st_mode) and path.is_dir() and folder == home.path:
                status = path.stat()  # A may lie on another disk
            data = None
            if stat.S_ISREG(status.st_mode):
                data = read_file(path, MOST_BYTES)
            elif stat.S_ISDIR(status.st_mode):
                if inside != _LEFT_OUT:
                    to_do.append(path)
            else:
                observer.warning(f"{path} is neither a file nor a folder, and is left out")
                continue
            mode = stat.S_IMODE(status.st_mode)
            yield Member(inside, data, mode, status.st_uid, status.st_gid, int(status.st_mtime))
            count += 1
            if count % 1000 == 0:
                observer.progress(f"{count} files", count, 0)

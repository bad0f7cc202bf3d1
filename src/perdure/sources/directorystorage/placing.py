"""A new HOME gets its name when all of it is on the disk: it is made beside its place, then renamed.

So under its name there is nothing, or all of it. What an interrupted run left beside the place goes.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.errors import TargetInUse, UsageError
from perdure.sources.durable import make_directory, owner_for, sync_directory, sync_filesystem

_PART = ".perdure-part"


@contextmanager
def made_beside(place: Path) -> Iterator[Path]:
    """Give an empty folder, for this user alone; it gets its place when the block ends well, else it goes.

    Raises UsageError when anything but an empty folder is at the place, TargetInUse when another run is about
    to fill it, OSError.
    """
    if place.is_symlink() or (place.exists() and not place.is_dir()) or _filled(place):
        raise UsageError(
            f"{place} is there already, and not empty",
            hint="restore into a new folder: files of two states together make a storage that looks right and"
            " is not; then move the old one away",
        )
    make_directory(place.parent, owner_for(place))
    part = place.with_name(f".{place.name}{_PART}")
    descriptor = _begin(part)
    try:
        yield part
        sync_filesystem(descriptor)  # of millions of small files, one by one takes hours
        os.rename(part, place)
        sync_directory(place.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    finally:
        os.close(descriptor)


def _begin(part: Path) -> int:
    """Make the folder; gives its descriptor, which is locked. Raises TargetInUse, OSError."""
    if part.exists():
        os.close(_locked(part))
        shutil.rmtree(part)
    part.mkdir(0o700)
    try:
        return _locked(part)
    except OSError:
        part.rmdir()
        raise


def _locked(part: Path) -> int:
    descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise TargetInUse(f"another restore works on {part}") from None
    return descriptor


def _filled(place: Path) -> bool:
    return place.is_dir() and any(place.iterdir())

"""Scratch folders that do not stay: one that a killed run left is removed by the next run."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import gettempdir, mkdtemp

PREFIX = "perdure-scratch-"
_LOCK = ".in-use"


@contextmanager
def scratch_folder(below: Path | None = None, prefix: str = PREFIX) -> Iterator[Path]:
    """Give an empty folder, where the system has its own or ``below`` another; it is removed in the end.

    Those of this user and prefix that killed runs left there are removed first. Raises OSError.
    """
    place = below or Path(gettempdir())
    _sweep(place, prefix)
    kept = Path(mkdtemp(prefix=prefix, dir=place))
    try:
        with open(kept / "new", "wb") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            os.rename(lock.name, kept / _LOCK)  # locked before another run can see it
            folder = kept / "scratch"
            folder.mkdir()
            yield folder
    finally:
        _remove(kept)


def _sweep(place: Path, prefix: str) -> None:
    for left in place.glob(f"{prefix}*"):
        with suppress(OSError):
            status = left.lstat()
            if stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid():
                _remove_unused(left)


def _remove_unused(left: Path) -> None:
    descriptor = os.open(left / _LOCK, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _remove(left)
    finally:
        os.close(descriptor)


def _remove(folder: Path) -> None:
    """Remove a folder with all that is in it, also what its modes keep its owner from."""
    for place, folders, _ in os.walk(folder):
        for name in folders:
            path = Path(place, name)
            if not path.is_symlink():
                path.chmod(0o700)
    shutil.rmtree(folder)

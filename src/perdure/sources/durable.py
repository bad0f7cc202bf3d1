"""Directories and files that are on the disk when a call returns, and belong to whom they should.

What root writes belongs to the owner of the nearest folder that was there before: a site's files are its
user's, also when root restores them.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterable
from pathlib import Path

_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
Owner = tuple[int, int]
"""Numbers of a user and a group."""


def owner_for(path: Path) -> Owner | None:
    """Say to whom belongs what root makes at a place; None where that is settled: the user who runs this."""
    if os.geteuid() != 0:
        return None
    nearest = next(each for each in (path, *path.parents) if each.exists())
    status = nearest.stat()
    return status.st_uid, status.st_gid


def make_directory(path: Path, owner: Owner | None) -> None:
    """Make a directory with those above it, durably. Raises OSError."""
    if not path.is_dir():
        make_directory(path.parent, owner)
        path.mkdir(exist_ok=True)
        give(path, owner)
        sync_directory(path.parent)


def give(path: Path, owner: Owner | None) -> None:
    """Give a file or folder, never what a link leads to, to its owner."""
    if owner:
        os.chown(path, *owner, follow_symlinks=False)


def sync_directory(path: Path) -> None:
    """Make the names in a directory durable. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, data: bytes, position: int) -> int:
    """Write bytes at a position; gives the position behind them. Raises OSError."""
    view = memoryview(data)
    while view:
        done = os.pwrite(descriptor, view, position)
        position += done
        view = view[done:]
    return position


def write_new(path: Path, parts: Iterable[bytes]) -> int:
    """Write a file that nobody else has a hand in; gives its open descriptor. Raises OSError."""
    try:
        descriptor = os.open(path, _NEW, 0o600)
    except FileExistsError:
        path.unlink()
        descriptor = os.open(path, _NEW, 0o600)
    try:
        end = 0
        for part in parts:
            end = write_all(descriptor, part, end)
    except BaseException:
        os.close(descriptor)
        path.unlink(missing_ok=True)
        raise
    return descriptor


def sync_filesystem(descriptor: int) -> None:
    """Make durable all that was written to the file system that an open file is on. Raises OSError."""
    try:
        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (AttributeError, OSError):  # where the C library lacks it
        os.sync()
        return
    if syncfs(descriptor) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))

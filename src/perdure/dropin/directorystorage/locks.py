"""The two locks of a HOME, as DirectoryStorage takes them: flock on a file of ``misc``.

``lock`` is held for the life of the process that has the storage open, ``sublock`` by who writes to ``A`` or
wants it to stay as it is. The files are never removed, and their content means nothing. On network file
systems a lock needs a file that is open for writing, so they are opened so where that is permitted. A file
that is missing is made, and belongs to HOME's user, also when root makes it: what belongs to root there keeps
the site from starting.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.errors import PerdureError, SourceUnusable
from perdure.sources.directorystorage.home import LOCK, unreadable
from perdure.sources.durable import give, owner_for

_FLAGS = os.O_NOFOLLOW | os.O_CLOEXEC


class LockTaken(PerdureError):
    """Somebody else holds a lock of the storage."""


@contextmanager
def locked(home: Path, name: str) -> Iterator[None]:
    """Hold ``LOCK`` or ``SUBLOCK`` of a HOME. Raises LockTaken, SourceUnusable."""
    path = home / name
    descriptor = _open(path)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = (
                "a process has the storage open" if name == LOCK else "somebody else works on A"
            )
            raise LockTaken(f"{path} is locked: {holder}") from None
        except OSError as error:
            raise SourceUnusable(f"{path} cannot be locked: {error.strerror}") from error
        yield
    finally:
        os.close(descriptor)  # lets go of the lock


def _open(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | _FLAGS)
    except FileNotFoundError:
        return _make(path)
    except PermissionError:
        pass  # for a lock reading is enough, but for network file systems
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        return os.open(path, os.O_RDONLY | _FLAGS)
    except OSError as error:
        raise unreadable(path, error) from error


def _make(path: Path) -> int:
    owner = owner_for(path.parent)
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | _FLAGS, 0o644)
    except OSError as error:
        raise SourceUnusable(
            f"{path} cannot be made: {error.strerror}",
            hint="a HOME has a folder misc, which belongs to the user of the site; run this as that user",
        ) from error
    give(path, owner)
    return descriptor

"""One run at a time over the folders of a kind of backup: a lock that its process's end releases."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.dropin.recipe.naming import PART
from perdure.errors import RepositoryLocked, StoreError
from perdure.sources.durable import give, owner_for

NAME = f"{PART}lock"
_PAUSE = 0.2


@contextmanager
def locked(
    folder: Path, wait: float, sleep: Callable[[float], None], *, shared: bool = False
) -> Iterator[None]:
    """Hold the lock of a folder, alone or (``shared``) with others who only read.

    It waits so many seconds for others. Raises RepositoryLocked, StoreError.
    """
    descriptor = _open(folder / NAME, shared=shared)
    if descriptor is None:
        yield
        return
    try:
        how = (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB
        waited = 0.0
        while not _try(descriptor, how):
            if waited >= wait:
                raise RepositoryLocked(
                    f"another run works in {folder}",
                    hint="it lets go when it ends; lock_timeout says how long to wait for it",
                )
            sleep(_PAUSE)
            waited += _PAUSE
        yield
    finally:
        os.close(descriptor)


def _open(path: Path, *, shared: bool) -> int | None:
    """Open the file of a lock; None where who reads cannot: nobody writes there, either.

    It may be another user's: to lock a file it need not be written to.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    except OSError as error:
        try:
            return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            if shared:
                return None
        raise StoreError(
            f"{path} cannot be made: {error.strerror}",
            hint="see to it that this user may write there",
        ) from error
    give(path, owner_for(path.parent))
    return descriptor


def _try(descriptor: int, how: int) -> bool:
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        return False
    return True

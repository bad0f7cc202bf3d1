"""Waiting for another job: locks with an end to the patience."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.btw.names import source_hash
from perdure.errors import RepositoryLocked
from perdure.sources.durable import make_directory

_EVERY = 0.1
"""Seconds between two attempts."""


@dataclass(frozen=True, slots=True)
class Wait:
    """How long to wait for what another process holds, in seconds."""

    seconds: float

    def until(self, attempt: Callable[[], object], what: str) -> None:
        """Try until it does not fail with BlockingIOError. Raises RepositoryLocked."""
        end = time.monotonic() + self.seconds
        while True:
            try:
                attempt()
            except BlockingIOError:
                if time.monotonic() >= end:
                    raise RepositoryLocked(
                        f"another job holds {what}", hint="wait for it longer with --lock-wait"
                    ) from None
                time.sleep(_EVERY)
            else:
                return


@contextmanager
def destination_locked(folder: Path, destination: str, wait: Wait) -> Iterator[int]:
    """Hold a destination's lock, a file in ``locks`` of the configuration directory; gives its descriptor.

    Child processes inherit the descriptor: when this process is killed, its rdiff-backup goes on working, and
    the destination stays locked until that has ended, too. Raises RepositoryLocked, OSError.
    """
    make_directory(folder / "locks", None)
    path = folder / "locks" / source_hash(destination)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        wait.until(lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB), destination)
        yield descriptor
    finally:
        os.close(descriptor)

"""The state file on the disk: read and appended to under its lock, each line synced.

The lock is btw-backup's own (an exclusive ``lockf`` on the file), so that the two programs wait for each
other; it is held for a line, never for a copy.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from perdure.dropin.btw.locking import Wait
from perdure.dropin.btw.state import Item, State, begun, done, replay, whole_length
from perdure.errors import PerdureError
from perdure.sources.durable import sync_directory, write_all

_COMPACT_ABOVE = 1 << 18
_MOST = 1 << 30
"""Bytes of a state file; what btw-backup wrote in many years is a few million."""


class Journal:
    """What is to be copied into the bucket, remembered across runs."""

    def __init__(self, folder: Path, wait: Wait, clock: Callable[[], datetime]) -> None:
        self.path = folder / "sync_state"
        self._wait = wait
        self._clock = clock

    def state(self) -> State:
        """Read what is pending. Raises PerdureError, OSError."""
        with self._open() as descriptor:
            return replay(_content(descriptor))

    def begin(self, items: Iterable[Item]) -> None:
        """Note what is going to be here and has to be copied; durable when it returns."""
        now = self._clock()
        self._append(b"".join(begun(item, now) for item in items))

    def done(self, item: Item) -> None:
        """Note that it was copied. The file is emptied when it is long and nothing is pending."""
        self._append(done(item, self._clock()))

    def reset(self) -> None:
        """Empty the file. Raises PerdureError while something is pending."""
        with self._open() as descriptor:
            if replay(_content(descriptor)).pending:
                raise PerdureError("cannot reset: some files must be synced or pushed")
            _empty(descriptor)

    def _append(self, lines: bytes) -> None:
        with self._open() as descriptor:
            content = _content(descriptor)
            end = whole_length(content)
            if end < len(content):  # a torn line must not become the beginning of another one
                os.ftruncate(descriptor, end)
            write_all(descriptor, lines, end)
            os.fsync(descriptor)
            if end + len(lines) > _COMPACT_ABOVE and not replay(content[:end] + lines).pending:
                _empty(descriptor)

    @contextmanager
    def _open(self) -> Iterator[int]:
        new = not self.path.exists()
        descriptor = os.open(
            self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        try:
            self._wait.until(
                lambda: fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB), str(self.path)
            )
            if new:
                sync_directory(self.path.parent)
            yield descriptor
        finally:
            os.close(descriptor)


def _content(descriptor: int) -> bytes:
    size = os.fstat(descriptor).st_size
    if size > _MOST:
        raise PerdureError("sync_state is too long to be a state file")
    return os.pread(descriptor, size, 0)


def _empty(descriptor: int) -> None:
    os.ftruncate(descriptor, 0)
    os.fsync(descriptor)

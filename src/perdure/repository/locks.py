"""Locks: several processes may read and add, one alone may delete.

A lock is a file in the repository, as restic's is, and each program honours the other's. To take
one: look whether a lock of others excludes it, write it, look again. Of two that are taken at the
same time at least one is seen by the other's second look, since a store shows what was put at once;
so both may fail, and never both succeed.

A lock is written anew every 5 minutes, and one of more than 30 minutes is stale: it belongs to
nobody, and is removed by whoever it excludes. Hence a process whose lock became that old - because
the machine slept, or its clock jumped - must assume that it was removed, and `Lock.verify` refuses
the commit.

A lock of a process that certainly is dead (see `perdure.repository.processes`) is removed at once.
Only locks that this cache remembers are judged so; restic's and other machines' are left to the 30
minutes.

To learn whether a lock's process on the same machine still runs, ``restic unlock`` sends it SIGHUP:
a program that holds locks has to ignore that signal.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec

from perdure.errors import NameNotFound, RepositoryLocked
from perdure.formats.golang import format_moment
from perdure.formats.lock import LockRecord
from perdure.repository.processes import Process, host_name, user_name
from perdure.repository.sealed import SealedFiles

FOLDER = "locks"
REFRESH_AFTER = timedelta(minutes=5)
STALE_AFTER = timedelta(minutes=30)
_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 10.0

Clock = Callable[[], datetime]


class Locks:
    """The locks of one repository."""

    def __init__(
        self,
        files: SealedFiles,
        clock: Clock,
        cache: Path | None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._files = files
        self._clock = clock
        self._notes = cache
        self._sleep = sleep

    def take(self, *, exclusive: bool, wait: timedelta) -> Lock:
        """Take a lock, waiting up to ``wait`` for others to let go. Raises RepositoryLocked."""
        deadline = self._clock() + wait
        pause = _FIRST_PAUSE
        while True:
            try:
                return self._try_to_take(exclusive)
            except RepositoryLocked:
                left = (deadline - self._clock()).total_seconds()
                if left <= 0:
                    raise
                self._sleep(min(pause, left))
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _try_to_take(self, exclusive: bool) -> Lock:
        self.check(exclusive, besides=None)
        lock = Lock(self, exclusive)
        try:
            self.check(exclusive, besides=lock.name)
        except BaseException:
            lock.release()
            raise
        return lock

    def check(self, exclusive: bool, besides: str | None) -> None:
        """Raise RepositoryLocked if another lock excludes one of this kind; removes dead ones."""
        self._check(self.records(besides), exclusive)

    def verify(self, exclusive: bool, name: str) -> bool:
        """Do the same with a lock of this process, and tell whether that is there; by one list."""
        names = [(other, size) for other, size in self._files.list(FOLDER)]
        self._check(self._read(names, name), exclusive)
        return any(name == other for other, _ in names)

    def _check(self, records: Iterable[tuple[str, LockRecord]], exclusive: bool) -> None:
        for name, record in records:
            if not (exclusive or record.exclusive):
                continue
            if self._is_over(name, record):
                self._remove(name)
            else:
                raise RepositoryLocked(
                    f"{self._files.where(FOLDER, name)} excludes this: {_described(record)}",
                    hint="wait for it with --retry-lock; perdure unlock, if no such process runs",
                )

    def records(self, besides: str | None = None) -> Iterator[tuple[str, LockRecord]]:
        """Give the id and content of each lock, of all ``besides`` one. Raises RepositoryDamaged."""
        return self._read(self._files.list(FOLDER), besides)

    def _read(
        self, names: Iterable[tuple[str, int]], besides: str | None
    ) -> Iterator[tuple[str, LockRecord]]:
        for name, size in names:
            # Some store may have written one only half; restic passes over these, too.
            if not size or name == besides:
                continue
            try:
                text = self._files.load(FOLDER, name)
            except NameNotFound:  # released meanwhile
                continue
            yield name, LockRecord.decode(text, self._files.where(FOLDER, name))

    def remove(self, *, everything: bool) -> int:
        """Remove stale locks and those of dead processes, or all there are; says how many."""
        count = 0
        if everything:
            names = [name for name, _ in self._files.list(FOLDER)]
        else:
            names = [name for name, record in self.records() if self._is_over(name, record)]
        for name in names:
            count += self._remove(name)
        return count

    def write(self, exclusive: bool) -> tuple[str, datetime]:
        """Write a lock of this process; gives its id and its time."""
        now = self._clock()
        record = LockRecord(
            time=format_moment(now),
            exclusive=exclusive,
            hostname=host_name(),
            username=user_name(),
            pid=os.getpid(),
            uid=os.getuid(),
            gid=os.getgid(),
        )
        return self._files.save(FOLDER, record.encode(), before=self._note)[0], now

    def delete(self, name: str) -> None:
        """Remove a lock of this process; that it is gone already is no error here."""
        self._remove(name)

    def exists(self, name: str) -> bool:
        """Tell whether a lock is still there."""
        return any(name == other for other, _ in self._files.list(FOLDER))

    def age(self, since: datetime) -> timedelta:
        """Tell how long ago a time is; one in the future counts as long as it is ahead."""
        return abs(self._clock() - since)

    def _is_over(self, name: str, record: LockRecord) -> bool:
        return self._clock() - record.moment > STALE_AFTER or self._is_dead(name)

    def _is_dead(self, name: str) -> bool:
        if not self._notes:
            return False
        try:
            note = (self._notes / f"{name}.json").read_bytes()
            return msgspec.json.decode(note, type=Process).certainly_dead
        except (OSError, msgspec.MsgspecError, UnicodeError):
            return False

    def _note(self, name: str) -> None:
        if self._notes:
            with suppress(OSError):
                self._notes.mkdir(mode=0o700, parents=True, exist_ok=True)
                note = msgspec.json.encode(Process.current())
                (self._notes / f"{name}.json").write_bytes(note)

    def _remove(self, name: str) -> bool:
        try:
            self._files.delete(FOLDER, name)
        except NameNotFound:
            return False
        finally:
            if self._notes:
                with suppress(OSError):
                    (self._notes / f"{name}.json").unlink(missing_ok=True)
        return True


class Lock:
    """A lock that this process holds, until it is released."""

    def __init__(self, locks: Locks, exclusive: bool) -> None:
        self._locks = locks
        self.exclusive = exclusive
        self._released = False
        self.name, self._written = locks.write(exclusive)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()

    def keep(self) -> None:
        """Write the lock anew if it is due. To be called now and then. Raises RepositoryLocked."""
        age = self._locks.age(self._written)
        if age < REFRESH_AFTER or self._released:
            return
        if age >= STALE_AFTER or not self._locks.exists(self.name):
            raise _lost(self.name)
        old = self.name
        self.name, self._written = self._locks.write(self.exclusive)
        self._locks.delete(old)

    def verify(self) -> None:
        """Make sure that the lock is held. Raises RepositoryLocked if it was lost."""
        self.keep()
        if self._released or not self._locks.verify(self.exclusive, self.name):
            raise _lost(self.name)

    def release(self) -> None:
        """Remove the lock."""
        self._released = True
        self._locks.delete(self.name)


def _described(record: LockRecord) -> str:
    kind = "an exclusive" if record.exclusive else "a shared"
    return (
        f"{kind} lock of process {record.pid} on {record.hostname} by {record.username},"
        f" from {record.moment:%Y-%m-%d %H:%M:%S} UTC"
    )


def _lost(name: str) -> RepositoryLocked:
    return RepositoryLocked(
        f"the lock {name[:8]} of this process was lost: it was removed, or became stale while the"
        " machine slept",
        hint="nothing was committed; run it again",
    )

"""Holding a storage still: enter snapshot mode, lock, let the caller work, unlock, leave the mode.

The order, as the raw procedure has it::

    ask, one method after the other, until one works            (code: HOST-PID, so it is ours alone)
    flock misc/sublock                                          (else somebody else works on A)
    misc/snapshot must say that very code                       (else A is an old snapshot, or is packed)
    ... A does not change ...
    unlock
    leave by the method that entered, whatever happened in between

Entering and locking are tried again until the time given for it is over.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.directorystorage.asking import Method, Refused, is_ours, method_for
from perdure.dropin.directorystorage.locks import LockTaken, locked
from perdure.dropin.directorystorage.states import SHUTDOWN, USER, look
from perdure.errors import PerdureError, SourceUnusable, UsageError
from perdure.formats import snapshot_conf
from perdure.model import Observer
from perdure.sources.directorystorage.home import SUBLOCK, Home, read_file

VERSION = "2"
LONGEST_HOLD = 12 * 3600
"""Seconds after which what an outer program holds is too old to be dated with the time of its beginning."""
_LEAVE_SECONDS, _LEAVE_INTERVAL = 60.0, 1.0


@dataclass(frozen=True, slots=True)
class Patience:
    """For how long to try, and how long to wait between two tries; in seconds."""

    seconds: float = 0.0
    interval: float = 10.0


@dataclass(frozen=True, slots=True)
class Still:
    """A storage that does not change: ``A`` may be copied."""

    home: Home
    timestamp: int
    """When it was asked for: seconds since 1970."""

    @property
    def environment(self) -> dict[str, str]:
        """What a program is told that works while it is held."""
        return {
            "SNAPSHOT_VERSION": VERSION,
            "SNAPSHOT_DIRECTORY": str(self.home.path),
            "SNAPSHOT_TIMESTAMP": str(self.timestamp),
        }


def read_conf(home: Path, file: Path | None) -> tuple[snapshot_conf.SnapshotConf, Path]:
    """Read ``config/snapshot.conf``, or another one; gives it and the folder that its names are relative to.

    A HOME without the file is asked for directly. Raises SourceUnusable, UsageError.
    """
    path = file or home / "config" / "snapshot.conf"
    raw = read_file(path, snapshot_conf.MOST_BYTES)
    if raw is None and file:
        raise UsageError(f"there is no {file}")
    text = (raw or b"").decode("utf-8", "replace")
    return snapshot_conf.parse(text, str(path)), path.parent


@contextmanager
def hold(
    home: Home,
    methods: Sequence[Method],
    code: str,
    clock: Callable[[], float],
    patience: Patience,
    observer: Observer,
) -> Iterator[Still]:
    """Hold a storage still. Raises SourceUnusable when no method works, LockTaken, PerdureError.

    ``clock`` gives seconds since 1970.
    """
    deadline = time.monotonic() + patience.seconds
    while True:
        timestamp = int(clock())
        try:
            method = _enter(home, methods, code)
        except (LockTaken, SourceUnusable) as error:
            if not _may_wait(deadline, patience):
                raise
            observer.warning(f"{error}; trying again in {patience.interval:g} seconds")
            continue
        break
    try:
        observer.progress(f"in snapshot mode ({method.title})", 1, 1)
        with _lock(home, deadline, patience, observer):
            _check_ours(home, method, code)
            yield Still(home, timestamp)
    finally:
        _leave(home, method, code)


def held_outside(
    home: Home, environment: Mapping[str, str], clock: Callable[[], float]
) -> Still | None:
    """Give what a program around this one holds still; None: there is none.

    Raises UsageError, SourceUnusable where it is not what it says.
    """
    directory = environment.get("SNAPSHOT_DIRECTORY")
    if directory is None:
        return None
    version, stamp = (environment.get(f"SNAPSHOT_{name}", "") for name in ("VERSION", "TIMESTAMP"))
    if version != VERSION or not stamp.isdecimal():
        raise UsageError(
            f"SNAPSHOT_VERSION is {version!r}, SNAPSHOT_TIMESTAMP {stamp!r}: not known here"
        )
    if not home.path.samefile(directory):
        raise UsageError(f"{directory} is held still (SNAPSHOT_DIRECTORY), not {home.path}")
    age = clock() - int(stamp)
    if not 0 <= age < LONGEST_HOLD:
        raise UsageError(
            f"the snapshot was asked for {age / 3600:.1f} hours ago, says SNAPSHOT_TIMESTAMP",
            hint="a backup of it would be dated with that time; enter a new one",
        )
    sight = look(home)
    if not sight.sublock_taken or not (sight.code or "").startswith((USER, SHUTDOWN)):
        raise SourceUnusable(
            f"{home.path} is not held still, as SNAPSHOT_DIRECTORY says: {sight.describe()}"
        )
    if sight.code == SHUTDOWN and not sight.settled:
        raise SourceUnusable(f"{home.path}: A is old; {sight.describe()}", hint=sight.advice)
    return Still(home, int(stamp))


def leave_foreign(home: Home, methods: Sequence[Method]) -> str:
    """Leave a snapshot mode that a dead program entered; gives its code. Raises SourceUnusable, LockTaken."""
    code = home.snapshot_code()
    if code is None or not code.startswith(USER):
        raise SourceUnusable(f"{home.path} is in nobody's snapshot mode: {look(home).describe()}")
    if home.is_locked(SUBLOCK):
        raise LockTaken(f"the program that entered {code} is still at work: it holds the sublock")
    reasons = []
    for method in methods:
        if method.expected(code.removeprefix(USER)) != code:
            continue  # direct
        try:
            method.leave(code.removeprefix(USER))
        except Refused as refused:
            reasons.append(str(refused))
        else:
            return code
    raise SourceUnusable(
        f"{home.path} stays in snapshot mode {code}: {'; '.join(reasons) or 'there is nobody to ask'}",
        hint="stop the storage and start it again, which ends every snapshot mode",
    )


def methods_of(given: Sequence[snapshot_conf.Method], home: Home, folder: Path) -> list[Method]:
    """Give the methods of a snapshot.conf, but for ``live``. Raises UsageError."""
    made = (method_for(each, home, folder) for each in given)
    return [method for method in made if method is not None]


def _enter(home: Home, methods: Sequence[Method], code: str) -> Method:
    reasons = []
    for method in methods:
        try:
            method.enter(code)
        except (Refused, LockTaken, UsageError) as refused:
            reasons.append(str(refused))
            if is_ours(home, USER + code):  # it did enter, but the answer was lost
                return method
        except BaseException:
            _leave(home, method, code)
            raise
        else:
            return method
    sight = look(home)
    told = f"; {'; '.join(reasons)}" if reasons else ""
    raise SourceUnusable(
        f"{home.path} could not be brought into snapshot mode: {sight.describe()}{told}",
        hint=sight.advice,
    )


@contextmanager
def _lock(home: Home, deadline: float, patience: Patience, observer: Observer) -> Iterator[None]:
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(home.path, SUBLOCK))
            except LockTaken as error:
                if not _may_wait(deadline, patience):
                    raise
                observer.warning(f"{error}; trying again in {patience.interval:g} seconds")
            else:
                break
        yield


def _check_ours(home: Home, method: Method, code: str) -> None:
    if not is_ours(home, method.expected(code)):
        raise SourceUnusable(
            f"{home.path} is not in the snapshot mode that was entered by {method.title}: misc/snapshot says"
            f" {home.snapshot_code()!r}",
            hint="does snapshot.conf ask the process that has this storage open?",
        )


def _leave(home: Home, method: Method, code: str) -> None:
    """Leave the mode; never with another code than the storage's, which would do harm."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    expected = method.expected(code)
    while expected == SHUTDOWN or is_ours(home, expected):
        try:
            method.leave(code)
        except Refused as error:
            if time.monotonic() > deadline:
                raise PerdureError(
                    f"{home.path} stays in snapshot mode: {error}",
                    hint=f"perdure directorystorage leave {home.path}; until then it takes no other snapshot",
                ) from None
            time.sleep(_LEAVE_INTERVAL)
        else:
            return


def _may_wait(deadline: float, patience: Patience) -> bool:
    if time.monotonic() >= deadline:
        return False
    time.sleep(min(patience.interval, max(deadline - time.monotonic(), 0)))
    return True

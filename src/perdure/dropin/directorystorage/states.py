"""In which state a HOME is, told from ``misc/snapshot``, the locks, the journal and ``B``.

=============  ========  ====  =================  =====================================================
misc/snapshot  sublock   lock  journal, B         state
=============  ========  ====  =================  =====================================================
shutdown       free      free  empty              CLEAN: closed in good order; A is all there is
shutdown       free      any   not empty          STALE: started while its sublock was held, the storage
shutdown       free      held  any                went on in a snapshot mode that it cannot leave; A is old
shutdown       held      any   any                COPIED: somebody copies a closed storage
user/CODE      held      any   any                COPIED: somebody's backup is at work
user/CODE      free      held  any                FOREIGN: somebody entered snapshot mode, maybe weeks ago
user/CODE      free      free  any                CRASHED, while in snapshot mode
packing        held      any   any                PACKING: A changes
packing        free      held  any                PACKING
packing        free      free  any                CRASHED, in a pack
none           held, or held   any                RUNNING
none           free      free  not empty          CRASHED, or closed by quick_shutdown
none           free      free  empty              UNUSED: never opened, or just restored
=============  ========  ====  =================  =====================================================

``A`` alone may be copied only when CLEAN, UNUSED, or in a snapshot mode that we entered ourselves, and
only while we hold the sublock. Everything that is committed can be read from journal, B and A together in
all states but PACKING.

Source: DirectoryStorage 1.1.21.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from perdure.sources.directorystorage.home import (
    LOCK,
    PACKING,
    SNAPSHOT,
    SUBLOCK,
    Home,
    Journal,
    files_below,
)

SHUTDOWN = "shutdown"
USER = "user/"


class State(Enum):
    """In which state a HOME is."""

    CLEAN = "clean"
    UNUSED = "unused"
    RUNNING = "running"
    PACKING = "packing"
    COPIED = "copied"
    FOREIGN = "foreign"
    STALE = "stale"
    CRASHED = "crashed"


_MEANING = {
    State.CLEAN: "the storage was closed in good order",
    State.UNUSED: "the storage was never opened, or was just restored",
    State.RUNNING: "a process has the storage open, and it is in no snapshot mode",
    State.PACKING: "a pack runs, and A changes",
    State.COPIED: "somebody else copies the storage at this moment",
    State.FOREIGN: "the storage is in a snapshot mode that somebody else entered: A is as old as that",
    State.STALE: "the storage was started while somebody held its sublock, and is in a snapshot mode that it"
    " cannot leave: A is old",
    State.CRASHED: "the storage was not closed in good order: A alone is not coherent",
}
_ADVICE = {
    State.RUNNING: "let config/snapshot.conf say how to ask it (http, zeo), or read beside it: --live",
    State.PACKING: "wait until the pack is over: -t SECONDS",
    State.COPIED: "wait until the other one is through: -t SECONDS",
    State.FOREIGN: "if the program that entered it is dead, leave the mode (perdure directorystorage leave),"
    " else wait for it; or read all that is committed: --live",
    State.STALE: "close the storage, start it and close it once more; or read all that is committed: --live",
    State.CRASHED: "start the storage and close it, or let snapshot.conf allow direct; to copy everything"
    " as it lies there: perdure directorystorage wreckage",
}


@dataclass(frozen=True, slots=True)
class Sight:
    """What there is to see of a HOME's state."""

    code: str | None
    """The content of misc/snapshot."""
    since: float | None
    """When that was written: seconds since 1970."""
    sublock_taken: bool
    lock_taken: bool
    journal: Journal
    files_in_b: bool

    @property
    def settled(self) -> bool:
        """Whether all that is committed is in ``A``."""
        return not (self.journal.committed or self.journal.replica or self.files_in_b)

    @property
    def state(self) -> State:
        """The state that the rest tells."""
        if self.code is None:
            return self._without_snapshot
        if self.code == PACKING:
            return State.PACKING if self.sublock_taken or self.lock_taken else State.CRASHED
        if self.sublock_taken:
            return State.COPIED
        if self.code == SHUTDOWN:
            return State.CLEAN if self.settled and not self.lock_taken else State.STALE
        return State.FOREIGN if self.lock_taken else State.CRASHED

    @property
    def _without_snapshot(self) -> State:
        if self.sublock_taken or self.lock_taken:
            return State.RUNNING
        untouched = self.settled and not self.journal.begun
        return State.UNUSED if untouched else State.CRASHED

    def describe(self) -> str:
        """Say in words what the state is, and how one sees it."""
        signs = [f"misc/snapshot says {self.code}" if self.code else "there is no misc/snapshot"]
        if self.journal.committed:
            signs.append(f"{len(self.journal.committed)} committed transactions are in the journal")
        if self.journal.replica:
            signs.append("a replica.tar waits in the journal")
        if self.files_in_b:
            signs.append("there are files in B")
        return f"{_MEANING[self.state]} ({', '.join(signs)})"

    @property
    def advice(self) -> str | None:
        """What can be done about it."""
        return _ADVICE.get(self.state)


def look(home: Home) -> Sight:
    """Look at a HOME. Asking whether locks are free shares them for a moment. Raises SourceUnusable."""
    return Sight(
        code=home.snapshot_code(),
        since=snapshot_time(home.path),
        sublock_taken=home.is_locked(SUBLOCK),
        lock_taken=home.is_locked(LOCK),
        journal=home.journal(),
        files_in_b=next(files_below(home.path / "B"), None) is not None,
    )


def snapshot_time(home: Path) -> float | None:
    """Say since when there is a misc/snapshot (seconds since 1970); None: there is none."""
    try:
        return (home / SNAPSHOT).stat().st_mtime
    except FileNotFoundError:
        return None

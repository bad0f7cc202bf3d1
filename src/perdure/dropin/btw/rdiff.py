"""The program rdiff-backup (2.2), called so that its status tells the truth.

What is worked around: a backup after an interrupted one exits 2, so the repository is taken back first; a
change that keeps size and second is not seen, so the file gets a time of its own; restore exits 0
whatever the checksums say, so a version is verified before.
"""

from __future__ import annotations

import os
from datetime import datetime
from pathlib import Path

from perdure.dropin.btw.children import Children
from perdure.dropin.btw.repository import (
    DATA,
    TEMPORARY,
    Condition,
    is_marked,
    sessions_in,
    time_in,
)
from perdure.errors import DamageFound, PerdureError

_PROGRAM = "rdiff-backup"
_WARNED = 2


def add_session(children: Children, source: Path, repository: Path, time: datetime) -> None:
    """Back up a directory with one file, as the session of a time. Raises PerdureError."""
    seconds = int(time.timestamp())
    for file in source.iterdir():
        os.utime(file, (seconds, seconds))
    children.run(_PROGRAM, ["--current-time", str(seconds), "backup", source, repository])


def take_back(children: Children, repository: Path) -> None:
    """Take back a session that never ended. Raises DamageFound, PerdureError, OSError.

    Only for who holds the destination's lock: ``--force`` passes over rdiff-backup's own look at process ids,
    which stumbles over numbers that are in use again, and dead processes that nobody has waited for.
    """
    data = repository / DATA
    if any((data / "increments").iterdir()):
        children.run(_PROGRAM, ["--force", "regress", repository], accepted=(0, _WARNED))
    else:
        _take_back_first_increment(children, repository)
    for path in repository.rglob(f"{TEMPORARY}*"):
        path.unlink()
    if sessions_in(entry.name for entry in data.iterdir()).condition is not Condition.SOUND:
        raise PerdureError(
            f"{repository} was interrupted, and rdiff-backup could not take that back",
            hint="look at it with rdiff-backup regress and verify; a copy may be in the bucket",
        )


def _take_back_first_increment(children: Children, repository: Path) -> None:
    """Take back a second session that was killed before it changed anything.

    rdiff-backup does not: without increments it takes the repository for new, and each later backup fails. An
    increment is written before the state that it leads back from; so that state is still the first one's.
    """
    data = repository / DATA
    (first,) = sessions_in(entry.name for entry in data.iterdir()).times
    for path in sorted(data.iterdir(), key=lambda path: path.name.startswith("current_mirror")):
        time = time_in(path.name)
        if time is not None and (time > first or path.name.startswith("increments.")):
            path.unlink()
    verify(children, repository, first)


def verify(children: Children, repository: Path, time: datetime) -> None:
    """Compare the file of a session with its checksum. Raises DamageFound, PerdureError."""
    if not is_marked((entry.name for entry in (repository / DATA).iterdir()), time):
        raise DamageFound(
            f"{repository} has lost the mark of its session at {_at(time)}; rdiff-backup would give another"
        )
    status, said = children.run(
        _PROGRAM, ["verify", "--at", _at(time), repository], accepted=(0, 1, 2, 4, 8, 12)
    )
    if status:
        lines = [
            line
            for line in said.decode("utf-8", "replace").splitlines()
            if "deprecated" not in line
        ]
        why = " ".join(" ".join(lines).split())[:500]
        raise DamageFound(f"{repository} at {_at(time)} is damaged: {why}")


def restore_file(children: Children, file: Path, time: datetime, target: Path) -> None:
    """Restore the file of a session, once it is verified. Raises DamageFound, PerdureError."""
    verify(children, file.parent, time)
    children.run(_PROGRAM, ["restore", "--at", _at(time), file, target])
    if not target.is_file():
        raise PerdureError(f"{_PROGRAM} restored nothing from {file} at {_at(time)}")


def _at(time: datetime) -> str:
    return str(int(time.timestamp()))

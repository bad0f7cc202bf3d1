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
from perdure.dropin.btw.repository import TEMPORARY
from perdure.errors import DamageFound, PerdureError

_PROGRAM = "rdiff-backup"
_WARNED = 2
_NEEDED_NOTHING = (0, _WARNED)


def add_session(children: Children, source: Path, repository: Path, time: datetime) -> None:
    """Back up a directory with one file, as the session of a time. Raises PerdureError."""
    seconds = int(time.timestamp())
    for file in source.iterdir():
        os.utime(file, (seconds, seconds))
    children.run(_PROGRAM, ["--current-time", str(seconds), "backup", source, repository])


def take_back(children: Children, repository: Path) -> None:
    """Take back a session that never ended, and remove its temporary files. Raises PerdureError."""
    children.run(_PROGRAM, ["regress", repository], accepted=_NEEDED_NOTHING)
    for path in repository.rglob(f"{TEMPORARY}*"):
        path.unlink()


def verify(children: Children, repository: Path, time: datetime) -> None:
    """Compare the file of a session with its checksum. Raises DamageFound, PerdureError."""
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

"""What the names in an rdiff-backup repository tell: its sessions, and whether the last one was completed.

Of the names in ``rdiff-backup-data`` (rdiff-backup 2.2) these matter; a time is ISO 8601 with ``Z`` or an
offset:

``current_mirror.<time>.data``   the session whose state the files outside have. None: the first session never
                                 ended, this is no backup. Two: the newer session never ended, and its changes
                                 must be taken back ("regress") before anything is restored.
``increments.<time>.dir``        an older session that can still be restored
``mirror_metadata.<time>...``    what a session had; without the name above, rdiff-backup does not know the
                                 session, and would give another one for it
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import Enum

DATA = "rdiff-backup-data"
TEMPORARY = "rdiff-backup.tmp."
"""How the names begin of files that a killed rdiff-backup leaves behind."""

_TIME = r"(\d{4}-\d\d-\d\d)T(\d\d)[:-](\d\d)[:-](\d\d)(Z|[+-]\d\d[:-]\d\d)"
_CURRENT = re.compile(rf"current_mirror\.{_TIME}\.data(?:\.gz)?")
_STAMP = re.compile(rf"\.{_TIME}\.")
_INCREMENT = re.compile(rf"increments\.{_TIME}\.dir")
_METADATA = re.compile(rf"mirror_metadata\.{_TIME}\.(?:diff|snapshot)(?:\.gz)?")


class Condition(Enum):
    """Whether a repository can be restored from."""

    SOUND = "sound"
    INTERRUPTED = "interrupted"
    UNFINISHED = "unfinished"


@dataclass(frozen=True, slots=True)
class Sessions:
    """The sessions that can be restored, the oldest first; UTC times."""

    condition: Condition
    times: tuple[datetime, ...]

    @property
    def increments(self) -> int:
        """How many sessions there are besides the first."""
        return max(len(self.times) - 1, 0)


def sessions_in(names: Iterable[str]) -> Sessions:
    """Read the names in ``rdiff-backup-data``."""
    markers: set[datetime] = set()
    older: set[datetime] = set()
    for name in names:
        if found := _CURRENT.fullmatch(name):
            markers.add(_time(found))
        elif found := _INCREMENT.fullmatch(name) or _METADATA.fullmatch(name):
            older.add(_time(found))
    if not markers:
        return Sessions(Condition.UNFINISHED, ())
    last = min(markers)
    times = tuple(sorted({time for time in older if time < last} | {last}))
    return Sessions(Condition.SOUND if len(markers) == 1 else Condition.INTERRUPTED, times)


def is_marked(names: Iterable[str], time: datetime) -> bool:
    """Whether rdiff-backup itself knows the session of a time, by the names in ``rdiff-backup-data``."""
    found = (_CURRENT.fullmatch(name) or _INCREMENT.fullmatch(name) for name in names)
    return any(each is not None and _time(each) == time for each in found)


def time_in(name: str) -> datetime | None:
    """Give the session's time that stands in a name; None if there is none."""
    found = _STAMP.search(name)
    return _time(found) if found else None


def _time(found: re.Match[str]) -> datetime:
    day, hour, minute, second, zone = found.groups()
    offset = "+00:00" if zone == "Z" else f"{zone[:3]}:{zone[4:]}"
    return datetime.fromisoformat(f"{day}T{hour}:{minute}:{second}{offset}").astimezone(UTC)

"""Stamps, which name backups, and the dates that a user types.

A stamp is ``YYYY-MM-DD-HH-MM-SS``, UTC; stamps sort as their moments do. A date is a stamp that may end early
(``2026-11``: its beginning, as repozo has it), or ISO 8601 (``2026-11-21T04:06:06+01:00``; UTC unless it has
an offset).
"""

from __future__ import annotations

import calendar
import re
from datetime import UTC, datetime, timedelta

from perdure.errors import UsageError

FORMAT = "%Y-%m-%d-%H-%M-%S"
_PARTIAL = re.compile(
    r"(\d{4})(?:-(\d{1,2}))?(?:-(\d{1,2}))?(?:-(\d{1,2}))?(?:-(\d{1,2}))?(?:-(\d{1,2}))?"
)
_HINT = "write 2026-11-21-04-06-06 or the beginning of it, in UTC, or 2026-11-21T04:06:06+01:00"


def stamp_of(moment: datetime) -> str:
    """Give the stamp of a moment; fractions of a second are dropped."""
    return moment.astimezone(UTC).strftime(FORMAT)


def moment_of(stamp: str) -> datetime:
    """Give the moment of a stamp. Raises ValueError."""
    return datetime.strptime(stamp, FORMAT).replace(tzinfo=UTC)


def parse_date(text: str, *, through: bool = False) -> str:
    """Give the last stamp that a date includes; ``through``: to the end of the day, or what else is given.

    Raises UsageError.
    """
    found = _PARTIAL.fullmatch(text)
    try:
        if found is None:
            return stamp_of(_iso(text))
        given = [int(part) for part in found.groups() if part is not None]
        # What is left out is the first month and day, and no hours.
        first = datetime(*(given + [1, 1, 0, 0, 0][len(given) - 1 :]), tzinfo=UTC)  # type: ignore[misc,arg-type]
        return stamp_of(_end(first, len(given)) if through else first)
    except (ValueError, OverflowError):
        raise UsageError(f"{text!r} is no date", hint=_HINT) from None


def _iso(text: str) -> datetime:
    if len(text) < len("2026-11-21T04"):
        raise ValueError(text)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _end(first: datetime, given: int) -> datetime:
    """Give the last second of the year, month, day, hour or minute that begins."""
    if given == 1:
        return first.replace(month=12, day=31, hour=23, minute=59, second=59)
    if given == 2:
        last = calendar.monthrange(first.year, first.month)[1]
        return first.replace(day=last, hour=23, minute=59, second=59)
    span = {3: timedelta(days=1), 4: timedelta(hours=1), 5: timedelta(minutes=1)}
    return first + span.get(given, timedelta(seconds=1)) - timedelta(seconds=1)

"""Texts for people: sizes, times, durations, failures, one line each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime

from perdure.model import Tid

_STEPS = ("B", "kB", "MB", "GB", "TB", "PB")


def failure(code: int, message: str, hint: str | None, *, as_json: bool) -> str:
    """Give what standard error says of a failure."""
    if as_json:
        return event("exit_error", {"code": code, "message": message, "hint": hint})
    text = f"perdure: {message}\n"
    return f"{text}  hint: {hint}\n" if hint else text


def warning(message: str, *, as_json: bool) -> str:
    """Give what standard error says of something that does not stop the work."""
    return event("warning", {"message": message}) if as_json else f"perdure: warning: {message}\n"


def event(kind: str, values: Mapping[str, object]) -> str:
    """Give one JSON object on one line."""
    return json.dumps({"message_type": kind, **values}) + "\n"


def size(count: int) -> str:
    """Give a number of bytes in decimal units: 999 B, 1.2 kB, 345 MB."""
    if count < 1000:
        return f"{count} B"
    step = next(n for n in range(1, 6) if count / 1000**n < 999.5 or n == 5)
    value = count / 1000**step
    return f"{value:.1f} {_STEPS[step]}" if value < 9.95 else f"{value:.0f} {_STEPS[step]}"


def seconds(value: float) -> str:
    """Give a duration: 0.4 s, 12 s, 3 min 5 s, 2 h 10 min."""
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def time(moment: datetime) -> str:
    """Give a time in UTC, to the second."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"


def cut(tid: Tid | None) -> str:
    """Give the time of a cut, or a dash for none."""
    return "-" if tid is None or not tid.value else time(tid.time)


def iso(moment: datetime) -> str:
    """Give a time for programs: RFC 3339, UTC, microseconds."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"


def count(number: int, one: str, many: str | None = None) -> str:
    """Give a number with its noun: 1 snapshot, 2 snapshots."""
    return f"{number} {one if number == 1 else many or one + 's'}"


def printable(text: str | bytes) -> str:
    """Make a text that others wrote safe for a terminal: one line, control characters shown."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

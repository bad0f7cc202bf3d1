"""The settings in btw-backup's configuration files, which are Python there and data here.

A file is lines of the form ``NAME = literal``: a text, a whole number, True, False or None. Anything else
that Python might do is refused, with its line; nothing is ever run.

A span of time is what pytimeparse reads: numbers with units (``24h``, ``7d``, ``1 week, 2 days``,
``1h30m``), a clock (``12:30:00``, ``2 days, 4:13:02``), or a number of seconds.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta

from perdure.errors import UsageError

Value = str | int | bool | None
SIZE_LIMIT = 1 << 16
"""Bytes of a file."""

_UNITS = {
    "weeks": r"w|wks?|weeks?",
    "days": r"d|dys?|days?",
    "hours": r"h|hrs?|hours?",
    "minutes": r"m|mins?|minutes?",
    "seconds": r"s|secs?|seconds?",
}
_NUMBER = r"\d{1,9}(?:\.\d{1,9})?"
_IN_UNITS = re.compile(
    r"\s*,?\s*".join(rf"(?:(?P<{name}>{_NUMBER})\s*(?:{words}))?" for name, words in _UNITS.items())
)
_CLOCK = re.compile(
    rf"(?:(?P<weeks>\d{{1,6}})\s*(?:{_UNITS['weeks']})\s*,?\s*)?"
    rf"(?:(?P<days>\d{{1,6}})\s*(?:{_UNITS['days']})\s*,?\s*)?"
    r"(?:(?P<hours>\d{1,6}):)?(?P<minutes>\d{1,2}):(?P<seconds>\d{2}(?:\.\d{1,9})?)"
)


def parse_settings(text: str, where: str) -> Mapping[str, Value]:
    """Read the text of a file; ``where`` is what messages call it. Raises UsageError."""
    try:
        module = ast.parse(text)
    except SyntaxError as error:
        raise _refused(where, error.lineno or 1, "this is no Python") from None
    except (ValueError, RecursionError, MemoryError):
        raise UsageError(f"{where} is no list of settings") from None
    return dict(_settings(module, where))


def parse_span(text: str) -> timedelta:
    """Read a span of time. Raises UsageError."""
    plain = text.strip().lower()
    if re.fullmatch(_NUMBER, plain):
        return timedelta(seconds=float(plain))
    for form in (_IN_UNITS, _CLOCK):
        found = form.fullmatch(plain.removeprefix("+").strip())
        parts = (
            {name: float(number) for name, number in found.groupdict().items() if number}
            if found
            else {}
        )
        if parts:
            return timedelta(**parts)
    raise UsageError(f"{text!r} is no span of time", hint="write 24h, 7d, 1 week or 12:30:00")


def _settings(module: ast.Module, where: str) -> Iterator[tuple[str, Value]]:
    for statement in module.body:
        match statement:
            case ast.Expr(value=ast.Constant(value=str())):  # a text by itself is a comment
                continue
            case ast.Assign(targets=[ast.Name(id=name)], value=given):
                yield name, _literal(given, where)
            case _:
                raise _refused(where, statement.lineno, "only NAME = literal is allowed")


def _literal(given: ast.expr, where: str) -> Value:
    match given:
        case ast.Constant(value=str() | bool() | int() | None as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return -value
        case _:
            message = "the value is neither a text nor a whole number, True, False or None"
            raise _refused(where, given.lineno, message)


def _refused(where: str, line: int, why: str) -> UsageError:
    return UsageError(
        f"{where}, line {line}: {why}",
        hint="the file is read as data, it is not run; write the value itself there",
    )

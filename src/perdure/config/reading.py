"""Reading perdure.toml: text into checked values, and whatever is wrong with it, all of it at once."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import time
from pathlib import Path
from typing import Any

import msgspec

from perdure.config.declaration import Key, keys, sections
from perdure.config.values import (
    Address,
    Count,
    Duration,
    Location,
    Rate,
    Size,
    Span,
    TimeOfDay,
    Url,
)
from perdure.errors import UsageError

SIZE_LIMIT = 1 << 20
"""Bytes of a configuration file."""
_SECRETS = re.compile(r"password|passphrase|secret|token")
_HEADER = re.compile(r"\s*(\[\[?)([^\[\]]+)\]")
_ASSIGNMENT = re.compile(r"""\s*([\w.'"-]+)\s*=""")
_SPOKEN = {
    "`int`": "a whole number",
    "`float`": "a number",
    "`str`": "text",
    "`bool`": "true or false",
    "`array`": "a list",
    "`object`": "a table",
}


@dataclass(frozen=True, slots=True)
class Base:
    """What paths in a file are relative to: its folder; ``~/`` is the user's own."""

    folder: Path = Path()
    home: Path | None = None

    def join(self, text: str) -> Path:
        """Give the path that a text means."""
        if self.home and (text == "~" or text.startswith("~/")):
            return self.home / text[2:]
        return self.folder / text


@dataclass(frozen=True, slots=True)
class Given:
    """A value, and the words for where it was said: a file and line, or a variable."""

    value: Any
    where: str


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that is wrong with a configuration."""

    where: str
    """A file, with the line if it is known, or a variable."""
    what: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


@dataclass(frozen=True, slots=True)
class Values:
    """What one place says: values by the paths of their keys, `source[0].name` among them."""

    given: Mapping[str, Given]
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()


def read(text: str, name: str, base: Base) -> Values:
    """Read the text of a file; ``name`` is what problems call it."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        return Values({}, (Problem(name, f"this is no TOML: {error}"),))
    except RecursionError:
        return Values({}, (Problem(name, "this is nested too deeply"),))
    except ValueError as error:  # a number with thousands of digits
        return Values({}, (Problem(name, f"this has a value that cannot be: {error}"),))
    lines = _lines(text)
    given: dict[str, Given] = {}
    problems: list[Problem] = []
    for path, key, raw in _walk(document, "", ""):
        where = f"{name}{_line(lines, path)}"
        if isinstance(key, str):
            problems.append(Problem(where, key))
            continue
        try:
            given[path] = Given(convert(key, raw, base), where)
        except UsageError as error:
            hint = f"; {error.hint}" if error.hint else ""
            problems.append(Problem(where, f"{_spoken(path)}: {error}{hint}"))
    return Values(given, tuple(problems))


def convert(key: Key, raw: object, base: Base | None, *, strict: bool = True) -> Any:
    """Give the value of a key; ``strict``: numbers are no texts. Raises UsageError."""

    def hook(kind: type, value: object) -> object:
        try:
            return _custom(kind, value, base)
        except UsageError as error:
            raise ValueError(f"{error}; {error.hint}" if error.hint else str(error)) from None

    if not all(_is_clean(text) for text in _texts(raw)):
        raise UsageError("a text is empty, or has a NUL in it")
    try:
        return msgspec.convert(raw, key.kind, strict=strict, dec_hook=hook)
    except msgspec.ValidationError as error:
        message = str(error).partition(" - at `")[0]
        for word, spoken in _SPOKEN.items():
            message = message.replace(word, spoken)
        raise UsageError(f"{message[:1].lower()}{message[1:]}", hint=_example(key)) from None


def _custom(kind: type, value: object, base: Base | None) -> object:
    if kind is TimeOfDay and isinstance(value, time):  # TOML has times of day of its own
        value = value.isoformat()
    numeric = kind in {Rate, Size, Count}
    if numeric and isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str):
        raise UsageError("expected text" if not numeric else "expected a number or text")
    if kind is Path:
        return base.join(value) if base else Path(value)
    if kind is Location:
        location = Location(value)
        return location if location.is_url or not base else Location(base.join(value))
    for parsed in (Address, Count, Duration, Rate, Size, Span, TimeOfDay, Url):
        if kind is parsed:
            return parsed.parse(value)
    raise NotImplementedError(kind)


def _walk(
    table: Mapping[str, Any], section: str, path: str
) -> Iterator[tuple[str, Key | str, Any]]:
    """Give path, declaration and raw value of each key; instead of the declaration what is wrong."""
    known, declared = keys(), sections()
    for name, raw in table.items():
        here = f"{path}.{name}" if path else name
        inner = f"{section}.{name}" if section else name
        if inner in known:
            yield here, known[inner], raw
        elif inner not in declared:
            yield here, _unknown(section, name), raw
        elif inner == "source":
            yield from _walk_sources(raw)
        elif isinstance(raw, dict):
            yield from _walk(raw, inner, here)
        else:
            yield here, f"{name} is a table: write [{inner}]", raw


def _walk_sources(raw: object) -> Iterator[tuple[str, Key | str, Any]]:
    if not (isinstance(raw, list) and all(isinstance(each, dict) for each in raw)):
        yield "source", "each source is a table of its own: write [[source]]", raw
        return
    for number, each in enumerate(raw):
        if not each:
            yield f"source[{number}]", "this source is empty", each
        yield from _walk(each, "source", f"source[{number}]")


def _unknown(section: str, name: str) -> str:
    """Say that there is no such key, and what may be meant."""
    known = keys()
    where = f"[{section}] has no key {name!r}" if section else f"there is no section {name!r}"
    if _SECRETS.search(name.lower()):
        return (
            f"{where}: secrets do not belong into this file; use password-file, password-command,"
            " or the variable PERDURE_PASSWORD"
        )
    elsewhere = [key.section for key in known.values() if key.name == name]
    if elsewhere:
        return f"{where}: it belongs into [{elsewhere[0]}]"
    names = [key.name for key in known.values() if key.section == section] or list(sections())
    return f"{where}; {did_you_mean(name, names) or 'it has ' + ', '.join(names)}"


def did_you_mean(name: str, names: Sequence[str], cutoff: float = 0.6) -> str | None:
    """Name the nearest of some names, if one is near."""
    from difflib import get_close_matches

    nearest = get_close_matches(name, names, 1, cutoff)
    return f"did you mean {nearest[0]}?" if nearest else None


def _example(key: Key) -> str:
    return f"for example {as_toml(key.example)}"


def as_toml(value: object) -> str:
    """Write a value of an example as TOML, whose texts and lists are JSON's but for long texts."""
    if isinstance(value, str) and "\n" in value:
        return f'"""\n{value}"""'
    return msgspec.json.format(msgspec.json.encode(value), indent=0).decode()


def _spoken(path: str) -> str:
    section, _, name = path.rpartition(".")
    return f"[{section.partition('[')[0]}] {name}"


def _texts(raw: object) -> Iterator[str]:
    if isinstance(raw, str):
        yield raw
    elif isinstance(raw, list | tuple):
        for each in raw:
            yield from _texts(each)


def _is_clean(text: str) -> bool:
    return bool(text.strip()) and "\0" not in text


def _lines(text: str) -> dict[str, int]:
    """Find the lines of keys, as far as they stand at the beginning of a line."""
    found: dict[str, int] = {}
    counts: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.match(line):
            table = _bare(header[2])
            if header[1] == "[[":
                counts[table] = counts.get(table, -1) + 1
                table = f"{table}[{counts[table]}]"
            found.setdefault(table, number)
        elif assignment := _ASSIGNMENT.match(line):
            name = _bare(assignment[1])
            found.setdefault(f"{table}.{name}" if table else name, number)
    return found


def _bare(name: str) -> str:
    return re.sub(r"[\s'\"]", "", name)


def _line(lines: Mapping[str, int], path: str) -> str:
    """Say in which line a key stands, or else the table that it is in."""
    while path and path not in lines:
        path = path.rpartition(".")[0]
    return f", line {lines[path]}" if path else ""

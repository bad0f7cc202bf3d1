"""The configuration that holds: the environment over the file, and where each value comes from."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from perdure.config.declaration import OF_TREES, SOURCE_PLACES, Config, Section, keys, sections
from perdure.config.environment import read_environment
from perdure.config.reading import Base, Given, Problem, Values, read
from perdure.config.values import Count, Location, Url
from perdure.errors import UsageError

DEFAULT = "default"
_NUMBER = re.compile(r"\[(\d+)\]")
_CHOICES = (
    ("repository.password-file", "repository.password-command"),
    ("schedule.at", "schedule.every"),
)
"""Keys that exclude each other: who says one of them has decided about both."""


@dataclass(frozen=True, slots=True)
class Setting:
    """One key with its value that holds, as `perdure config show` has it."""

    path: str
    value: Any
    """For JSON, and without secrets."""
    origin: str
    """A file and line, a variable, or ``default``."""


@dataclass(frozen=True, slots=True)
class Configuration:
    """Settings, where they come from, and what is wrong with them."""

    config: Config = field(default_factory=Config)
    file: Path | None = None
    in_file: Config = field(default_factory=Config)
    """What the file alone says."""
    given: Mapping[str, Given] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    warnings: tuple[str, ...] = ()

    def require(self) -> Config:
        """Give the settings. Raises UsageError if anything is wrong with them."""
        if not self.problems:
            return self.config
        first, *more = self.problems
        others = f" (and {len(more)} more)" if more else ""
        raise UsageError(f"{first}{others}", hint="perdure config check lists all that is wrong")

    def settings(self) -> Iterator[Setting]:
        """Give every key that there is, and those of each source, in the order of the declaration."""
        for path, value in _flat(self.config):
            given = self.given.get(path)
            key = keys()[_NUMBER.sub("", path)]
            yield Setting(path, shown(value, hidden=key.hidden), given.where if given else DEFAULT)


def settle(
    text: str | None, file: Path | None, home: Path | None, environment: Mapping[str, str]
) -> Configuration:
    """Give the configuration of a file's text (None: there is no file) and an environment."""
    folder = file.parent if file else Path()
    from_file = Values({}) if text is None else read(text, str(file), Base(folder, home))
    from_environment = read_environment(environment)
    merged = _merge(from_file.given, from_environment.given)
    problems = (
        *from_file.problems,
        *from_environment.problems,
        *_contradictions(from_file.given),
        *_contradictions(from_environment.given),
        *_gaps(merged),
    )
    return Configuration(
        config=_build(merged),
        file=file,
        in_file=_build(from_file.given),
        given=merged,
        problems=tuple(dict.fromkeys(problems)),
        warnings=from_environment.warnings,
    )


def _merge(low: Mapping[str, Given], high: Mapping[str, Given]) -> dict[str, Given]:
    """Lay some values over others; sources as a whole, choices as one."""
    merged = dict(low)
    if any(path.startswith("source[") for path in high):
        merged = {path: value for path, value in merged.items() if not path.startswith("source[")}
    for choice in _CHOICES:
        if not set(choice).isdisjoint(high):
            merged = {path: value for path, value in merged.items() if path not in choice}
    return merged | dict(high)


def _contradictions(given: Mapping[str, Given]) -> Iterator[Problem]:
    """Find what one place must not say at once."""
    for first, second in _CHOICES:
        if first in given and second in given:
            yield Problem(
                given[second].where,
                f"{_name(first)} and {_name(second)} exclude each other",
            )


def _gaps(given: Mapping[str, Given]) -> Iterator[Problem]:
    """Find what is said only in part."""
    by_source: defaultdict[str, dict[str, Given]] = defaultdict(dict)
    for path, value in given.items():
        if path.startswith("source["):
            by_source[path.partition(".")[0]][_name(path)] = value
    names: dict[str, str] = {}
    for path, source in by_source.items():
        where = next(iter(source.values())).where
        places = [name for name in SOURCE_PLACES if name in source]
        if not places:
            yield Problem(where, f"a source has one of {', '.join(SOURCE_PLACES)}")
        elif len(places) > 1:
            where = source[places[1]].where
            yield Problem(where, f"one source cannot have {' and '.join(places)}")
        if "blobs" in source and "filestorage" not in source:
            yield Problem(source["blobs"].where, "blobs belong to a filestorage")
        for name in source.keys() & OF_TREES if "tree" not in source else ():
            yield Problem(source[name].where, f"{name} belongs to a tree")
        if "name" in source and names.setdefault(source["name"].value, path) != path:
            called = source["name"]
            yield Problem(called.where, f"two sources have the name {called.value!r}")
    sender = given.get("monitoring.mail.from")
    if sender and "monitoring.mail.to" not in given:
        yield Problem(sender.where, "a mail needs somebody who gets it: to")


def _build(given: Mapping[str, Given]) -> Config:
    """Put values into their sections."""
    fields: defaultdict[str, dict[str, Any]] = defaultdict(dict)
    for path, value in given.items():
        section = path.rpartition(".")[0]
        fields[section][keys()[_NUMBER.sub("", path)].field] = value.value
    made: dict[str, dict[str, Any]] = {"": {}}
    for section, kind in reversed(sections().items()):  # an inner section before the one it is in
        outer, _, name = section.rpartition(".")
        if section == "source":
            count = sum(path.startswith("source[") for path in fields)
            tables = (fields[f"source[{number}]"] for number in range(count))
            made[""]["source"] = tuple(kind(**table) for table in tables)
        else:
            made.setdefault(outer, {})[name] = kind(**fields[section], **made.get(section, {}))
    return Config(**made[""])


def _flat(section: Section, path: str = "") -> Iterator[tuple[str, Any]]:
    for each in msgspec.structs.fields(section):
        value = getattr(section, each.name)
        here = f"{path}.{each.encode_name}" if path else each.encode_name
        if isinstance(value, Section):
            yield from _flat(value, here)
        elif here == "source":
            for number, source in enumerate(value):
                inside = _flat(source, f"source[{number}]")
                yield from ((inner, set_one) for inner, set_one in inside if set_one is not None)
        else:
            yield here, value


def shown(value: Any, *, hidden: bool) -> Any:
    """Give a value as JSON has it; of one that may hold a secret only where it leads."""
    if isinstance(value, Url):
        return value.host
    if isinstance(value, Location):
        return value.without_secrets
    if hidden and isinstance(value, str):
        program, *arguments = value.split(maxsplit=1)
        return f"{program} ..." if arguments else program
    if isinstance(value, tuple):
        return [shown(each, hidden=hidden) for each in value]
    if isinstance(value, Count) and value >= 0:
        return int(value)
    return value if value is None or type(value) in (bool, int) else str(value)


def _name(path: str) -> str:
    return path.rpartition(".")[2]

"""Reading zope.conf and zeo.conf: sections, keys and values as ZConfig has them, without any schema.

ZConfig's own parser does the reading, so that ``%define``, ``$name``, ``${name}`` and nesting mean what
they mean to Zope. What would run a site's code or leave this machine is not done: ``%import`` is only
noted, ``%include`` reads files alone. ``$(NAME)`` is looked up in an environment that is passed in; a
variable that is not set stays as it stands, and matters only where a value with it is needed.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ZConfig import ConfigurationError
from ZConfig.cfgparser import ZConfigParser

from perdure.errors import UsageError

_MOST_BYTES = 4 << 20
_MOST_FILES = 64
_DEEPEST = 32
"""Sections in sections."""
_NAME = "[A-Za-z_][A-Za-z0-9_]*"
_REFERENCE = re.compile(
    rf"\$(?:(?P<dollar>\$)|\((?P<variable>{_NAME})\)|\{{(?P<braced>{_NAME})\}}|(?P<name>{_NAME}))?"
)
_UNSET = re.compile(rf"\$\(({_NAME})\)")
_ELSEWHERE = re.compile(r"package:|(?!file:)[a-z][a-z0-9+.-]+://", re.IGNORECASE)


@dataclass(slots=True)
class Section:
    """A section: its type and name (in lower case), its keys (in lower case) and values, what is in it."""

    kind: str
    name: str | None
    file: Path
    line: int
    values: list[tuple[str, str]] = field(default_factory=list)
    sections: list[Section] = field(default_factory=list)
    imports: list[str] = field(default_factory=list)
    """Packages that ``%import`` names directly in it."""

    def addValue(self, key: str, value: str, position: object) -> None:  # noqa: N802 - ZConfig's own name
        """Take a key that the parser read."""
        self.values.append((key.lower(), value))

    def all(self, key: str) -> list[str]:
        """Give the values of a key that may stand several times. Raises UsageError."""
        return [self._complete(key, value) for name, value in self.values if name == key]

    def get(self, key: str) -> str | None:
        """Give the value of a key; None where it is missing or empty. Raises UsageError."""
        return next((value for value in self.all(key) if value), None)

    def flag(self, key: str) -> bool | None:
        """Give a yes or no; None where it is missing, or stands in a variable that is not set."""
        value = next((value for name, value in self.values if name == key), "")
        if not value or _UNSET.search(value):
            return None
        return value.lower() in {"yes", "true", "on", "1"}

    def text(self, left_out: frozenset[str] = frozenset(), indent: str = "") -> str:
        """Write it again as ZConfig reads it, without some of its keys. Raises UsageError."""
        head = f"{self.kind} {self.name}" if self.name else self.kind
        lines = [f"{indent}<{head}>\n"]
        for key, value in self.values:
            if key not in left_out:
                written = self._complete(key, value).replace("$", "$$")
                lines.append(f"{indent}  {key} {written}".rstrip() + "\n")
        lines += [inner.text(left_out, f"{indent}  ") for inner in self.sections]
        return "".join((*lines, f"{indent}</{self.kind}>\n"))

    def _complete(self, key: str, value: str) -> str:
        if unset := _UNSET.search(value):
            raise UsageError(
                f"{self.file}, line {self.line}: {key} of <{self.kind}> is {value}, and the environment"
                f" has no {unset[1]}",
                hint=f"set {unset[1]} to what the site itself is started with",
            )
        return value


@dataclass(slots=True)
class Configuration:
    """A configuration file with all that it includes; ``unread``: what it includes and is no file."""

    path: Path
    top: Section
    unread: list[tuple[str, int]] = field(default_factory=list)

    @property
    def is_server(self) -> bool:
        """Whether it configures a ZEO server."""
        return any(section.kind == "zeo" for section in self.top.sections)

    def databases(self) -> Iterator[Section]:
        """Give the databases that it names: ``<zodb_db NAME>``, ``<zodb NAME>``."""
        return (each for each in self.top.sections if each.kind in {"zodb_db", "zodb"})


def read_configuration(path: Path, environment: Mapping[str, str]) -> Configuration:
    """Read a zope.conf or zeo.conf. Raises UsageError, with file and line."""
    configuration = Configuration(path, Section("", None, path, 0))
    _Reading(configuration, environment).read(path, configuration.top, {})
    return configuration


class _Reading:
    """One configuration, read file by file."""

    def __init__(self, configuration: Configuration, environment: Mapping[str, str]) -> None:
        self.configuration = configuration
        self.environment = environment
        self.open: list[Path] = []
        self.files = 0

    def read(self, path: Path, section: Section, defines: dict[str, str]) -> None:
        self.files += 1
        if path in self.open:
            raise UsageError(f"{self.open[-1]} includes {path}, which includes it again")
        if self.files > _MOST_FILES:
            raise UsageError(f"{self.configuration.path} includes more than {_MOST_FILES} files")
        parser = _Parser(StringIO(content(path)), path, self, defines)
        self.open.append(path)
        try:
            parser.parse(section)
        except ConfigurationError as error:
            raise UsageError(
                f"{path}, line {parser.lineno}: {error.message}",
                hint="Zope could not start with it either; is it the right file?",
            ) from error
        self.open.pop()

    def include(self, section: Section, target: str, defines: dict[str, str], line: int) -> None:
        if _ELSEWHERE.match(target):
            self.configuration.unread.append((target, line))
            return
        if target.lower().startswith("file:"):
            target = unquote(target[len("file:") :])
            target = f"/{target.lstrip('/')}"
        self.read(self.open[-1].parent / target, section, defines)


class _Context:
    """What ZConfig's parser tells of sections and imports."""

    def __init__(self, parser: _Parser, path: Path) -> None:
        self.parser = parser
        self.path = path

    def startSection(self, container: Section, kind: str, name: str | None) -> Section:  # noqa: N802 - ZConfig's own name
        if len(self.parser.stack) >= _DEEPEST:
            raise ConfigurationError(f"more than {_DEEPEST} sections in each other")
        section = Section(kind, name, self.path, self.parser.lineno)
        container.sections.append(section)
        return section

    def endSection(self, container: Section, kind: str, name: str | None, section: Section) -> None:  # noqa: N802 - ZConfig's own name
        """Nothing is left to do."""


@dataclass(slots=True)
class _Resource:
    file: StringIO
    url: str


class _Parser(ZConfigParser):  # type: ignore[misc]  # ZConfig has no types
    """ZConfig's parser; references, imports and includes are ours."""

    def __init__(
        self, file: StringIO, path: Path, reading: _Reading, defines: dict[str, str]
    ) -> None:
        super().__init__(_Resource(file, str(path)), _Context(self, path), defines)
        self.reading = reading

    def handle_import(self, section: Section, rest: str) -> None:
        section.imports.append(self.replace(rest.strip()))

    def handle_include(self, section: Section, rest: str) -> None:
        self.reading.include(section, self.replace(rest.strip()), self.defines, self.lineno)

    def replace(self, text: str) -> str:
        return _REFERENCE.sub(self._value, text)

    def _value(self, match: re.Match[str]) -> str:
        if match["dollar"]:
            return "$"
        if variable := match["variable"]:
            return self.reading.environment.get(variable, match[0])
        name = match["braced"] or match["name"]
        if name is None:
            self.error("a lone $")
        value: Any = self.defines.get(name.lower())
        if value is None:
            self.error(f"{match[0]} is not defined")
        return str(value)


def is_file(path: Path) -> bool:
    """Tell whether a file is there. Raises UsageError where that cannot be told: it may be what matters."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise UsageError(
            f"{path} cannot be looked at: {error.strerror}",
            hint="run as a user who may read the site's configuration",
        ) from error


def content(path: Path) -> str:
    """Give the text of a configuration file; bytes that are no UTF-8 stay. Raises UsageError."""
    try:
        with path.open("rb") as file:
            data = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(
            f"{path} cannot be read: {error.strerror}",
            hint="name the site's zope.conf or zeo.conf, and run as a user who may read it",
        ) from error
    if len(data) > _MOST_BYTES or b"\0" in data:
        raise UsageError(f"{path} is no configuration file")
    return data.decode("utf-8", "surrogateescape")

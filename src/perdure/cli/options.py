"""The options that commands share, and the settings that they and the environment make together.

They may stand before or after the command's name. What is nearer to the command wins, the command line
over the environment, and a ``PERDURE_`` variable over the ``RESTIC_`` one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from perdure.errors import UsageError
from perdure.model import parse_moment

Command = TypeVar("Command", bound=Callable[..., Any])

_GIVEN = "perdure.given"
_UNITS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?[hms])+")


@dataclass(frozen=True, slots=True)
class Settings:
    """What the shared options and the environment say."""

    environment: Mapping[str, str]
    repository: str | None = None
    password_file: Path | None = None
    password_command: str | None = None
    retry_lock: timedelta = timedelta(0)
    cache_dir: Path | None = None
    no_cache: bool = False
    no_lock: bool = False
    quiet: bool = False
    verbose: bool = False
    json: bool = False

    @classmethod
    def of(cls, context: click.Context) -> Settings:
        """Collect what was given before and after the command."""
        return cls(environment=os.environ, **context.meta.get(_GIVEN, {}))

    @property
    def location(self) -> str:
        """Where the repository is. Raises UsageError when nothing says so."""
        location = self.repository or self.variable("REPOSITORY")
        if not location:
            raise UsageError(
                "no repository is named", hint="give its folder with -r, or set PERDURE_REPOSITORY"
            )
        return location

    @property
    def cache(self) -> Path | None:
        """The folder for the caches of all repositories; None to do without."""
        if self.no_cache:
            return None
        if self.cache_dir:
            return self.cache_dir
        if folder := self.environment.get("PERDURE_CACHE_DIR"):
            return Path(folder)
        if folder := self.environment.get("RESTIC_CACHE_DIR"):
            return Path(folder) / "perdure"  # restic's own caches lie beside it
        from platformdirs import user_cache_path

        return user_cache_path("perdure")

    def variable(self, name: str) -> str | None:
        """Give a setting of the environment: PERDURE_..., or else RESTIC_..."""
        return self.environment.get(f"PERDURE_{name}") or self.environment.get(f"RESTIC_{name}")


def duration(text: str) -> timedelta:
    """Read a span of time such as 30s, 5m or 1h30m. Raises UsageError."""
    if not _DURATION.fullmatch(text):
        raise UsageError(f"{text!r} is no duration", hint="write 30s, 5m or 1h30m")
    parts = re.findall(r"([\d.]+)([hms])", text)
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


def _remember(context: click.Context, parameter: click.Parameter, value: object) -> None:
    name = parameter.name
    if name and context.get_parameter_source(name) is not ParameterSource.DEFAULT:
        context.meta.setdefault(_GIVEN, {})[name] = value


def _shared(*names: str, **attributes: Any) -> Callable[[Command], Command]:
    return click.option(*names, callback=_remember, expose_value=False, **attributes)


_OUTPUT = (
    _shared("--quiet", "-q", is_flag=True, help="Say nothing but warnings and errors."),
    _shared("--verbose", "-v", is_flag=True, help="Say more."),
    _shared("--json", is_flag=True, help="Answer in JSON, for programs."),
)
_REPOSITORY = (
    _shared(
        "--repository",
        "-r",
        "repository",
        metavar="PLACE",
        help="Folder of the repository. [PERDURE_REPOSITORY]",
    ),
    _shared(
        "--password-file",
        type=click.Path(path_type=Path),
        help="File that holds the password. [PERDURE_PASSWORD_FILE]",
    ),
    _shared(
        "--password-command",
        metavar="COMMAND",
        help="Command that prints the password. [PERDURE_PASSWORD_COMMAND]",
    ),
    _shared(
        "--retry-lock",
        type=duration,
        metavar="DURATION",
        help="Wait so long for others to let go of the repository: 30s, 5m, 1h30m.",
    ),
    _shared(
        "--cache-dir",
        type=click.Path(path_type=Path, file_okay=False),
        help="Folder for caches. [PERDURE_CACHE_DIR]",
    ),
    _shared("--no-cache", is_flag=True, help="Keep no cache."),
)
_NO_LOCK = _shared(
    "--no-lock", is_flag=True, help="Take no lock, for a repository that cannot be written to."
)


def _apply(command: Command, options: tuple[Callable[[Command], Command], ...]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


def moment(*names: str, help: str) -> Callable[[Command], Command]:  # noqa: A002 - click's own word
    """Give an option that takes a time (UTC unless it has an offset) or a transaction id."""
    return click.option(*names, type=parse_moment, metavar="TIME|TID", help=help)


def tags(help: str) -> Callable[[Command], Command]:  # noqa: A002 - click's own word
    """Give the option --tag, several times or with commas, as restic's."""
    return click.option(
        "--tag", "tags", multiple=True, callback=_split_tags, metavar="TAG[,TAG]", help=help
    )


def _split_tags(
    context: click.Context, parameter: click.Parameter, values: tuple[str, ...]
) -> tuple[str, ...]:
    return split_tags(values)


def split_tags(values: Iterable[str]) -> tuple[str, ...]:
    """Give the tags of values that may have several, with commas between them. Raises UsageError."""
    return tuple(tag for value in values for tag in text("tag", value).split(",") if tag)


def text(what: str, value: str) -> str:
    """Refuse what was typed but is no text, and so cannot be kept in a snapshot. Raises UsageError."""
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UsageError(
            f"the {what} {value!r} is not UTF-8",
            hint="name another one; a symbolic link can give a file another path",
        ) from None
    return value


def output_options(command: Command) -> Command:
    """Add the options that say how a command answers."""
    return _apply(command, _OUTPUT)


def repository_options(command: Command) -> Command:
    """Add the options of every command that works on a repository."""
    return _apply(command, (*_REPOSITORY, *_OUTPUT))


def reading_options(command: Command) -> Command:
    """Add the options of a command that only reads a repository."""
    return _apply(command, (*_REPOSITORY, _NO_LOCK, *_OUTPUT))

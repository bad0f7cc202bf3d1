"""The options that commands share, and the settings that they and the environment make together.

They may stand before or after the command's name. What is nearer to the command wins, the command line
over the environment, a ``PERDURE_`` variable over the ``RESTIC_`` one, and all of them over perdure.toml.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from perdure.config.values import Duration, Rate
from perdure.errors import UsageError
from perdure.model import parse_moment

if TYPE_CHECKING:
    from perdure.config.effective import Configuration

Command = TypeVar("Command", bound=Callable[..., Any])

_GIVEN = "perdure.given"


@dataclass(frozen=True, slots=True)
class Settings:
    """What the shared options, the environment and the configuration say."""

    environment: Mapping[str, str]
    read_configuration: Callable[[], Configuration] | None = None
    config_file: Path | None = None
    repository: str | None = None
    password_file: Path | None = None
    password_command: str | None = None
    retry_lock: timedelta | None = None
    limit_upload: Rate | None = None
    cache_dir: Path | None = None
    no_cache: bool = False
    no_lock: bool = False
    quiet: bool = False
    verbose: bool = False
    json: bool = False

    @classmethod
    def of(cls, context: click.Context) -> Settings:
        """Collect what was given before and after the command."""
        given = context.meta.get(_GIVEN, {})

        @functools.cache
        def read() -> Configuration:
            from perdure.cli.configuration import load

            return load(given.get("config_file"), os.environ)

        return cls(environment=os.environ, read_configuration=read, **given)

    @property
    def configuration(self) -> Configuration:
        """What perdure.toml and the environment say; read when it is first asked for. Raises UsageError."""
        if self.read_configuration:
            return self.read_configuration()
        from perdure.config.effective import settle

        return settle(None, None, None, self.environment)

    @property
    def location(self) -> str:
        """Where the repository is. Raises UsageError when nothing says so."""
        location = self.repository or self.variable("REPOSITORY")
        location = location or self.configuration.require().repository.location
        if not location:
            raise UsageError(
                "no repository is named",
                hint="give its place with -r, set PERDURE_REPOSITORY, or write it into perdure.toml",
            )
        return location

    @property
    def lock_wait(self) -> timedelta:
        """How long to wait for others to let go of the repository."""
        if self.retry_lock is not None:
            return self.retry_lock
        return self.configuration.require().repository.retry_lock

    @property
    def upload_limit(self) -> Rate | None:
        """How many bytes per second may be written to the repository."""
        return self.limit_upload or self.configuration.require().repository.limit_upload

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
        if configured := self.configuration.require().repository.cache_dir:
            return configured
        from platformdirs import user_cache_path

        return user_cache_path("perdure")

    def variable(self, name: str) -> str | None:
        """Give a setting of the environment: PERDURE_..., or else RESTIC_..."""
        return self.environment.get(f"PERDURE_{name}") or self.environment.get(f"RESTIC_{name}")


duration = Duration.parse
"""Reads a span of time such as 30s, 5m or 1h30m."""


def use_configuration(context: click.Context, path: Path) -> None:
    """Let a file be the configuration, unless another one is named."""
    context.meta.setdefault(_GIVEN, {}).setdefault("config_file", path)


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
_CONFIG = _shared(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="The perdure.toml to use. [PERDURE_CONFIG]",
)
_REPOSITORY = (
    _CONFIG,
    _shared(
        "--repository",
        "-r",
        "repository",
        metavar="PLACE",
        help="Folder of the repository, or s3://bucket/prefix, gs://..., az://... [PERDURE_REPOSITORY]",
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
        "--limit-upload",
        type=Rate.parse,
        metavar="RATE",
        help="Write so much per second at most: 500 (KiB), 5M.",
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


def with_options(
    command: Command, wrapped: Callable[..., Any], *options: Callable[[Any], Any]
) -> Command:
    """Let a function stand for a command, which takes some options more and makes one value of them."""
    wrapped.__name__, wrapped.__doc__ = command.__name__, command.__doc__
    wrapped.__dict__.update(command.__dict__)
    return _apply(wrapped, options)  # type: ignore[return-value]


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


def configuration_options(command: Command) -> Command:
    """Add the options of a command about the configuration, which opens no repository."""
    return _apply(command, (_CONFIG, *_OUTPUT))


def repository_options(command: Command) -> Command:
    """Add the options of every command that works on a repository."""
    return _apply(command, (*_REPOSITORY, *_OUTPUT))


def reading_options(command: Command) -> Command:
    """Add the options of a command that only reads a repository."""
    return _apply(command, (*_REPOSITORY, _NO_LOCK, *_OUTPUT))

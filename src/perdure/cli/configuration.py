"""Where the configuration is: the file that is named, or the first that is found, and the environment."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from perdure.config.effective import Configuration, settle
from perdure.config.reading import SIZE_LIMIT, holds
from perdure.errors import UsageError

NAME = "perdure.toml"
PROJECT, TABLE = "pyproject.toml", "tool.perdure"
"""A file that others have tables in, too, and ours."""
FOR_ALL = Path("/etc/perdure") / NAME
"""Looked for last."""


def load(named: Path | None, environment: Mapping[str, str]) -> Configuration:
    """Read the file that an option or PERDURE_CONFIG names, or else the first that is found.

    Raises UsageError when it cannot be read; what is wrong inside is part of the answer.
    """
    variable = environment.get("PERDURE_CONFIG")
    named = named or (Path(variable) if variable else None)
    home = Path(environment["HOME"]) if environment.get("HOME") else None
    path = named or next((path for path in places() if is_configuration(path)), None)
    if path is None:
        return settle(None, None, home, environment)
    text, within = _read(path, found=named is None), TABLE if path.name == PROJECT else ""
    return settle(text, path.absolute(), home, environment, within)


def places() -> Iterator[Path]:
    """Give the paths at which a configuration is looked for that nobody names."""
    from platformdirs import user_config_path

    yield Path(NAME)
    yield Path(PROJECT)
    yield user_config_path("perdure") / NAME
    yield FOR_ALL


def is_configuration(path: Path) -> bool:
    """Whether there is a file for us: a pyproject.toml only with a table of ours."""
    if path.name != PROJECT or not path.exists():
        return path.exists()
    try:
        with open(path, "rb") as file:
            return holds(file.read(SIZE_LIMIT).decode("utf-8-sig", "replace"), TABLE)
    except OSError:
        return False


def _read(path: Path, *, found: bool) -> str:
    try:
        with open(path, "rb") as file:
            _refuse_strangers(os.fstat(file.fileno()), path, found=found)
            content = file.read(SIZE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"the configuration {path} cannot be read: {error.strerror}") from error
    if len(content) > SIZE_LIMIT:
        raise UsageError(f"{path} is no configuration: it has more than {SIZE_LIMIT} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} is not UTF-8: {error.reason} at byte {error.start}") from None


def _refuse_strangers(status: os.stat_result, path: Path, *, found: bool) -> None:
    """A configuration names commands to run; so it must be of somebody whose commands one would run."""
    if not stat.S_ISREG(status.st_mode):
        return
    if status.st_mode & stat.S_IWOTH:
        raise UsageError(
            f"everybody on this machine can write to {path}, which names commands to run",
            hint=f"chmod o-w {path}",
        )
    if found and status.st_uid not in {0, os.geteuid()}:
        raise UsageError(
            f"{path} was found here, but belongs to somebody else, and it names commands to run",
            hint=f"if you trust it, name it: --config {path}",
        )

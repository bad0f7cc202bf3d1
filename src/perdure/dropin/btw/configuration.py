"""btw-backup's configuration directory: what its files say, and its working directories.

``config.py``                general settings
``db/global.py``             settings for the globals; also found beside ``config.py``, as documented
``db/<database>.py``         settings for a database; likewise
``<name>.<hash>/``           the working directory of a file backup: ``src``, a link to its source,
                             ``config.py`` and ``backup/``

A file counts only if it belongs to root or to who runs this, and nobody else may write it or its directory.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from pathlib import Path

from perdure.dropin.btw.names import UNFINISHED, source_hash
from perdure.dropin.btw.settings import SIZE_LIMIT, Value, parse_settings, parse_span
from perdure.errors import PerdureError, UsageError
from perdure.sources.durable import sync_directory, write_new

_FILE = "config.py"
_TRUSTED_WRITERS = stat.S_IWGRP | stat.S_IWOTH
_DEFAULT_COUNT, _DEFAULT_SPAN = 10, "24h"


class JobType(Enum):
    """How a file backup is kept."""

    RDIFF = "rdiff"
    TAR = "tar"


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a new full backup begins: after so many increments, or so long after the last one."""

    count: int = _DEFAULT_COUNT
    span: timedelta = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Offsite:
    """Where the copy goes, and whose settings lead there."""

    s3cmd_config: Path
    uri_prefix: str
    encrypted: bool = True
    """Whether the server is asked to encrypt what it keeps."""


@dataclass(frozen=True, slots=True)
class Job:
    """A file backup: its working directory and how it is made."""

    folder: Path
    type: JobType
    rotation: Rotation


class Configuration:
    """A configuration directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._general = _read(folder / _FILE)

    @property
    def root(self) -> Path:
        """What destinations are relative to. Raises UsageError."""
        return Path(self._required("ROOT_PATH"))

    @property
    def offsite(self) -> Offsite:
        """Where the copy goes. Raises UsageError."""
        encrypted = self._general.get("S3_SERVER_SIDE_ENCRYPTION", True)
        return Offsite(
            Path(self._required("S3CMD_CONFIG")),
            self._required("S3_URI_PREFIX"),
            encrypted=bool(encrypted),
        )

    def job(self, source: str) -> Job:
        """Find the working directory of a source. Raises UsageError, PerdureError."""
        folder = self._working_directory(source)
        if folder is None:
            raise UsageError(
                f"no working directory for: {source}",
                hint="make one with fs-init; the path must be written as it was there",
            )
        path = folder / _FILE
        settings = _read(path)
        name = settings.get("TYPE")
        try:
            kind = JobType(name)
        except ValueError:
            raise UsageError(f"unknown backup type: {name}", hint=f"look into {path}") from None
        return Job(folder, kind, _rotation(settings, path))

    def database(self, name: str) -> Rotation:
        """Give the settings for a database, or for ``global``. Raises UsageError."""
        paths = [self.folder / "db" / f"{name}.py"]
        if name != "config":  # that name is taken
            paths.append(self.folder / f"{name}.py")
        path = next((path for path in paths if path.exists()), None)
        return _rotation(_read(path), path) if path else Rotation()

    def initialize(self, source: str, name: str, kind: JobType) -> Path:
        """Make a working directory, whole or not at all, and give it. Raises UsageError, OSError."""
        if not source.startswith("/"):
            raise UsageError("the source path must be absolute")
        if "/" in name or "\0" in name or not name or name.startswith("."):
            raise UsageError(f"{name!r} cannot be the name of a directory")
        if self._working_directory(source):
            raise UsageError("there is already a directory for this path")
        path = self.folder / f"{name}.{source_hash(source)}"
        unfinished = self.folder / f"{UNFINISHED}{path.name}"
        unfinished.mkdir(exist_ok=True)
        (unfinished / "src").unlink(missing_ok=True)
        (unfinished / "src").symlink_to(source)
        lines = [f'TYPE="{kind.value}"\n']
        if kind is JobType.RDIFF:
            lines.append(f"MAX_INCREMENTAL_COUNT={_DEFAULT_COUNT}\n")
            lines.append(f'MAX_INCREMENTAL_SPAN="{_DEFAULT_SPAN}"\n')
        descriptor = write_new(unfinished / _FILE, [line.encode() for line in lines])
        os.fsync(descriptor)
        os.close(descriptor)
        sync_directory(unfinished)
        unfinished.rename(path)
        sync_directory(self.folder)
        return path

    def _required(self, name: str) -> str:
        value = self._general.get(name)
        if not isinstance(value, str) or not value:
            raise UsageError(
                f"you must specify {name} in the general configuration",
                hint=f'write {name} = "..." into {self.folder / _FILE}',
            )
        return value

    def _working_directory(self, source: str) -> Path | None:
        suffix = f".{source_hash(source)}"
        found = sorted(
            entry
            for entry in self.folder.iterdir()
            if entry.name.endswith(suffix) and not entry.name.startswith(UNFINISHED)
        )
        if len(found) > 1:
            names = ", ".join(map(str, found))
            raise PerdureError(f"duplicate working directories: {names}")
        for folder in found:
            if os.readlink(folder / "src") != source:
                raise PerdureError(f"found a working directory with the wrong path: {folder}")
            return folder
        return None


def read_trusted(path: Path, limit: int) -> str:
    """Read a file that nobody else can have written. Raises UsageError for any other."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror}") from None
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path} is no file")
        _refuse_others(status, path)
        _refuse_others(path.parent.stat(), path.parent)
        data = file.read(limit + 1)
    if len(data) > limit:
        raise UsageError(f"{path} is too long: at most {limit} bytes are read")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise UsageError(f"{path} is not in UTF-8") from None


def _refuse_others(status: os.stat_result, path: Path) -> None:
    if status.st_uid not in {0, os.geteuid()}:
        raise UsageError(
            f"{path} belongs to user {status.st_uid}, and neither to root nor to who runs this",
            hint="whoever can write it decides what is backed up, and where to",
        )
    if status.st_mode & _TRUSTED_WRITERS and not status.st_mode & stat.S_ISVTX:
        raise UsageError(
            f"others may write {path} (its mode is {stat.S_IMODE(status.st_mode):04o})",
            hint=f"make it yours alone: chmod go-w {path}",
        )


def _read(path: Path) -> Mapping[str, Value]:
    return parse_settings(read_trusted(path, SIZE_LIMIT), str(path))


def _rotation(settings: Mapping[str, Value], path: Path) -> Rotation:
    count = settings.get("MAX_INCREMENTAL_COUNT", _DEFAULT_COUNT)
    span = settings.get("MAX_INCREMENTAL_SPAN", _DEFAULT_SPAN)
    if not isinstance(count, int) or isinstance(count, bool):
        raise UsageError(f"{path}: MAX_INCREMENTAL_COUNT must be a whole number")
    if not isinstance(span, str):
        raise UsageError(f"{path}: MAX_INCREMENTAL_SPAN must be a text, such as '24h'")
    return Rotation(count, parse_span(span))

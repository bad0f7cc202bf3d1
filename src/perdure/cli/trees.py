"""What the command line and perdure.toml say of file trees: which, and what of them is left out."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli.options import Command, text, with_options
from perdure.config.values import Size
from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure.config.declaration import SourceSection
    from perdure.sources.files import FileTreeSource


_VARIABLE = re.compile(r"\$(?:(\$)|(\w+)|\{(\w+)\})", re.ASCII)
_FILE_LIMIT = 16 << 20


@dataclass(frozen=True, slots=True)
class Exclusion:
    """What is said of what is left out; the same words on the command line and in perdure.toml."""

    patterns: tuple[str, ...] = ()
    any_case: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    caches: bool = False
    if_present: tuple[str, ...] = ()
    one_file_system: bool = False
    larger_than: Size | None = None

    @classmethod
    def of(cls, section: SourceSection) -> Exclusion:
        """Give what a table of perdure.toml says."""
        return cls(
            patterns=section.exclude or (),
            any_case=section.iexclude or (),
            files=(section.exclude_file,) if section.exclude_file else (),
            caches=bool(section.exclude_caches),
            if_present=section.exclude_if_present or (),
            one_file_system=bool(section.one_file_system),
            larger_than=section.exclude_larger_than,
        )

    def source(
        self,
        path: Path,
        name: str | None,
        environment: Mapping[str, str],
        places: tuple[str, ...] = (),
    ) -> FileTreeSource:
        """Make the source of a tree. Raises UsageError."""
        from perdure.sources.excluding import CACHE_TAG, Excludes
        from perdure.sources.files import FileTreeSource

        read = [pattern for file in self.files for pattern in _read_patterns(file, environment)]
        excludes = Excludes(
            patterns=tuple(text("pattern", pattern) for pattern in (*self.patterns, *read)),
            any_case=tuple(text("pattern", pattern) for pattern in self.any_case),
            if_present=(
                *(text("file name", tag) for tag in self.if_present),
                *([CACHE_TAG] if self.caches else []),
            ),
            one_file_system=self.one_file_system,
            larger_than=self.larger_than,
            places=places,
        )
        absolute = text("path", os.path.abspath(path))
        place = Path(
            f"/{absolute.lstrip('/')}"
        )  # POSIX gives two slashes a meaning, restic does not
        return FileTreeSource(place, text("name", name) if name else None, excludes=excludes)


_OPTIONS = (
    click.option(
        "--tree",
        "trees",
        multiple=True,
        type=click.Path(path_type=Path),
        help="A folder of files, or a file, to back up; may be given several times.",
    ),
    click.option(
        "--exclude",
        multiple=True,
        metavar="PATTERN",
        help="Leave out of trees what matches: *.log, /srv/www/cache, tmp/**.",
    ),
    click.option(
        "--iexclude",
        multiple=True,
        metavar="PATTERN",
        help="The same, where capitals do not matter.",
    ),
    click.option(
        "--exclude-file",
        multiple=True,
        type=click.Path(path_type=Path, dir_okay=False),
        help="A file with such patterns, one a line.",
    ),
    click.option(
        "--exclude-caches",
        is_flag=True,
        help="Leave out what is in folders with a CACHEDIR.TAG.",
    ),
    click.option(
        "--exclude-if-present",
        multiple=True,
        metavar="NAME[:HEADER]",
        help="Leave out what is in folders with such a file: NOBACKUP-TAG.",
    ),
    click.option(
        "--one-file-system",
        "-x",
        is_flag=True,
        help="Stay on the file system that a tree is on.",
    ),
    click.option(
        "--exclude-larger-than",
        type=Size.parse,
        metavar="SIZE",
        help="Leave out larger files: 500K, 100M, 2G.",
    ),
)


def tree_options(command: Command) -> Command:
    """Add the options about trees; the command is given ``trees`` and ``exclusion``."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        said = Exclusion(
            patterns=kwargs.pop("exclude"),
            any_case=kwargs.pop("iexclude"),
            files=kwargs.pop("exclude_file"),
            caches=kwargs.pop("exclude_caches"),
            if_present=kwargs.pop("exclude_if_present"),
            one_file_system=kwargs.pop("one_file_system"),
            larger_than=kwargs.pop("exclude_larger_than"),
        )
        return command(*args, exclusion=said, **kwargs)

    return with_options(command, wrapped, *_OPTIONS)


def _read_patterns(file: Path, environment: Mapping[str, str]) -> Iterator[str]:
    """Give the patterns of a file: a line each, without comments; variables as ``$NAME``, ``$$`` is a $."""
    try:
        with open(file, "rb") as opened:
            data = opened.read(_FILE_LIMIT + 1)
        if len(data) > _FILE_LIMIT:
            raise UsageError(f"{file} is too large for a file of patterns")
        lines = data.decode().splitlines()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UsageError(f"{file} is not UTF-8") from None
    for line in lines:
        pattern = line.strip()
        if pattern and not pattern.startswith("#"):
            yield _VARIABLE.sub(lambda found: _value(found, environment), pattern)


def _value(found: re.Match[str], environment: Mapping[str, str]) -> str:
    return "$" if found[1] else environment.get(found[2] or found[3], "")

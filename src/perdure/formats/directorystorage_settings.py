"""``config/settings`` of a DirectoryStorage: what of it matters to a program that reads or writes a HOME.

An INI file; option names are case-sensitive, ``:`` and ``=`` both separate, ``%`` means nothing. A site's
own comments are kept when the format is changed: the one line alone is written anew.

Source: DirectoryStorage 1.1.21 and the files of its ``mkds``.
"""

from __future__ import annotations

import re
from configparser import Error, RawConfigParser
from dataclasses import dataclass

from perdure.errors import SourceUnusable
from perdure.formats.directorystorage_names import FORMATS

VERSION = "0.11"
MOST_BYTES = 1 << 20
FULL, MINIMAL = "Full", "Minimal"
DETAILED = "detailed"

_FORMAT = re.compile(rb"(?m)^(format[ \t]*[:=][ \t]*)[^\r\n]*")


@dataclass(frozen=True, slots=True)
class Settings:
    """How a HOME is arranged, and what its storage keeps."""

    layout: str
    """One of ``FORMATS``."""
    classname: str = FULL
    keep_policy: str = DETAILED
    """``undoable``: packs drop the files of transactions as well."""


def parse_settings(raw: bytes, where: str) -> Settings:
    """Read the file. Raises SourceUnusable."""
    parser = RawConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign] # names keep their case
    try:
        parser.read_string(raw.decode("utf-8", "surrogateescape"))
        version = parser.get("structure", "version")
        layout = parser.get("structure", "format")
        classname = parser.get("storage", "classname")
    except Error as error:
        raise SourceUnusable(
            f"{where} cannot be read: {' '.join(str(error).split())}",
            hint="is this the HOME of a DirectoryStorage?",
        ) from None
    _check(version == VERSION, where, f"version {version!r} of the structure", VERSION)
    _check(layout in FORMATS, where, f"format {layout!r}", ", ".join(FORMATS))
    _check(classname in (FULL, MINIMAL), where, f"class {classname!r}", f"{FULL}, {MINIMAL}")
    return Settings(
        layout=layout,
        classname=classname,
        keep_policy=parser.get("storage", "keep_policy", fallback=DETAILED),
    )


def with_layout(raw: bytes, layout: str) -> bytes:
    """Give the file with another format; every other byte of it stays."""
    return _FORMAT.sub(lambda match: match[1] + layout.encode(), raw, count=1)


def _check(known: bool, where: str, what: str, there_are: str) -> None:
    if not known:
        raise SourceUnusable(f"{where} names {what}, which is not known; there are: {there_are}")

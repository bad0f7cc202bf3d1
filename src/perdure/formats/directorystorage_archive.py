"""The archives of DirectoryStorage's backup tool, and their index.

``HOME/backups`` holds gzipped tar files (ustar), whose members are named relative to HOME::

    PREFIX-N.tgz          full, run N: the names in HOME and in config/, every file below A
    PREFIX-M-to-N.tgz     what was committed between run M and run N: A/x.serial, A/x.oid, and of each
                          transaction, newest first: its file, and pointer and revision of each object

Run numbers rise by one, for all prefixes together. ``HOME/backups/tindex`` has one row for each run that made
something::

    1     1795234106   040D28386CDC1BEE

number, seconds since 1970 at which its snapshot was asked for, last tid that it includes. ``#`` begins a
comment anywhere; blank lines mean nothing. It does not say which archives a run made.

Source: DirectoryStorage 1.1.21, and archives and indexes that it wrote.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from perdure.errors import SourceDamaged, UsageError

DEFAULT_PREFIX = "backup"
TEMPORARY = ".tmp-"
"""How the name of an archive begins while it is written; the rest is its final name."""
INDEX_HEADER = """\
# The index of the backups of this storage; a row for each run:
# number
#     when, in seconds since 1970
#                  last transaction id that it includes
"""
MOST_INDEX_BYTES = 1 << 26

_INCREMENT = re.compile(r"(?P<prefix>.+)-(?P<reference>\d{1,9})-to-(?P<number>\d{1,9})\.tgz")
_FULL = re.compile(r"(?P<prefix>.+)-(?P<number>\d{1,9})\.tgz")
_LIKE_INCREMENT = re.compile(r".+-\d+-to")
_ROW = re.compile(r"(?P<number>\d{1,9})\s+(?P<time>\d{1,12})\s+(?P<tid>[0-9A-Fa-f]{16})")


class ArchiveName(NamedTuple):
    """What the name of an archive says; ``reference`` is None for a full one."""

    prefix: str
    reference: int | None
    number: int

    def __str__(self) -> str:
        between = "" if self.reference is None else f"{self.reference}-to-"
        return f"{self.prefix}-{between}{self.number}.tgz"

    @classmethod
    def parse(cls, text: str) -> ArchiveName | None:
        """Take a file name apart; None for anything else, a temporary file for one."""
        if text.startswith("."):
            return None
        if match := _INCREMENT.fullmatch(text):
            return cls(match["prefix"], int(match["reference"]), int(match["number"]))
        if match := _FULL.fullmatch(text):
            return cls(match["prefix"], None, int(match["number"]))
        return None


class Row(NamedTuple):
    """One run: its number, when (seconds since 1970) and at which tid."""

    number: int
    time: int
    tid: int

    def __str__(self) -> str:
        return f"{self.number:<5d} {self.time:<12d} {self.tid:016X}"


def check_prefix(prefix: str) -> str:
    """Give a prefix back. Raises UsageError where archives of that name could not be told apart."""
    if not prefix or prefix.startswith(".") or "/" in prefix or not prefix.isprintable():
        raise UsageError(
            f"{prefix!r} cannot be the prefix of an archive: it is part of a file name"
        )
    if _LIKE_INCREMENT.fullmatch(prefix):
        raise UsageError(
            f"the prefix {prefix!r} would make each full archive look like an increment"
        )
    return prefix


def parse_index(text: str, where: str) -> list[Row]:
    """Read an index, in the order of the file. Raises SourceDamaged."""
    rows = []
    for number, line in enumerate(text.splitlines(), 1):
        content = line.partition("#")[0].strip()
        if not content:
            continue
        match = _ROW.fullmatch(content)
        if match is None:
            raise SourceDamaged(
                f"line {number} of {where} is no row of an index: {content[:60]!r}",
                hint="comment it out with # when it is not the trace of a backup",
            )
        rows.append(Row(int(match["number"]), int(match["time"]), int(match["tid"], 16)))
    return rows


def next_number(rows: Sequence[Row], archives: Sequence[ArchiveName]) -> int:
    """Give the number of the next run: one more than any that a row or an archive has."""
    return 1 + max([0, *(row.number for row in rows), *(name.number for name in archives)])


def reference_of(rows: Sequence[Row], time: int) -> Row | None:
    """Choose what an increment refers to: the last row before the first one that is later than ``time``.

    None: there was no run at ``time`` or before.
    """
    chosen = None
    for row in rows:
        if row.time > time:
            break
        chosen = row
    return chosen

"""A repozo repository: a folder with full copies of a Data.fs, increments, and what they are.

A *stamp* is a time in GMT, ``YYYY-MM-DD-HH-MM-SS``; of all names that begin otherwise nothing is known::

    STAMP.fs STAMP.fsz            a full: the Data.fs from byte 0 to the end of a transaction; plain, gzip
    STAMP.deltafs STAMP.deltafsz  an increment: the bytes from there to the end of a later transaction
    STAMP.dat                     one for each full, of the same stamp: a line for it and for each increment
    STAMP.index                   the FileStorage index of the state that the file of this stamp makes
    tmp.tmp                       what a run of repozo writes, or has left behind

A full and the increments up to the next one are a *chain*; each of their files is a *piece*, and makes a
*state* of the database together with those before it. Recovery is their concatenation.

A line of a .dat has the fields PATH START END MD5, separated by spaces: the piece stands for the bytes
[START, END) of the Data.fs, and their MD5, in hexadecimal digits, is that (of the bytes before
compression). Only the base name of PATH means something; it may hold spaces, so a line is split from the
right. Lines end with a line feed, sometimes after a carriage return. A last line without one was cut.

Source: repozo of ZODB 2004 to 6, and repositories that they wrote.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from perdure.errors import DamageFound, UsageError

STAMP_FORMAT = "%Y-%m-%d-%H-%M-%S"
TEMPORARY = "tmp.tmp"
DAT_LIMIT = 64 << 20
"""Bytes of a .dat that are read; a line has about a hundred."""

_STAMP = r"\d{4}(?:-\d\d){5}"
_DATA = re.compile(rf"({_STAMP})\.(delta)?fs(z)?", re.ASCII)
_SIDE = re.compile(rf"({_STAMP})\.(dat|index)", re.ASCII)
_DATE = re.compile(r"\d{4}(?:-\d\d){0,5}", re.ASCII)
_MD5 = re.compile(rb"[0-9a-fA-F]{32}")


@dataclass(frozen=True, slots=True)
class DataName:
    """The name of a data file, taken apart."""

    stamp: str
    full: bool
    zipped: bool

    def __str__(self) -> str:
        return f"{self.stamp}.{'' if self.full else 'delta'}fs{'z' if self.zipped else ''}"

    @classmethod
    def parse(cls, name: str) -> DataName | None:
        """Take a file's name apart; None for any that is no data file's."""
        found = _DATA.fullmatch(name)
        return found and cls(found[1], full=not found[2], zipped=bool(found[3]))


@dataclass(frozen=True, slots=True)
class Line:
    """What a .dat says of one piece."""

    name: str
    """Base name of the piece."""
    start: int
    end: int
    md5: str

    @property
    def size(self) -> int:
        """Bytes that the piece stands for."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Dat:
    """A .dat: the lines that can be read, and what is wrong with the others."""

    lines: tuple[Line, ...]
    faults: tuple[str, ...] = ()


def stamp_of(time: datetime) -> str:
    """Give the stamp of an aware time."""
    return time.astimezone(UTC).strftime(STAMP_FORMAT).rjust(19, "0")


def time_of(stamp: str) -> datetime:
    """Give the time of a stamp, UTC. Raises DamageFound for one that is no time, as a 13th month."""
    try:
        return datetime.strptime(stamp, STAMP_FORMAT).replace(tzinfo=UTC)
    except ValueError:
        raise DamageFound(
            f"{stamp} is no time", hint="was a file of the repository renamed?"
        ) from None


def check_date(text: str) -> str:
    """Give a date back that repozo's way to compare can mean: digits, from the year on.

    It is compared with stamps as a text, so that a short one means its beginning. Raises UsageError.
    """
    if not _DATE.fullmatch(text):
        raise UsageError(
            f"{text!r} is no date",
            hint="write yyyy[-mm[-dd[-hh[-mm[-ss]]]]] (GMT) for the last backup at or before it; an ISO"
            " time with a T (2026-11-21T03:15:07) or the 16 hexadecimal digits of a transaction id for"
            " a moment between two backups",
        )
    return text


def side_stamp(name: str, kind: str) -> str | None:
    """Give the stamp of a ``dat`` or ``index`` file; None for another file."""
    found = _SIDE.fullmatch(name)
    return found[1] if found and found[2] == kind else None


def parse_dat(data: bytes) -> Dat:
    """Read a .dat; lines that cannot be read become faults."""
    lines: list[Line] = []
    faults: list[str] = []
    *whole, rest = data.split(b"\n")
    if rest.strip():
        faults.append(f"its last line is cut: {_shown(rest)}")
    for number, raw in enumerate(whole, 1):
        line = _parse_line(raw)
        if line is not None:
            lines.append(line)
        elif raw.strip():
            faults.append(f"its line {number} cannot be read: {_shown(raw)}")
    return Dat(tuple(lines), tuple(faults))


def _parse_line(raw: bytes) -> Line | None:
    fields = raw.rstrip().rsplit(None, 3)
    if len(fields) != 4 or not _MD5.fullmatch(fields[3]):
        return None
    path, start, end, md5 = fields
    name = posixpath.basename(path.decode(errors="surrogateescape"))
    numbers = start.isdigit() and end.isdigit() and max(len(start), len(end)) < 20
    if not numbers or int(start) > int(end) or DataName.parse(name) is None:
        return None
    return Line(name, int(start), int(end), md5.decode().lower())


def encode_lines(lines: Iterable[Line], repository: str) -> bytes:
    """Write lines as repozo does, with the path of the repository as the user gave it.

    A path with white space is left out: repozo, which takes only the base name from it, could not read
    the line otherwise.
    """
    prefix = "" if re.search(r"\s", repository) else repository
    return b"".join(
        b"%s %d %d %s\n"
        % (
            posixpath.join(prefix, line.name).encode(errors="surrogateescape"),
            line.start,
            line.end,
            line.md5.encode(),
        )
        for line in lines
    )


def _shown(raw: bytes) -> str:
    return ascii(raw[:80].decode(errors="replace"))

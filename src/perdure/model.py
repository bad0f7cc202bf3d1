"""The values that everything else speaks of: frozen, valid once made, without I/O and without a clock."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from functools import total_ordering
from typing import NamedTuple, NewType, Protocol

from perdure.errors import UsageError

ChunkId = NewType("ChunkId", bytes)
"""The SHA-256 (32 bytes) of a chunk's content: its name in a repository."""

SnapshotId = NewType("SnapshotId", str)
"""The name of a snapshot: 64 lower-case hexadecimal digits."""


class ChunkKind(Enum):
    """What a chunk holds. The two kinds are kept in packfiles of their own."""

    DATA = "data"
    TREE = "tree"


@total_ordering
class Tid:
    """A transaction id: 64 bits whose order is the order of commits, and which encode a UTC time.

    The first 32 bits count minutes (of a calendar in which each month has 31 days, from 1900 on), the
    last 32 bits are a fraction of a minute in units of 2**-32 minutes. Source: persistent.TimeStamp.

    No dataclass: msgspec would write one as an object, not as the text that a document has for a tid.
    """

    __slots__ = ("_value",)

    def __init__(self, value: int) -> None:
        if not 0 <= value < 1 << 64:
            raise ValueError(f"a transaction id has 64 bits, {value} has not")
        self._value = value

    @property
    def value(self) -> int:
        """The id as a number."""
        return self._value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Tid) and self._value == other._value

    def __lt__(self, other: Tid) -> bool:
        return self._value < other._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return f"Tid({self._value:#018x})"

    def __str__(self) -> str:
        return f"{self.value:016x}"

    @classmethod
    def from_bytes(cls, raw: bytes) -> Tid:
        """Read the 8 big-endian bytes of a Data.fs. Raises ValueError for any other length."""
        if len(raw) != 8:
            raise ValueError(f"a transaction id has 8 bytes, not {len(raw)}")
        return cls(int.from_bytes(raw, "big"))

    @classmethod
    def from_text(cls, text: str) -> Tid:
        """Read 16 hexadecimal digits, with or without ``0x``. Raises ValueError for anything else."""
        digits = text.removeprefix("0x")
        if len(digits) != 16:
            raise ValueError(f"a transaction id has 16 hexadecimal digits: {text!r}")
        return cls(int(digits, 16))

    @classmethod
    def at(cls, time: datetime) -> Tid:
        """Give the largest tid that a commit at ``time`` (aware) or earlier can have."""
        utc = time.astimezone(UTC)
        days = ((utc.year - 1900) * 12 + utc.month - 1) * 31 + utc.day - 1
        minutes = (days * 24 + utc.hour) * 60 + utc.minute
        micros = utc.second * 1_000_000 + utc.microsecond
        return cls((minutes << 32) + ((micros + 1) * (1 << 32) - 1) // 60_000_000)

    @property
    def time(self) -> datetime:
        """The UTC time that the tid encodes; a day that its month lacks is counted on into the next."""
        minutes, fraction = self.value >> 32, self.value & 0xFFFFFFFF
        days, minute_of_day = divmod(minutes, 24 * 60)
        months, day = divmod(days, 31)
        first = datetime(1900 + months // 12, months % 12 + 1, 1, tzinfo=UTC)
        micros = fraction * 60_000_000 >> 32
        return first + timedelta(days=day, minutes=minute_of_day, microseconds=micros)


NO_TID = Tid(0)
"""Smaller than the tid of any commit: the cut of a storage without transactions."""


class BlobId(NamedTuple):
    """Which blob: the oid of its object, and the tid of the revision that it belongs to."""

    oid: int
    tid: int

    def __str__(self) -> str:
        return f"{self.oid:#018x} of transaction {self.tid:016x}"


class Observer(Protocol):
    """Who is told how long work goes on. Use cases report to it; the command line shows it."""

    def progress(self, phase: str, done: int, total: int) -> None:
        """``done`` of ``total`` (bytes unless the phase says otherwise) of ``phase`` is behind us."""

    def warning(self, message: str) -> None:
        """Something the operator should know, that does not stop the work."""


class SilentObserver:
    """An observer that keeps the warnings and shows nothing."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def progress(self, phase: str, done: int, total: int) -> None:
        """Nothing is shown."""

    def warning(self, message: str) -> None:
        """Keep the message."""
        self.warnings.append(message)


@dataclass(frozen=True, slots=True)
class Subset:
    """Which part of a whole to look at: bucket ``number`` of ``count``, or a random ``percent``."""

    number: int = 1
    count: int = 1
    percent: float | None = None

    @classmethod
    def parse(cls, text: str) -> Subset:
        """Read ``n/t`` or ``N%``. Raises UsageError."""
        try:
            if text.endswith("%"):
                percent = float(text[:-1])
                if 0 < percent <= 100:
                    return cls(percent=percent)
            else:
                number, count = (int(part) for part in text.split("/"))
                if 1 <= number <= count <= 256:
                    return cls(number=number, count=count)
        except ValueError:
            pass
        raise UsageError(
            f"{text!r} is no subset",
            hint="write n/t with 1 <= n <= t <= 256, or a percentage such as 5%",
        )


def parse_time(text: str) -> datetime:
    """Read an ISO 8601 date or time; without an offset it is UTC. Raises UsageError."""
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        raise UsageError(
            f"{text!r} is neither a time nor a transaction id",
            hint="write 2026-11-21, 2026-11-21T03:15 or 2026-11-21T03:15:00+01:00 (UTC without an offset),"
            " or the 16 hexadecimal digits of a transaction id",
        ) from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def parse_moment(text: str) -> Tid | datetime:
    """Read a transaction id or a time. Raises UsageError."""
    try:
        return Tid.from_text(text.strip())
    except ValueError:
        return parse_time(text)

"""What the texts of a configuration mean: durations, rates, times of day, addresses.

Each class reads its text with ``parse``, which raises UsageError, and gives it back with ``str``.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Self

from perdure.errors import UsageError

_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0}
_DURATION = re.compile(r"(?:\d{1,9}(?:\.\d{1,9})?[hms]){1,3}", re.ASCII)
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)([KMG]?)(?:i?B)?(?:/s)?", re.IGNORECASE | re.ASCII)
_RATE_UNITS = {"": 1 << 10, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
_SLOWEST = 16 << 10
_SPAN = re.compile(r"(?=.)(?:\d{1,4}y)?(?:\d{1,5}m)?(?:\d{1,6}d)?(?:\d{1,6}h)?", re.ASCII)
_TIME = re.compile(r"([01]?\d|2[0-3]):([0-5]\d)(?::00)?", re.ASCII)
_ADDRESS = re.compile(r"[^\s,;<>()\"@-][^\s,;<>()\"@]*(?:@[^\s,;<>()\"@]+)?")
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:")
UNLIMITED = "unlimited"


class Duration(timedelta):
    """A span of time such as 30s, 5m or 1h30m."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read hours, minutes and seconds. Raises UsageError."""
        if not _DURATION.fullmatch(text):
            raise UsageError(f"{text!r} is no duration", hint="write 30s, 5m or 1h30m")
        parts = re.findall(r"([\d.]+)([hms])", text)
        return cls(seconds=sum(float(number) * _SECONDS[unit] for number, unit in parts))

    def __str__(self) -> str:
        seconds = self.total_seconds()
        hours, rest = divmod(int(seconds), 3600)
        minutes, whole = divmod(rest, 60)
        parts = [f"{count}{unit}" for count, unit in ((hours, "h"), (minutes, "m")) if count]
        left = whole + seconds - int(seconds)
        return "".join([*parts, f"{left:g}s"] if left or not parts else parts)


class Rate(int):
    """Bytes per second. A number alone counts KiB, as restic's does; 5M is 5 MiB."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a rate. Raises UsageError."""
        found = _RATE.fullmatch(text)
        if not found:
            raise UsageError(f"{text!r} is no rate", hint="write 500 (KiB per second), 500K or 5M")
        rate = cls(float(found[1]) * _RATE_UNITS[found[2].upper()])
        if rate < _SLOWEST:
            raise UsageError(
                f"a rate of {text} is too slow: locks would grow stale meanwhile",
                hint="16K is the least",
            )
        return rate

    def __str__(self) -> str:
        unit = next((unit for unit in "GMK" if not self % _RATE_UNITS[unit]), None)
        return f"{self // _RATE_UNITS[unit]}{unit}" if unit else f"{self / 1024:.3f}K"


class Size(int):
    """Bytes: 500K, 100M, 2G; a number alone counts bytes."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a size. Raises UsageError."""
        found = _RATE.fullmatch(text)
        if not found or "/" in text:
            raise UsageError(f"{text!r} is no size", hint="write 5000 (bytes), 500K, 100M or 2G")
        unit = found[2].upper()
        return cls(float(found[1]) * (_RATE_UNITS[unit] if unit else 1))

    def __str__(self) -> str:
        unit = next((unit for unit in "GMK" if self and not self % _RATE_UNITS[unit]), "")
        return f"{self // _RATE_UNITS[unit]}{unit}" if unit else int.__repr__(self)


class Count(int):
    """How many snapshots are kept; -1 is all of them."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a number or ``unlimited``. Raises UsageError."""
        if text in (UNLIMITED, "-1"):
            return cls(-1)
        if not re.fullmatch(r"\d{1,9}", text, re.ASCII):
            raise UsageError(f"{text!r} is no number of snapshots", hint="write 7, 0 or unlimited")
        return cls(text)

    def __str__(self) -> str:
        return UNLIMITED if self < 0 else int.__repr__(self)


class Span(str):
    """A span of the calendar, as restic has it: 1y6m7d12h; m is a month."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read years, months, days and hours, in this order. Raises UsageError."""
        if not _SPAN.fullmatch(text):
            raise UsageError(
                f"{text!r} is no span of time",
                hint="write 30d, 6m or 1y6m7d12h: years, months, days, hours",
            )
        return cls(text)


class TimeOfDay(str):
    """A time of day on the machine's own clock: 03:15."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read hours and minutes. Raises UsageError."""
        found = _TIME.fullmatch(text)
        if not found:
            raise UsageError(f"{text!r} is no time of day", hint="write 03:15")
        return cls(f"{int(found[1]):02}:{found[2]}")


class Url(str):
    """A URL that is called by HTTP."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an http or https URL. Raises UsageError, without the URL: it may be a secret."""
        from urllib.parse import urlsplit  # not for every start of the program

        try:
            parts = urlsplit(text)
            valid = parts.scheme in {"http", "https"} and bool(parts.hostname)
            valid = valid and "@" not in parts.netloc and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not (valid and text.isascii() and text.isprintable()) or " " in text:
            raise UsageError(
                "this is no URL that can be called",
                hint="write https://host/path, without user and password",
            )
        return cls(text)

    def below(self, name: str) -> Self:
        """Give the URL of a name below this one; a query stays behind the path."""
        from urllib.parse import urlsplit, urlunsplit

        parts = urlsplit(self)
        return type(self)(urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{name}")))

    @property
    def host(self) -> str:
        """What of it may be shown: where it leads, without its path."""
        from urllib.parse import urlsplit

        parts = urlsplit(self)
        return f"{parts.scheme}://{parts.netloc}/..."


class Address(str):
    """An address of electronic mail: somebody@example.org, or a user of this machine."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an address, without a name beside it. Raises UsageError."""
        if not (_ADDRESS.fullmatch(text) and text.isprintable()):
            raise UsageError(f"{text!r} is no mail address", hint="write admin@example.org")
        return cls(text)


class Location(str):
    """Where a repository is: a folder, or a URL."""

    __slots__ = ()

    @property
    def is_url(self) -> bool:
        """Whether it begins with a scheme."""
        return bool(_SCHEME.match(self))

    @property
    def folder(self) -> str | None:
        """The folder of a repository on this machine."""
        if self.startswith("file://"):
            return self.removeprefix("file://")
        return None if self.is_url else str(self)

    @property
    def without_secrets(self) -> str:
        """The same without what stands before ``@`` in a URL."""
        return re.sub(r"//[^/@]*@", "//", self)

"""What of a file tree is left out: patterns as restic's, tagged folders, other file systems, large files.

A pattern is matched against the whole path, component by component: ``*`` and ``?`` and ``[a-z]`` stay
within one, ``**`` stands for any number of them. One that begins with ``/`` says where the path begins,
any other may begin at any component. A pattern that begins with ``!`` takes back what one before it left
out. What lies in a folder that is left out is not looked at, so that nothing in it can be taken back.
Source: restic's documentation, "Excluding Files".
"""

from __future__ import annotations

import os
import re
import stat
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from perdure.errors import UsageError

CACHE_TAG = "CACHEDIR.TAG:Signature: 8a477f597d28d172789f06886806bc55"
"""The file in a folder of which no backup is wanted: https://bford.info/cachedir/"""
_MOST_HEADER = 256


@dataclass(frozen=True, slots=True)
class Excludes:
    """What is left out on request."""

    patterns: tuple[str, ...] = ()
    any_case: tuple[str, ...] = ()
    """Patterns for which capitals do not matter."""
    if_present: tuple[str, ...] = ()
    """``NAME`` or ``NAME:HEADER``: of a folder that has a file of that name, which begins so, all else."""
    one_file_system: bool = False
    larger_than: int | None = None
    """Bytes."""
    places: tuple[str, ...] = ()
    """Paths that are left out, whatever else is said: the repository, what other sources have."""

    def spoken(self) -> tuple[str, ...]:
        """Say what was asked for, as the options of the command line."""
        return (
            *(f"--exclude={pattern}" for pattern in self.patterns),
            *(f"--iexclude={pattern}" for pattern in self.any_case),
            *(f"--exclude-if-present={tag}" for tag in self.if_present),
            *(["--one-file-system"] if self.one_file_system else []),
            *(
                [f"--exclude-larger-than={self.larger_than}"]
                if self.larger_than is not None
                else []
            ),
        )


class Excluding:
    """Decides what is left out of one tree, whose top is on the file system ``device``.

    Raises UsageError for a pattern that is none.
    """

    def __init__(self, excludes: Excludes, device: int) -> None:
        self._rules = [
            *(_rule(pattern, re.NOFLAG) for pattern in excludes.patterns),
            *(_rule(pattern, re.IGNORECASE) for pattern in excludes.any_case),
        ]
        self._places: defaultdict[str, set[str]] = defaultdict(set)
        for place in map(os.path.normpath, excludes.places):
            folder, _, name = place.rpartition("/")
            self._places[folder or "/"].add(name)
        self._tags = [tag.partition(":") for tag in excludes.if_present]
        self._device = device if excludes.one_file_system else None
        self._largest = excludes.larger_than
        self.by_pattern = bool(self._rules)
        """Whether there is any pattern that a path could match."""

    def places_in(self, folder: str) -> Collection[str]:
        """Give the names in a folder that are left out whatever else is said."""
        return self._places.get(folder, ())

    def matches(self, path: str) -> bool:
        """Whether a path is left out by the patterns."""
        left_out = False
        for wanted, pattern in self._rules:
            if left_out != wanted and pattern.search(path):
                left_out = wanted
        return left_out

    def unwanted(self, status: os.stat_result) -> bool:
        """Whether a file is left out for its size, or for the file system that it is on."""
        if stat.S_ISDIR(status.st_mode):
            return False
        large = self._largest is not None and stat.S_ISREG(status.st_mode)
        return (large and status.st_size > (self._largest or 0)) or self.elsewhere(status)

    def elsewhere(self, status: os.stat_result) -> bool:
        """Whether something lies on a file system that is left out."""
        return self._device is not None and status.st_dev != self._device

    def tag_in(self, folder: str, names: Collection[str]) -> str | None:
        """Give the name of the file for which a folder's other content is left out, if it has one."""
        for name, _, header in self._tags:
            if name in names and (not header or _begins(os.path.join(folder, name), header)):
                return name
        return None


def _rule(text: str, flags: re.RegexFlag) -> tuple[bool, re.Pattern[str]]:
    wanted = not text.startswith("!")
    body = text if wanted else text[1:]
    anchored = body.startswith("/")
    components = [part for part in body.split("/") if part not in ("", ".")]
    if not components:
        raise UsageError(
            f"{text!r} is no pattern", hint="*.log, /srv/www/cache and tmp/** are some"
        )
    try:
        regex = ("" if anchored else "(?:^|.*)") + _joined(components)
        return wanted, re.compile(rf"\A{regex}\Z", flags | re.DOTALL)
    except (re.error, ValueError) as error:
        raise UsageError(f"the pattern {text!r} cannot be read: {error}") from None


def _joined(components: list[str]) -> str:
    """Give the expression for components of a path, each with the slash before it."""
    return "".join(
        "(?:/[^/]+)*" if part == "**" else "/" + "".join(_glob(part)) for part in components
    )


def _glob(part: str) -> Iterator[str]:
    at = 0
    while at < len(part):
        char = part[at]
        at += 1
        if char == "*":
            yield "[^/]*"
        elif char == "?":
            yield "[^/]"
        elif char == "[":
            found, at = _class(part, at)
            yield found
        elif char == "\\":
            found, at = _literal(part, at - 1)
            yield found
        else:
            yield re.escape(char)


def _class(part: str, at: int) -> tuple[str, int]:
    """Read a class of characters behind its ``[``; only ``^`` negates it, as in Go and restic."""
    negated = part.startswith("^", at)
    at += negated
    ranges: list[str] = []
    while not (ranges and part.startswith("]", at)):
        if part[at : at + 1] in ("", "-", "]"):
            raise ValueError("a [ has no ], or - and ] in it have no backslash before them")
        found, at = _literal(part, at)
        if part.startswith("-", at):
            last, at = _literal(part, at + 1)
            found = f"{found}-{last}"
        ranges.append(found)
    return f"(?!/)[{'^' * negated}{''.join(ranges)}]", at + 1


def _literal(part: str, at: int) -> tuple[str, int]:
    """Read one character, or the one behind a backslash."""
    at += part.startswith("\\", at)
    if at >= len(part):
        raise ValueError("it ends where a character should be")
    return re.escape(part[at]), at + 1


def _begins(path: str, header: str) -> bool:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return False
        wanted = os.fsencode(header)[:_MOST_HEADER]
        return os.read(descriptor, len(wanted)) == wanted
    except OSError:
        return False
    finally:
        os.close(descriptor)

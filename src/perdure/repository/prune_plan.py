"""What a prune does with each packfile and each index file, and why. Without I/O.

A packfile of which nothing is needed is deleted. One with garbage is written anew - that is, its needed
chunks go into new packfiles and it is deleted - if it holds trees, since all programs read all of those
again and again; if it holds data, only until no more garbage is left than allowed, those with most garbage
first. Small packfiles are merged once there are enough of them; each hourly backup leaves some.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from perdure.errors import UsageError
from perdure.model import ChunkKind

SMALL_PACKFILE = 4 << 20
"""A packfile of fewer bytes is small."""
SMALL_INDEX_FILE = 5_000
"""An index file that names fewer chunks is small."""
ENOUGH = 10
"""So many small files are worth being merged."""

_SIZE = re.compile(r"(\d{1,15})([bkmgt]?)", re.IGNORECASE)
_PERCENT = re.compile(r"(\d{1,2}(?:\.\d{1,6})?)%")
_UNITS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}


class Action(Enum):
    """What becomes of a packfile."""

    KEEP = "keep"
    REWRITE = "rewrite"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class PackfileUse:
    """What of a packfile (32 bytes of id) is needed; in bytes.

    A chunk that lies in several packfiles is needed in one of them; in the others it is garbage. The kind
    is None where there are chunks of both.
    """

    id: bytes
    kind: ChunkKind | None
    size: int
    used: int
    garbage: int
    plain_trees: bool = False
    """Whether there are trees in it that are not compressed, as version 1 of the format had them."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a packfile, and why."""

    packfile: PackfileUse
    action: Action
    reason: str


@dataclass(frozen=True, slots=True)
class Allowance:
    """How much garbage may stay: a part of what is stored then, or so many bytes; neither: any amount."""

    percent: float | None = None
    size: int | None = None

    @classmethod
    def parse(cls, text: str) -> Allowance:
        """Read 5%, 100M, 0 or unlimited. Raises UsageError."""
        if text == "unlimited":
            return cls()
        if match := _PERCENT.fullmatch(text):
            return cls(percent=float(match[1]))
        try:
            return cls(size=parse_size(text))
        except UsageError:
            raise UsageError(
                f"{text!r} says not how much garbage may stay",
                hint="write 5%, 100M, 0 or unlimited",
            ) from None

    def allows(self, garbage: int, used: int) -> bool:
        """Tell whether so much garbage may stay beside so much that is needed."""
        if self.percent is not None:
            return garbage * (100 - self.percent) <= used * self.percent
        return self.size is None or garbage <= self.size


@dataclass(frozen=True, slots=True)
class Limits:
    """What a prune may leave, and how many bytes of packfiles it writes anew at most (None: any)."""

    unused: Allowance = Allowance(percent=5.0)
    rewrite: int | None = None


def parse_size(text: str) -> int:
    """Read a number of bytes, with K, M, G or T for powers of 1024. Raises UsageError."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is no size", hint="write 500M, with K, M, G or T behind it")
    return int(match[1]) * _UNITS[match[2].lower()]


def decide(packfiles: Iterable[PackfileUse], limits: Limits) -> list[Decision]:
    """Decide for each packfile."""
    packfiles = list(packfiles)
    gone = [packfile for packfile in packfiles if not packfile.used]
    left = [packfile for packfile in packfiles if packfile.used]
    decisions = [Decision(packfile, Action.DELETE, "not needed") for packfile in gone]
    cleaned = _decide_on_garbage(left, limits)
    return [*decisions, *_merge_small(cleaned, limits)]


def _decide_on_garbage(packfiles: list[PackfileUse], limits: Limits) -> list[Decision]:
    used = sum(packfile.used for packfile in packfiles)
    garbage = sum(packfile.garbage for packfile in packfiles)
    budget = _Budget(limits.rewrite)
    decisions = []
    for packfile in sorted(packfiles, key=_most_worth_rewriting_first):
        why = _why_in_any_case(packfile)
        if not (why or packfile.garbage):
            decision = Decision(packfile, Action.KEEP, "entirely needed")
        elif not why and limits.unused.allows(garbage, used):
            decision = Decision(packfile, Action.KEEP, "garbage within --max-unused")
        else:
            reason = why or "more garbage than --max-unused allows"
            decision = budget.rewrite(packfile, reason)
        if decision.action is Action.REWRITE:
            garbage -= packfile.garbage
        decisions.append(decision)
    return decisions


def _why_in_any_case(packfile: PackfileUse) -> str:
    if packfile.kind is None:
        return "data and trees in one"
    if packfile.plain_trees:
        return "trees that are not compressed"
    if packfile.kind is ChunkKind.TREE and packfile.garbage:
        return "garbage among trees"
    return ""


def _most_worth_rewriting_first(packfile: PackfileUse) -> tuple[bool, float, bytes]:
    return not _why_in_any_case(packfile), -packfile.garbage / packfile.used, packfile.id


def _merge_small(decisions: list[Decision], limits: Limits) -> list[Decision]:
    """Have small packfiles that would be kept written into common ones, where there are enough."""
    small = Counter(each.packfile.kind for each in decisions if _is_small(each))
    spent = sum(each.packfile.size for each in decisions if each.action is Action.REWRITE)
    budget = _Budget(None if limits.rewrite is None else limits.rewrite - spent)
    return [
        budget.rewrite(each.packfile, "small, goes together with others")
        if _is_small(each) and small[each.packfile.kind] >= ENOUGH
        else each
        for each in decisions
    ]


def _is_small(decision: Decision) -> bool:
    return decision.action is Action.KEEP and decision.packfile.size < SMALL_PACKFILE


class _Budget:
    """Bytes that may be written anew."""

    def __init__(self, left: int | None) -> None:
        self._left = left

    def rewrite(self, packfile: PackfileUse, reason: str) -> Decision:
        if self._left is not None:
            if packfile.size > self._left:
                return Decision(packfile, Action.KEEP, "--max-repack-size is used up")
            self._left -= packfile.size
        return Decision(packfile, Action.REWRITE, reason)


@dataclass(frozen=True, slots=True)
class IndexFileUse:
    """What an index file names: packfiles, and how many chunks of them."""

    packfiles: Sequence[bytes]
    chunks: int


def index_files_to_replace(files: Mapping[str, IndexFileUse], gone: set[bytes]) -> set[str]:
    """Say which index files are written anew when some packfiles go.

    Those that name one of these, or nothing; those that name what another one names; small ones, where
    there are enough.
    """
    named = Counter(packfile for file in files.values() for packfile in file.packfiles)
    small = {name for name, file in files.items() if file.chunks < SMALL_INDEX_FILE}
    return {
        name
        for name, file in files.items()
        if not file.packfiles
        or any(packfile in gone or named[packfile] > 1 for packfile in file.packfiles)
        or (name in small and len(small) >= ENOUGH)
    }

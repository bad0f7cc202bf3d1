"""Decisions, without I/O: what of a source is read, what is kept, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from perdure.errors import UsageError
from perdure.model import NO_TID, Tid

SEGMENT_SIZE = 64 << 20
"""Bytes of a Data.fs in a full segment."""
_FAN_OUT = 8
_SMALLEST_LEVEL = 4 << 10
REWRITE_BUDGET = 2 * SEGMENT_SIZE
"""Bytes of a source that one run reads again at most, to store with less garbage what it stored before."""
_WORTH_REWRITING = 0.8
"""A segment is written anew when less than this part of what is stored for it is alive."""
_MOST_APPENDED = 1000
"""Pieces of a history that can only be appended to."""


class Method(Enum):
    """How a source is read."""

    FULL = "full"
    INCREMENT = "increment"
    COMPARE = "compare"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class PieceState:
    """A layout of the last snapshot: its range, and how much of what is stored for it is alive."""

    start: int
    end: int
    live: int = 1
    stored: int = 1
    lacking: bool = False
    """The repository no longer has everything that it needs."""

    @property
    def size(self) -> int:
        """Bytes of the range."""
        return self.end - self.start

    @property
    def wasteful(self) -> bool:
        """Whether writing it anew would save enough."""
        return self.live < _WORTH_REWRITING * self.stored


@dataclass(frozen=True, slots=True)
class HistoryPlan:
    """What to do for a history: which ranges of the file to read, and the reason; the rest is kept."""

    method: Method
    reason: str
    read: tuple[tuple[int, int | None], ...] = ()
    """The ranges of the file that are stored anew; None: to the end of what is committed."""


def full(reason: str) -> HistoryPlan:
    """Read everything, and store what the repository does not have."""
    return HistoryPlan(Method.FULL, reason, read=((0, None),))


def compare(reason: str) -> HistoryPlan:
    """Read everything, and look it up in the catalogues of the last snapshot."""
    return HistoryPlan(Method.COMPARE, reason)


def continue_history(pieces: Sequence[PieceState], size: int) -> HistoryPlan:
    """Keep what the last snapshot has, read what follows it, and tidy up within a budget.

    ``pieces`` cover the file from 0 to where the last run stopped; ``size`` is the file's size now.
    """
    end = pieces[-1].end
    lacking = [piece for piece in pieces if piece.lacking]
    if size <= end and not lacking:
        return HistoryPlan(Method.NOTHING, "nothing was committed since")
    tail = _merged_tail(pieces, size - end) if size > end else len(pieces)
    budget = REWRITE_BUDGET - sum(piece.size for piece in pieces[tail:])
    again = {piece.start for piece in _rewritten(pieces[:tail], budget)}
    reads = [(piece.start, piece.end) for piece in pieces[:tail] if piece.start in again]
    last: tuple[int, int | None] = (pieces[tail].start if tail < len(pieces) else end, None)
    return HistoryPlan(
        Method.INCREMENT,
        _increment_reason(size - end, len(pieces) - tail, len(again), len(lacking)),
        read=(*_joined(reads), last),
    )


def append_history(pieces: Sequence[PieceState], size: int, whole: int) -> HistoryPlan:
    """Keep what the last snapshot has of a source that cannot be read again, and append what is new.

    ``pieces`` cover the file from 0 to where the last run stopped, ``size`` is the file's size now, and
    ``whole`` was its size when all of the source was last read.
    """
    end = pieces[-1].end
    if any(piece.lacking for piece in pieces):
        return compare("the repository lacks a part of the history, and the source keeps none")
    if size <= end:
        return HistoryPlan(Method.NOTHING, "nothing was committed since")
    if size - whole > max(whole, SEGMENT_SIZE):
        return full("most of the history of a source that keeps none would be garbage")
    if len(pieces) >= _MOST_APPENDED:
        return compare(f"the history is in {len(pieces)} pieces, which are brought together")
    return HistoryPlan(
        Method.INCREMENT,
        f"{size - end} bytes are appended to what the source had at the last snapshot",
        read=((end, None),),
    )


def _increment_reason(new: int, merged: int, rewritten: int, lacking: int) -> str:
    parts = [f"{new} bytes follow the end of the last snapshot"]
    if merged:
        parts.append(f"{merged} short segments before it are merged with them")
    if rewritten - lacking > 0:
        parts.append(f"{rewritten - lacking} segments hold mostly garbage and are written anew")
    if lacking:
        parts.append(
            f"{lacking} segments are no longer whole in the repository and are stored again"
        )
    return "; ".join(parts)


def _merged_tail(pieces: Sequence[PieceState], new: int) -> int:
    """Say from which piece on everything is merged with ``new`` bytes that follow them.

    Pieces form levels, as in a log-structured store: once the trailing ones below a level's size add up
    to that size, they become one piece of it. So a byte is stored again once for each level. A segment
    of half the full size is left alone: segments end where transactions end.
    """
    level = SEGMENT_SIZE // 2
    while level >= _SMALLEST_LEVEL:
        first, total = len(pieces), new
        while first and pieces[first - 1].size < level and total <= REWRITE_BUDGET:
            first -= 1
            total += pieces[first].size
        if total >= level > new:
            return first
        level //= _FAN_OUT
    return len(pieces)


def _rewritten(pieces: Sequence[PieceState], budget: int) -> list[PieceState]:
    """Choose the pieces that are stored anew: those that lack something, and wasteful ones in the budget."""
    chosen = [piece for piece in pieces if piece.lacking]
    for piece in sorted(pieces, key=lambda piece: piece.live / max(piece.stored, 1)):
        if piece.wasteful and not piece.lacking and piece.size <= budget:
            chosen.append(piece)
            budget -= piece.size
    return chosen


def _joined(reads: Sequence[tuple[int, int]]) -> list[tuple[int, int | None]]:
    """Join ranges that follow each other, so that their records come together in one segment."""
    joined: list[tuple[int, int]] = []
    for start, end in sorted(reads):
        if joined and joined[-1][1] == start:
            joined[-1] = (joined[-1][0], end)
        else:
            joined.append((start, end))
    return list(joined)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot of a source from which moments of it can be restored."""

    label: str
    time: datetime
    cut: Tid
    last_packed: Tid

    @property
    def until(self) -> Tid:
        """The last moment that it tells: nothing was committed between its cut and its time."""
        return max(self.cut, Tid.at(self.time))

    def tells(self, moment: Tid) -> bool:
        """Whether it has the source as it was at a moment: the time since the last packed transaction."""
        return self.last_packed <= moment <= self.until


@dataclass(frozen=True, slots=True)
class RestoreChoice:
    """Which snapshot to restore from, up to which transaction, and why."""

    candidate: int
    until: Tid | None
    reason: str


def choose_snapshot(candidates: Sequence[Candidate], at: Tid | datetime | None) -> RestoreChoice:
    """Choose the snapshot, of those given oldest first, that has a source as it was at a moment.

    Raises UsageError, saying which moments can be had.
    """
    if at is None:
        newest = candidates[-1]
        return RestoreChoice(len(candidates) - 1, None, f"snapshot {newest.label} as it is")
    moment = at if isinstance(at, Tid) else Tid.at(at)
    telling = [number for number, candidate in enumerate(candidates) if candidate.tells(moment)]
    if not telling:
        raise UsageError(
            f"no snapshot has the source as it was at {_spoken(at)}",
            hint="these moments can be had (UTC): " + "; ".join(_spans(candidates)),
        )
    later = [number for number in telling if candidates[number].cut >= moment]
    if later:
        number = min(later, key=lambda number: candidates[number].cut)
        reason = f"snapshot {candidates[number].label} has all transactions up to {_spoken(at)}"
    else:
        number = max(telling, key=lambda number: candidates[number].cut)
        reason = (
            f"nothing was committed between the cut of {candidates[number].label} and {_spoken(at)}"
        )
    return RestoreChoice(number, moment, reason)


def _spoken(moment: Tid | datetime) -> str:
    time = moment.time if isinstance(moment, Tid) else moment
    text = f"{time:%Y-%m-%d %H:%M:%S}"
    return f"{text} (tid {moment})" if isinstance(moment, Tid) else text


def _spans(candidates: Sequence[Candidate]) -> list[str]:
    """Describe the spans of time that some snapshots tell together."""
    spans: list[tuple[Tid, Tid]] = []
    for candidate in sorted(candidates, key=lambda candidate: candidate.last_packed):
        if spans and candidate.last_packed <= spans[-1][1]:
            spans[-1] = (spans[-1][0], max(spans[-1][1], candidate.until))
        else:
            spans.append((candidate.last_packed, candidate.until))
    return [
        f"from {'the first transaction' if first == NO_TID else _spoken(first)} to {_spoken(last)}"
        for first, last in spans
    ]

"""Put the pieces of a state behind one another: each must begin where the one before it ends.

Where the .dat does not say at which byte a piece begins, its first record does. Names and the order of
names prove nothing: a piece may be gone, and a killed run may have left one that the next run has made
again, with more behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perdure.dropin.repozo.chain import Piece
from perdure.dropin.repozo.failures import VerificationFail
from perdure.dropin.repozo.pieces import locate, measure

_HINT = "recover an earlier state with -D, or another chain; repozo -V says what is wrong"


@dataclass(frozen=True, slots=True)
class Placed:
    """A piece, and the bytes of the database that it stands for."""

    piece: Piece
    start: int
    end: int | None
    """None: only reading it can tell."""


def join(pieces: Sequence[Piece]) -> tuple[Placed, ...]:
    """Give the pieces that a state consists of, each at its place.

    An increment that another one replaces (it begins at the same byte) is left out. Raises
    VerificationFail when one is missing, or does not join.
    """
    full = pieces[0]
    if not full.name.full:
        raise VerificationFail(f"no full backup stands before {full.path}", hint=_HINT)
    if full.line is not None and full.line.start != 0:
        raise VerificationFail(f"{full.path} does not begin at byte 0 of the database", hint=_HINT)
    placed = [Placed(full, 0, full.size)]
    for piece in pieces[1:]:
        begin = _begin(piece)
        if begin is not None:
            _settle_last(placed)
            _go_back(placed, begin)
        end = placed[-1].end
        if begin is not None and begin != end:
            what = f"it begins at byte {begin} of the database, what stands before it ends at {end}"
            raise VerificationFail(f"{piece.path} does not join: {what}", hint=_HINT)
        start = begin if begin is not None else _settle_last(placed)
        size = piece.size
        placed.append(Placed(piece, start, None if size is None else start + size))
    for each in placed:
        if each.piece.stored is None:
            raise VerificationFail(f"{each.piece.path} is missing", hint=_HINT)
    return tuple(placed)


def _begin(piece: Piece) -> int | None:
    """Where a piece belongs; None: it goes behind what is there, whatever that is."""
    if piece.line is not None:
        return piece.line.start
    return locate(piece)


def _settle_last(placed: list[Placed]) -> int:
    """Find out where the last piece ends, by reading it if nothing else tells."""
    last = placed[-1]
    if last.end is not None:
        return last.end
    end = last.start + measure(last.piece)
    placed[-1] = Placed(last.piece, last.start, end)
    return end


def _go_back(placed: list[Placed], begin: int) -> None:
    """Drop increments that end behind a byte at which one before them ends."""
    for count, each in enumerate(placed, 1):
        if each.end == begin:
            # Empty increments end where the one before them does: they are no harm, and stay.
            while count < len(placed) and placed[count].end == begin:
                count += 1
            del placed[count:]
            return

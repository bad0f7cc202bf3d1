"""What is decided without looking at any file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import plan
from perdure.errors import UsageError
from perdure.model import NO_TID, Tid
from perdure.plan import (
    REWRITE_BUDGET,
    SEGMENT_SIZE,
    Candidate,
    Method,
    PieceState,
    append_history,
    choose_snapshot,
    continue_history,
)

MIB = 1 << 20
FULL = SEGMENT_SIZE - 100


def pieces(*sizes: int) -> list[PieceState]:
    made, start = [], 0
    for size in sizes:
        made.append(PieceState(start, start + size))
        start += size
    return made


@pytest.mark.parametrize(
    ("sizes", "new", "method", "read"),
    [
        ([4], 0, Method.NOTHING, ()),
        ([FULL, 5000], 0, Method.NOTHING, ()),
        ([FULL], 10, Method.INCREMENT, ((FULL, None),)),
        ([FULL, 5000], 10, Method.INCREMENT, ((FULL + 5000, None),)),
        ([FULL, 5000], 6000, Method.INCREMENT, ((FULL, None),)),
        ([FULL, MIB, 40_000, 5000], 200, Method.INCREMENT, ((FULL + MIB + 45_000, None),)),
        ([FULL, 20 * MIB, 13 * MIB], 100, Method.INCREMENT, ((FULL, None),)),
        ([FULL, FULL], SEGMENT_SIZE, Method.INCREMENT, ((2 * FULL, None),)),
    ],
)
def test_what_is_read(
    sizes: list[int], new: int, method: Method, read: tuple[tuple[int, int | None], ...]
) -> None:
    decided = continue_history(pieces(*sizes), sum(sizes) + new)
    assert (decided.method, decided.read) == (method, read)
    assert decided.reason


@pytest.mark.parametrize(
    ("sizes", "new", "whole", "method", "read"),
    [
        ([4], 0, 4, Method.NOTHING, ()),
        ([FULL, 5000], 0, FULL, Method.NOTHING, ()),
        ([FULL, 5000], 6000, FULL, Method.INCREMENT, ((FULL + 5000, None),)),
        ([FULL, FULL], FULL, FULL, Method.FULL, ((0, None),)),
        ([MIB, SEGMENT_SIZE - 10], 10, MIB, Method.INCREMENT, ((MIB + SEGMENT_SIZE - 10, None),)),
        ([FULL] + [9] * 998, 9, FULL, Method.INCREMENT, ((FULL + 9 * 998, None),)),
        ([FULL] + [9] * 999, 9, FULL, Method.COMPARE, ()),
        ([FULL] + [9] * 999, 0, FULL, Method.NOTHING, ()),
    ],
)
def test_what_is_appended_of_a_source_that_keeps_nothing(
    sizes: list[int],
    new: int,
    whole: int,
    method: Method,
    read: tuple[tuple[int, int | None], ...],
) -> None:
    decided = append_history(pieces(*sizes), sum(sizes) + new, whole)
    assert (decided.method, decided.read) == (method, read)
    assert decided.reason


def test_what_keeps_nothing_cannot_heal_a_part() -> None:
    states = [PieceState(0, 100, lacking=True), PieceState(100, 200)]
    assert append_history(states, 200, 200).method is Method.COMPARE


def test_garbage_is_read_again_within_the_budget() -> None:
    states = [
        PieceState(n * FULL, (n + 1) * FULL, live=n + 1, stored=10, lacking=False) for n in range(6)
    ]
    decided = continue_history(states, 6 * FULL + 10)
    assert decided.read == ((0, 2 * FULL), (6 * FULL, None))
    assert "2 segments hold mostly garbage" in decided.reason
    assert sum(end - start for start, end in decided.read[:-1] if end) <= REWRITE_BUDGET


def test_what_the_repository_lacks_is_stored_again_even_if_nothing_is_new() -> None:
    states = pieces(FULL, FULL, FULL)
    states[1] = PieceState(FULL, 2 * FULL, lacking=True)
    decided = continue_history(states, 3 * FULL)
    assert decided.read == ((FULL, 2 * FULL), (3 * FULL, None))
    assert "no longer whole in the repository" in decided.reason


@given(st.lists(st.integers(1, 3 * MIB), min_size=1, max_size=400))
def test_increments_stay_in_few_pieces(sizes: list[int]) -> None:
    """The pieces are at most a few for each level, and no byte is stored again too often."""
    lengths, again = [sizes[0]], 0
    for size in sizes[1:]:
        (*_, (start, _)) = continue_history(pieces(*lengths), sum(lengths) + size).read
        kept, position = [], 0
        for length in lengths:
            if position + length <= start:
                kept.append(length)
            position += length
        again += position - start
        lengths = [*kept, position - start + size]
    assert len(lengths) <= 50
    assert again <= 5 * sum(sizes)


DAY = datetime(2026, 11, 21, tzinfo=UTC)


def candidate(label: str, hours: float, cut: float, packed: float | None = None) -> Candidate:
    last_packed = NO_TID if packed is None else at(packed)
    return Candidate(label, DAY + timedelta(hours=hours), at(cut), last_packed)


def at(hours: float) -> Tid:
    return Tid.at(DAY + timedelta(hours=hours))


SNAPSHOTS = [
    candidate("a", 1, 0.5),
    candidate("b", 2, 1.5),
    candidate("packed", 4, 3.5, packed=3),
    candidate("later", 6, 5.5, packed=3),
]


@pytest.mark.parametrize(
    ("moment", "chosen"),
    [
        (None, "later"),
        (at(0.1), "a"),
        (at(0.5), "a"),
        (at(0.7), "b"),
        (at(1.5), "b"),
        (DAY + timedelta(hours=1.9), "b"),
        (at(3), "packed"),
        (at(3.2), "packed"),
        (at(5), "later"),
        (DAY + timedelta(hours=5.9), "later"),
    ],
)
def test_the_snapshot_that_tells_a_moment(moment: Tid | datetime | None, chosen: str) -> None:
    choice = choose_snapshot(SNAPSHOTS, moment)
    assert SNAPSHOTS[choice.candidate].label == chosen
    assert chosen in choice.reason


@pytest.mark.parametrize("moment", [at(2.5), at(6.5), DAY + timedelta(hours=2.9)])
def test_moments_that_no_snapshot_tells(moment: Tid | datetime) -> None:
    with pytest.raises(UsageError) as error:
        choose_snapshot(SNAPSHOTS, moment)
    assert error.value.hint == (
        "these moments can be had (UTC): "
        f"from the first transaction to 2026-11-21 02:00:00 (tid {at(2)});"
        f" from 2026-11-21 03:00:00 (tid {at(3)}) to 2026-11-21 06:00:00 (tid {at(6)})"
    )


def test_the_sizes_belong_together() -> None:
    assert plan.REWRITE_BUDGET == 2 * plan.SEGMENT_SIZE

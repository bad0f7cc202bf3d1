"""Tids and moments: as ZODB has them, and as people write them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from persistent.TimeStamp import TimeStamp

from perdure.errors import UsageError
from perdure.model import Subset, Tid, parse_moment, parse_time

times = st.datetimes(datetime(1971, 1, 1), datetime(2899, 12, 31), timezones=st.just(UTC))


@given(times)
def test_times_are_those_of_zodb(time: datetime) -> None:
    stamp = TimeStamp(
        time.year,
        time.month,
        time.day,
        time.hour,
        time.minute,
        time.second + time.microsecond / 1e6,
    )
    tid = Tid.from_bytes(stamp.raw())
    assert abs(tid.time - time) < timedelta(microseconds=2)
    assert (
        Tid.at(time - timedelta(microseconds=2)) < tid <= Tid.at(time + timedelta(microseconds=2))
    )


@given(times)
def test_the_largest_tid_of_a_moment(time: datetime) -> None:
    tid = Tid.at(time)
    assert tid.time == time
    assert Tid(tid.value + 1).time > time


@given(st.integers(0, 2**64 - 1))
def test_every_tid_has_a_text_and_a_time(value: int) -> None:
    tid = Tid(value)
    assert Tid.from_text(str(tid)) == Tid.from_text(f"0x{tid}") == tid
    assert Tid.from_bytes(value.to_bytes(8, "big")) == tid
    assert tid.time.tzinfo is UTC


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_order(a: int, b: int) -> None:
    assert (Tid(a) < Tid(b)) == (a < b) == (str(Tid(a)) < str(Tid(b)))
    assert (Tid(a) >= Tid(b)) == (a >= b)
    assert (Tid(a) == Tid(b)) == (a == b)
    assert len({Tid(a), Tid(a)}) == 1


def test_what_is_no_tid() -> None:
    for value in (-1, 2**64):
        with pytest.raises(ValueError, match="64 bits"):
            Tid(value)
    for text in ("", "0", "g" * 16, "0" * 17):
        with pytest.raises(ValueError):
            Tid.from_text(text)
    assert Tid(0) != 0


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-21", datetime(2026, 11, 21, tzinfo=UTC)),
        ("2026-11-21T03:15", datetime(2026, 11, 21, 3, 15, tzinfo=UTC)),
        (" 2026-11-21 03:15:07 ", datetime(2026, 11, 21, 3, 15, 7, tzinfo=UTC)),
        ("2026-11-21T03:15:00+01:00", datetime(2026, 11, 21, 2, 15, tzinfo=UTC)),
        ("2026-11-21T03:15:00Z", datetime(2026, 11, 21, 3, 15, tzinfo=UTC)),
    ],
)
def test_times(text: str, time: datetime) -> None:
    assert parse_time(text) == parse_moment(text) == time


def test_moments() -> None:
    assert parse_moment("040d29681389dd77") == Tid(0x040D29681389DD77)
    for text in ("", "yesterday", "040d29681389dd7"):
        with pytest.raises(UsageError, match="neither a time nor a transaction id"):
            parse_moment(text)


@pytest.mark.parametrize(
    ("text", "subset"),
    [("1/3", Subset(1, 3)), ("3/3", Subset(3, 3)), ("2.5%", Subset(percent=2.5))],
)
def test_subsets(text: str, subset: Subset) -> None:
    assert Subset.parse(text) == subset


@pytest.mark.parametrize("text", ["", "0/3", "4/3", "1/257", "0%", "101%", "x", "1", "1/2/3"])
def test_no_subsets(text: str) -> None:
    with pytest.raises(UsageError, match="is no subset"):
        Subset.parse(text)

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from itertools import count
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure import retention
from perdure.errors import UsageError
from perdure.model import SnapshotId
from perdure.retention import (
    UNLIMITED,
    Candidate,
    Duration,
    Group,
    GroupVerdict,
    Policy,
    parse_count,
    parse_dimensions,
    parse_duration,
)

NUMBERS = count()
NOW = datetime(2030, 1, 1, tzinfo=UTC)


def apply_policy(
    candidates: list[Candidate], policy: Policy, **options: Any
) -> tuple[GroupVerdict, ...]:
    return retention.apply_policy(candidates, policy, **{"now": NOW} | options)


def at(time: str, *, lacks: str = "", tags: str = "", has: str = "main") -> Candidate:
    """A snapshot made at a time of the source(s) named, of which some are incomplete."""
    incomplete = frozenset(lacks.split())
    return Candidate(
        SnapshotId(f"{next(NUMBERS):064x}"),
        datetime.fromisoformat(time).replace(tzinfo=UTC),
        tags=tuple(tags.split()),
        complete=frozenset(has.split()) - incomplete,
        incomplete=incomplete,
    )


def foreign(time: str, host: str, path: str) -> Candidate:
    moment = datetime.fromisoformat(time).replace(tzinfo=UTC)
    return Candidate(SnapshotId(f"{next(NUMBERS):064x}"), moment, host, (path,))


def kept(candidates: list[Candidate], policy: Policy, **options: Any) -> list[str]:
    """The times, as they were written, of what is kept, oldest first."""
    groups = apply_policy(candidates, policy, **options)
    verdicts = [verdict for group in groups for verdict in group.verdicts if verdict.kept]
    times = sorted(verdict.candidate.time for verdict in verdicts)
    return [f"{time:%m-%d %H:%M}" for time in times]


WEEK = [at(f"2026-06-{day:02} {hour:02}:00") for day in range(1, 8) for hour in (3, 15)]

TABLE: list[tuple[Policy, list[str]]] = [
    (Policy(last=1), ["06-07 15:00"]),
    (Policy(last=3), ["06-06 15:00", "06-07 03:00", "06-07 15:00"]),
    (Policy(hourly=2), ["06-07 03:00", "06-07 15:00"]),
    (Policy(daily=2), ["06-06 15:00", "06-07 15:00"]),
    (Policy(daily=3, last=2), ["06-05 15:00", "06-06 15:00", "06-07 03:00", "06-07 15:00"]),
    (Policy(weekly=5), ["06-07 15:00"]),  # the 1st of June 2026 was a Monday
    (Policy(monthly=UNLIMITED), ["06-07 15:00"]),
    (Policy(yearly=UNLIMITED, daily=2), ["06-06 15:00", "06-07 15:00"]),
    (Policy(within=Duration(days=1)), ["06-07 03:00", "06-07 15:00"]),
    (Policy(within=Duration(days=1, hours=1)), ["06-06 15:00", "06-07 03:00", "06-07 15:00"]),
    (Policy(within_daily=Duration(days=2)), ["06-06 15:00", "06-07 15:00"]),
    (Policy(within_weekly=Duration(years=1)), ["06-07 15:00"]),
    (Policy(tags=(("no",),)), ["06-07 15:00"]),  # the newest complete one stays
]


@pytest.mark.parametrize(("policy", "expected"), TABLE, ids=str)
def test_rules(policy: Policy, expected: list[str]) -> None:
    assert kept(WEEK, policy) == expected


def test_unlimited_keeps_one_of_each() -> None:
    assert len(kept(WEEK, Policy(last=UNLIMITED))) == 14
    assert len(kept(WEEK, Policy(daily=UNLIMITED))) == 7


def test_snapshots_of_the_future_do_not_make_the_others_old() -> None:
    policy = Policy(within=Duration(days=1))
    now = datetime(2026, 6, 6, 12, tzinfo=UTC)
    assert kept(WEEK, policy, now=now) == [
        "06-05 15:00",
        "06-06 03:00",
        "06-06 15:00",
        "06-07 03:00",
        "06-07 15:00",
    ]
    assert len(kept(WEEK, policy, now=datetime(2026, 1, 1, tzinfo=UTC))) == len(WEEK)


def test_weeks_are_those_of_iso_8601() -> None:
    days = [at("2024-12-29"), at("2024-12-30"), at("2025-01-05"), at("2025-01-06")]
    assert kept(days, Policy(weekly=2)) == ["01-05 00:00", "01-06 00:00"]
    assert kept(days, Policy(weekly=3)) == ["12-29 00:00", "01-05 00:00", "01-06 00:00"]


def test_tags_are_kept_together_or_each() -> None:
    some = [at("2026-06-01", tags="a"), at("2026-06-02", tags="b a"), at("2026-06-03", tags="c")]
    last = at("2026-06-09")
    assert kept([*some, last], Policy(last=1, tags=(("a", "b"),))) == ["06-02 00:00", "06-09 00:00"]
    assert kept([*some, last], Policy(last=1, tags=(("a",), ("c",)))) == [
        "06-01 00:00",
        "06-02 00:00",
        "06-03 00:00",
        "06-09 00:00",
    ]


def test_reasons() -> None:
    policy = Policy(last=1, daily=1, within=Duration(days=1), tags=(("x", "y"),))
    found = [at("2026-06-01 03:00"), at("2026-06-02 03:00", tags="x y")]
    ((first, second),) = (group.verdicts for group in apply_policy(found, policy))
    assert first.reasons == ("has tags [x, y]", "within 1d", "last snapshot", "daily snapshot")
    assert not second.kept
    assert second.reasons == ("no rule keeps it",)


def test_days_are_those_of_the_offset_that_is_written() -> None:
    late = datetime(2026, 6, 1, 23, 30, tzinfo=UTC)
    berlin = late.astimezone(timezone(timedelta(hours=2)))
    one, two = (
        Candidate(SnapshotId(name), time)
        for name, time in (("1", late), ("2", berlin + timedelta(minutes=1)))
    )
    ((first, second),) = (each.verdicts for each in apply_policy([one, two], Policy(daily=5)))
    assert first.kept
    assert second.kept


def test_groups() -> None:
    candidates = [
        at("2026-06-01", has="a b"),
        at("2026-06-02", has="b a"),
        at("2026-06-03", has="a"),
        foreign("2026-06-04", "www1", "/etc"),
        foreign("2026-06-05", "www2", "/etc"),
        foreign("2026-06-06", "www2", "/etc"),
    ]
    by_source = apply_policy(candidates, Policy(last=1))
    assert {each.group for each in by_source} == {
        Group(sources=("a", "b")),
        Group(sources=("a",)),
        Group(hostname="www1", paths=("/etc",)),
        Group(hostname="www2", paths=("/etc",)),
    }
    assert [
        len(each.verdicts) for each in apply_policy(candidates, Policy(last=1), group_by=())
    ] == [6]
    by_host = apply_policy(candidates, Policy(last=1), group_by=("host",))
    assert {each.group.hostname: len(each.verdicts) for each in by_host} == {
        "": 3,
        "www1": 1,
        "www2": 2,
    }
    assert parse_dimensions("source, host") == ("source", "host")
    assert parse_dimensions("") == ()
    with pytest.raises(UsageError, match="cannot be grouped"):
        parse_dimensions("name")


def test_incomplete_ones_do_not_count() -> None:
    candidates = [
        at("2026-06-01"),
        at("2026-06-02"),
        at("2026-06-03", lacks="main"),
        at("2026-06-04", lacks="main"),
    ]
    assert kept(candidates, Policy(last=1)) == ["06-02 00:00", "06-04 00:00"]
    assert kept(candidates, Policy(last=2)) == [
        "06-01 00:00",
        "06-02 00:00",
        "06-03 00:00",
        "06-04 00:00",
    ]
    later = [*candidates, at("2026-06-05")]
    assert kept(later, Policy(last=1)) == ["06-05 00:00"]


def test_an_incomplete_one_stands_for_a_day_only_if_no_complete_one_does() -> None:
    candidates = [
        at("2026-06-01 03:00", lacks="main"),
        at("2026-06-02 03:00"),
        at("2026-06-02 15:00", lacks="main"),
        at("2026-06-03 03:00"),
    ]
    assert kept(candidates, Policy(daily=5)) == ["06-01 03:00", "06-02 03:00", "06-03 03:00"]


def test_where_all_are_incomplete_they_are_counted() -> None:
    candidates = [at(f"2026-06-0{day}", lacks="main") for day in range(1, 6)]
    assert kept(candidates, Policy(last=2)) == ["06-04 00:00", "06-05 00:00"]


def test_the_newest_complete_one_of_each_source_stays() -> None:
    candidates = [
        at("2026-06-01", has="a"),
        at("2026-06-02", has="a b"),
        at("2026-06-03", has="a b", lacks="b"),
        at("2026-06-04", has="c", lacks="c"),
        foreign("2026-06-05", "www1", "/etc"),
    ]
    nothing = Policy(tags=(("none",),))
    groups = apply_policy(candidates, nothing)
    reasons = {
        verdict.candidate.time.day: verdict.reasons
        for group in groups
        for verdict in group.verdicts
        if verdict.kept
    }
    assert reasons == {
        2: ("newest complete snapshot of 'b'",),
        3: ("newest complete snapshot of 'a'",),
        4: ("newest (incomplete) snapshot of 'c'",),
        5: ("newest complete snapshot of www1:/etc",),
    }
    newer = at("2026-07-01", has="a b")
    assert kept(candidates[:3], nothing, others=[newer]) == []


@pytest.mark.parametrize(
    ("text", "duration"),
    [
        ("2y5m7d3h", Duration(2, 5, 7, 3)),
        ("3h7d", Duration(days=7, hours=3)),
        ("36m", Duration(months=36)),
        ("0d", Duration()),
    ],
)
def test_durations(text: str, duration: Duration) -> None:
    assert parse_duration(text) == duration
    if duration:
        assert parse_duration(str(duration)) == duration
    assert bool(duration) is (text != "0d")


@pytest.mark.parametrize(
    "text", ["", "5", "d", "-2d", "1d1d", "1w", "1D", "1d ", "1.5d", "9999999d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(UsageError, match="no duration"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("moment", "duration", "expected"),
    [
        ("2026-03-31 12:00", "1m", "2026-03-03 12:00"),  # as Go's AddDate has it
        ("2024-03-31 12:00", "1m", "2024-03-02 12:00"),
        ("2024-02-29 00:00", "1y", "2023-03-01 00:00"),
        ("2026-01-15 06:00", "1y2m3d7h", "2024-11-11 23:00"),
        ("2026-01-01 00:00", "13m", "2024-12-01 00:00"),
        ("2026-01-01 00:00", "3000y", "0001-01-01 00:00"),
        ("2026-01-01 00:00", "999999d", "0001-01-01 00:00"),
    ],
)
def test_before(moment: str, duration: str, expected: str) -> None:
    before = parse_duration(duration).before(datetime.fromisoformat(moment).replace(tzinfo=UTC))
    assert before == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_counts() -> None:
    assert [parse_count(text) for text in ("0", "7", "-1", "unlimited")] == [0, 7, -1, -1]
    for text in ("", "-2", "x", "1.5", "9999999999", "٣"):
        with pytest.raises(UsageError, match="no number"):
            parse_count(text)
    with pytest.raises(UsageError, match="keep-daily -2"):
        Policy(daily=-2)


def test_an_empty_policy() -> None:
    assert Policy().empty
    assert Policy(last=0, within=parse_duration("0h")).empty
    assert not Policy(tags=(("a",),)).empty


COUNTS = st.sampled_from([0, 0, 1, 2, 5, UNLIMITED])
DURATIONS = st.builds(
    Duration, st.integers(0, 1), st.integers(0, 3), st.integers(0, 9), st.integers(0, 30)
)
POLICIES = st.builds(
    Policy,
    *[COUNTS] * 6,
    *[st.just(Duration()) | DURATIONS] * 6,
    tags=st.sampled_from([(), (("a",),), (("a", "b"), ("c",))]),
)
CANDIDATES = st.lists(
    st.builds(
        Candidate,
        st.integers(0, 1 << 40).map(lambda number: SnapshotId(f"{number:064x}")),
        st.integers(0, 20_000).map(
            lambda hours: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(hours=hours)
        ),
        tags=st.sets(st.sampled_from("abc")).map(tuple),
        complete=st.sets(st.sampled_from("xy")).map(frozenset),
        incomplete=st.sets(st.sampled_from("z")).map(frozenset),
    ),
    unique_by=lambda candidate: candidate.id,
    max_size=30,
)


def ids(candidates: list[Candidate], policy: Policy) -> set[SnapshotId]:
    return {
        verdict.candidate.id
        for group in apply_policy(candidates, policy, group_by=())
        for verdict in group.verdicts
        if verdict.kept
    }


@given(CANDIDATES, POLICIES)
def test_every_snapshot_is_judged_once_whatever_their_order(
    candidates: list[Candidate], policy: Policy
) -> None:
    groups = apply_policy(candidates, policy)
    judged = [verdict for group in groups for verdict in group.verdicts]
    assert sorted(verdict.candidate.id for verdict in judged) == sorted(c.id for c in candidates)
    assert all(verdict.reasons for verdict in judged)
    assert apply_policy(candidates[::-1], policy) == groups


@given(CANDIDATES, POLICIES)
def test_a_policy_that_is_applied_again_drops_nothing_more(
    candidates: list[Candidate], policy: Policy
) -> None:
    left = ids(candidates, policy)
    assert ids([each for each in candidates if each.id in left], policy) == left


@given(CANDIDATES, POLICIES, POLICIES)
def test_a_rule_more_drops_nothing_more(
    candidates: list[Candidate], policy: Policy, more: Policy
) -> None:
    rules: dict[str, Any] = {
        name: getattr(policy, name) or getattr(more, name) for name in Policy.__dataclass_fields__
    }
    both = Policy(**rules)
    assert ids(candidates, policy) <= ids(candidates, both)


@given(CANDIDATES, POLICIES)
def test_incomplete_ones_change_nothing_for_complete_ones(
    candidates: list[Candidate], policy: Policy
) -> None:
    complete = [each for each in candidates if not each.incomplete]
    apart = ids(complete, policy)
    assert {each.id for each in complete} & ids(candidates, policy) <= apart
    protected = {
        max(
            (each for each in complete if name in each.complete),
            key=lambda each: (each.time, each.id),
        ).id
        for name in "xy"
        if any(name in each.complete for each in complete)
    }
    assert apart - ids(candidates, policy) <= protected  # a newer one may have the source complete


@given(CANDIDATES, POLICIES)
def test_the_newest_complete_one_of_a_source_is_never_dropped(
    candidates: list[Candidate], policy: Policy
) -> None:
    left = ids(candidates, policy)
    for name in "xyz":
        having = [each for each in candidates if name in each.complete] or [
            each for each in candidates if name in each.incomplete
        ]
        if having:
            assert max(having, key=lambda each: (each.time, each.id)).id in left

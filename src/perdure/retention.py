"""Which snapshots to keep: a policy, applied to groups of them, with the reason for each. Without I/O.

The rules and their results are restic's (0.14): each rule goes through a group from the newest snapshot
to the oldest, ``keep-daily N`` keeps the newest one of each of the last N days that have any, and so on;
``keep-within`` counts from the newest one that is not in the future. Days and hours are those at the
offset with which the snapshot's time is written; Perdure writes UTC.

Two things are Perdure's own.

* Incomplete snapshots, which lack something of a source, do not count: the complete ones are kept as if
  there were no others. Besides these, a rule keeps the incomplete ones that it would keep of all, unless
  a complete one stands for the same hour, day, week, month or year.
* No policy drops the newest complete snapshot of a source, or, if it has none, the newest one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta

from perdure.errors import UsageError
from perdure.model import SnapshotId

UNLIMITED = -1
"""As the count of a rule: keep one of each hour, day, week ... that has any."""

DIMENSIONS = ("source", "host", "paths", "tags")
"""What snapshots can be grouped by."""

_NUMBER = re.compile(r"(\d{1,6})([ymdh])")
_PARTS = {"y": "years", "m": "months", "d": "days", "h": "hours"}
_BEGINNING = datetime.min.replace(tzinfo=UTC)

Period = Callable[[datetime], tuple[int, ...]]
_PERIODS: dict[str, Period] = {
    "hourly": lambda time: (time.year, time.month, time.day, time.hour),
    "daily": lambda time: (time.year, time.month, time.day),
    "weekly": lambda time: tuple(time.isocalendar()[:2]),
    "monthly": lambda time: (time.year, time.month),
    "yearly": lambda time: (time.year,),
}


@dataclass(frozen=True, slots=True)
class Duration:
    """A span of the calendar, such as 2y5m7d3h: years, months, days, hours."""

    years: int = 0
    months: int = 0
    days: int = 0
    hours: int = 0

    def __bool__(self) -> bool:
        return self != Duration()

    def __str__(self) -> str:
        return "".join(
            f"{getattr(self, n)}{unit}" for unit, n in _PARTS.items() if getattr(self, n)
        )

    def before(self, moment: datetime) -> datetime:
        """Give the moment that lies so far back, by the calendar of ``moment``.

        A day that its month lacks is counted on into the next month: a month before 31 March is 3 March
        (2 March in a leap year).
        """
        months = (moment.year - self.years) * 12 + moment.month - 1 - self.months
        try:
            first = moment.replace(year=months // 12, month=months % 12 + 1, day=1)
            return first + timedelta(days=moment.day - 1 - self.days, hours=-self.hours)
        except (ValueError, OverflowError):  # before the first year
            return _BEGINNING


NO_TIME = Duration()


def parse_duration(text: str) -> Duration:
    """Read a duration as restic writes it: 2y5m7d3h, in any order, each once. Raises UsageError."""
    parts = _NUMBER.findall(text)
    units = [unit for _, unit in parts]
    if not parts or _NUMBER.sub("", text) or len(set(units)) < len(units):
        raise UsageError(
            f"{text!r} is no duration", hint="write 2y5m7d3h: years, months, days, hours"
        )
    return Duration(**{_PARTS[unit]: int(number) for number, unit in parts})


def parse_count(text: str) -> int:
    """Read how many to keep: a number, or ``unlimited`` (also written -1). Raises UsageError."""
    if text in ("unlimited", str(UNLIMITED)):
        return UNLIMITED
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise UsageError(f"{text!r} is no number of snapshots", hint="write 7, or unlimited")
    return int(text)


@dataclass(frozen=True, slots=True)
class Policy:
    """What to keep. Counts are 0 for no such rule, or UNLIMITED; so are empty durations.

    Each of ``tags`` is a rule: keep all snapshots that have all of these tags.
    """

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Duration = NO_TIME
    within_hourly: Duration = NO_TIME
    within_daily: Duration = NO_TIME
    within_weekly: Duration = NO_TIME
    within_monthly: Duration = NO_TIME
    within_yearly: Duration = NO_TIME
    tags: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        for name in ("last", *_PERIODS):
            if getattr(self, name) < UNLIMITED:
                raise UsageError(f"keep-{name} {getattr(self, name)} is no number of snapshots")

    @property
    def empty(self) -> bool:
        """Whether it has no rule at all."""
        return not any(getattr(self, field.name) for field in fields(self))


@dataclass(frozen=True, slots=True)
class Candidate:
    """A snapshot, as far as a policy looks at it.

    ``time`` is at the offset with which it is written. ``complete`` and ``incomplete`` name its sources;
    a snapshot that another program wrote has none.
    """

    id: SnapshotId
    time: datetime
    hostname: str = ""
    paths: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    complete: frozenset[str] = frozenset()
    incomplete: frozenset[str] = frozenset()

    @property
    def sources(self) -> tuple[str, ...]:
        """The names of its sources, ascending."""
        return tuple(sorted(self.complete | self.incomplete))


@dataclass(frozen=True, slots=True)
class Group:
    """What the snapshots of a group have in common; None for what they were not grouped by."""

    sources: tuple[str, ...] | None = None
    hostname: str | None = None
    paths: tuple[str, ...] | None = None
    tags: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a snapshot is kept, and why or why not."""

    candidate: Candidate
    kept: bool
    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GroupVerdict:
    """What becomes of the snapshots of a group, the newest first."""

    group: Group
    verdicts: tuple[Verdict, ...]


@dataclass(frozen=True, slots=True)
class _Rule:
    reason: str
    period: Period | None = None
    count: int = UNLIMITED
    within: Duration = NO_TIME
    tags: tuple[str, ...] = ()

    def keeps(self, candidates: Sequence[Candidate], now: datetime) -> Iterator[Candidate]:
        """Give what it keeps of candidates that are given newest first."""
        since = None
        if self.within:
            # A snapshot made under a clock that was fast must not make all others look old.
            times = (candidate.time for candidate in candidates if candidate.time < now)
            since = self.within.before(next(times, _BEGINNING))
        left, last = self.count, None
        for candidate in candidates:
            if not set(self.tags) <= set(candidate.tags):
                continue
            if since is not None and candidate.time <= since:
                continue
            period = self.period(candidate.time) if self.period else None
            if left == 0 or (period is not None and period == last):
                continue
            left, last = left - 1, period
            yield candidate


def parse_dimensions(text: str) -> tuple[str, ...]:
    """Read what to group by: names with commas between them, or nothing. Raises UsageError."""
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not set(names) <= set(DIMENSIONS):
        raise UsageError(
            f"snapshots cannot be grouped by {text!r}",
            hint=f"name some of {', '.join(DIMENSIONS)}, with commas between them",
        )
    return names


def apply_policy(
    candidates: Iterable[Candidate],
    policy: Policy,
    *,
    now: datetime,
    group_by: Sequence[str] = ("source",),
    others: Iterable[Candidate] = (),
) -> tuple[GroupVerdict, ...]:
    """Say which of some snapshots to keep, and why, group by group.

    ``others`` are those snapshots of the repository that are not to be judged: the newest complete one of
    a source may be among them. Snapshots that have no sources are grouped by host and paths where others
    are grouped by source.
    """
    groups: defaultdict[Group, list[Candidate]] = defaultdict(list)
    for candidate in candidates:
        groups[_group_of(candidate, group_by)].append(candidate)
    newest = _newest([*(each for group in groups.values() for each in group), *others])
    rules = list(_rules(policy))
    return tuple(
        GroupVerdict(group, tuple(_judged(_newest_first(members), rules, newest, now)))
        for group, members in sorted(groups.items(), key=lambda item: repr(item[0]))
    )


def _rules(policy: Policy) -> Iterator[_Rule]:
    """Give the rules of a policy, in the order in which restic names its reasons."""
    for tags in policy.tags:
        yield _Rule(f"has tags [{', '.join(tags)}]", tags=tags)
    if policy.within:
        yield _Rule(f"within {policy.within}", within=policy.within)
    if policy.last:
        yield _Rule("last snapshot", count=policy.last)
    for name, period in _PERIODS.items():
        if count := getattr(policy, name):
            yield _Rule(f"{name} snapshot", period, count)
    for name, period in _PERIODS.items():
        if within := getattr(policy, f"within_{name}"):
            yield _Rule(f"{name} within {within}", period, within=within)


def _judged(
    candidates: list[Candidate],
    rules: Sequence[_Rule],
    newest: dict[SnapshotId, list[str]],
    now: datetime,
) -> Iterator[Verdict]:
    reasons: defaultdict[SnapshotId, list[str]] = defaultdict(list)
    complete = [candidate for candidate in candidates if not candidate.incomplete]
    for rule in rules:
        for candidate in rule.keeps(complete, now):
            reasons[candidate.id].append(rule.reason)
        for candidate in _incomplete_kept(rule, candidates, complete, now):
            reasons[candidate.id].append(f"{rule.reason}, incomplete")
    for candidate in candidates:
        why = reasons[candidate.id] or newest.get(candidate.id, [])
        yield Verdict(candidate, bool(why), tuple(why or _why_dropped(candidate)))


def _incomplete_kept(
    rule: _Rule, candidates: list[Candidate], complete: list[Candidate], now: datetime
) -> Iterator[Candidate]:
    if len(complete) == len(candidates):
        return
    period = rule.period
    taken = {period(candidate.time) for candidate in complete} if period else set()
    open_to_it = [
        candidate
        for candidate in candidates
        if not (candidate.incomplete and period and period(candidate.time) in taken)
    ]
    yield from (candidate for candidate in rule.keeps(open_to_it, now) if candidate.incomplete)


def _why_dropped(candidate: Candidate) -> Iterator[str]:
    if candidate.incomplete:
        yield f"incomplete: {', '.join(sorted(candidate.incomplete))}"
    yield "no rule keeps it"


def _newest(candidates: Iterable[Candidate]) -> dict[SnapshotId, list[str]]:
    """Give the snapshots that no policy drops, and why."""
    found: dict[object, tuple[bool, Candidate, str]] = {}
    for candidate in sorted(candidates, key=_age):
        for key, name, whole in _contents(candidate):
            if whole or key not in found or not found[key][0]:
                found[key] = (whole, candidate, name)
    reasons: defaultdict[SnapshotId, list[str]] = defaultdict(list)
    for whole, candidate, name in found.values():
        kind = "complete" if whole else "(incomplete)"
        reasons[candidate.id].append(f"newest {kind} snapshot of {name}")
    return reasons


def _contents(candidate: Candidate) -> Iterator[tuple[object, str, bool]]:
    """Give what a snapshot is one of, how that is called, and whether it is complete."""
    if not candidate.sources:
        place = _group_of(candidate, ("host", "paths"))
        yield place, f"{candidate.hostname}:{','.join(place.paths or ())}", True
    for name in candidate.sources:
        yield name, repr(name), name in candidate.complete


def _group_of(candidate: Candidate, by: Sequence[str]) -> Group:
    wanted = set(by)
    if "source" in wanted and not candidate.sources:
        wanted |= {"host", "paths"}
    group = Group()
    if "source" in wanted and candidate.sources:
        group = replace(group, sources=candidate.sources)
    if "host" in wanted:
        group = replace(group, hostname=candidate.hostname)
    if "paths" in wanted:
        group = replace(group, paths=tuple(sorted(candidate.paths)))
    if "tags" in wanted:
        group = replace(group, tags=tuple(sorted(candidate.tags)))
    return group


def _age(candidate: Candidate) -> tuple[datetime, SnapshotId]:
    return candidate.time, candidate.id


def _newest_first(candidates: Iterable[Candidate]) -> list[Candidate]:
    return sorted(candidates, key=_age, reverse=True)

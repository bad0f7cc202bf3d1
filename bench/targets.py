"""What the program must reach, side by side with its peers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median

from bench.measuring import Cost

Runs = Mapping[tuple[str, str], list[Cost]]
"""(step, tool) -> the cost of each repetition."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """One line of the table of targets."""

    measure: str
    against: str
    reached: float
    limit: float
    unit: str = "x"

    @property
    def ok(self) -> bool:
        """Whether the target is reached."""
        return self.reached <= self.limit


RATIOS = (
    # step, field, peer, at most
    ("first full", "wall", "restic", 0.6),
    ("first full", "wall", "borg", 0.75),
    ("first full", "wall", "repozo", 1.6),
    ("first full", "wall", "repozo -z", 1 / 25),
    ("first full", "added", "restic", 0.6),
    ("first full", "added", "borg", 0.65),
    ("+1 %", "wall", "restic", 0.25),
    ("+1 %", "wall", "borg", 0.25),
    ("+1 %", "wall", "repozo", 0.25),
    ("after a pack", "added", "restic", 0.01),
    ("after a pack", "wall", "restic", 0.5),
    ("restore newest", "wall", "restic", 1.1),
    ("restore newest", "wall", "borg", 1.1),
    ("restore newest", "wall", "repozo", 1.5),
)


def middle(costs: list[Cost], field: str) -> float | None:
    """Give the median of a field over the repetitions; None where it is not known."""
    values = [getattr(cost, field) for cost in costs]
    return median(values) if values and None not in values else None


def judge(runs: Runs) -> Iterator[Verdict]:
    """Compare the runs of one size with the targets; what was not measured is left out."""
    yield from judge_ratios(runs, RATIOS)
    nothing = middle(runs.get(("nothing changed", "perdure"), []), "wall")
    if nothing is not None:
        yield Verdict("nothing changed, wall", "", nothing, 0.45, "s")
    yield from judge_memory(runs)


def judge_ratios(runs: Runs, ratios: Iterable[tuple[str, str, str, float]]) -> Iterator[Verdict]:
    """Compare Perdure with its peers: (step, field, peer, at most)."""
    for step, field, peer, limit in ratios:
        own, other = (
            middle(runs.get((step, "perdure"), []), field),
            middle(runs.get((step, peer), []), field),
        )
        if own is not None and other:
            yield Verdict(f"{step}, {field}", peer, own / other, limit)


def judge_memory(runs: Runs) -> Iterator[Verdict]:
    """Compare the peak over all steps."""
    memory = [cost.rss for (_, tool), costs in runs.items() if tool == "perdure" for cost in costs]
    if memory:
        yield Verdict("peak memory", "", max(memory) / 1e6, 250, "MB")


def judge_growth(
    sizes: Mapping[str, Runs], increment: str = "small increment"
) -> Iterator[Verdict]:
    """Compare an equal increment at the smallest and the largest size."""
    if len(sizes) < 2:
        return
    first, *_, last = (
        middle(runs.get((increment, "perdure"), []), "wall") for runs in sizes.values()
    )
    if first and last:
        names = list(sizes)
        yield Verdict(f"{increment}, wall", f"the same at {names[0]}", last / first, 1.3)

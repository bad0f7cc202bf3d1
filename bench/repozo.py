"""ZODB's repozo beside ours, on the same repository format: plain, quick and gzip, each step in pairs.

MD5 is the floor of what reads the whole database: the format has it, and it cannot be divided.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.measuring import PageCache
from bench.repetition import Measured, Steps, install, note, one_repetition
from bench.report import table
from bench.stage import Stage
from bench.targets import Runs, Verdict, middle
from bench.tools import Perdure, Place, Repozo, RepozoQuick, RepozoZip, Tool

STEPS = Steps(
    backups=(
        ("full", "base"),
        ("nothing new", "same"),
        ("small increment", "small"),
        ("+1 %", "grown"),
    ),
    restores=(("recover", None, "grown"),),
    checks=(("verify", True), ("verify quick", False)),
)


class OurRepozo(Repozo):
    """``perdure repozo``."""

    name = "ours"
    program: Sequence[str] = (*Perdure.program, "repozo")

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.environment = Perdure.source_tree()


class OurRepozoQuick(OurRepozo):
    """``perdure repozo -Q``."""

    name = "ours -Q"
    options = RepozoQuick.options


class OurRepozoZip(OurRepozo):
    """``perdure repozo -z``."""

    name = "ours -z"
    options = RepozoZip.options


PAIRS: tuple[tuple[type[Tool], type[Tool]], ...] = (
    (Repozo, OurRepozo),
    (RepozoQuick, OurRepozoQuick),
    (RepozoZip, OurRepozoZip),
)
TOOLS = [tool for pair in PAIRS for tool in pair]
PLAIN, ZIPPED, NEVER_SLOWER = 1 / 1.4, 1 / 4, 1.0
LARGER = 1.05
SIZE = "256M"
MOST_MEMORY = 120


def measure(dataset: Path, work: Path, cache: PageCache, repeat: int) -> Measured:
    """Run all steps ``repeat`` times with each pair."""
    stage = Stage(dataset, work / "site")
    found: Measured = {}
    for repetition in range(repeat):
        running = install(stage, work / "tools", TOOLS)
        costs = one_repetition(stage, work / "tools", running, cache, STEPS)
        note(found, costs, f"{repetition + 1}/{repeat}")
    shutil.rmtree(work / "tools")
    shutil.rmtree(stage.site)
    return found


def text(found: Runs) -> str:
    """Show each step of each pair, and how many times faster ours is."""
    rows: list[Sequence[str]] = []
    for step in dict.fromkeys(step for step, _ in found):
        for theirs, ours in PAIRS:
            figures = [
                middle(found[step, tool.name], field)
                for field in ("wall", "rss", "added")
                for tool in (theirs, ours)
            ]
            wall, our_wall, rss, our_rss, added, our_added = (each or 0.0 for each in figures)
            rows.append(
                [
                    f"{step}, {theirs.name}",
                    *(f"{wall:.2f}", f"{our_wall:.2f}", f"{wall / our_wall:.1f}"),
                    *(f"{rss / 1e6:.0f}", f"{our_rss / 1e6:.0f}"),
                    *(f"{added / 1e6:.2f}", f"{our_added / 1e6:.2f}"),
                ]
            )
    heads = ["step", "s", "ours s", "times faster"]
    return table([*heads, "RSS MB", "ours MB", "stored MB", "ours MB"], rows)


def judge(found: Runs) -> Iterator[Verdict]:
    """Compare ours with ZODB's: plain and gzip, and what takes no time anyway is never slower."""
    for theirs, ours in PAIRS:
        for step in dict.fromkeys(step for step, _ in found):
            limit = ZIPPED if theirs is RepozoZip else PLAIN
            if theirs is RepozoQuick or step == "verify quick":
                limit = NEVER_SLOWER
            wall, our_wall = (middle(found[step, each.name], "wall") for each in (theirs, ours))
            if wall and our_wall is not None:
                yield Verdict(f"{step}, wall", theirs.name, our_wall / wall, limit)
    stored, our_stored = (
        middle(found["full", tool.name], "added") for tool in (RepozoZip, OurRepozoZip)
    )
    if stored and our_stored is not None:
        yield Verdict("full, stored", RepozoZip.name, our_stored / stored, LARGER)
    names = {ours.name for _, ours in PAIRS}
    memory = max(cost.rss for (_, tool), costs in found.items() if tool in names for cost in costs)
    yield Verdict("peak memory", "", memory / 1e6, MOST_MEMORY, "MB")

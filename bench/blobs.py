"""Sites of many blobs: what each tool pays for all of them, and for a few new ones.

The same steps for all tools, as in the main scenario; the classic is repozo for the Data.fs and rsync with
hard links for the blob directory. Then, untimed, two runs under strace: nothing changed, and 100 new blobs.
What counts is how often a program names a blob file in a system call.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

from bench import tracing
from bench.measuring import PageCache, contents
from bench.repetition import Measured, Steps, install, note, one_repetition
from bench.report import table
from bench.stage import BlobStage
from bench.targets import Verdict, judge_growth, judge_memory, judge_ratios
from bench.tools import Borg, Perdure, RepozoRsync, Restic, Tool
from bench.uploads import SMALL

TOOLS: tuple[type[Tool], ...] = (Perdure, Restic, Borg, RepozoRsync)
INCREMENT = f"+{SMALL} blobs"
STEPS = Steps(
    backups=(
        ("first full", "base"),
        ("nothing changed", "same"),
        (INCREMENT, "small"),
        ("+1 %", "grown"),
        ("after a pack", "packed"),
    ),
    restores=(("restore newest", None, "packed"),),
    checks=(("check", False),),
)
COUNTED = (("nothing changed", "same"), (INCREMENT, "again"))


@dataclass(slots=True)
class SiteRuns:
    """What was measured on one site: costs, calls on blob files, names in each repository."""

    costs: Measured = field(default_factory=dict)
    calls: dict[tuple[str, str], int] = field(default_factory=dict)
    names: dict[str, int] = field(default_factory=dict)

    def as_json(self) -> dict[str, object]:
        """Give what is not a cost, by name."""
        calls = [
            {"step": step, "tool": tool, "calls": calls}
            for (step, tool), calls in self.calls.items()
        ]
        return {"calls_on_blobs": calls, "names_in_repository": self.names}


def measure_site(
    dataset: Path, work: Path, tools: Sequence[type[Tool]], cache: PageCache, repeat: int
) -> SiteRuns:
    """Run all steps ``repeat`` times on one data set; count in the last repetition."""
    found = SiteRuns()
    with closing(BlobStage(dataset)) as stage:
        print(f"\n{dataset.name}: {stage.describe()}", flush=True)
        for repetition in range(repeat):
            running = install(stage, work / "tools", tools)
            costs = one_repetition(stage, work / "tools", running, cache, STEPS)
            note(found.costs, costs, f"{repetition + 1}/{repeat}")
        found.names = {tool.name: contents(tool.place.repository).names for tool in running}
        for step, state in COUNTED if tracing.possible() else ():
            stage.apply(state)
            for tool in running:
                found.calls[step, tool.name] = tracing.count(tool, state)
    shutil.rmtree(work / "tools")
    return found


def text(found: SiteRuns) -> str:
    """Show what is not a cost."""
    names = ", ".join(f"{tool} {count:,}" for tool, count in found.names.items())
    first = f"files and folders in the repository: {names}"
    if not found.calls:
        return f"{first}\nstrace does not run here: system calls are not counted"
    steps = list(dict.fromkeys(step for step, _ in found.calls))
    rows = [
        [tool, *(f"{found.calls[step, tool]:,}" for step in steps)]
        for tool in dict.fromkeys(tool for _, tool in found.calls)
    ]
    return f"{first}\n\n" + table(["system calls that name a blob file", *steps], rows)


RATIOS = (
    # step, field, peer, at most
    ("first full", "wall", "restic", 1.0),
    (INCREMENT, "wall", "restic", 0.5),
    (INCREMENT, "wall", "borg", 0.5),
    ("+1 %", "wall", "restic", 0.5),
    ("after a pack", "wall", "restic", 0.5),
    ("restore newest", "wall", "restic", 1.1),
)


def judge(found: SiteRuns) -> Iterator[Verdict]:
    """Compare the runs on one site with the targets; what was not measured is left out."""
    for verdict in (*judge_ratios(found.costs, RATIOS), *judge_memory(found.costs)):
        yield replace(verdict, measure=f"blobs, {verdict.measure}")
    for step, limit in (("nothing changed", 0), (INCREMENT, SMALL)):
        if (step, "perdure") in found.calls:
            calls = found.calls[step, "perdure"]
            yield Verdict(f"blobs, {step}, calls on their files", "", calls, limit, "calls")


def judge_sites(sites: Mapping[str, SiteRuns]) -> Iterator[Verdict]:
    """Compare an equal increment at the smallest and the largest site."""
    yield from judge_growth({name: found.costs for name, found in sites.items()}, INCREMENT)

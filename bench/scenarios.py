"""What can be measured: each scenario measures, prints, and gives its figures and its verdicts."""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bench import blobs, longrun, recipe, report, repozo, s3, trees
from bench.measuring import PageCache
from bench.repetition import Measured, Steps, install, note, one_repetition
from bench.stage import Stage
from bench.targets import Verdict, judge, judge_growth
from bench.tools import TOOLS, Tool, first_line

ROOT = Path(__file__).resolve().parent.parent

STEPS = Steps(
    backups=(
        ("first full", "base"),
        ("nothing changed", "same"),
        ("small increment", "small"),
        ("+1 %", "grown"),
        ("after a pack", "packed"),
        ("+1 % after the pack", "regrown"),
    ),
    restores=(("restore newest", None, "regrown"), ("restore first", "base", "base")),
    checks=(("check", False), ("check, all data", True)),
)


@dataclass(frozen=True, slots=True)
class Bench:
    """What a scenario is given: the command line, the tools that there are, a folder, the page cache."""

    options: argparse.Namespace
    there: frozenset[str]
    work: Path
    cache: PageCache

    @property
    def sizes(self) -> list[str]:
        """The sizes of a Data.fs that were asked for."""
        options = self.options
        return [options.size] if options.size else list(options.sizes.split(","))

    def data(self, size: str, *, long_run: bool = False) -> Path:
        """Have a Data.fs of that size made, or found."""
        self._make("bench.dataset", "--size", size, *(["--long-run"] if long_run else []))
        return Path(self.options.data, f"{size}-{self.options.seed}")

    def blobs(self, count: str) -> Path:
        """Have a site of so many blobs made, or found."""
        large = self.options.large
        self._make("bench.uploads", "--blobs", count, "--large", large)
        return Path(self.options.data, f"blobs-{count}-{large}-{self.options.seed}")

    def _make(self, module: str, *what: str) -> None:
        """Run a maker of data in a process of its own (whose memory is then not ours)."""
        command = [sys.executable, "-m", module, *what]
        command += ["--seed", str(self.options.seed), "--data", str(self.options.data)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


@dataclass(slots=True)
class Outcome:
    """What a scenario gave: figures for the file of results, and which targets were reached."""

    figures: object = None
    verdicts: list[Verdict] = field(default_factory=list)


def main_scenario(bench: Bench) -> Outcome:
    """A Data.fs in several sizes, beside all tools."""
    tools = [tool for tool in TOOLS if tool.name in bench.there]
    found: dict[str, Measured] = {}
    verdicts: list[Verdict] = []
    for size in bench.sizes:
        dataset = bench.data(size)
        found[size] = _measure_size(dataset, bench, tools)
        print("\n" + report.steps(found[size]), flush=True)
        verdicts = list(judge(found[size]))
    if len(found) > 1:
        print("\n" + report.growth(found))
    figures = [
        {"size": size, **cost} for size, measured in found.items() for cost in costs(measured)
    ]
    return Outcome(figures, [*verdicts, *judge_growth(found)])


def _measure_size(dataset: Path, bench: Bench, tools: Sequence[type[Tool]]) -> Measured:
    """Run the whole scenario, as often as was asked for, on one data set."""
    stage = Stage(dataset, bench.work / "site")
    _print_statistics(dataset, stage)
    found: Measured = {}
    for repetition in range(bench.options.repeat):
        chosen = [tool for tool in tools if not (tool.slow and repetition)]
        running = install(stage, bench.work / "tools", chosen)
        done = one_repetition(stage, bench.work / "tools", running, bench.cache, STEPS)
        note(found, done, f"{repetition + 1}/{bench.options.repeat}")
    shutil.rmtree(bench.work / "tools")
    shutil.rmtree(stage.site)
    return found


def _print_statistics(dataset: Path, stage: Stage) -> None:
    """Say what the data is like."""
    s = stage.statistics
    sizes = ", ".join(
        f"{name} {state['size'] / 1e6:.1f} MB" for name, state in stage.states.items()
    )
    print(
        f"\n{dataset.name}: {sizes}\n"
        f"base: {s['transactions']} transactions ({s['packed_transactions']} packed), {s['records']} records"
        f" ({s['back_pointers']} back pointers, {s['un_creations']} un-creations), {s['objects']} objects;"
        f" record bytes: median {s['record_median']}, mean {s['record_mean']}, 90 % {s['record_p90']},"
        f" 99 % {s['record_p99']}, largest {s['record_max']}; zstd -3: text {s['text_zstd3_ratio']},"
        f" file {s['file_zstd3_ratio']}",
        flush=True,
    )


def long_run_scenario(bench: Bench) -> Outcome:
    """Fifty increments, a pack, a prune, and five increments more."""
    if "perdure" not in bench.there or not first_line(["restic", "version"]):
        return Outcome()
    found = longrun.measure_long_run(
        bench.data(bench.sizes[-1], long_run=True), bench.work, bench.cache
    )
    print("\n" + found.text(), flush=True)
    return Outcome(found.as_json(), list(found.judge()))


def blobs_scenario(bench: Bench) -> Outcome:
    """Sites with blobs, many small and some large."""
    tools = [tool for tool in blobs.TOOLS if tool.name in bench.there]
    sites: dict[str, blobs.SiteRuns] = {}
    verdicts: list[Verdict] = []
    for count in bench.options.blobs.split(","):
        repeat = bench.options.repeat
        site = blobs.measure_site(bench.blobs(count), bench.work, tools, bench.cache, repeat)
        sites[count] = site
        print("\n" + report.steps(site.costs) + "\n\n" + blobs.text(site), flush=True)
        verdicts = list(blobs.judge(site))
    if len(sites) > 1:
        print("\n" + report.growth({count: site.costs for count, site in sites.items()}))
    figures = [
        {"blobs": count, "runs": costs(site.costs), **site.as_json()}
        for count, site in sites.items()
    ]
    return Outcome(figures, [*verdicts, *blobs.judge_sites(sites)])


def repozo_scenario(bench: Bench) -> Outcome:
    """repozo's work, by repozo and by us."""
    if not {"perdure", "repozo"} <= bench.there:
        return Outcome()
    dataset = bench.data(bench.options.size or repozo.SIZE)
    found = repozo.measure(dataset, bench.work, bench.cache, bench.options.repeat)
    print("\n" + repozo.text(found), flush=True)
    return Outcome(costs(found), list(repozo.judge(found)))


def s3_scenario(bench: Bench) -> Outcome:
    """A repository in a bucket, beside restic."""
    if not {"perdure", "restic"} <= bench.there:
        return Outcome()
    dataset = bench.data(bench.sizes[0])
    found = s3.measure_bucket(dataset, bench.work, bench.cache, bench.options.repeat)
    if found is None:
        return Outcome()
    print("\n" + s3.text(found), flush=True)
    figures = {"runs": costs(found.costs), "requests": found.as_json()}
    return Outcome(figures, list(s3.judge(found)))


def trees_scenario(bench: Bench) -> Outcome:
    """A file tree, beside restic."""
    tools = [tool for tool in trees.TOOLS if tool.name in bench.there]
    options = bench.options
    size = trees.TreeSize(int(options.trees), options.tree_large, options.seed)
    found = trees.measure_trees(size, bench.work, tools, bench.cache, options.repeat)
    print("\n" + report.steps(found), flush=True)
    figures = {"files": options.trees, "large": options.tree_large, "runs": costs(found)}
    return Outcome(figures, list(trees.judge(found)))


def site_scenario(bench: Bench) -> Outcome:
    """collective.recipe.backup's work on sites of small blobs, by it and by us."""
    figures: list[object] = []
    verdicts: list[Verdict] = []
    for count in map(int, bench.options.small_blobs.split(",")):
        found = recipe.measure_blobs(count, bench.work / "recipe", bench.cache)
        print("\n" + recipe.text(count, found), flush=True)
        figures.append({"blobs": count, "steps": recipe.as_json(found)})
        verdicts += recipe.judge(count, found)
    return Outcome(figures, verdicts)


SCENARIOS: Mapping[str, Callable[[Bench], Outcome]] = {
    "main": main_scenario,
    "long-run": long_run_scenario,
    "blobs": blobs_scenario,
    "repozo": repozo_scenario,
    "s3": s3_scenario,
    "trees": trees_scenario,
    "site": site_scenario,
}


def costs(measured: Measured) -> list[dict[str, object]]:
    """Give what was measured as values for JSON."""
    return [
        {"step": step, "tool": tool, "repetition": number, **cost.as_json()}
        for (step, tool), several in measured.items()
        for number, cost in enumerate(several, 1)
    ]

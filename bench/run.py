"""Measure Perdure beside repozo, restic and borg: ``python -m bench.run --sizes 64M,256M,1G``.

All tools see the same states of the same Data.fs under the same path, one after the other within
each step (interleaved), with the page cache emptied before each command (as root; else filled).
Measured is the Data.fs alone: restic and borg leave its index out, repozo and ZODB need it.
Each restore is compared with its state by SHA-256. Figures are medians over the repetitions; repozo
-z, which takes minutes, runs in the first repetition only.
"""

from __future__ import annotations

import argparse
import compileall
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import perdure
from bench import blobs, longrun, report, trees
from bench.measuring import CommandFailed, PageCache
from bench.repetition import Measured, Steps, install, note, one_repetition
from bench.stage import Stage
from bench.targets import Verdict, judge, judge_growth
from bench.tools import TOOLS, Tool, first_line

ROOT = Path(__file__).resolve().parent.parent
ALL_TOOLS = {tool.name: tool for tool in (*TOOLS, *blobs.TOOLS)}

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


def measure_size(
    dataset: Path, work: Path, tools: Sequence[type[Tool]], cache: PageCache, repeat: int
) -> Measured:
    """Run the whole scenario ``repeat`` times on one data set."""
    stage = Stage(dataset, work / "site")
    print_statistics(dataset, stage)
    found: Measured = {}
    for repetition in range(repeat):
        chosen = [tool for tool in tools if not (tool.slow and repetition)]
        running = install(stage, work / "tools", chosen)
        costs = one_repetition(stage, work / "tools", running, cache, STEPS)
        note(found, costs, f"{repetition + 1}/{repeat}")
    shutil.rmtree(work / "tools")
    shutil.rmtree(stage.site)
    return found


def print_statistics(dataset: Path, stage: Stage) -> None:
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


def machine() -> dict[str, object]:
    """Describe where this was measured."""
    cpu = next(
        (line.split(": ")[1] for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "memory": memory,
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def build(options: argparse.Namespace, size: str, *, long_run: bool) -> Path:
    """Have a data set built, or found."""
    more = ["--long-run"] if long_run else []
    _build(options, "bench.dataset", "--size", size, *more)
    return Path(options.data, f"{size}-{options.seed}")


def build_blobs(options: argparse.Namespace, blobs: str) -> Path:
    """Have a site of so many blobs built, or found."""
    _build(options, "bench.uploads", "--blobs", blobs, "--large", options.large)
    return Path(options.data, f"blobs-{blobs}-{options.large}-{options.seed}")


def _build(options: argparse.Namespace, module: str, *what: str) -> None:
    """Run a maker of data in a process of its own (whose memory is then not ours)."""
    command = [sys.executable, "-m", module, *what]
    command += ["--seed", str(options.seed), "--data", str(options.data)]
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure Perdure beside its peers.")
    parser.add_argument("--size", help="one size only: 64M, 1G")
    parser.add_argument("--sizes", default="64M,256M,1G", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--only", help="tools, by comma: " + ", ".join(ALL_TOOLS))
    parser.add_argument(
        "--scenario", choices=("all", "main", "long-run", "blobs", "trees"), default="all"
    )
    parser.add_argument(
        "--blobs", default="20000", help="of sites: 2000,20000 (default: %(default)s)"
    )
    parser.add_argument("--large", default="8x64M", help="among them (default: %(default)s)")
    parser.add_argument(
        "--trees", default="20000", help="small files of a tree (default: %(default)s)"
    )
    parser.add_argument("--tree-large", default="4x64M", help="beside them (default: %(default)s)")
    parser.add_argument(
        "--cache", choices=("auto", "cold", "warm"), default="auto", help="page cache"
    )
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("BENCH_DATA", ROOT / "bench/data"))
    )
    parser.add_argument("--work", type=Path, help="folder for repositories (default: DATA/work)")
    parser.add_argument("--keep", action="store_true", help="keep the folder for repositories")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results")
    return parser.parse_args()


@dataclass(slots=True)
class Results:
    """What was measured: by the size of a Data.fs, by the number of blobs, in the long run."""

    sizes: dict[str, Measured] = field(default_factory=dict)
    sites: dict[str, blobs.SiteRuns] = field(default_factory=dict)
    long_run: longrun.LongRun | None = None
    trees: Measured = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)


def main() -> int:
    """Measure, print, keep; 1 if a target was missed or a command failed."""
    options = parse_arguments()
    names = options.only.split(",") if options.only else list(ALL_TOOLS)
    versions = {name: ALL_TOOLS[name].version() for name in names}
    if "perdure" in names and not versions["perdure"]:
        raise SystemExit("perdure itself does not run")
    # As an installed program is; one that runs from its sources may not keep what it compiled.
    compileall.compile_dir(Path(perdure.__file__).parent, quiet=1)
    cache = PageCache(options.cache)
    work = (options.work or options.data / f"work-{os.getpid()}").resolve()
    for name, version in versions.items():
        print(f"{name:14} {version or 'not installed'}")
    print(f"page cache: {cache.mode} before each command; {options.repeat} repetitions", flush=True)

    found, failed = Results(), False
    there = {name for name, version in versions.items() if version}
    try:
        measure_scenarios(options, there, work, cache, found)
    except CommandFailed as failure:  # what was measured before is shown and kept
        failed = True
        print(f"\nFAILED: {failure}")
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    for measured in (found.sizes, {name: site.costs for name, site in found.sites.items()}):
        if len(measured) > 1:
            print("\n" + report.growth(measured))
    if found.verdicts:
        at = " and ".join(
            f"{list(measured)[-1]}{what}"
            for measured, what in ((found.sizes, ""), (found.sites, " blobs"))
            if measured
        )
        at = " and ".join(filter(None, (at, f"{options.trees} files" if found.trees else "")))
        print(f"\ntargets at {at}:\n" + report.verdicts(found.verdicts))
    keep(options, versions, cache.mode, found)
    return 0 if all(verdict.ok for verdict in found.verdicts) and not failed else 1


def measure_scenarios(
    options: argparse.Namespace, there: set[str], work: Path, cache: PageCache, found: Results
) -> None:
    """Run the scenarios that were asked for with the tools that there are. Raises CommandFailed."""
    sizes = [options.size] if options.size else options.sizes.split(",")
    if options.scenario in ("all", "main"):
        tools = [tool for tool in TOOLS if tool.name in there]
        verdicts: list[Verdict] = []
        for size in sizes:
            dataset = build(options, size, long_run=False)
            found.sizes[size] = measure_size(dataset, work, tools, cache, options.repeat)
            print("\n" + report.steps(found.sizes[size]), flush=True)
            verdicts = list(judge(found.sizes[size]))
        found.verdicts += [*verdicts, *judge_growth(found.sizes)]
    if (
        options.scenario in ("all", "long-run")
        and "perdure" in there
        and first_line(["restic", "version"])
    ):
        dataset = build(options, sizes[-1], long_run=True)
        found.long_run = longrun.measure_long_run(dataset, work, cache)
        print("\n" + found.long_run.text(), flush=True)
        found.verdicts += found.long_run.judge()
    if options.scenario in ("all", "blobs"):
        tools = [tool for tool in blobs.TOOLS if tool.name in there]
        verdicts = []
        for count in options.blobs.split(","):
            dataset = build_blobs(options, count)
            site = blobs.measure_site(dataset, work, tools, cache, options.repeat)
            found.sites[count] = site
            print("\n" + report.steps(site.costs) + "\n\n" + blobs.text(site), flush=True)
            verdicts = list(blobs.judge(site))
        found.verdicts += [*verdicts, *blobs.judge_sites(found.sites)]
    if options.scenario in ("all", "trees"):
        tools = [tool for tool in trees.TOOLS if tool.name in there]
        found.trees = trees.measure_trees(
            trees.TreeSize(int(options.trees), options.tree_large, options.seed),
            work,
            tools,
            cache,
            options.repeat,
        )
        print("\n" + report.steps(found.trees), flush=True)
        found.verdicts += trees.judge(found.trees)


def keep(
    options: argparse.Namespace, versions: dict[str, str | None], cache: str, found: Results
) -> None:
    """Write everything that was measured as JSON."""
    now = datetime.now(UTC)
    everything = {
        "time": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions,
        "page_cache": cache,
        "seed": options.seed,
        "runs": [
            {"size": size, **cost}
            for size, measured in found.sizes.items()
            for cost in _costs(measured)
        ],
        "long_run": found.long_run.as_json() if found.long_run else None,
        "sites": [
            {"blobs": count, "runs": _costs(site.costs), **site.as_json()}
            for count, site in found.sites.items()
        ],
        "trees": {
            "files": options.trees,
            "large": options.tree_large,
            "runs": _costs(found.trees),
        },
        "targets": [
            {
                "measure": v.measure,
                "against": v.against,
                "reached": v.reached,
                "limit": v.limit,
                "ok": v.ok,
            }
            for v in found.verdicts
        ],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(everything, indent=1) + "\n")
    print(f"\nkept in {path}")


def _costs(measured: Measured) -> list[dict[str, object]]:
    return [
        {"step": step, "tool": tool, "repetition": number, **cost.as_json()}
        for (step, tool), costs in measured.items()
        for number, cost in enumerate(costs, 1)
    ]


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())

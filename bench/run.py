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
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

import perdure
from bench import longrun, report
from bench.measuring import CommandFailed, Cost, PageCache
from bench.stage import Stage
from bench.targets import Verdict, judge, judge_growth
from bench.tools import TOOLS, Place, Tool, first_line

ROOT = Path(__file__).resolve().parent.parent

BACKUPS = (
    ("first full", "base"),
    ("nothing changed", "same"),
    ("small increment", "small"),
    ("+1 %", "grown"),
    ("after a pack", "packed"),
    ("+1 % after the pack", "regrown"),
)

Measured = dict[tuple[str, str], list[Cost]]


def one_repetition(
    stage: Stage, work: Path, tools: Sequence[type[Tool]], cache: PageCache
) -> Iterator[tuple[str, str, Cost]]:
    """Run all steps with fresh repositories; yields (step, tool, cost)."""
    shutil.rmtree(work, ignore_errors=True)
    running = [tool(Place(stage.site, work / tool.name.replace(" ", ""))) for tool in tools]
    for tool in running:
        tool.init()
    for step, state in BACKUPS:
        stage.apply(state)
        for tool in running:
            cache.prepare(stage.data, tool.place.home)
            yield step, tool.name, tool.backup(state)
    target = work / "restored"
    for step, restored, state in (
        ("restore newest", None, "regrown"),
        ("restore first", "base", "base"),
    ):
        for tool in running:
            cache.prepare(tool.place.home)
            cost, file = tool.restore(restored, target)
            stage.verify(state, file)
            shutil.rmtree(target)
            yield step, tool.name, cost
    for step, read_data in (("check", False), ("check, all data", True)):
        for tool in running:
            cache.prepare(tool.place.home)
            checked = tool.check(read_data=read_data)
            if checked:
                yield step, tool.name, checked
    shutil.rmtree(work)


def measure_size(
    dataset: Path, work: Path, tools: Sequence[type[Tool]], cache: PageCache, repeat: int
) -> Measured:
    """Run the whole scenario ``repeat`` times on one data set."""
    stage = Stage(dataset, work / "site")
    print_statistics(dataset, stage)
    found: Measured = {}
    for repetition in range(repeat):
        chosen = [tool for tool in tools if not (tool.slow and repetition)]
        for step, tool, cost in one_repetition(stage, work / "tools", chosen, cache):
            found.setdefault((step, tool), []).append(cost)
            print(
                f"  {repetition + 1}/{repeat} {step:20} {tool:13} {cost.wall:7.2f} s",
                file=sys.stderr,
            )
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


def build(data: Path, size: str, seed: int, *, long_run: bool) -> Path:
    """Have a data set built, in a process of its own (whose memory is then not ours)."""
    command = [
        sys.executable,
        "-m",
        "bench.dataset",
        "--size",
        size,
        "--seed",
        str(seed),
        "--data",
        str(data),
    ]
    command += ["--long-run"] if long_run else []
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return data / f"{size}-{seed}"


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure Perdure beside its peers.")
    parser.add_argument("--size", help="one size only: 64M, 1G")
    parser.add_argument("--sizes", default="64M,256M,1G", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--repeat", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--only", help="tools, by comma: " + ", ".join(tool.name for tool in TOOLS))
    parser.add_argument("--scenario", choices=("all", "main", "long-run"), default="all")
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


def main() -> int:
    """Measure, print, keep; 1 if a target was missed or a command failed."""
    options = parse_arguments()
    names = options.only.split(",") if options.only else [tool.name for tool in TOOLS]
    versions = {tool.name: tool.version() for tool in TOOLS if tool.name in names}
    tools = [tool for tool in TOOLS if versions.get(tool.name)]
    if "perdure" in names and not versions["perdure"]:
        raise SystemExit("perdure itself does not run")
    # As an installed program is; one that runs from its sources may not keep what it compiled.
    compileall.compile_dir(Path(perdure.__file__).parent, quiet=1)
    sizes = [options.size] if options.size else options.sizes.split(",")
    cache = PageCache(options.cache)
    work = (options.work or options.data / f"work-{os.getpid()}").resolve()
    for name, version in versions.items():
        print(f"{name:13} {version or 'not installed'}")
    print(f"page cache: {cache.mode} before each command; {options.repeat} repetitions", flush=True)

    measured: dict[str, Measured] = {}
    verdicts: list[Verdict] = []
    run: longrun.LongRun | None = None
    failed = False
    try:
        for size in sizes if options.scenario != "long-run" else ():
            dataset = build(options.data, size, options.seed, long_run=False)
            measured[size] = measure_size(dataset, work, tools, cache, options.repeat)
            print("\n" + report.steps(measured[size]), flush=True)
            verdicts = list(judge(measured[size]))
        verdicts += judge_growth(measured)
        if options.scenario != "main" and "perdure" in names and first_line(["restic", "version"]):
            dataset = build(options.data, sizes[-1], options.seed, long_run=True)
            run = longrun.measure_long_run(dataset, work, cache)
            print("\n" + run.text(), flush=True)
            verdicts += run.judge()
    except CommandFailed as failure:  # what was measured before is shown and kept
        failed = True
        print(f"\nFAILED: {failure}")
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    if len(measured) > 1:
        print("\n" + report.growth(measured))
    if verdicts:
        print(f"\ntargets at {sizes[-1]}:\n" + report.verdicts(verdicts))
    keep(options, versions, cache.mode, measured, run, verdicts)
    return 0 if all(verdict.ok for verdict in verdicts) and not failed else 1


def keep(
    options: argparse.Namespace,
    versions: dict[str, str | None],
    cache: str,
    measured: dict[str, Measured],
    run: longrun.LongRun | None,
    verdicts: Sequence[Verdict],
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
            {"size": size, "step": step, "tool": tool, "repetition": number, **cost.as_json()}
            for size, runs in measured.items()
            for (step, tool), costs in runs.items()
            for number, cost in enumerate(costs, 1)
        ],
        "long_run": run.as_json() if run else None,
        "targets": [
            {
                "measure": v.measure,
                "against": v.against,
                "reached": v.reached,
                "limit": v.limit,
                "ok": v.ok,
            }
            for v in verdicts
        ],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(everything, indent=1) + "\n")
    print(f"\nkept in {path}")


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())

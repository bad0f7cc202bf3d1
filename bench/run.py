"""Measure Perdure beside its peers: ``python -m bench --scenario main --sizes 64M,256M,1G``.

All tools see the same states of the same data under the same path, one after the other within
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
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import perdure
from bench import blobs, report
from bench.measuring import CommandFailed, PageCache
from bench.scenarios import ROOT, SCENARIOS, Bench, Outcome
from bench.tools import TOOLS

ALL_TOOLS = {tool.name: tool for tool in (*TOOLS, *blobs.TOOLS)}


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure Perdure beside its peers.")
    add, default = parser.add_argument, "(default: %(default)s)"
    add("--scenario", choices=("all", *SCENARIOS), default="all", help=default)
    add("--size", help="one size of a Data.fs only: 64M, 1G")
    add("--sizes", default="64M,256M,1G", help=default)
    add("--seed", type=int, default=1)
    add("--repeat", type=int, default=3, help=f"repetitions {default}")
    add("--only", help="tools, by comma: " + ", ".join(ALL_TOOLS))
    add("--blobs", default="20000", help=f"of sites with blobs: 2000,20000 {default}")
    add("--large", default="8x64M", help=f"large ones among them {default}")
    add("--small-blobs", default="30000", help=f"of the scenario site {default}")
    add("--trees", default="20000", help=f"small files of a tree {default}")
    add("--tree-large", default="4x64M", help=f"large ones beside them {default}")
    add("--cache", choices=("auto", "cold", "warm"), default="auto", help="page cache")
    add("--data", type=Path, default=Path(os.environ.get("BENCH_DATA", ROOT / "bench/data")))
    add("--work", type=Path, help="folder for repositories (default: DATA/work)")
    add("--keep", action="store_true", help="keep the folder for repositories")
    add("--results", type=Path, default=ROOT / "bench/results")
    return parser.parse_args()


def main() -> int:
    """Measure, print, keep; 1 if a target was missed or a command failed."""
    options = parse_arguments()
    names = options.only.split(",") if options.only else list(ALL_TOOLS)
    versions = {name: ALL_TOOLS[name].version() for name in names}
    if "perdure" in names and not versions["perdure"]:
        raise SystemExit("perdure itself does not run")
    # As an installed program is; one that runs from its sources may not keep what it compiled.
    compileall.compile_dir(Path(perdure.__file__).parent, quiet=1)
    there = frozenset(name for name, version in versions.items() if version)
    work = (options.work or options.data / f"work-{os.getpid()}").resolve()
    bench = Bench(options, there, work, PageCache(options.cache))
    for name, version in versions.items():
        print(f"{name:14} {version or 'not installed'}")
    mode = bench.cache.mode
    print(f"page cache: {mode} before each command; {options.repeat} repetitions", flush=True)

    found: dict[str, Outcome] = {}
    failed = False
    try:
        for name in SCENARIOS if options.scenario == "all" else (options.scenario,):
            found[name] = SCENARIOS[name](bench)
    except CommandFailed as failure:  # what was measured before is shown and kept
        failed = True
        print(f"\nFAILED: {failure}")
    finally:
        if not options.keep:
            shutil.rmtree(work, ignore_errors=True)
    verdicts = [verdict for outcome in found.values() for verdict in outcome.verdicts]
    if verdicts:
        print("\ntargets:\n" + report.verdicts(verdicts))
    keep(options, versions, mode, found)
    return 0 if all(verdict.ok for verdict in verdicts) and not failed else 1


def keep(
    options: argparse.Namespace,
    versions: Mapping[str, str | None],
    cache: str,
    found: Mapping[str, Outcome],
) -> None:
    """Write everything that was measured as JSON."""
    now = datetime.now(UTC)
    everything = {
        "time": now.isoformat(timespec="seconds"),
        "machine": machine(),
        "versions": versions,
        "page_cache": cache,
        "seed": options.seed,
        "scenarios": {name: outcome.figures for name, outcome in found.items()},
        "targets": [
            {
                "measure": v.measure,
                "against": v.against,
                "reached": v.reached,
                "limit": v.limit,
                "ok": v.ok,
            }
            for outcome in found.values()
            for v in outcome.verdicts
        ],
    }
    options.results.mkdir(parents=True, exist_ok=True)
    path = options.results / f"{now:%Y%m%d-%H%M%S}.json"
    path.write_text(json.dumps(everything, indent=1) + "\n")
    print(f"\nkept in {path}")


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


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


if __name__ == "__main__":
    sys.exit(main())

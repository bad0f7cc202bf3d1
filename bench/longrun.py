"""Many small increments, a pack, forgetting, and more increments: what is left in the repository.

Fifty increments of 0.2 %, a pack, then all snapshots but the last are forgotten and pruned (with the
stock restic, whose format the repository has), then five increments more. The repository and the time
of a restore are compared with one first full backup of the same state.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

from bench.measuring import PageCache, folder_size, measure
from bench.stage import Stage, append, compare
from bench.targets import Verdict
from bench.tools import Perdure, Place


@dataclass(frozen=True, slots=True)
class LongRun:
    """Sizes in bytes, times in seconds (medians)."""

    first_full: int
    after_increments: int
    after_pack: int
    after_forget: int
    at_end: int
    pruned_at_end: int
    """After one more forget and prune: what a policy that runs every night leaves."""
    fresh_full: int
    restore: float
    fresh_restore: float
    increment_wall: float
    increment_added: float
    increment_read: float
    peak_memory: int

    def judge(self) -> Iterator[Verdict]:
        """Compare with the targets."""
        yield Verdict("long run, repository", "one first full", self.at_end / self.fresh_full, 1.3)
        pruned = self.pruned_at_end / self.fresh_full
        yield Verdict("long run, pruned again", "one first full", pruned, 1.3)
        yield Verdict(
            "long run, restore", "of one first full", self.restore / self.fresh_restore, 1.25
        )

    def text(self) -> str:
        """Tell it in a few lines."""
        mb = {name: value / 1e6 for name, value in asdict(self).items()}
        return (
            f"long run: first full {mb['first_full']:.1f} MB;"
            f" after 50 increments of 0.2 % {mb['after_increments']:.1f} MB;"
            f" after a pack {mb['after_pack']:.1f} MB;"
            f" after forget --keep-last 1 --prune {mb['after_forget']:.1f} MB;"
            f" after 5 more {mb['at_end']:.1f} MB;"
            f" pruned once more {mb['pruned_at_end']:.1f} MB;"
            f" one first full of the same state {mb['fresh_full']:.1f} MB\n"
            f"restore {self.restore:.2f} s, from one first full {self.fresh_restore:.2f} s; an increment took"
            f" {self.increment_wall:.2f} s, read {mb['increment_read']:.1f} MB and added"
            f" {mb['increment_added']:.2f} MB; peak memory {mb['peak_memory']:.0f} MB"
        )

    def as_json(self) -> dict[str, float]:
        """Give the fields by name."""
        return asdict(self)


def measure_long_run(dataset: Path, work: Path, cache: PageCache) -> LongRun:
    """Go through the long run with a fresh repository."""
    steps = json.loads((dataset / "run.json").read_text())
    stage = Stage(dataset, work / "site")
    stage.apply("base")
    append(stage.data, dataset / "grown.tail", 0, None)
    stage.settle()
    tool = Perdure(Place(stage.site, work / "long"))
    tool.init()
    repository = tool.place.repository
    first_full, costs = tool.backup("first").added, []

    def live(steps: list[dict[str, int]], tail: Path) -> int:
        start = origin = stage.data.stat().st_size
        for number, step in enumerate(steps):
            append(stage.data, tail, start - origin, step["size"] - origin)
            start = step["size"]
            stage.settle()
            cache.prepare(stage.data, tool.place.home)
            costs.append(tool.backup(f"{tail.name}-{number}"))
        return folder_size(repository)

    after_increments = live(steps["run"], dataset / "run.tail")
    increments = list(costs)
    stage.replace(dataset / "run-packed.fs")
    stage.settle()
    costs.append(tool.backup("packed"))
    after_pack = folder_size(repository)
    _forget(tool)
    after_forget = folder_size(repository)
    at_end = live(steps["run-regrown"], dataset / "run-regrown.tail")
    _forget(tool)
    pruned_at_end = folder_size(repository)

    fresh = Perdure(Place(stage.site, work / "fresh"))
    fresh.init()
    full = fresh.backup("fresh")
    times = _restore_times((tool, fresh), stage.data, work / "restored", cache)
    measure_check = tool.check(read_data=True)
    assert measure_check is not None
    shutil.rmtree(work)
    return LongRun(
        first_full=first_full,
        after_increments=after_increments,
        after_pack=after_pack,
        after_forget=after_forget,
        at_end=at_end,
        pruned_at_end=pruned_at_end,
        fresh_full=full.added,
        restore=times[0],
        fresh_restore=times[1],
        increment_wall=median(cost.wall for cost in increments),
        increment_added=median(cost.added for cost in increments),
        increment_read=median(cost.read or 0 for cost in increments),
        peak_memory=max(cost.rss for cost in costs),
    )


def _forget(tool: Perdure) -> None:
    environment = {
        "RESTIC_PASSWORD_FILE": tool.environment["PERDURE_PASSWORD_FILE"],
        "RESTIC_CACHE_DIR": str(tool.place.home / "restic-cache"),
    }
    command = ["restic", "-r", str(tool.place.repository), "forget", "--keep-last", "1", "--prune"]
    measure(command, tool.place.home, environment)


def _restore_times(
    tools: tuple[Perdure, Perdure], data: Path, target: Path, cache: PageCache
) -> list[float]:
    """Restore from both in turn, three times; gives the median of each, and compares the bytes."""
    with data.open("rb") as file:
        expected = hashlib.file_digest(file, "sha256").hexdigest()
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(3):
        for tool, times in zip(tools, found, strict=True):
            cache.prepare(tool.place.home)
            cost, restored = tool.restore(None, target)
            compare(restored, expected, "the end of the long run")
            shutil.rmtree(target)
            times.append(cost.wall)
    return [median(times) for times in found]

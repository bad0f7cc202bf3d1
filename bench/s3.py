"""A repository in a bucket: how many requests of which verb each step costs, how many bytes, how long.

Perdure and restic back up the same states of a Data.fs into the same S3 server (SeaweedFS, on this
machine). A proxy before it counts; it costs both the same, so a wall time is for comparing, not a
measure of the server. Both keep their local caches from step to step, as on a server that is backed up.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bench.measuring import Cost, PageCache
from bench.repetition import Measured, Steps
from bench.report import table
from bench.stage import Stage
from bench.targets import Verdict, judge_ratios
from bench.tools import Perdure, Place, Restic, Tool

TESTS = Path(__file__).resolve().parent.parent / "tests"
if TYPE_CHECKING:
    from faulty_proxy import Proxy
    from object_server import ObjectServer

INCREMENT = "small increment"
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
VERBS = ("put", "get", "list", "head", "delete")
MOST_REQUESTS = 19
"""What a small increment may cost."""


@dataclass(frozen=True, slots=True)
class Requests:
    """What a command asked of the server: requests by verb; bytes of the bodies."""

    by_verb: dict[str, int]
    sent: int
    received: int

    @property
    def count(self) -> int:
        """All of them."""
        return sum(self.by_verb.values())


@dataclass(slots=True)
class BucketRuns:
    """What was measured: costs of each step and tool, and the requests of each."""

    costs: Measured = field(default_factory=dict)
    requests: dict[tuple[str, str], list[Requests]] = field(default_factory=dict)

    def as_json(self) -> list[dict[str, object]]:
        """Give what is not a cost."""
        return [
            {
                "step": step,
                "tool": tool,
                "repetition": number,
                "requests": each.by_verb,
                "sent": each.sent,
                "received": each.received,
            }
            for (step, tool), runs in self.requests.items()
            for number, each in enumerate(runs, 1)
        ]


class PerdureInBucket(Perdure):
    """This program, with a place in a bucket instead of its repository's folder."""

    url = ""

    def run(self, command: Sequence[str], cwd: Path | None = None) -> tuple[Cost, str]:
        """Run a command."""
        folder = str(self.place.repository)
        return super().run([self.url if part == folder else part for part in command], cwd)


class ResticInBucket(Restic):
    """restic, likewise; its environment names the place."""

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        del self.environment["RESTIC_REPOSITORY"]


def measure_bucket(
    dataset: Path, work: Path, cache: PageCache, repeat: int, steps: Steps = STEPS
) -> BucketRuns | None:
    """Run the steps ``repeat`` times on one data set; None where there is no server to run them on."""
    sys.path.insert(0, str(TESTS))
    from faulty_proxy import proxy
    from object_server import program, seaweedfs

    if not program("weed"):
        print("SeaweedFS is not installed: nothing is measured in a bucket")
        return None
    found = BucketRuns()
    stage = Stage(dataset, work / "site")
    with seaweedfs() as server, proxy(server.endpoint) as front:
        for number in range(repeat):
            shutil.rmtree(work / "tools", ignore_errors=True)
            running = list(_install(stage, work / "tools", server, front))
            for step, tool, cost in _steps(stage, work, running, cache, front, steps):
                asked = Requests(front.by_verb, front.bytes_sent, front.bytes_received)
                found.requests.setdefault((step, tool), []).append(asked)
                found.costs.setdefault((step, tool), []).append(replace(cost, added=asked.sent))
                print(
                    f"  {number + 1}/{repeat} {step:20} {tool:14} {cost.wall:7.2f} s"
                    f" {asked.count:6} requests",
                    file=sys.stderr,
                    flush=True,
                )
    shutil.rmtree(work / "tools")
    return found


def _install(stage: Stage, work: Path, server: ObjectServer, front: Proxy) -> Iterator[Tool]:
    from object_server import CREDENTIALS

    for kind in (PerdureInBucket, ResticInBucket):
        tool = kind(Place(stage.site, work / kind.name))
        bucket = server.bucket()
        tool.environment |= CREDENTIALS
        if isinstance(tool, PerdureInBucket):
            tool.url = front.url(bucket)
        else:
            tool.environment["RESTIC_REPOSITORY"] = f"s3:{front.endpoint}/{bucket}/repository"
        tool.init()
        yield tool


def _steps(
    stage: Stage,
    work: Path,
    running: Sequence[Tool],
    cache: PageCache,
    front: Proxy,
    steps: Steps,
) -> Iterator[tuple[str, str, Cost]]:
    for step, state in steps.backups:
        stage.apply(state)
        for tool in running:
            cache.prepare(stage.site, tool.place.home)
            front.reset()
            yield step, tool.name, tool.backup(state)
    for step, restored, state in steps.restores:
        for tool in running:
            front.reset()
            cost, file = tool.restore(restored, work / "restored")
            stage.verify(state, file)
            shutil.rmtree(work / "restored")
            yield step, tool.name, cost
    for step, read_data in steps.checks:
        for tool in running:
            front.reset()
            checked = tool.check(read_data=read_data)
            assert checked
            yield step, tool.name, checked


def text(found: BucketRuns) -> str:
    """Show each step: requests by verb, bytes, wall time."""
    rows = []
    for (step, tool), runs in found.requests.items():
        asked = sorted(runs, key=lambda each: each.count)[len(runs) // 2]
        wall = sorted(cost.wall for cost in found.costs[step, tool])[len(runs) // 2]
        rows.append(
            [
                f"{step}, {tool}",
                str(asked.count),
                *(str(asked.by_verb.get(verb, 0)) for verb in VERBS),
                f"{asked.sent / 1e6:.2f}",
                f"{asked.received / 1e6:.2f}",
                f"{wall:.2f}",
            ]
        )
    return table(["in a bucket", "requests", *VERBS, "sent MB", "received MB", "wall s"], rows)


RATIOS = (
    # step, field, peer, at most
    (INCREMENT, "wall", "restic", 1.0),
    ("first full", "added", "restic", 0.7),
    ("after a pack", "added", "restic", 0.05),
)


def judge(found: BucketRuns) -> Iterator[Verdict]:
    """Compare with the targets."""
    for verdict in judge_ratios(found.costs, RATIOS):
        yield replace(verdict, measure=f"bucket, {verdict.measure}")
    most = max(each.count for each in found.requests[INCREMENT, "perdure"])
    yield Verdict(f"bucket, {INCREMENT}", "", most, MOST_REQUESTS, "requests")

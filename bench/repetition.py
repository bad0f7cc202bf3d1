"""All tools through the same steps, one after the other within each step."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.measuring import Cost, PageCache
from bench.stage import Stage
from bench.tools import Place, Tool

Measured = dict[tuple[str, str], list[Cost]]


@dataclass(frozen=True, slots=True)
class Steps:
    """What is done: backups (step, state), restores (step, wanted state, state it is), checks (step, all)."""

    backups: Sequence[tuple[str, str]]
    restores: Sequence[tuple[str, str | None, str]]
    checks: Sequence[tuple[str, bool]]


def install(stage: Stage, work: Path, tools: Sequence[type[Tool]]) -> list[Tool]:
    """Give each tool a fresh, empty repository."""
    shutil.rmtree(work, ignore_errors=True)
    running = [tool(Place(stage.site, work / tool.name.replace(" ", ""))) for tool in tools]
    for tool in running:
        tool.init()
    return running


def one_repetition(
    stage: Stage, work: Path, running: Sequence[Tool], cache: PageCache, steps: Steps
) -> Iterator[tuple[str, str, Cost]]:
    """Run all steps; yields (step, tool, cost)."""
    for step, state in steps.backups:
        stage.apply(state)
        for tool in running:
            cache.prepare(stage.site, tool.place.home)
            yield step, tool.name, tool.backup(state)
    target = work / "restored"
    for step, restored, state in steps.restores:
        for tool in running:
            cache.prepare(tool.place.home)
            cost, file = tool.restore(restored, target)
            stage.verify(state, file)
            shutil.rmtree(target)
            yield step, tool.name, cost
    for step, read_data in steps.checks:
        for tool in running:
            cache.prepare(tool.place.home)
            checked = tool.check(read_data=read_data)
            if checked:
                yield step, tool.name, checked


def note(found: Measured, costs: Iterator[tuple[str, str, Cost]], which: str) -> None:
    """Enter costs as they come, and say so."""
    for step, tool, cost in costs:
        found.setdefault((step, tool), []).append(cost)
        print(f"  {which} {step:20} {tool:14} {cost.wall:7.2f} s", file=sys.stderr, flush=True)

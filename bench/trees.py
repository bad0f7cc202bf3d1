"""File trees: many small files and a few large ones, beside restic.

The files are made in the folder that is backed up, from a seed. Between the backups one file of a hundred
changes, and some bytes are put into the middle of each large one.
"""

from __future__ import annotations

import filecmp
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from bench.measuring import Cost, PageCache
from bench.prose import Prose
from bench.repetition import Measured, note
from bench.targets import Verdict, judge_memory, judge_ratios
from bench.tools import Perdure, Place, Restic, Tool

_FILES_IN_FOLDER = 50
_FOLDERS_IN_FOLDER = 20
_MEDIAN, _SPREAD = 7.3, 1.2
"""Of the logarithm of a small file's bytes: half of them have less than 1.5 kB, one of ten more than 7 kB."""
_BLOCK = 1 << 20
RATIOS = (
    ("first full", "wall", "restic", 1.0),
    ("nothing changed", "wall", "restic", 1.0),
    ("+1 %", "wall", "restic", 1.0),
    ("restore newest", "wall", "restic", 1.0),
)


class _Trees:
    """What both tools do with a tree: back its folder up, restore all of it."""

    place: Place

    def restore_place(self, target: Path) -> Path:
        """Give where a restore puts the tree."""
        raise NotImplementedError


class PerdureTree(_Trees, Perdure):
    """This program, with ``--tree``."""

    def backup_command(self, state: str) -> list[str]:
        """``perdure backup --tree``."""
        where = ["-r", str(self.place.repository)]
        return [*self.program, "backup", "--json", "--tree", str(self.place.site), *where]

    def restore_place(self, target: Path) -> Path:
        """The folder's name below the target."""
        return target / self.place.site.name


class ResticTree(_Trees, Restic):
    """restic, which backs a folder up anyway."""

    def restore_place(self, target: Path) -> Path:
        """The folder's whole path below the target."""
        return Path(f"{target}{self.place.site}")


TOOLS: tuple[type[Tool], ...] = (PerdureTree, ResticTree)


@dataclass(frozen=True, slots=True)
class TreeSize:
    """How many small files a tree has, and how many large ones of so many MiB: ``4x64M``."""

    files: int
    large: str
    seed: int


def measure_trees(
    size: TreeSize,
    work: Path,
    tools: Sequence[type[Tool]],
    cache: PageCache,
    repeat: int,
) -> Measured:
    """Make a tree, and run all steps on it ``repeat`` times."""
    found: Measured = {}
    site = work / "tree"
    make(site, size)
    for repetition in range(repeat):
        running = [tool(Place(site, work / tool.name)) for tool in tools]
        for tool in running:
            tool.init()
        costs = _repetition(site, running, cache, Random(size.seed + repetition))
        note(found, costs, f"{repetition + 1}/{repeat}")
        for tool in running:
            shutil.rmtree(tool.place.home)
    shutil.rmtree(site)
    return found


def make(site: Path, wanted: TreeSize) -> None:
    """Make the tree anew."""
    rng = Random(wanted.seed)
    shutil.rmtree(site, ignore_errors=True)
    prose = Prose(rng)
    text = " ".join(prose.sentence(rng) for _ in range(5000)).encode()
    for number in range(wanted.files):
        path = _place(site, number)
        if not number % _FILES_IN_FOLDER:
            path.parent.mkdir(parents=True)
        size = min(int(rng.lognormvariate(_MEDIAN, _SPREAD)), len(text) // 2)
        start = rng.randrange(len(text) - size)
        path.write_bytes(text[start : start + size])
    count, _, size_text = wanted.large.partition("x")
    for number in range(int(count)):
        (site / "large").mkdir(parents=True, exist_ok=True)
        with (site / "large" / f"{number}.bin").open("wb") as file:
            for _ in range(int(size_text.removesuffix("M"))):
                start = rng.randrange(len(text) - _BLOCK // 2)
                file.write(rng.randbytes(_BLOCK // 2) + text[start : start + _BLOCK // 2])


def change(site: Path, rng: Random) -> None:
    """Change one file of a hundred, and put some bytes into each large one."""
    for folder, _, names in os.walk(site):
        for name in names:
            path = Path(folder, name)
            if path.parent.name == "large":
                _insert(path, b"a few new bytes")
            elif rng.random() < 0.01:
                path.write_bytes(path.read_bytes() + b"\nchanged")


def _insert(path: Path, data: bytes) -> None:
    """Put bytes into the middle of a file. A large one is not held in memory: children inherit its peak."""
    new = path.with_suffix(".new")
    with path.open("rb") as old, new.open("wb") as file:
        for _ in range(path.stat().st_size // 2 // _BLOCK):
            file.write(old.read(_BLOCK))
        file.write(data)
        shutil.copyfileobj(old, file, _BLOCK)
    new.replace(path)


def _place(site: Path, number: int) -> Path:
    folder, above = divmod(number // _FILES_IN_FOLDER, _FOLDERS_IN_FOLDER)
    return site / f"{folder:03}" / f"{above:02}" / f"page-{number:07}.txt"


def _repetition(
    site: Path, running: Sequence[Tool], cache: PageCache, rng: Random
) -> Iterator[tuple[str, str, Cost]]:
    for step in ("first full", "nothing changed", "+1 %"):
        if step == "+1 %":
            change(site, rng)
        for tool in running:
            cache.prepare(site, tool.place.home)
            yield step, tool.name, tool.backup(step)
    for tool in running:
        target = tool.place.home / "restored"
        target.mkdir()
        cache.prepare(tool.place.home)
        cost, _ = tool.run(tool.restore_command(None, target), target)
        assert isinstance(tool, _Trees)
        compare(site, tool.restore_place(target))
        shutil.rmtree(target)
        yield "restore newest", tool.name, cost


def compare(site: Path, restored: Path) -> None:
    """Raise ValueError where a restored tree is not what was backed up."""
    for folder, folders, names in os.walk(site):
        there = restored / Path(folder).relative_to(site)
        if sorted(entry.name for entry in there.iterdir()) != sorted((*folders, *names)):
            raise ValueError(f"{there} has other files than {folder}")
        for name in names:
            original, copy = Path(folder, name), there / name
            if original.stat().st_mtime_ns != copy.stat().st_mtime_ns:
                raise ValueError(f"{copy} has another time than {original}")
            if not filecmp.cmp(original, copy, shallow=False):
                raise ValueError(f"{copy} is not {original}")


def judge(found: Measured) -> Iterator[Verdict]:
    """Compare with the targets; what was not measured is left out."""
    for verdict in (*judge_ratios(found, RATIOS), *judge_memory(found)):
        yield Verdict(
            f"trees, {verdict.measure}",
            verdict.against,
            verdict.reached,
            verdict.limit,
            verdict.unit,
        )

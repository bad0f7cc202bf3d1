"""Sites of many small blobs, backed up as collective.recipe.backup does it, and as Perdure does instead.

Four steps: the first snapshotbackup, one with nothing changed, one with 1 % more blobs, and the removal of
the oldest. What each costs in seconds, and what it adds to the disk: inodes, and bytes of blocks. The
original is what it runs: ``repozo -BFz``, then ``rsync -a --delete --link-dest`` to the copy before.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench.measuring import PageCache, measure
from bench.report import table
from bench.targets import Verdict
from bench.tools import SOURCE, beside_python, in_turn

FIRST, UNCHANGED, GROWN, REMOVED = "first", "unchanged", "+1 %", "remove one"
STEPS = (FIRST, UNCHANGED, GROWN, REMOVED)
ORIGINAL, FILES, REPOSITORY = "repozo + rsync", "perdure, files", "perdure, repository"
_BATCH = 1000
_SIZE = 2000
"""Bytes of a blob."""
_UNCHANGED_SECONDS = 1.0
_UNCHANGED_INODES = 30


@dataclass(frozen=True, slots=True)
class Step:
    """What a step cost: seconds, inodes and bytes on disk; less than nothing where it frees them."""

    wall: float
    inodes: int
    size: int


Found = dict[tuple[str, str], Step]


def grow(site: Path, first: int, count: int) -> None:
    """Commit so many small blobs to the site, many at a time."""
    import ZODB
    from persistent.mapping import PersistentMapping
    from ZODB.blob import Blob
    from ZODB.FileStorage import FileStorage

    (site / "var" / "filestorage").mkdir(parents=True, exist_ok=True)
    storage = FileStorage(
        str(site / "var/filestorage/Data.fs"), blob_dir=str(site / "var/blobstorage")
    )
    database = ZODB.DB(storage, cache_size=100)
    for start in range(first, first + count, _BATCH):
        with database.transaction() as connection:
            folder = connection.root()[f"folder{start}"] = PersistentMapping()
            for number in range(start, min(start + _BATCH, first + count)):
                folder[number] = Blob(b"%16d" % number * (_SIZE // 16))
    database.close()


def taken(folder: Path) -> tuple[int, int]:
    """Count what is below a folder: inodes, and bytes of their blocks."""
    seen: set[int] = set()
    size = 0
    for place, _, files in os.walk(folder):
        for path in (place, *(os.path.join(place, name) for name in files)):
            status = os.lstat(path)
            if status.st_ino not in seen:
                seen.add(status.st_ino)
                size += status.st_blocks * 512
    return len(seen), size


class Way:
    """A way to back a site up; ``home`` holds what it makes."""

    def __init__(self, site: Path, home: Path) -> None:
        self.site, self.home = site, home
        home.mkdir(parents=True)

    def command(self) -> list[str]:
        """Give the command that backs up."""
        raise NotImplementedError

    def remove_command(self) -> list[str]:
        """Give the command that removes the oldest backup."""
        raise NotImplementedError


class Original(Way):
    """What the original runs."""

    def command(self) -> list[str]:
        """``repozo``, then ``rsync``."""
        (self.home / "backups").mkdir(exist_ok=True)
        copies = sorted((self.home).glob("blobs.*"))
        link = [f"--link-dest={copies[-1]}"] if copies else []
        program = beside_python("repozo") or ["repozo"]
        datafs = str(self.site / "var/filestorage/Data.fs")
        repozo = [*program, "-BFz", "-r", str(self.home / "backups"), "-f", datafs]
        new = str(self.home / f"blobs.{len(copies)}")
        source = str(self.site / "var/blobstorage")
        return in_turn(repozo, ["rsync", "-a", "--delete", *link, f"{source}/", f"{new}/"])

    def remove_command(self) -> list[str]:
        """Remove a copy, as a retention does."""
        return ["rm", "-rf", str(min(self.home.glob("blobs.*")))]


class Files(Way):
    """``perdure site``, into files of the same layout."""

    options = ""

    def __init__(self, site: Path, home: Path) -> None:
        super().__init__(site, home)
        self._configure(9)

    def _configure(self, keep: int) -> None:
        (self.home / "perdure.toml").write_text(
            f"[site]\nkeep = {keep}\nlocationprefix = 'made'\n"
            f"base-dir = '{self.site}'\nvar-dir = '{self.site}/var'\n{self.options}"
        )

    def command(self) -> list[str]:
        """``perdure site snapshotbackup``."""
        return self._perdure("snapshotbackup")

    def remove_command(self) -> list[str]:
        """Remove a backup, as a retention does."""
        oldest = min((self.home / "made/blobstoragesnapshots").glob("blobstorage.*"))
        text = (
            f"from perdure.dropin.recipe.copying import remove, Path; remove(Path({str(oldest)!r}))"
        )
        return [sys.executable, "-c", text]

    def _perdure(self, *arguments: str) -> list[str]:
        config = str(self.home / "perdure.toml")
        command, *rest = arguments
        return [sys.executable, "-m", "perdure", "site", command, "--config", config, *rest]


class Repository(Files):
    """``perdure site``, into a repository."""

    options = "repository = 'repository'\npassword-file = 'key'\n"

    def __init__(self, site: Path, home: Path) -> None:
        super().__init__(site, home)
        command = [sys.executable, "-m", "perdure", "-r", str(home / "repository"), "init"]
        command += ["--new-password-file", str(home / "key")]
        subprocess.run(command, check=True, env=_environment(home), stdout=subprocess.DEVNULL)

    def remove_command(self) -> list[str]:
        """``perdure forget`` and ``prune`` of the oldest snapshot."""
        base = [sys.executable, "-m", "perdure", "-r", str(self.home / "repository")]
        listed = subprocess.run(
            [*base, "snapshots", "--json"],
            check=True,
            env=_environment(self.home),
            capture_output=True,
        )
        oldest = json.loads(listed.stdout)[0]["id"]
        return in_turn([*base, "forget", oldest], [*base, "prune"])


WAYS: dict[str, Callable[[Path, Path], Way]] = {
    ORIGINAL: Original,
    FILES: Files,
    REPOSITORY: Repository,
}


def measure_blobs(count: int, work: Path, cache: PageCache) -> Found:
    """Measure all ways on a site of so many blobs."""
    site = work / "site"
    grow(site, 0, count)
    ways = {
        name: make(site, work / str(number)) for number, (name, make) in enumerate(WAYS.items())
    }
    found: Found = {}
    for step in STEPS:
        if step == GROWN:
            grow(site, count, max(count // 100, 1))
        for name, way in ways.items():
            found[step, name] = _measured(way, step, cache)
    shutil.rmtree(work)
    return found


def _measured(way: Way, step: str, cache: PageCache) -> Step:
    if isinstance(way, Original):
        time.sleep(1.1)  # repozo knows whole seconds only
    command = way.remove_command() if step == REMOVED else way.command()
    inodes, size = taken(way.home)
    cache.prepare(way.site)
    cost, _ = measure(command, way.home, _environment(way.home))
    after, larger = taken(way.home)
    return Step(cost.wall, after - inodes, larger - size)


def _environment(home: Path) -> dict[str, str]:
    key = str(home / "key")
    return {
        **os.environ,
        "PYTHONPATH": str(SOURCE),
        "PERDURE_PASSWORD_FILE": key,
        "PERDURE_CACHE_DIR": str(home / "cache"),
    }


def text(count: int, found: Found) -> str:
    """Show what was measured."""
    rows = [
        [
            name,
            *(
                f"{step.wall:.1f} s, {step.inodes:+,} inodes, {step.size / 1e6:+,.1f} MB"
                for each in STEPS
                for step in [found[each, name]]
            ),
        ]
        for name in WAYS
    ]
    return table([f"{count:,} blobs", *STEPS], rows)


def judge(count: int, found: Found) -> Iterator[Verdict]:
    """Compare with the targets: nothing changed, into a repository."""
    step = found[UNCHANGED, REPOSITORY]
    what = f"site of {count} blobs, unchanged"
    yield Verdict(f"{what}, wall", "", step.wall, _UNCHANGED_SECONDS, "s")
    yield Verdict(f"{what}, inodes", "", step.inodes, _UNCHANGED_INODES, "inodes")


def as_json(found: Found) -> list[dict[str, object]]:
    """Give what was measured, by name."""
    return [
        {"step": step, "way": way, "wall": cost.wall, "inodes": cost.inodes, "bytes": cost.size}
        for (step, way), cost in found.items()
    ]

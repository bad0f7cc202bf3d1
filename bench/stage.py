"""One Data.fs under one path, brought from state to state as a server would."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from bench.measuring import CommandFailed

CHUNK = 1 << 22
SMALL = 512 << 10
"""Bytes of the increment that is the same for all sizes."""


class Stage:
    """The folder that tools back up: Data.fs, and beside it what a server keeps there.

    That is an index, somewhat older than the file (repozo scans the whole Data.fs if there is none), and
    a lock file, newer than the rest (borg never remembers the newest file that it has seen).
    """

    def __init__(self, dataset: Path, site: Path) -> None:
        self.dataset, self.site = dataset, site
        self.data = site / "Data.fs"
        known = json.loads((dataset / "states.json").read_text())
        self.states: dict[str, dict[str, Any]] = known["states"]
        self.statistics: dict[str, Any] = known["statistics"]
        self.small = next_boundary(dataset / "grown.tail", SMALL)
        shutil.rmtree(site, ignore_errors=True)
        site.mkdir(parents=True)

    def apply(self, state: str) -> None:
        """Bring Data.fs from the state before to this one; ``same`` touches nothing."""
        if state == "same":
            return
        if state == "base":
            self.replace(self.dataset / "base.fs")
        elif state == "small":
            append(self.data, self.dataset / "grown.tail", 0, self.small)
        elif state == "grown":
            append(self.data, self.dataset / "grown.tail", self.small, None)
        elif state == "packed":
            self.replace(self.dataset / "packed.fs")
        elif state == "regrown":
            append(self.data, self.dataset / "regrown.tail", 0, None)
        self.settle()

    def replace(self, packed: Path) -> None:
        """Put a packed file and its index in place, as a pack does: a new inode."""
        new = self.site / "Data.fs.pack"
        shutil.copyfile(packed, new)
        new.replace(self.data)
        shutil.copyfile(packed.with_name(packed.name + ".index"), self.site / "Data.fs.index")

    def settle(self) -> None:
        """Have everything on disk, and the lock file newer than the database."""
        os.sync()
        time.sleep(0.02)
        (self.site / "Data.fs.lock").write_text(" 4711\n")

    def verify(self, state: str, restored: Path) -> None:
        """Compare a restored Data.fs with the state that it should be."""
        compare(restored, self.states[state]["sha256"], state)


def compare(restored: Path, expected: str, what: str) -> None:
    """Raise CommandFailed unless the file has this SHA-256."""
    with restored.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != expected:
        raise CommandFailed(f"{restored} was restored as {what}, but its bytes differ")


def append(path: Path, tail: Path, start: int, stop: int | None) -> None:
    """Append the bytes start:stop of a tail to a file, as a server does: same inode."""
    with path.open("ab") as target, tail.open("rb") as source:
        source.seek(start)
        left = (tail.stat().st_size if stop is None else stop) - start
        while left:
            piece = source.read(min(left, CHUNK))
            target.write(piece)
            left -= len(piece)
        target.flush()
        os.fsync(target.fileno())


def next_boundary(tail: Path, least: int) -> int:
    """Find where the transactions of a tail first add up to ``least`` bytes, or to half of it."""
    size, position = tail.stat().st_size, 0
    with tail.open("rb") as file:
        while position < min(least, size // 2):
            file.seek(position + 8)
            position += int.from_bytes(file.read(8), "big") + 8
    return position

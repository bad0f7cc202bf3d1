"""One Data.fs under one path, brought from state to state as a server would."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from bench.measuring import CommandFailed

CHUNK = 1 << 22
BASE = "base.blobs"
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
        self.known = known
        shutil.rmtree(site, ignore_errors=True)
        site.mkdir(parents=True)

    @cached_property
    def small(self) -> int:
        """Where the small increment ends in the tail of the larger one."""
        return next_boundary(self.dataset / "grown.tail", SMALL)

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


class BlobStage(Stage):
    """The folder of a site with a blob directory beside its Data.fs (see bench.uploads).

    It is a folder of the data set: writing 200,000 blobs takes many minutes, so those of the first state
    are moved into it and, by ``close``, back.
    """

    def __init__(self, dataset: Path) -> None:
        self.blobs = dataset / "site" / "blobs"
        self._base, self._dropped = dataset / BASE, dataset / "dropped"
        self._dropped.mkdir(exist_ok=True)
        if self.blobs.exists():  # a run was interrupted
            self._give_back(dataset)
        super().__init__(dataset, self.blobs.parent)

    def apply(self, state: str) -> None:
        """Bring Data.fs and blobs from the state before to this one; ``same`` touches nothing."""
        if state == "same":
            return
        if state == "base":
            self.close()
            self.replace(self.dataset / "base.fs")
            self._base.rename(self.blobs)
        elif state == "packed":
            self.replace(self.dataset / "packed.fs")
            _move(self.known["dropped"], self.blobs, self._dropped)
        else:
            append(self.data, self.dataset / f"{state}.tail", 0, None)
            shutil.copytree(self.dataset / f"{state}.blobs", self.blobs, dirs_exist_ok=True)
        self.settle()

    def close(self) -> None:
        """Give the blobs of the first state back to the data set."""
        if self.blobs.exists():
            self._give_back(self.dataset)

    def _give_back(self, dataset: Path) -> None:
        _move(list(blob_files(self._dropped)), self._dropped, self.blobs)
        for state in dataset.glob("*.blobs"):
            for path in blob_files(state):
                _remove(self.blobs, path)
        self.blobs.rename(self._base)

    def verify(self, state: str, restored: Path) -> None:
        """Compare a restored Data.fs with the state that it should be, and the blobs with the site's."""
        super().verify(state, restored)
        if digest_of_blobs(restored.parent / "blobs") != digest_of_blobs(self.blobs):
            raise CommandFailed(f"the blobs beside {restored} are not those of the site")

    def describe(self) -> str:
        """Say what the data is like."""
        s, states = self.statistics, self.states
        sizes = ", ".join(
            f"{name} {state['blobs']} blobs (Data.fs {state['size'] / 1e6:.1f} MB)"
            for name, state in states.items()
        )
        return (
            f"{sizes}\nbase: {s['bytes'] / 1e6:.0f} MB of blobs in {s['minutes']} different minutes;"
            f" blob bytes: median {s['blob_median']}, 90 % {s['blob_p90']}, 99 % {s['blob_p99']},"
            f" largest {s['blob_max']}"
        )


def _move(paths: Iterable[str], source: Path, target: Path) -> None:
    for path in paths:
        (target / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).rename(target / path)
        _remove(source, path)


def _remove(blobs: Path, path: str) -> None:
    """Remove a blob as a pack does, and the folders that are empty without it."""
    (blobs / path).unlink(missing_ok=True)
    with suppress(OSError):
        for folder in (blobs / path).parents:
            if folder == blobs:
                break
            folder.rmdir()


def digest_of_blobs(blobs: Path) -> str:
    """Give one digest of the paths and contents of all blobs below a blob directory."""
    digest = hashlib.sha256()
    for path in sorted(blob_files(blobs)):
        with (blobs / path).open("rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        digest.update(f"{content} {path}\n".encode())
    return digest.hexdigest()


def has_blobs(dataset: Path) -> bool:
    """Whether the blobs of the first state are in the data set, or in its site."""
    return (dataset / BASE).exists() or (dataset / "site" / "blobs").exists()


def blob_files(blobs: Path) -> Iterator[str]:
    """Give the paths of all blobs below a blob directory."""
    for folder, _, names in os.walk(blobs):
        below = os.path.relpath(folder, blobs)
        yield from (f"{below}/{name}" for name in names if name.endswith(".blob"))


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

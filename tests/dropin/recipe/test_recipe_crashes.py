"""A run that is killed at any of its file operations: what was there stays, the next run works."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from blob_site import BlobSite, State
from command_line import Program

pytestmark = pytest.mark.slow

OPERATIONS = (
    *("rename", "link", "mkdir", "unlink", "rmdir", "fsync", "symlink", "utime", "sync", "chmod"),
)


class Killed(BaseException):
    """Stands for the end of the process: nothing that would clean up can do so."""


class Killer:
    """Lets so many file operations through; all after that fail."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left: int | None = None
        for name in OPERATIONS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name)))

    def _wrapped(self, operation: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            if self.left is not None:
                if self.left <= 0:
                    raise Killed
                self.left -= 1
            return operation(*arguments, **named)

        return call


def let_go() -> None:
    """Close the locks that are still open: the end of a process would."""
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            name = os.readlink(descriptor)
        except FileNotFoundError:  # what the folder was read with
            continue
        if name.removesuffix(" (deleted)").endswith((".lock", ".perdure-lock")):
            os.close(int(descriptor.name))


def settings(folder: Path, text: str) -> None:
    (folder / "perdure.toml").write_text(f"[site]\nkeep = 1\n{text}\n")


def earlier_states(site: BlobSite, program: Program) -> dict[str, State]:
    """Two runs of one chain; then something new, and a pack, so that a full is due and these have to go."""
    states = {}
    for _ in range(2):
        site.add()
        program("site", "--folder", str(site.folder), "backup")
        newest = max(p.name[:19] for p in (site.folder / "var/backups").glob("*.*fs*"))
        states[newest] = site.state()
    return states


@pytest.mark.parametrize(
    "manner", ["", "archive-blob = true\nblob-timestamps = false", "incremental-blobs = true"]
)
def test_killed_at_each_operation(
    manner: str, tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BlobSite(tmp_path / "first")
    settings(first.folder, manner + ("\narchive-blob = true" if "incremental" in manner else ""))
    states = earlier_states(first, program)
    first.add()
    first.pack()
    live = first.state()
    killer = Killer(monkeypatch)
    number, done = 0, False
    while not done:
        site = BlobSite(tmp_path / "site")
        shutil.rmtree(site.folder)
        shutil.copytree(first.folder, site.folder, symlinks=True)
        where = ("site", "--folder", str(site.folder))
        killer.left = number
        try:
            program(*where, "backup")
            done = True
        except Killed:
            let_go()
        killer.left = None
        if not done:
            program(*where, "verify", "--kind", "backup")
            listed = json.loads(program(*where, "list", "--kind", "backup", "--json").out)
            kept = {each["stamp"] for each in listed}
            assert len(kept & states.keys()) in {0, 2}
            for stamp, state in list(states.items())[number % 2 :: 2]:
                if stamp in kept:
                    program(*where, "restore", "-n", stamp)
                    assert site.state() == state, (number, stamp)
            shutil.copytree(first.database.parent, site.database.parent, dirs_exist_ok=True)
            shutil.rmtree(site.blobs)
            shutil.copytree(first.blobs, site.blobs)
            program(*where, "backup")
        program(*where, "restore", "-n")
        assert site.state() == live, number
        leftovers = [p.name for p in (site.folder / "var").glob("*/.perdure-*")]
        assert set(leftovers) <= {".perdure-lock", ".perdure-repozo.lock", ".perdure-status.json"}
        number += 7
    assert number > 20


def test_processes_killed_at_random_moments(tmp_path: Path, program: Program) -> None:
    site = BlobSite(tmp_path / "site")
    settings(site.folder, "")
    where = ("site", "--folder", str(site.folder))
    site.add(1)
    program(*where, "backup")
    chance = random.Random(5)
    command = [sys.executable, "-m", "perdure", *where, "backup"]
    for number in range(5):
        site.add(20)
        if number == 3:
            site.pack()
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        time.sleep(chance.uniform(0.1, 0.7))
        process.send_signal(signal.SIGKILL)
        process.wait(60)
        program(*where, "verify", "--kind", "backup")
        live = site.state()
        program(*where, "backup")
        program(*where, "restore", "-n")
        assert site.state() == live
        assert site.is_consistent()


def test_a_restore_that_is_killed_leaves_a_whole_site(
    tmp_path: Path, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = BlobSite(tmp_path / "first")
    settings(first.folder, "")
    states = earlier_states(first, program)
    stamp, wanted = next(iter(states.items()))
    killer = Killer(monkeypatch)
    number, done = 0, False
    while not done:
        site = BlobSite(tmp_path / "site")
        shutil.rmtree(site.folder)
        shutil.copytree(first.folder, site.folder, symlinks=True)
        where = ("site", "--folder", str(site.folder))
        killer.left = number
        try:
            program(*where, "restore", "-n", stamp)
            done = True
        except Killed:
            let_go()
        killer.left = None
        # Whichever Data.fs stands has all of its blobs; there may be others, too.
        from perdure.dropin.recipe.referenced import referenced_by
        from perdure.sources.blobs import BlobDirectory

        assert referenced_by(site.database).certain <= set(BlobDirectory(site.blobs).walk())
        program(*where, "restore", "-n", stamp)
        assert site.state() == wanted
        number += 2
    assert number > 10

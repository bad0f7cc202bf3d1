"""Backup and restore stopped at any moment: earlier archives stay, a target is whole or not there."""

from __future__ import annotations

import os
import shutil
import tarfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from directorystorage_homes import FIXTURES, unpack
from doubles import PowerCut

from perdure.dropin.directorystorage.backup import Request, archives_in, backup, read_index
from perdure.dropin.directorystorage.restore import RestoreRequest, restore
from perdure.dropin.directorystorage.verify import verify_home
from perdure.dropin.directorystorage.verify_archives import verify_archives
from perdure.model import SilentObserver
from perdure.sources.directorystorage.home import Home

OBSERVER = SilentObserver()
NOW = 1795277000
CALLS = (
    "open",
    "pwrite",
    "fsync",
    "sync",
    "rename",
    "replace",
    "unlink",
    "mkdir",
    "fchmod",
    "rmdir",
)


class Killed(BaseException):
    """The process is no more."""


class DeathAt:
    """Ends the process at its n-th change of a file or folder: none after it is made either."""

    def __init__(self, patched: pytest.MonkeyPatch, n: int) -> None:
        self.calls, self._n = 0, n
        for name in CALLS:
            patched.setattr(os, name, self._after(getattr(os, name)))

    @property
    def came(self) -> bool:
        return self.calls > self._n

    def _after(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            reads = function.__name__ == "open" and not arguments[1] & (os.O_WRONLY | os.O_RDWR)
            self.calls += not reads
            if self.came and not reads:
                raise Killed
            return function(*arguments, **more)

        return call


@pytest.mark.slow
def test_a_backup_may_be_stopped_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = unpack("flat-clean-nomd5", tmp_path)
    (fresh / "backups").mkdir()
    backup(Home(fresh), [Request("first")], NOW - 10, OBSERVER)
    index = read_index(fresh / "backups")
    requests = [Request(), Request(since=NOW)]
    for n in range(100):
        home = Path(shutil.copytree(fresh, tmp_path / str(n)))
        with monkeypatch.context() as patched:
            death = DeathAt(patched, n)
            with suppress(Killed):
                backup(Home(home), requests, NOW, OBSERVER)
        folder = home / "backups"
        assert (folder / "first-1.tgz").read_bytes() == (
            fresh / "backups" / "first-1.tgz"
        ).read_bytes()
        rows = read_index(folder)
        assert rows[:1] == index
        numbers = {name.number for name in archives_in(folder)}
        assert {row.number for row in rows} <= numbers
        assert not verify_archives(folder, OBSERVER).damaged
        report = backup(Home(home), requests, NOW + 1, OBSERVER)  # the next run needs no help
        assert report.row
        assert report.row.number not in numbers
        verdict = verify_archives(folder, OBSERVER)
        assert not verdict.damaged
        assert not list(folder.glob(".tmp-*.tgz"))
        assert report.row.number in verdict.restorable
        shutil.rmtree(home)
        if not death.came:
            break
    else:
        raise AssertionError("a backup that never ends")
    assert n > 10


def test_a_backup_survives_a_power_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = unpack("chunky-clean", tmp_path)
    (home / "backups").mkdir()
    power = PowerCut(monkeypatch)
    backup(Home(home), [Request()], NOW, OBSERVER)
    power.survivors(home / "backups", tmp_path / "survived")
    assert [row.number for row in read_index(tmp_path / "survived")] == [1]
    assert verify_archives(tmp_path / "survived", OBSERVER).restorable == (1,)


@pytest.mark.slow
def test_a_restore_may_be_stopped_at_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with tarfile.open(FIXTURES / "chunky-backups.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    target = tmp_path / "in" / "home"
    request = RestoreRequest(tmp_path / "backups", target, number=2)
    for n in (*range(0, 400, 23), 100_000):
        with monkeypatch.context() as patched:
            death = DeathAt(patched, n)
            with suppress(Killed):
                restore(request, OBSERVER)
        assert target.exists() == (not death.came)
        if target.exists():
            assert not verify_home(Home(target), OBSERVER).damaged
            break
    else:
        raise AssertionError("a restore that never ends")
    assert n > 100
    assert [path.name for path in target.parent.iterdir()] == ["home"]

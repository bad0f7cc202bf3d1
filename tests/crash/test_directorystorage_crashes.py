"""Backups of a DirectoryStorage that fail, restores of one that fail or are killed, at any call."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from command_line import Program, bare_environment, program, repository  # noqa: F401 - fixtures
from directorystorage_homes import states_of, unpack
from directorystorage_site import NAME, HomeSite, below, files_of
from doubles import Clock, FaultyStore
from test_repair import damage, mended

from perdure.backup import BackupRequest, backup
from perdure.check import check
from perdure.errors import DamageFound, StoreError
from perdure.model import SilentObserver, Subset, Tid
from perdure.repair import repair_snapshots
from perdure.repository import Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_directorystorage import restore_home
from perdure.restore_plan import Wanted
from perdure.snapshots import sources_in
from perdure.sources.directorystorage.contents import Contents
from perdure.sources.directorystorage.home import Home
from perdure.sources.directorystorage.source import DirectoryStorageSource
from perdure.stores import Store


def opened(store: Store) -> Repository:
    return Repository.open(store, "secret", cache=None, clock=Clock(), workers=2)


def back_up(store: Store, home: Path) -> None:
    made = opened(store)
    try:
        with made.lock() as lock:
            source = DirectoryStorageSource(home, NAME)
            request = BackupRequest("www1", "zope")
            backup(made, lock, [source], request, Clock(), SilentObserver())
    finally:
        made.close()


@pytest.mark.slow
def test_the_nth_call_of_a_backup_fails(tmp_path: Path) -> None:
    """An increment upon a first snapshot: every snapshot that is listed gives its HOME back."""
    home = unpack("flat-clean-c12", tmp_path)
    tids = [each.number for each in Contents(Home(home)).transactions()]
    site = HomeSite()
    site.back_up(home)
    site.restore(tmp_path / "old", at=Tid(tids[8]))
    states = {tids[8]: files_of(tmp_path / "old"), tids[-1]: files_of(home)}
    base = HomeSite()
    base.back_up(tmp_path / "old")
    for n in count(1):
        store = type(base.store)()
        store.contents = dict(base.store.contents)
        faulty = FaultyStore(store, n, after=n % 2 == 0)
        with suppress(StoreError):
            back_up(faulty, home)
        if faulty.failed:
            back_up(store, home)
        made = opened(store)
        assert not check(made, read_data=Subset(), observer=SilentObserver()).damaged
        for found in sources_in(made, made.snapshots(), None):
            target = tmp_path / f"{n}-{found.id[:8]}"
            restore_home(made, Wanted(found.id), target, None, SilentObserver())
            assert files_of(target) == states[found.record.cut.value]
        made.close()
        if not faulty.failed:
            break
    assert n > 10


@pytest.mark.parametrize("call", ["open", "mkdir", "rename"])
def test_the_disk_fails_in_the_middle_of_a_restore(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = HomeSite()
    home = unpack("flat-clean-nomd5", tmp_path)
    site.back_up(home)
    for n in (1, 2, 5, 20, 60):
        with monkeypatch.context() as patch:
            calls, real = count(1), getattr(os, call)

            def full(*given: Any, **more: Any) -> Any:
                if next(calls) == n and _ours(given[0]):  # noqa: B023
                    raise OSError(28, "No space left on device", str(given[0]))
                return real(*given, **more)  # noqa: B023

            patch.setattr(os, call, full)
            with suppress(StoreError):
                site.restore(tmp_path / "new")
        if (tmp_path / "new").exists():
            assert files_of(tmp_path / "new") == files_of(home)
            break
        assert sorted(each.name for each in tmp_path.iterdir()) == ["home"]
    else:
        site.restore(tmp_path / "new")
    assert below(tmp_path / "new" / "A") == below(home / "A")


def _ours(path: object) -> bool:
    return ".new.perdure" in str(path)


DEADLY = """
import os, sys
from itertools import count
calls, last = count(1), int(sys.argv[1])
def deadly(call):
    def run(*given, **more):
        if ".new.perdure" in str(given[0]) and next(calls) == last:
            os._exit(9)
        return call(*given, **more)
    return run
for name in ("open", "mkdir", "rename", "unlink", "rmdir"):
    setattr(os, name, deadly(getattr(os, name)))
from perdure.cli.edge import run
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.slow
def test_a_restore_is_killed(tmp_path: Path, program: Program, repository: Path) -> None:  # noqa: F811
    """At some calls from the first to the last: there is no HOME, or all of it; the next restore works."""
    home = unpack("flat-clean-nomd5", tmp_path)
    program("backup", "--directorystorage", str(home))
    wanted, target = files_of(home), tmp_path / "new"
    seen = set()
    for n in (1, 9, 40, 84, 90, 200):
        arguments = ["restore", "--into-directorystorage", str(target)]
        status = subprocess.run(
            [sys.executable, "-c", DEADLY, str(n), *arguments],
            check=False,
            timeout=300,
            capture_output=True,
        ).returncode
        assert status in (0, 9)
        if target.exists():
            assert files_of(target) == wanted
        seen.add((status, target.exists()))
        if not target.exists():
            program(*arguments)
            assert files_of(target) == wanted
        left = {each.name for each in tmp_path.iterdir() if each.name.startswith(".new")}
        assert not left or status == 9
        shutil.rmtree(target)
    assert {(9, False), (0, True)} <= seen


def particulars_of(site: HomeSite) -> Any:
    [*_, found] = sources_in(site.repository, site.repository.snapshots(), None)
    folder = found.history.folder.folder("companion").folder("particulars")
    name, *_ = folder.files()
    return folder.file(name).chunks[0]


def test_what_is_kept_beside_the_history_is_lost(tmp_path: Path) -> None:
    """A check names it, the next backup stores it again; a repair leaves the FileStorage."""
    home = unpack("flat-clean-nomd5", tmp_path)
    before = states_of(home)
    site = HomeSite()
    site.back_up(home)
    damage(site, particulars_of(site))
    site.repository = site.open()
    with site.repository.lock():
        report = check(site.repository, read_data=Subset(), observer=SilentObserver())
    assert any("particulars" in lost for finding in report.findings for lost in finding.lost)
    with pytest.raises(DamageFound):
        site.restore(tmp_path / "again")
    assert not (tmp_path / "again").exists()
    with site.repository.lock(exclusive=True) as lock:
        [repaired] = repair_snapshots(
            site.repository, lock, forget=True, dry_run=False, observer=SilentObserver()
        ).repaired
    assert "its own kind" in repaired.what
    with pytest.raises(DamageFound, match="is not in the snapshot"):
        site.restore(tmp_path / "again")
    request = RestoreRequest(tmp_path / "out", Wanted())
    [restored] = restore(site.repository, request, SilentObserver())
    assert restored.cut.value
    mended(site)
    site.repository = site.open()
    assert site.back_up(home).method == "compare"
    site.restore(tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(home)
    assert states_of(home) == before

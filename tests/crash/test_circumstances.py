"""Odd circumstances: two backups at once, clocks that jump, full disks, locks, repositories of others."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from datafs import DataFs, Record, Transaction, simple
from history_site import HistorySite, back_up, rebuilt_from, snapshots_in, system_clock

from perdure.check import check
from perdure.errors import RepositoryLocked, StoreError, UsageError
from perdure.formats.keyfile import KdfParameters
from perdure.history.recording import Recorder
from perdure.model import SilentObserver, Subset, Tid
from perdure.plan import choose_snapshot
from perdure.repository import Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.stores.local import LocalStore


@pytest.fixture
def site() -> Iterator[HistorySite]:
    made = HistorySite(400)
    yield made
    made.repository.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    made = tmp_path / "Data.fs"
    made.write_bytes(simple(8).data)
    return made


def assert_sound(site: HistorySite) -> list[bytes]:
    repository = site.open()
    report = check(repository, read_data=Subset(), observer=SilentObserver())
    assert not report.damaged, report
    found = [rebuilt_from(each)[0] for each in snapshots_in(repository)]
    repository.close()
    return found


def test_two_backups_at_once(site: HistorySite, tmp_path: Path) -> None:
    """Of the same source and of others, with much the same content."""

    def run(number: int) -> None:
        repository = site.open()
        path = tmp_path / f"{number % 2}.fs"
        back_up(repository, path, name=str(path), window=400, clock=site.clock)
        repository.close()

    for number in range(2):
        (tmp_path / f"{number}.fs").write_bytes(simple(20 + number).data)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(run, range(8)))
    states = assert_sound(site)
    assert len(states) == 8
    assert set(states) == {simple(20).data, simple(21).data}
    assert not site.names("locks")


class TestClocks:
    def test_a_clock_that_was_put_back(self, site: HistorySite, path: Path, tmp_path: Path) -> None:
        """The newer snapshot has the older time; every moment can be had all the same."""
        made = simple(8)
        back_up(site.repository, path, window=400, clock=site.clock)
        site.clock.advance(days=-2)
        for count in (10, 12):
            made = simple(count)
            path.write_bytes(made.data)
            back_up(site.repository, path, window=400, clock=site.clock)
            site.clock.advance(minutes=1)
        assert sorted(map(len, assert_sound(site))) == [len(simple(n).data) for n in (8, 10, 12)]
        for number, tid in enumerate(made.tids):
            request = RestoreRequest(tmp_path / "out", Wanted(at=Tid(tid)), force=True)
            restore(site.repository, request, SilentObserver())
            assert (tmp_path / "out/Data.fs").read_bytes() == made.data[: made.ends[number]]

    @pytest.mark.parametrize("minutes", [31, 600, -31])
    def test_the_machine_slept_or_its_clock_jumped(
        self, site: HistorySite, path: Path, minutes: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        finish = Recorder.finish

        def sleep(recorder: Recorder) -> None:
            site.clock.advance(minutes=minutes)
            finish(recorder)

        monkeypatch.setattr(Recorder, "finish", sleep)
        with pytest.raises(RepositoryLocked, match="was lost") as error:
            back_up(site.repository, path, clock=site.clock)
        assert error.value.exit_code == 11
        monkeypatch.undo()
        assert assert_sound(site) == []
        back_up(site.repository, path, clock=site.clock)
        assert len(assert_sound(site)) == 1


class TestLocks:
    def test_an_exclusive_lock_of_others(self, site: HistorySite, path: Path) -> None:
        with site.open().lock(exclusive=True), pytest.raises(RepositoryLocked) as error:
            back_up(site.repository, path, clock=site.clock)
        assert error.value.exit_code == 11
        back_up(site.repository, path, clock=site.clock)

    def test_a_stale_one(self, site: HistorySite, path: Path) -> None:
        site.open().lock(exclusive=True)
        site.clock.advance(minutes=31)
        back_up(site.repository, path, clock=site.clock)
        assert assert_sound(site) == [path.read_bytes()]

    def test_shared_ones_do_not_matter(self, site: HistorySite, path: Path) -> None:
        with site.open().lock():
            back_up(site.repository, path, clock=site.clock)


class TestMoments:
    """Which moments can be had, and what is said of the others."""

    def test_no_snapshot_has_it(self, site: HistorySite, path: Path, tmp_path: Path) -> None:
        back_up(site.repository, path, clock=site.clock)
        for moment in (Tid(1), datetime(1999, 1, 1, tzinfo=UTC)):
            with pytest.raises(UsageError, match="had no transaction yet"):
                restore(
                    site.repository,
                    RestoreRequest(tmp_path / "out", Wanted(at=moment)),
                    SilentObserver(),
                )
        later = site.clock() + timedelta(days=1)
        with pytest.raises(UsageError, match="no snapshot has the source as it was") as error:
            restore(
                site.repository,
                RestoreRequest(tmp_path / "out", Wanted(at=later)),
                SilentObserver(),
            )
        assert "2026-11-21 03:15:00" in str(error.value.hint)
        assert not (tmp_path / "out/Data.fs").exists()

    def test_between_two_transactions(self, site: HistorySite, path: Path, tmp_path: Path) -> None:
        back_up(site.repository, path, clock=site.clock)
        made = simple(8)
        request = RestoreRequest(tmp_path / "out", Wanted(at=Tid(made.tids[3] + 1)))
        restore(site.repository, request, SilentObserver())
        assert (tmp_path / "out/Data.fs").read_bytes() == made.data[: made.ends[3]]

    def test_nothing_to_choose_from(self) -> None:
        with pytest.raises(UsageError, match="no snapshot has the source"):
            choose_snapshot([], Tid(7))


def test_a_record_above_four_mebibytes(site: HistorySite, path: Path) -> None:
    made = DataFs()
    made.add(
        Transaction([Record(1, b"small"), Record(2, os.urandom((9 << 20) + 5)), Record(3, b"x")])
    )
    made.add(Transaction([Record(2, made.at[1], prev=made.at[1]), Record(1, b"y", made.at[0])]))
    path.write_bytes(made.data)
    for window in (1 << 20, 64 << 20):
        back_up(site.repository, path, name=str(window), window=window, clock=site.clock)
    assert assert_sound(site) == [made.data, made.data]


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="mounting needs root")
def test_a_disk_that_fills_up(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        store, path, made = LocalStore(disk / "repository"), tmp_path / "Data.fs", DataFs()
        parameters = KdfParameters(2, 1, 1)
        Repository.create(
            store, "secret", kdf=parameters, now=system_clock(), username="u", hostname="h"
        ).close()
        states, full = [], 0
        for number in range(12):
            made.add(Transaction([Record(number, os.urandom(400_000))]))
            path.write_bytes(made.data)
            repository = Repository.open(store, "secret", cache=None, clock=system_clock)
            try:
                back_up(repository, path)
                states.append(made.data)
            except StoreError as error:
                assert "No space left" in str(error)  # noqa: PT017
                assert "make room" in str(error.hint)  # noqa: PT017
                full += 1
            report = check(repository, read_data=Subset(), observer=SilentObserver())
            assert not report.damaged, report
            assert [rebuilt_from(each)[0] for each in snapshots_in(repository)] == states
            repository.close()
        assert full
        assert len(states) > 2
    finally:
        subprocess.run(["umount", str(disk)], check=True)

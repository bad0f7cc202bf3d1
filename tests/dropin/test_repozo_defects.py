"""Where ZODB's repozo goes wrong: what it does, and what ours does instead."""

from __future__ import annotations

import gzip
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from repozo_pair import (
    Site,
    back_up,
    files,
    moment,
    ours,
    problems,
    recovered,
    recovered_or_none,
    zodbs,
)
from zc.lockfile import LockFile
from ZODB.FileStorage import FileStorage
from ZODB.scripts import repozo as zodbs_repozo

from perdure.dropin import repozo
from perdure.dropin.repozo import BackupKind, backing_up, chains, deciding, folder, next_stamp
from perdure.errors import PerdureError, RepositoryLocked, StoreError, TargetInUse, UsageError
from perdure.formats.repozo import time_of
from perdure.model import SilentObserver


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.commit(5)
    return made


def zodbs_backup(site: Site, now: str, *flags: str) -> None:
    done = zodbs("-B", *flags, "-r", site.repository, "-f", site.path, now=now)
    assert done.code == 0, done


def zodbs_recovers(site: Site, now: str = moment(1000)) -> bytes | None:
    output = site.path.with_name("zodbs.fs")
    done = zodbs("-R", "-r", site.repository, "-o", output, now=now)
    return output.read_bytes() if done.code == 0 else None


class TestAPackBetweenDecisionAndCopy:
    def prepare(self, site: Site) -> None:
        zodbs_backup(site, moment(0), "-Q")
        site.commit(5)
        for _ in range(3):
            site.commit(7)

    def test_zodbs_writes_what_no_database_ever_was(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.prepare(site)
        copy = zodbs_repozo.copyfile

        def pack_first(*arguments: Any) -> Any:
            site.pack()
            site.commit(60)
            return copy(*arguments)

        monkeypatch.setattr(zodbs_repozo, "copyfile", pack_first)
        zodbs_backup(site, moment(1), "-Q")
        assert zodbs("-V", "-r", site.repository, now=moment(2)).code == 0
        assert zodbs_recovers(site) is not None
        found = problems(site.repository)
        assert any("is damaged at byte" in each for each in found), found
        with pytest.raises(repozo.VerificationFail):
            recovered(site.repository)

    def test_ours_reads_one_file(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        self.prepare(site)
        before = site.data
        decide = deciding.decide

        def pack_first(*arguments: Any, **more: Any) -> Any:
            site.pack()
            site.commit(60)
            return decide(*arguments, **more)

        monkeypatch.setattr(backing_up, "decide", pack_first)
        observer = SilentObserver()
        report = repozo.backup(
            repozo.BackupRequest(site.repository, site.path, moment(1), quick=True), observer
        )
        assert report.replaced
        assert any("a pack has ended" in warning for warning in observer.warnings)
        assert recovered(site.repository) == before
        assert not problems(site.repository)
        monkeypatch.undo()
        assert back_up(site.repository, site.path, moment(2), quick=True).kind is BackupKind.FULL
        assert recovered(site.repository) == site.data


class TestAVotedTransaction:
    def run_with_voted_tail(self, site: Site) -> bytes:
        """Give the file as it is while a transaction is voted, and leave it so."""
        whole = site.data
        end = 4 + int.from_bytes(whole[12:20], "big") + 8
        site.path.write_bytes(whole + whole[4:20] + b"c" + whole[21:end])
        return whole

    def test_zodbs_writes_an_empty_increment_and_is_blind_then(self, site: Site) -> None:
        zodbs_backup(site, moment(0), "-Q")
        whole = self.run_with_voted_tail(site)
        zodbs_backup(site, moment(1), "-Q")
        assert (site.repository / f"{moment(1)}.deltafs").read_bytes() == b""
        site.path.write_bytes(whole)
        site.commit(10)
        site.pack()
        site.commit(40)
        zodbs_backup(site, moment(2), "-Q")
        assert (site.repository / f"{moment(2)}.deltafs").exists()  # though there was a pack
        assert zodbs("-V", "-r", site.repository, now=moment(3)).code == 0
        assert zodbs_recovers(site) != site.data
        assert problems(site.repository)
        assert recovered_or_none(site.repository) is None

    def test_ours_writes_nothing(self, site: Site) -> None:
        back_up(site.repository, site.path, moment(0), quick=True)
        before = files(site.repository)
        self.run_with_voted_tail(site)
        for quick in (True, False):
            report = back_up(site.repository, site.path, moment(1), quick=quick)
            assert report.kind is BackupKind.NOTHING
        assert files(site.repository) == before

    def test_ours_looks_behind_an_empty_increment_of_zodbs(self, site: Site) -> None:
        zodbs_backup(site, moment(0), "-Q")
        whole = self.run_with_voted_tail(site)
        zodbs_backup(site, moment(1), "-Q")
        site.path.write_bytes(whole)
        site.commit(10)
        site.pack()
        site.commit(40)
        assert back_up(site.repository, site.path, moment(2), quick=True).kind is BackupKind.FULL
        assert recovered(site.repository) == site.data


class TestACrashBeforeTheLine:
    """The data file has its name, the .dat has no line for it."""

    def prepare(self, site: Site) -> None:
        zodbs_backup(site, moment(0))
        dat = site.repository / f"{moment(0)}.dat"
        line = dat.read_bytes()
        site.commit(3)
        zodbs_backup(site, moment(1))
        dat.write_bytes(line)

    def test_zodbs_backs_the_same_bytes_up_once_more(self, site: Site) -> None:
        self.prepare(site)
        site.commit(3)
        zodbs_backup(site, moment(2), "-Q")
        assert zodbs("-V", "-r", site.repository, now=moment(3)).code == 0
        assert zodbs_recovers(site) != site.data
        assert recovered(site.repository) == site.data  # ours takes each byte once
        assert problems(site.repository)

    @pytest.mark.parametrize("quick", [True, False])
    @pytest.mark.parametrize("more", [0, 3])
    def test_ours_adds_the_line(self, site: Site, quick: bool, more: int) -> None:
        self.prepare(site)
        if more:
            site.commit(more)
        kind = BackupKind.INCREMENT if more else BackupKind.NOTHING
        assert back_up(site.repository, site.path, moment(2), quick=quick).kind is kind
        assert not problems(site.repository)
        assert zodbs_recovers(site) == recovered(site.repository) == site.data
        assert zodbs("-V", "-r", site.repository, now=moment(3)).code == 0

    @pytest.mark.parametrize("quick", [True, False])
    def test_a_pack_makes_it_worthless(self, site: Site, quick: bool) -> None:
        self.prepare(site)
        site.pack()
        assert back_up(site.repository, site.path, moment(2), quick=quick).kind is BackupKind.FULL
        assert zodbs_recovers(site) == recovered(site.repository) == site.data


class TestPiecesThatDoNotJoin:
    @pytest.mark.parametrize("lost", [0, 1])
    @pytest.mark.parametrize("with_dat", [True, False])
    def test_a_file_is_gone(self, site: Site, lost: int, with_dat: bool) -> None:
        for number in range(3):
            zodbs_backup(site, moment(number))
            site.commit(4)
        lost_file = site.repository / f"{moment(lost)}.{'deltafs' if lost else 'fs'}"
        lost_file.unlink()
        if not with_dat:
            (site.repository / f"{moment(0)}.dat").unlink()
        assert zodbs_recovers(site) not in {None, site.data}
        with pytest.raises(PerdureError):
            recovered(site.repository)
        assert problems(site.repository)
        report = back_up(site.repository, site.path, moment(9), quick=with_dat)
        assert report.kind is BackupKind.FULL
        assert recovered(site.repository) == site.data


class TestTwoRunsAtOnce:
    def test_the_second_is_refused_or_waits(self, site: Site) -> None:
        code = (
            "import sys, time; from pathlib import Path;"
            "from perdure.dropin.repozo.folder import locked\n"
            "with locked(Path(sys.argv[1]), 0):\n"
            "    print('held', flush=True); sys.stdin.read()\n"
        )
        with subprocess.Popen(
            [sys.executable, "-c", code, site.repository],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        ) as other:
            assert other.stdout is not None
            assert other.stdin is not None
            assert other.stdout.readline() == b"held\n"
            with pytest.raises(RepositoryLocked):
                back_up(site.repository, site.path, moment(0))
            done = ours("-B", "-r", site.repository, "-f", site.path)
            assert done.code == 1
            assert "is running" in done.message
            other.stdin.close()
            back_up(site.repository, site.path, moment(0), wait=60.0)
        assert recovered(site.repository) == site.data
        assert {Path(name).suffix for name in files(site.repository)} == {".fs", ".dat", ".index"}

    def test_zodbs_meanwhile_is_noticed(self, site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
        back_up(site.repository, site.path, moment(0))
        site.commit(2)
        put = backing_up._Backup._check_unchanged

        def zodbs_first(self: Any) -> None:
            zodbs_backup(site, moment(1))
            put(self)

        monkeypatch.setattr(backing_up._Backup, "_check_unchanged", zodbs_first)
        with pytest.raises(StoreError, match="another program"):
            back_up(site.repository, site.path, moment(2))
        assert not problems(site.repository)
        assert recovered(site.repository) == site.data


class TestClocks:
    def test_zodbs_loses_an_increment_of_the_same_second(self, site: Site) -> None:
        zodbs_backup(site, moment(0))
        site.commit(2)
        zodbs_backup(site, moment(0))
        assert zodbs_recovers(site) != site.data
        assert recovered(site.repository) == site.data  # the .dat has the order

    def test_ours_takes_the_next_second(self, site: Site) -> None:
        for number in range(3):
            report = back_up(site.repository, site.path, moment(0), quick=bool(number % 2))
            assert report.stamp == moment(0)[:-1] + str(number)
            site.commit(2)
        assert next_stamp(site.repository, time_of(moment(0))) == moment(0)[:-1] + "3"

    def test_a_clock_that_was_set_back(self, site: Site) -> None:
        back_up(site.repository, site.path, moment(50))
        site.commit(2)
        observer = SilentObserver()
        request = repozo.BackupRequest(site.repository, site.path, moment(0))
        report = repozo.backup(request, observer)
        assert report.kind is BackupKind.INCREMENT
        assert report.stamp == moment(50)[:-1] + "1"
        assert any("Is the clock right?" in warning for warning in observer.warnings)
        assert recovered(site.repository) == site.data

    def test_zodbs_deletes_what_it_has_just_made(self, site: Site) -> None:
        old = site.data
        zodbs_backup(site, moment(50))
        site.commit(2)
        zodbs_backup(site, moment(0), "-k")
        assert zodbs_recovers(site) == old

    def test_ours_keeps_it(self, site: Site) -> None:
        back_up(site.repository, site.path, moment(50))
        site.commit(2)
        back_up(site.repository, site.path, moment(0), full=True, kill_old_on_full=True)
        assert len(chains(site.repository)) == 1
        assert zodbs_recovers(site) == recovered(site.repository) == site.data


class TestKillOldOnFull:
    def fill(self, site: Site) -> None:
        for number in range(4):
            back_up(site.repository, site.path, moment(number), full=number == 2)
            site.commit(2)

    @pytest.mark.parametrize("zipped", [True, False])
    def test_all_that_is_older_goes(self, site: Site, zipped: bool) -> None:
        self.fill(site)
        (site.repository / "notes.txt").write_text("mine")
        report = back_up(
            site.repository,
            site.path,
            moment(9),
            full=True,
            gzip=zipped,
            kill_old_on_full=True,
        )
        kind = "fsz" if zipped else "fs"
        assert len(report.removed) == 4
        assert set(files(site.repository)) == {
            *(f"{moment(9)}.{each}" for each in (kind, "dat", "index")),
            "notes.txt",
        }
        assert zodbs_recovers(site) == recovered(site.repository) == site.data

    def test_nothing_goes_before_the_new_one_is_proved(
        self, site: Site, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.fill(site)
        before = files(site.repository)
        put = folder.put_in_place

        def spoil(place: Path, new: Any, last: Any) -> None:
            put(place, new, last)
            path = place / f"{moment(9)}.fs"
            path.write_bytes(path.read_bytes()[:-50] + bytes(50))

        monkeypatch.setattr(backing_up, "put_in_place", spoil)
        with pytest.raises(repozo.VerificationFail, match="checksum"):
            back_up(site.repository, site.path, moment(9), full=True, kill_old_on_full=True)
        assert before.items() <= files(site.repository).items()

    def test_nothing_goes_with_an_increment(self, site: Site) -> None:
        self.fill(site)
        report = back_up(site.repository, site.path, moment(9), kill_old_on_full=True)
        assert (report.kind, report.removed) == (BackupKind.INCREMENT, ())
        assert len(chains(site.repository)) == 2


def test_a_path_with_spaces(tmp_path: Path) -> None:
    (tmp_path / "with some spaces").mkdir()
    site = Site(tmp_path / "with some spaces")
    zodbs_backup(site, moment(0))
    assert "ValueError" in zodbs("-V", "-r", site.repository, now=moment(1)).message
    site.commit()
    back_up(site.repository, site.path, moment(1), quick=True)
    assert not problems(site.repository)
    back_up(site.repository, site.path, moment(2), full=True)
    site.commit()
    # What ours wrote in such a folder zodbs can read, too.
    zodbs_backup(site, moment(3), "-Q")
    assert recovered(site.repository) == site.data


class TestDamagedGzip:
    def prepare(self, site: Site) -> Path:
        back_up(site.repository, site.path, moment(0), gzip=True)
        site.commit()
        return site.repository / f"{moment(0)}.fsz"

    def test_zodbs_backup_dies_of_it_ours_makes_a_full(self, site: Site) -> None:
        path = self.prepare(site)
        path.write_bytes(path.read_bytes()[:-200])
        done = zodbs("-B", "-r", site.repository, "-f", site.path, now=moment(1))
        assert "EOFError" in done.message
        assert back_up(site.repository, site.path, moment(1)).kind is BackupKind.FULL
        assert recovered(site.repository) == site.data

    def test_it_is_damaged_not_missing(self, site: Site) -> None:
        path = self.prepare(site)
        path.write_bytes(path.read_bytes()[:-200])
        assert "is damaged: it ends inside" in ours("-V", "-r", site.repository).message
        assert ours("-R", "-r", site.repository, "-o", site.path.with_name("o")).code == 1
        path.write_bytes(b"no gzip at all")
        assert "not a gzip file" in ours("-V", "-r", site.repository).message

    def test_several_members_and_zeros_are_gzip(self, site: Site) -> None:
        path = self.prepare(site)
        data = gzip.decompress(path.read_bytes())
        path.write_bytes(gzip.compress(data[:99]) + gzip.compress(data[99:]) + bytes(512))
        assert not problems(site.repository)
        assert back_up(site.repository, site.path, moment(1)).kind is BackupKind.INCREMENT


class TestRecoveryInPlace:
    def test_a_storage_in_use_is_left_alone(self, site: Site, tmp_path: Path) -> None:
        zodbs_backup(site, moment(0))
        (tmp_path / "live").mkdir()
        live = tmp_path / "live/Data.fs"
        storage: Any = FileStorage(str(live))
        try:
            with pytest.raises(TargetInUse):
                repozo.recover(repozo.RecoverRequest(site.repository), live, SilentObserver())
            done = ours("-R", "-r", site.repository, "-o", live)
            assert done.code == 1
            assert "in use" in done.message
            assert live.stat().st_ino == os.fstat(storage._file.fileno()).st_ino
        finally:
            storage.close()

    def test_the_lock_is_held_meanwhile_and_not_left(self, site: Site, tmp_path: Path) -> None:
        zodbs_backup(site, moment(0))
        output = tmp_path / "o.fs"
        lock = LockFile(f"{output}.lock")
        with pytest.raises(TargetInUse):
            repozo.recover(repozo.RecoverRequest(site.repository), output, SilentObserver())
        lock.close()
        Path(f"{output}.lock").unlink()
        repozo.recover(repozo.RecoverRequest(site.repository), output, SilentObserver())
        assert not Path(f"{output}.lock").exists()

    def test_zodbs_loses_the_old_file_ours_keeps_it(self, site: Site, tmp_path: Path) -> None:
        zodbs_backup(site, moment(0))
        data = site.repository / f"{moment(0)}.fs"
        data.write_bytes(data.read_bytes()[:-1] + b"x")
        old = tmp_path / "old.fs"
        old.write_bytes(b"old")
        assert ours("-R", "-r", site.repository, "-o", old).code == 1
        assert old.read_bytes() == b"old"
        assert zodbs("-Rw", "-r", site.repository, "-o", old, now=moment(1)).code == 1
        assert not old.exists()

    def test_no_stale_index_is_left(self, site: Site, tmp_path: Path) -> None:
        zodbs_backup(site, moment(0))
        (site.repository / f"{moment(0)}.index").unlink()
        output = tmp_path / "o.fs"
        for recover in (zodbs, ours):
            output.with_name("o.fs.index").write_bytes(b"stale")
            assert recover("-R", "-r", site.repository, "-o", output).code == 0
            stale = output.with_name("o.fs.index").read_bytes() == b"stale"
            assert stale == (recover is zodbs)
        storage = FileStorage(str(output), read_only=True)
        assert len(storage) > 0
        storage.close()


class TestDates:
    @pytest.mark.parametrize("date", ["zzz", "now", "2026/11/21", "2026-1-1", "20261121", ""])
    def test_what_is_no_date_is_an_error(self, site: Site, date: str, tmp_path: Path) -> None:
        zodbs_backup(site, moment(0))
        anything = zodbs("-R", "-r", site.repository, "-o", tmp_path / "z", "-D", date)
        assert anything.code == (date == "2026-1-1")
        done = ours("-R", "-r", site.repository, "-o", tmp_path / "o", "-D", date)
        assert done.code == 1
        assert not (tmp_path / "o").exists()
        with pytest.raises(UsageError, match="is no date"):
            recovered(site.repository, date)


def test_all_chains_are_verified(site: Site) -> None:
    zodbs_backup(site, moment(0))
    zodbs_backup(site, moment(1), "-F")
    old = site.repository / f"{moment(0)}.fs"
    old.write_bytes(old.read_bytes()[:-4] + b"flip")
    assert zodbs("-V", "-r", site.repository, now=moment(2)).code == 0
    assert "checksum" in ours("-V", "-r", site.repository).message

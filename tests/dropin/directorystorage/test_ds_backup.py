"""Archives as the real tool made them, and what it did wrong."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from directorystorage_homes import FIXTURES, seen, states_of, unpack

from perdure.dropin.directorystorage.backup import (
    PackedSince,
    Planned,
    Report,
    Request,
    backup,
    plan_archives,
    read_index,
)
from perdure.dropin.directorystorage.dates import seconds_of
from perdure.dropin.directorystorage.members import LivingContents, StillContents
from perdure.dropin.directorystorage.restore import RestoreRequest, restore
from perdure.dropin.directorystorage.verify_archives import verify_archives
from perdure.errors import SourceDamaged, SourceUnusable, UsageError
from perdure.formats.directorystorage_archive import ArchiveName, Row
from perdure.formats.directorystorage_names import pointer_name, revision_name, transaction_name
from perdure.model import SilentObserver
from perdure.sources.directorystorage.home import Home, View

OBSERVER = SilentObserver()
NOW = 1795277000
LATER = 1 << 33
ROWS = [Row(1, 100, 10), Row(2, 200, 20), Row(3, 300, 30)]
FULL_4 = Planned("all of it", ArchiveName("p", None, 4))


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    """What the real tool left: full 1, 1-to-2, 2-to-3, 2-to-4, 4-to-5, full 5, 5-to-6 (empty), full 6."""
    with tarfile.open(FIXTURES / "chunky-backups.tar.gz") as archive:
        archive.extractall(tmp_path / "real", filter="data")
    return tmp_path / "real" / "backups"


def home_at(archives: Path, target: Path, number: int) -> Home:
    """The HOME as it was at a run, with the index as it was."""
    restore(RestoreRequest(archives, target, number=number), OBSERVER)
    return Home(target)


def make(home: Home, *requests: Request, **options: Any) -> Report:
    return backup(home, requests, NOW, OBSERVER, **options)


def members(path: Path) -> list[tuple[str, bool, int]]:
    with tarfile.open(path, "r:gz") as archive:
        return [(each.name, each.isdir(), each.size) for each in archive]


@pytest.mark.parametrize(
    ("requests", "serial", "packed", "expected"),
    [
        ([Request("p")], 30, 0, [FULL_4]),
        ([Request("p", 99)], 30, 0, [Planned("there is no backup that an increment could refer to")]),
        ([Request("p", 300)], 30, 0, [Planned("nothing was committed since backup 3")]),
        (
            [Request("p", 250)],
            30,
            20,
            [Planned("what was committed since backup 2", ArchiveName("p", 2, 4), 20)],
        ),
        (
            [Request("p"), Request("q", 300)],
            30,
            0,
            [FULL_4, Planned("what was committed since backup 3", ArchiveName("q", 3, 4), 30)],
        ),
    ],
)  # fmt: skip
def test_what_is_made(
    requests: list[Request], serial: int, packed: int, expected: list[Planned]
) -> None:
    assert list(plan_archives(requests, ROWS, [], serial, packed)) == expected


@pytest.mark.parametrize(("serial", "packed"), [(30, 21), (19, 0)])
def test_no_increment_across_a_pack_or_from_the_future(serial: int, packed: int) -> None:
    with pytest.raises(PackedSince, match="backup 2"):
        plan_archives([Request("p", 250)], ROWS, [], serial, packed)


@pytest.mark.parametrize(
    "name", ["mysite-1-to-2", "mysite-2-to-3", "mysite-2-to-4", "mysite-4-to-5"]
)
@pytest.mark.parametrize("live", [False, True])
def test_an_increment_has_what_the_real_one_has_in_its_order(
    archives: Path, tmp_path: Path, name: str, live: bool
) -> None:
    real = ArchiveName.parse(f"{name}.tgz")
    assert real
    assert real.reference
    home = home_at(archives, tmp_path / "home", real.number)
    row = next(row for row in read_index(archives) if row.number == real.reference)
    contents = (LivingContents if live else StillContents)(home)
    ours = [
        (each.path, len(each.data or b""), f"{each.mode:o}") for each in contents.increment(row.tid)
    ]
    assert ours == [
        (path, size, mode)
        for path, _, size, mode in seen("chunky-backups")["members"][f"{name}.tgz"]
    ]


@pytest.mark.parametrize("live", [False, True])
def test_a_full_one_has_what_the_real_one_has(archives: Path, tmp_path: Path, live: bool) -> None:
    home = home_at(archives, tmp_path / "home", 5)
    report = make(home, Request("mysite"), live=live)
    ours = members(home.path / "backups" / "mysite-6.tgz")
    real = [
        (path, kind == "dir", size)
        for path, kind, size, _ in seen("chunky-backups")["members"]["mysite-5.tgz"]
    ]
    assert sorted(ours) == sorted(real)
    kinds = ["config" if path.startswith("config/") else path.split("/")[0] for path, *_ in ours]
    assert kinds == [*kinds[:6], *["config"] * 3, *["A"] * (len(kinds) - 9)]
    assert report.damage == ()


def test_the_real_one_s_archives_and_index_are_continued(archives: Path, tmp_path: Path) -> None:
    home = home_at(archives, tmp_path / "home", 4)
    shutil.copy(archives / "tindex", home.path / "backups" / "tindex")
    index = home.path / "backups" / "tindex"
    lines = index.read_text().splitlines(keepends=True)
    index.write_text(
        "".join(lines[:-2]).rstrip("\n")
    )  # runs 5 and 6 never were; no newline at the end
    make(home, Request("mysite", 1795234109))
    assert index.read_text() == "".join(lines[:-2]) + f"5     {NOW}   040D283895602433\n"
    for name in ("mysite-1.tgz", "mysite-1-to-2.tgz"):
        shutil.copy(archives / name, home.path / "backups")
    report = restore(RestoreRequest(home.path / "backups", tmp_path / "again"), OBSERVER)
    assert str(report.chain.archives[-1]) == "mysite-2-to-5.tgz"
    assert str(report.serial) == seen("chunky-backups")["states"]["4"]["last_tid"].lower()


def test_tar_reads_them(archives: Path, tmp_path: Path) -> None:
    home = home_at(archives, tmp_path / "home", 3)
    make(home, Request(), Request(since=LATER))
    folder = home.path / "backups"
    assert members(folder / "backup-4.tgz")
    assert members(folder / "backup-3-to-4.tgz") == []
    for path in folder.glob("*.tgz"):
        subprocess.run(["tar", "tzf", path], check=True, capture_output=True)
        assert path.stat().st_mode & 0o777 == 0o640


def test_nothing_to_do_leaves_nothing(archives: Path, tmp_path: Path) -> None:
    home = home_at(archives, tmp_path / "home", 3)
    before = states_of(home.path)
    for request in (Request(since=LATER), Request(since=1)):
        assert make(home, request).row is None
    assert make(home, Request(), dry_run=True).row is None
    assert states_of(home.path) == before


def test_what_cannot_be_backed_up_is_refused(archives: Path, tmp_path: Path) -> None:
    home = home_at(archives, tmp_path / "home", 1)
    (home.path / "backups" / "tindex").unlink()
    (home.path / "backups").rmdir()
    with pytest.raises(SourceUnusable, match="no folder"):
        make(home, Request())
    minimal = Home(unpack("bushy-minimal", tmp_path))
    with pytest.raises(SourceUnusable, match="Minimal"):
        make(minimal, Request())


class TestDefectsOfTheRealTool:
    """Each of these gave it exit code 0, or a storage that does not start."""

    def test_a_leftover_is_not_written_into(self, archives: Path, tmp_path: Path) -> None:
        home = home_at(archives, tmp_path / "home", 3)
        left = home.path / "backups" / ".tmp-backup-4.tgz"
        left.write_bytes(os.urandom(1 << 20))
        left.chmod(0o600)
        make(home, Request())
        assert not left.exists()
        made = home.path / "backups" / "backup-4.tgz"
        subprocess.run(["tar", "xzf", made, "-O"], check=True, capture_output=True)
        assert made.stat().st_mode & 0o777 == 0o640

    @pytest.mark.parametrize("user", [0o7777777, 0o7777777 + 1, 4_000_000_000])
    def test_files_of_large_users_are_in_it(
        self, archives: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int
    ) -> None:
        home = home_at(archives, tmp_path / "home", 3)
        lstat = os.lstat

        def of_user(path: str) -> os.stat_result:
            status = list(lstat(path))
            status[4] = status[5] = user
            return os.stat_result(status)

        with monkeypatch.context() as patched:
            patched.setattr(os, "lstat", of_user)
            make(home, Request())
        made = home.path / "backups" / "backup-4.tgz"
        with tarfile.open(made) as archive:
            assert {(each.uid, each.gid) for each in archive} == {(user, user)}
        listed = subprocess.run(
            ["tar", "tvzf", made, "--numeric-owner"], check=True, capture_output=True, text=True
        ).stdout
        assert f"{user}/{user}" in listed
        assert len(listed.splitlines()) == len(members(made))
        assert not verify_archives(home.path / "backups", OBSERVER).damaged

    @pytest.mark.parametrize("live", [False, True])
    def test_a_missing_object_is_told(self, archives: Path, tmp_path: Path, live: bool) -> None:
        home = home_at(archives, tmp_path / "home", 3)
        current = next((home.path / "A").glob("o*/**/0005.c"))
        tid = current.read_bytes().hex().upper()
        current.with_name(f"0005.{tid}").unlink()
        report = make(home, Request(), live=live)
        assert any(tid in each and "missing" in each for each in report.damage)
        with pytest.raises(SourceDamaged, match="missing"):
            make(home, Request(since=1795234109), live=live)
        assert not list((home.path / "backups").glob(".tmp*"))
        assert [row.number for row in read_index(home.path / "backups")] == [1, 2, 3, 4]

    @pytest.mark.parametrize("live", [False, True])
    @pytest.mark.parametrize("lost", ["revision", "transaction", "pointer"])
    def test_nothing_of_the_past_is_missed_in_silence(
        self, archives: Path, tmp_path: Path, lost: str, live: bool
    ) -> None:
        """Not what is current alone: also what only undo and the history need."""
        home = home_at(archives, tmp_path / "home", 3)
        view = View(home)
        last = view.transaction(view.serial())
        assert last
        name = {
            "revision": next(
                revision_name(oid, each.prev)
                for oid in range(view.last_oid())
                if (pointer := view.pointer(oid))
                and (each := view.revision(oid, pointer.tid))
                and each.prev
            ),
            "transaction": transaction_name(last.prev),
            "pointer": pointer_name(last.oids[0]),
        }[lost]
        home.place("A", name).unlink()
        report = make(home, Request(), live=live)
        assert any(view.where(name) in each and "missing" in each for each in report.damage)

    def test_the_root_is_never_packed_away(self, tmp_path: Path) -> None:
        home = Home(unpack("chunky-packed-detailed", tmp_path))
        (home.path / "backups").mkdir()
        assert not make(home, Request()).damage
        home.place("A", pointer_name(0)).unlink()
        assert any("0000.c is damaged" in each for each in make(home, Request()).damage)

    def test_a_damaged_object_is_told(self, archives: Path, tmp_path: Path) -> None:
        home = home_at(archives, tmp_path / "home", 3)
        path = max((home.path / "A").glob("o*/**/*.04*"))
        path.write_bytes(path.read_bytes()[:-1] + b"?")
        assert f"{path} is damaged" in make(home, Request()).damage[0]

    def test_a_missing_counter_is_told(self, archives: Path, tmp_path: Path) -> None:
        home = home_at(archives, tmp_path / "home", 3)
        (home.path / "A" / "x" / "serial").unlink()
        with pytest.raises(SourceDamaged, match=r"serial.* is missing"):
            make(home, Request())

    def test_nothing_belongs_to_root(self, archives: Path, tmp_path: Path) -> None:
        """What is made in HOME belongs to its user, also when root makes it."""
        if os.geteuid():
            return  # then there is no other user to give it to
        home = home_at(archives, tmp_path / "home", 3)
        for path in (home.path, *home.path.rglob("*")):
            os.chown(path, 65534, 65534)
        from perdure.dropin.directorystorage.asking import DirectMethod
        from perdure.dropin.directorystorage.holding import Patience, hold

        with hold(home, [DirectMethod(home)], "x-1", lambda: NOW, Patience(), OBSERVER):
            make(home, Request())
        made = {path: path.stat() for path in home.path.rglob("*")}
        assert home.path / "misc" / "lock" in made
        assert {(each.st_uid, each.st_gid) for each in made.values()} == {(65534, 65534)}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1795234106", 1795234106), ("@1795234106", 1795234106), ("2026-11-21T00:00:00Z", 1795219200)],
)
def test_times(text: str, seconds: int) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["nonsense", "", "now; touch pwned", "$(touch pwned)", "--help"])
def test_no_times(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if text:
        with pytest.raises(UsageError, match="date does not understand"):
            seconds_of(text)
    assert not list(tmp_path.iterdir())


def test_without_gnu_date(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert seconds_of("17") == 17
    with pytest.raises(UsageError, match="date does not run") as refused:
        seconds_of("yesterday")
    assert "seconds since 1970" in str(refused.value.hint)

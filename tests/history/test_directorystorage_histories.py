"""What was backed up of a DirectoryStorage comes back: the same bytes, in any format, of any moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from directorystorage_homes import READABLE, states_of, unpack
from directorystorage_site import HomeSite, below, files_of

from perdure.dropin.directorystorage.convert import convert
from perdure.errors import PerdureError, SourceDamaged, SourceUnusable, UsageError
from perdure.formats.directorystorage_names import FORMATS
from perdure.model import SilentObserver, Tid
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.snapshots import sources_in
from perdure.sources.directorystorage.contents import Contents
from perdure.sources.directorystorage.home import Home

CLEAN = [name for name in READABLE if "clean" in name or name == "chunky-empty"]


@pytest.mark.parametrize("name", READABLE)
def test_a_home_comes_back_in_each_format(tmp_path: Path, name: str) -> None:
    home = unpack(name, tmp_path)
    before, files = states_of(home), files_of(home)
    site = HomeSite()
    report = site.back_up(home)
    assert (report.kind, report.method) == ("directorystorage", "full")
    assert states_of(home) == before
    for layout in FORMATS:
        made = site.restore(tmp_path / layout, layout)
        assert made.layout == layout
        assert files_of(tmp_path / layout) == files
        again = Home(tmp_path / layout)
        assert again.snapshot_code() is None
        assert again.settings.layout == layout
        assert sorted(each.name for each in (tmp_path / layout).iterdir()) == [
            *("A", "B", "config", "journal", "misc")
        ]
    assert site.back_up(home).method == "nothing"
    site.check()


@pytest.mark.parametrize("name", CLEAN)
def test_a_comes_back_byte_for_byte(tmp_path: Path, name: str) -> None:
    home = unpack(name, tmp_path)
    site = HomeSite()
    site.back_up(home)
    site.restore(tmp_path / "again")
    assert below(tmp_path / "again" / "A") == below(home / "A")
    assert below(tmp_path / "again" / "config") == below(home / "config")
    assert not below(tmp_path / "again" / "B")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "again" / "A").rglob("*.c")}
    assert modes <= {0o640}


def test_a_filestorage_comes_back_as_convert_makes_it(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    site = HomeSite()
    site.back_up(home)
    convert(home, tmp_path / "converted.fs", force=False, observer=SilentObserver())
    request = RestoreRequest(tmp_path / "out", Wanted())
    [restored] = restore(site.repository, request, SilentObserver())
    assert restored.files[0].read_bytes() == (tmp_path / "converted.fs").read_bytes()


def grown(tmp_path: Path, name: str, layout: str) -> tuple[HomeSite, list[int]]:
    """Give what can restore a HOME as it was after each of its transactions."""
    home = unpack(name, tmp_path)
    site = HomeSite()
    site.back_up(home)
    tids = [each.number for each in Contents(Home(home)).transactions()]
    return site, tids


@pytest.mark.slow
def test_increments_are_made_of_what_is_new(tmp_path: Path) -> None:
    """A HOME that grows, one to five transactions at a time, backed up each time; then any moment."""
    source, tids = grown(tmp_path, "chunky-clean", "chunky")
    site = HomeSite(window=20_000)
    states: dict[int, dict[str, bytes]] = {}
    living = tmp_path / "living"
    for number in (0, 3, 4, 9, 20, 21, 22, 35, 49, 50):
        shutil.rmtree(living, ignore_errors=True)
        source.restore(living, at=Tid(tids[number]))
        states[number] = files_of(living)
        report = site.back_up(living, verify_source=number in (9, 35))
        assert report.method == ("full" if number == 0 else "increment")
        assert report.cut.value == tids[number]
    for number, files in states.items():
        target = tmp_path / f"at-{number}"
        site.restore(target, "flat", at=Tid(tids[number]))
        assert files_of(target) == files
    site.check()


@pytest.mark.slow
def test_many_small_increments_become_one_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a storage without MD5, where each transaction has particulars."""
    monkeypatch.setattr("perdure.history.companion._MOST_SMALL", 4)
    source, tids = grown(tmp_path, "flat-clean-nomd5", "flat")
    site = HomeSite()
    living = tmp_path / "living"
    for number, tid in enumerate(tids):
        shutil.rmtree(living, ignore_errors=True)
        source.restore(living, at=Tid(tid))
        report = site.back_up(living)
        assert report.method == ("increment" if number else "full")
    assert files_of(living) == files_of(tmp_path / "home")
    [*_, found] = sources_in(site.repository, site.repository.snapshots(), None)
    particulars = found.history.folder.folder("companion").folder("particulars")
    assert len(list(particulars.files())) <= 4
    site.restore(tmp_path / "again")
    assert below(tmp_path / "again" / "A") == below(tmp_path / "home" / "A")
    site.check()


def test_a_home_that_was_replaced_is_compared(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path / "one")
    other = unpack("bushy-clean", tmp_path / "two")
    site = HomeSite()
    site.back_up(home)
    assert site.back_up(other).method == "compare"
    site.restore(tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(other)
    assert site.back_up(home).method == "compare"
    site.check()


def test_config_is_kept_up_to_date(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    site = HomeSite()
    site.back_up(home)
    (home / "config" / "note").write_bytes(b"a site's own")
    (home / "config" / "snapshot.conf").unlink()
    report = site.back_up(home, skip_if_unchanged=True)
    assert report.method == "nothing"
    site.restore(tmp_path / "again")
    assert below(tmp_path / "again" / "config") == below(home / "config")
    assert len(site.repository.snapshots()) == 2
    site.back_up(home, skip_if_unchanged=True)
    assert len(site.repository.snapshots()) == 2
    site.check()


def test_a_pack_leaves_only_moments_behind_it(tmp_path: Path) -> None:
    home = unpack("chunky-packed-detailed", tmp_path)
    site = HomeSite()
    site.back_up(home)
    transactions = list(Contents(Home(home)).transactions())
    packed = [each.number for each in transactions if each.status == "p"]
    unpacked = [each.number for each in transactions if each.status == " "]
    assert packed
    assert unpacked
    with pytest.raises(PerdureError, match="no snapshot has the source"):
        site.restore(tmp_path / "early", at=Tid(packed[0]))
    assert not (tmp_path / "early").exists()
    site.restore(tmp_path / "late", at=Tid(unpacked[0]))
    storage = Contents(Home(tmp_path / "late"))
    assert storage.serial == unpacked[0]
    assert [each.number for each in storage.transactions()] == [*packed, unpacked[0]]


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("chunky-corrupt", SourceDamaged),
        ("bushy-minimal", SourceUnusable),
        ("chunky-replica-pending", SourceUnusable),
    ],
)
def test_what_cannot_be_told_makes_no_snapshot(
    tmp_path: Path, name: str, error: type[Exception]
) -> None:
    site = HomeSite()
    with pytest.raises(error):
        site.back_up(unpack(name, tmp_path))
    assert not site.repository.snapshots()
    site.check()


def test_a_transaction_whose_file_is_missing_is_told(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    sorted((home / "A" / "t040").iterdir())[7].unlink()
    (home / "journal" / ".keep").touch()
    site = HomeSite()
    assert site.back_up(home).records_new == 88
    assert "holds .keep" in site.warnings[0]
    assert "the files of 1 transactions are missing" in site.warnings[1]
    site.restore(tmp_path / "again")
    assert files_of(tmp_path / "again") == files_of(home)
    assert site.back_up(home).method == "nothing"
    assert len(site.warnings) == 3


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    site = HomeSite()
    site.back_up(home)
    before = states_of(home)
    with pytest.raises(UsageError, match="is there already"):
        site.restore(home)
    assert states_of(home) == before
    (tmp_path / "empty").mkdir()
    site.restore(tmp_path / "empty")
    assert files_of(tmp_path / "empty") == files_of(home)
    assert {each.name for each in tmp_path.iterdir()} == {"home", "empty"}


def test_an_increment_reads_only_what_is_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, tids = grown(tmp_path, "chunky-clean", "chunky")
    site = HomeSite()
    source.restore(tmp_path / "old", at=Tid(tids[-2]))
    site.back_up(tmp_path / "old")
    import perdure.sources.directorystorage.home as reading

    opened: list[Path] = []
    read = reading.read_file

    def counted(path: Path | str, most: int) -> bytes | None:
        opened.append(Path(path))
        return read(path, most)

    monkeypatch.setattr(reading, "read_file", counted)
    report = site.back_up(tmp_path / "home")
    assert report.transactions_new == 1
    revisions = [path for path in opened if f".{tids[-1]:016X}" in path.name]
    assert revisions
    assert len(opened) < 60

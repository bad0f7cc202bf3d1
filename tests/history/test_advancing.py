"""From run to run: what is read, what is stored anew, and how a history stays in few pieces."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from datafs import DataFs, Record, Transaction, simple
from history_site import HistorySite, back_up, rebuilt_from, snapshots_in
from living_storage import LivingStorage

from perdure import plan
from perdure.backup import BackupRequest, backup
from perdure.errors import SourceDamaged
from perdure.formats import catalogue
from perdure.history import advancing
from perdure.model import SilentObserver
from perdure.sources.filestorage import FileStorageSource

MakeSite = Callable[[int], HistorySite]
PAYLOAD = 600


def grow(made: DataFs, count: int, objects: int = 40) -> None:
    """Add transactions that each write two objects anew; their data do not compress."""
    for _ in range(count):
        number = len(made.tids)
        newest = dict(zip(written(made), made.at, strict=True))
        oids = sorted({number * 7 % objects, number * 11 % objects})
        made.add(
            Transaction([Record(oid, os.urandom(PAYLOAD), newest.get(oid, 0)) for oid in oids])
        )


def written(made: DataFs) -> list[int]:
    return [int.from_bytes(made.data[at : at + 8], "big") for at in made.at]


def without(made: DataFs, dropped: set[int]) -> DataFs:
    """What a pack makes of a file: some records are gone, the others stand elsewhere with status p."""
    packed = DataFs()
    number = 0
    for begin, end, tid in zip([4, *made.ends], made.ends, made.tids, strict=False):
        records = []
        while number < len(made.at) and made.at[number] < end:
            at = made.at[number]
            size = int.from_bytes(made.data[at + 34 : at + 42], "big")
            oid = int.from_bytes(made.data[at : at + 8], "big")
            if number not in dropped:
                records.append(Record(oid, made.data[at + 42 : at + 42 + size]))
            number += 1
        assert begin < end
        if records:
            packed.add(Transaction(records, tid=tid, status=b"p"))
    return packed


def replace(path: Path, data: bytes) -> None:
    """Put another file under the name, as a pack does."""
    if path.exists():
        path.rename(f"{path}.old")
    path.write_bytes(data)


def append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data[path.stat().st_size :])


@pytest.mark.slow
def test_two_hundred_increments_stay_in_few_pieces(history_site: MakeSite, tmp_path: Path) -> None:
    site, path, made = history_site(64 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 10)
    path.write_bytes(made.data)
    site.back_up(path)
    pieces, stored, new = [], 0, 0
    for _ in range(200):
        before = len(made.data)
        grow(made, 1)
        append(path, made.data)
        report = site.back_up(path)
        assert report.method == "increment"
        assert report.transactions_new == 1
        stored += report.bytes_new
        new += len(made.data) - before
        pieces.append(site.segments)
    assert max(pieces) <= 50, pieces
    assert stored < 5 * new, "each byte is stored again once for each level at most"
    site.check_all(every_moment=False)


def test_nothing_new_reads_next_to_nothing(history_site: MakeSite, tmp_path: Path) -> None:
    site, path, made = history_site(64 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 300)
    path.write_bytes(made.data)
    site.back_up(path)
    report = site.back_up(path)
    assert report.method == "nothing"
    assert report.bytes_read < 10_000
    assert (report.transactions_new, report.records_new, report.bytes_new) == (0, 0, 0)
    site.check_newest()


def test_an_increment_reads_only_what_is_new(history_site: MakeSite, tmp_path: Path) -> None:
    site, path, made = history_site(64 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 300)
    path.write_bytes(made.data)
    site.back_up(path)
    grow(made, 2)
    append(path, made.data)
    report = site.back_up(path)
    assert report.bytes_read < 20_000
    assert report.bytes_new <= 4 * PAYLOAD


@pytest.mark.parametrize("window", [8 << 10, 64 << 10, 1 << 20])
def test_a_pack_adds_no_record_data(history_site: MakeSite, tmp_path: Path, window: int) -> None:
    site, path, made = history_site(window), tmp_path / "Data.fs", DataFs()
    for _ in range(6):
        grow(made, 20)
        replace(path, made.data) if not path.exists() else append(path, made.data)
        site.back_up(path)
    packed = without(made, {number for number in range(len(made.at)) if number % 5 == 0})
    replace(path, packed.data)
    report = site.back_up(path)
    assert (report.method, report.bytes_new) == ("compare", 0)
    grow(packed, 3)
    replace(path, packed.data)
    report = site.back_up(path)
    assert report.method == "compare"
    assert 0 < report.bytes_new <= 6 * PAYLOAD
    site.check_newest()
    site.check_all(every_moment=False)


def test_a_pack_drops_a_record_that_is_longer_than_a_chunk(
    history_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last chunk stays, since it holds the records behind it, too."""
    monkeypatch.setattr(catalogue, "CHUNK_LIMIT", 1000)
    site, path, made = history_site(1 << 20), tmp_path / "Data.fs", DataFs()
    sizes = [300, 3500, 200, 900, 2100, 50]
    made.add(Transaction([Record(n, os.urandom(size)) for n, size in enumerate(sizes)]))
    path.write_bytes(made.data)
    site.back_up(path)
    for dropped in ({1}, {1, 4}, {0, 1, 3, 4}):
        replace(path, without(made, dropped).data)
        assert site.back_up(path).bytes_new == 0
    site.check_all()


def test_garbage_is_written_anew_in_later_runs(history_site: MakeSite, tmp_path: Path) -> None:
    site, path, made = history_site(32 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 150)
    path.write_bytes(made.data)
    site.back_up(path)
    packed = without(made, {number for number in range(len(made.at)) if number % 2 == 0})
    replace(path, packed.data)
    assert site.back_up(path).bytes_new == 0
    assert site.newest().record.garbage
    for _ in range(12):
        grow(packed, 1)
        append(path, packed.data)
        report = site.back_up(path)
        assert report.bytes_new <= plan.REWRITE_BUDGET + (32 << 10), "within the budget of a run"
    assert not site.newest().record.garbage
    assert any("written anew" in report.sources[0].reason for report in site.reports)
    site.check_all(every_moment=False)
    site.check_newest()


def test_a_transaction_larger_than_a_segment_is_merged_and_rewritten(
    history_site: MakeSite, tmp_path: Path
) -> None:
    site, path, made = history_site(8 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 3)
    made.add(Transaction([Record(100 + n, os.urandom(PAYLOAD)) for n in range(45)]))
    path.write_bytes(made.data)
    site.back_up(path)
    for _ in range(20):
        grow(made, 1)
        append(path, made.data)
        site.back_up(path)
    site.check_newest()
    packed = without(made, set(range(7, 60, 2)))
    replace(path, packed.data)
    site.back_up(path)
    for _ in range(10):
        grow(packed, 1)
        append(path, packed.data)
        site.back_up(path)
    site.check_newest()
    site.check_all(every_moment=False)


def test_more_segments_in_one_comparison_than_a_layout_can_name(
    history_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "_merged_tail", lambda pieces, new: len(pieces))
    monkeypatch.setattr(advancing, "SEGMENTS_LIMIT", 10)
    site, path, made = history_site(1 << 20), tmp_path / "Data.fs", DataFs()
    for _ in range(20):
        grow(made, 1)
        path.touch()
        append(path, made.data)
        back_up(site.repository, path, window=1 << 20)
    replace(path, made.data)
    site.back_up(path)
    newest = list(snapshots_in(site.repository))[-1]
    assert rebuilt_from(newest)[0] == made.data
    layout = newest.history.layout(newest.history.names()[0])
    assert len(layout.facts.segments) == 10 + 1


def test_a_file_cut_back_in_place(history_site: MakeSite, tmp_path: Path) -> None:
    site, path, made = history_site(16 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 60)
    path.write_bytes(made.data)
    site.back_up(path)
    os.truncate(path, made.ends[40])
    report = site.back_up(path)
    assert (report.method, report.bytes_new) == ("compare", 0)
    site.check_all()


def test_verify_source_finds_what_changed_in_place(history_site: MakeSite, tmp_path: Path) -> None:
    site, path, made = history_site(8 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 60)
    path.write_bytes(made.data)
    site.back_up(path)
    with path.open("r+b") as file:
        file.seek(made.at[30] + 50)
        file.write(b"flipped")
    assert site.back_up(path).method == "nothing", "this is what --verify-source is for"
    site.states.popitem()
    report = site.back_up(path, verify_source=True)
    assert report.method == "compare"
    assert "has changed since the last snapshot" in site.warnings[-1]
    assert rebuilt_from(site.newest())[0] == path.read_bytes()


def test_verify_source_refuses_bytes_that_read_differently(
    history_site: MakeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site, path, made = history_site(8 << 10), tmp_path / "Data.fs", DataFs()
    grow(made, 20)
    path.write_bytes(made.data)
    record = advancing._Run.advance

    def change_meanwhile(run: object, *arguments: object) -> object:
        done = record(run, *arguments)  # type: ignore[arg-type]
        with path.open("r+b") as file:
            file.seek(made.at[5] + 50)
            file.write(b"flipped")
        return done

    monkeypatch.setattr(advancing._Run, "advance", change_meanwhile)
    with pytest.raises(SourceDamaged, match="other bytes when it was read again"):
        site.back_up(path, verify_source=True)
    assert not site.names("snapshots")


def test_sources_keep_their_histories_when_their_order_changes(
    history_site: MakeSite, tmp_path: Path
) -> None:
    site = history_site(1 << 20)
    sources = []
    for name in ("main", "catalog"):
        (tmp_path / name).mkdir()
        path = tmp_path / name / "Data.fs"
        path.write_bytes(simple(3 if name == "main" else 6).data)
        sources.append(FileStorageSource(path, name))
    for order in (sources, sources[::-1]):
        with site.repository.lock() as lock:
            request = BackupRequest("www1", "plone")
            backup(site.repository, lock, order, request, site.clock, SilentObserver())
        site.clock.advance(minutes=1)
        for found in snapshots_in(site.repository):
            expected = (tmp_path / found.record.name / "Data.fs").read_bytes()
            assert rebuilt_from(found)[0] == expected


def test_a_renamed_file_keeps_its_history(history_site: MakeSite, tmp_path: Path) -> None:
    site, path = history_site(1 << 20), tmp_path / "Data.fs"
    path.write_bytes(simple().data)
    site.back_up(path)
    renamed = path.rename(tmp_path / "Site.fs")
    assert site.back_up(renamed).method == "nothing"
    assert site.newest().record.path == str(renamed)
    site.check_all()


def test_real_packs_store_only_what_is_new(history_site: MakeSite, tmp_path: Path) -> None:
    site, storage = history_site(32 << 10), LivingStorage(tmp_path, 5)
    for _ in range(8):
        storage.commits()
        site.back_up(storage.path)
    storage.db.pack()
    assert site.back_up(storage.path).bytes_new == 0
    storage.close()
    site.check_all()

"""Blobs in snapshots: exactly those of the cut, with ZODB as the oracle."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import pytest
from blob_storage import BlobStorage, Contents, blobs_in
from datafs import DataFs, Record, Transaction
from history_site import HistorySite, back_up

from perdure.backup import BackupReport
from perdure.check import check
from perdure.errors import SourceUnusable
from perdure.formats.blobs import BUSHY, LAWN, path_in_directory
from perdure.model import BlobId, ChunkKind, SilentObserver, SnapshotId, Subset, Tid
from perdure.repair import repair_index
from perdure.restore import Restored, RestoreRequest, restore, survey
from perdure.restore_plan import Wanted
from perdure.snapshots import list_snapshots
from perdure.sources.blobs import BlobDirectory

WINDOW = 2000


@dataclass
class BlobSite(HistorySite):
    """A repository, a storage with blobs, and what each snapshot must give back."""

    blobs: dict[SnapshotId, Contents] = field(default_factory=dict)

    def run(self, storage: BlobStorage, *, verify_source: bool = False) -> BackupReport:
        observer = SilentObserver()
        report = back_up(
            self.repository,
            storage.path,
            window=WINDOW,
            observer=observer,
            blobs=storage.blobs,
            verify_source=verify_source,
        )
        self.warnings = observer.warnings
        assert report.snapshot_id is not None
        self.states[report.snapshot_id] = storage.data
        self.blobs[report.snapshot_id] = storage.contents()
        return report

    def give_back(self, target: Path, wanted: Wanted | None = None) -> Restored:
        request = RestoreRequest(target, wanted or Wanted(), force=True)
        [done] = restore(self.repository, request, SilentObserver())
        return done


@pytest.fixture
def site() -> Iterator[BlobSite]:
    made = BlobSite(WINDOW)
    yield made
    checked = check(made.repository, read_data=Subset(), observer=SilentObserver())
    assert not checked.damaged, checked
    made.repository.close()


@pytest.fixture(params=[BUSHY, LAWN])
def storage(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobStorage]:
    made = BlobStorage(tmp_path / "site", request.param)
    yield made
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_random_histories(site: BlobSite, tmp_path: Path, seed: int) -> None:
    layout = [BUSHY, LAWN][seed % 2]
    storage = BlobStorage(tmp_path / "site", layout, seed)
    for _ in range(25):
        storage.step()
        if storage.random.random() < 0.4:
            report = site.run(storage)
            assert not report.incomplete
            assert not site.warnings
    site.run(storage)
    target = tmp_path / "out"
    for name, data in site.states.items():
        site.give_back(target, Wanted(name))
        assert (target / "Data.fs").read_bytes() == data
        assert blobs_in(target / "blobs", layout) == site.blobs[name]
    newest = site.newest()
    for tid in sorted({blob.tid for blob in site.blobs[newest.id]}):
        if tid >= newest.record.last_packed.value:
            site.give_back(target, Wanted(newest.id, at=Tid(tid)))
            expected = {b: c for b, c in site.blobs[newest.id].items() if b.tid <= tid}
            assert blobs_in(target / "blobs", layout) == expected
    storage.close()


def test_an_increment_opens_only_new_blobs(
    site: BlobSite, storage: BlobStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[BlobId] = []
    real = BlobDirectory.open

    def watched(directory: BlobDirectory, blob: BlobId) -> BinaryIO | None:
        opened.append(blob)
        return real(directory, blob)

    monkeypatch.setattr(BlobDirectory, "open", watched)
    for number in range(20):
        storage.commit(f"blob{number}")
    site.run(storage)
    assert len(opened) == 20
    opened.clear()
    site.run(storage)
    assert not opened
    storage.commit("blob3")
    report = site.run(storage)
    assert len(opened) == 1
    assert report.sources[0].blobs is not None
    assert (report.sources[0].blobs.count, report.sources[0].blobs.new) == (21, 1)
    opened.clear()
    storage.pack()
    assert site.run(storage).sources[0].method == "compare"
    assert not opened, "what the last snapshot has is not read again"


def test_what_was_never_committed_is_left_out(site: BlobSite, storage: BlobStorage) -> None:
    storage.commit("one")
    stray = storage.blobs / path_in_directory(BlobId(1, 99), storage.layout)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"of a transaction that was aborted")
    (storage.blobs / "tmp/BUCxyz").write_bytes(b"of one that goes on")
    report = site.run(storage)
    assert report.sources[0].blobs is not None
    assert report.sources[0].blobs.count == 1


def test_a_missing_blob_is_named_and_looked_for_again(
    site: BlobSite, storage: BlobStorage, tmp_path: Path
) -> None:
    storage.commit("one")
    storage.commit("two")
    [first, second] = sorted(storage.contents(), key=lambda blob: blob.tid)
    file = storage.blobs / path_in_directory(second, storage.layout)
    observer = SilentObserver()
    file.rename(tmp_path / "elsewhere")
    report = back_up(
        site.repository, storage.path, blobs=storage.blobs, observer=observer, window=WINDOW
    )
    assert report.incomplete
    assert [str(second) in warning for warning in observer.warnings] == [True]
    assert list_snapshots(site.repository)[0].sources[0].status == "incomplete"
    restored = site.give_back(tmp_path / "out")
    assert restored.blobs is not None
    assert (restored.blobs.count, restored.blobs.missing) == (1, 1)
    assert blobs_in(tmp_path / "out/blobs", storage.layout).keys() == {first}
    (tmp_path / "elsewhere").rename(file)
    assert not site.run(storage).incomplete
    site.give_back(tmp_path / "out")
    assert blobs_in(tmp_path / "out/blobs", storage.layout) == storage.contents()


def test_a_blob_is_looked_for_where_a_pack_put_it(site: BlobSite, storage: BlobStorage) -> None:
    storage.commit("one")
    old = storage.blobs.with_name("blobs.old")
    [blob] = storage.contents()
    below = path_in_directory(blob, storage.layout)
    (old / below).parent.mkdir(parents=True)
    (storage.blobs / below).rename(old / below)
    observer = SilentObserver()
    report = back_up(site.repository, storage.path, blobs=storage.blobs, observer=observer)
    assert not report.incomplete
    assert not observer.warnings


def test_a_pack_during_the_backup(
    site: BlobSite, storage: BlobStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.storage.pack_keep_old = False
    storage.commit("one", "two")
    storage.commit("one")
    real = BlobDirectory.open
    packed: list[int] = []

    def pack_first(directory: BlobDirectory, blob: BlobId) -> BinaryIO | None:
        if not packed:
            packed.append(1)
            storage.pack()
        return real(directory, blob)

    monkeypatch.setattr(BlobDirectory, "open", pack_first)
    report = site.run(storage)
    assert not report.incomplete
    assert "read once more" in site.warnings[0]
    site.give_back(tmp_path / "out")
    assert blobs_in(tmp_path / "out/blobs", storage.layout) == storage.contents()


def test_no_directory_known_and_then_known(
    site: BlobSite, storage: BlobStorage, tmp_path: Path
) -> None:
    storage.commit("one")
    observer = SilentObserver()
    report = back_up(site.repository, storage.path, observer=observer, window=WINDOW)
    assert report.incomplete
    assert "--blobs" in observer.warnings[0]
    report = site.run(storage)
    assert (report.incomplete, report.sources[0].method) == (False, "compare")
    site.give_back(tmp_path / "out")
    assert blobs_in(tmp_path / "out/blobs", storage.layout) == storage.contents()


def test_a_storage_without_blobs_needs_no_directory(site: BlobSite, storage: BlobStorage) -> None:
    storage.commit()
    for _ in range(2):
        observer = SilentObserver()
        report = back_up(site.repository, storage.path, observer=observer, window=WINDOW)
        assert not report.incomplete
        assert not observer.warnings
        storage.commit()


def test_verify_source_takes_anew_what_has_changed(
    site: BlobSite, storage: BlobStorage, tmp_path: Path
) -> None:
    storage.commit("one")
    site.run(storage)
    [blob] = storage.contents()
    file = storage.blobs / path_in_directory(blob, storage.layout)
    file.chmod(0o644)
    file.write_bytes(b"somebody wrote here")
    report = site.run(storage, verify_source=True)
    assert not report.incomplete
    assert any("has changed" in warning for warning in site.warnings)
    site.give_back(tmp_path / "out")
    assert blobs_in(tmp_path / "out/blobs", storage.layout) == storage.contents()


@pytest.mark.parametrize("verify", [False, True])
def test_what_the_repository_lost_is_stored_again(
    site: BlobSite, storage: BlobStorage, tmp_path: Path, verify: bool
) -> None:
    storage.commit("one", "two")
    first = site.run(storage).snapshot_id
    storage.commit("three")
    second = site.run(storage).snapshot_id
    kept = site.newest().blobs
    assert kept is not None
    lost = next(file for _, file in kept.folder.files() if file.size).chunks[0]
    [place] = site.repository.index.find(ChunkKind.DATA, lost)
    name = place.packfile.hex()
    site.store.delete(f"data/{name[:2]}/{name}")
    with site.repository.lock(exclusive=True) as lock:
        repair_index(site.repository, lock, SilentObserver(), read_data=True)
    site.repository.close()
    site.repository = site.open()
    assert first is not None
    site.repository.delete_snapshot(first)  # what it says of itself is lost
    site.run(storage, verify_source=verify)
    assert second is not None
    site.repository.delete_snapshot(second)  # it lost more than what the storage still has
    site.give_back(tmp_path / "out", Wanted(next(reversed(site.states))))
    assert blobs_in(tmp_path / "out/blobs", storage.layout) == storage.contents()


def test_a_restore_writes_only_what_is_not_right(
    site: BlobSite, storage: BlobStorage, tmp_path: Path
) -> None:
    storage.commit("one", "two", "three", size=9000)
    site.run(storage)
    target = tmp_path / "out"
    site.give_back(target)
    [first, second, third] = sorted(storage.contents())
    places = [target / "blobs" / path_in_directory(b, storage.layout) for b in storage.contents()]
    before = {path: path.stat().st_ino for path in places}
    damaged, missing, right = (
        target / "blobs" / path_in_directory(blob, storage.layout)
        for blob in (first, second, third)
    )
    damaged.chmod(0o644)
    damaged.write_bytes(b"x" * damaged.stat().st_size)
    missing.unlink()
    stray = target / "blobs" / path_in_directory(BlobId(7, 7), storage.layout)
    stray.parent.mkdir(parents=True, exist_ok=True)
    stray.write_bytes(b"of a later transaction")
    request = RestoreRequest(target, force=True)
    [planned] = survey(site.repository, request, SilentObserver())
    assert planned.blobs is not None
    assert (planned.blobs.kept, planned.blobs.removed) == (1, 1)
    assert planned.kept == planned.size
    assert stray.exists()
    done = site.give_back(target)
    assert done.blobs == planned.blobs
    assert blobs_in(target / "blobs", storage.layout) == storage.contents()
    assert right.stat().st_ino == before[right]
    assert not stray.parent.exists()


def test_the_layout_of_the_target_counts(
    site: BlobSite, storage: BlobStorage, tmp_path: Path
) -> None:
    storage.commit("one")
    site.run(storage)
    other = LAWN if storage.layout == BUSHY else BUSHY
    (tmp_path / "out/blobs").mkdir(parents=True)
    (tmp_path / "out/blobs/.layout").write_text(other)
    site.give_back(tmp_path / "out")
    assert blobs_in(tmp_path / "out/blobs", other) == storage.contents()


@pytest.mark.parametrize(
    ("layout", "message"),
    [("zeocache", "cache of a ZEO client"), ("thicket", "not known"), (None, "does not exist")],
)
def test_what_is_no_blob_directory(tmp_path: Path, layout: str | None, message: str) -> None:
    folder = tmp_path / "blobs"
    if layout is not None:
        folder.mkdir()
        (folder / ".layout").write_text(layout)
    with pytest.raises(SourceUnusable, match=message) as error:
        BlobDirectory(folder)
    assert error.value.hint


def test_a_blob_that_cannot_be_read_does_not_stop_the_rest(
    site: BlobSite, storage: BlobStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.commit("one", "two")
    bad = min(storage.contents())
    real = BlobDirectory.open

    def failing(directory: BlobDirectory, blob: BlobId) -> BinaryIO | None:
        if blob == bad:
            raise OSError(errno.EIO, "Input/output error")
        return real(directory, blob)

    monkeypatch.setattr(BlobDirectory, "open", failing)
    report = site.run(storage)
    assert report.incomplete
    assert "Input/output error" in site.warnings[0]


def of_many_days(folder: Path, days: int) -> tuple[Path, Path, Contents]:
    """A Data.fs with three blobs a day, and their files."""
    made, contents = DataFs(), dict[BlobId, bytes]()
    start = Tid.from_text("040d2a65027b92cc").value
    for number in range(days * 3):
        tid = start + (number // 3 * 24 * 60 + number % 3 * 7 << 32)
        oid = number * 5 % (days * 3) + 1
        made.add(Transaction([Record(oid, b"\x80\x03cZODB.blob\nBlob\nq\0.\x80\x03N.")], tid=tid))
        contents[BlobId(oid, tid)] = b"%d " % number * (number * 900 % 70_000)
    path, blobs = folder / "Data.fs", folder / "blobs"
    path.write_bytes(made.data)
    for blob, content in contents.items():
        file = blobs / path_in_directory(blob, LAWN)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    (blobs / ".layout").write_text(LAWN)
    return path, blobs, contents


def test_blobs_of_many_days(site: BlobSite, tmp_path: Path) -> None:
    """Stored and loaded a day at a time; what the repository lost of them lies between what it has."""
    path, blobs, contents = of_many_days(tmp_path, 12)
    folder = site.repository

    def run(verify: bool = False) -> BackupReport:
        observer = SilentObserver()
        report = back_up(
            folder, path, blobs=blobs, window=WINDOW, observer=observer, verify_source=verify
        )
        assert not report.incomplete, observer.warnings
        site.give_back(tmp_path / "out")
        assert blobs_in(tmp_path / "out/blobs", LAWN) == contents
        return report

    assert run().sources[0].method == "full"
    path.rename(tmp_path / "old")
    path.write_bytes((tmp_path / "old").read_bytes())
    report = run()
    assert (report.sources[0].method, report.bytes_added < 9000) == ("compare", True)
    run(verify=True)
    lost = sorted(contents)[::5]
    for blob in lost:
        (blobs / path_in_directory(blob, LAWN)).rename(tmp_path / f"{blob.oid}")
    observer = SilentObserver()
    assert back_up(folder, path, blobs=blobs, name="other", observer=observer).incomplete
    for blob in lost:
        (tmp_path / f"{blob.oid}").rename(blobs / path_in_directory(blob, LAWN))
    path.rename(tmp_path / "old")
    path.write_bytes((tmp_path / "old").read_bytes())
    report = back_up(folder, path, blobs=blobs, name="other", observer=observer)
    assert not report.incomplete
    assert report.sources[0].method == "compare"
    site.give_back(tmp_path / "out")
    assert blobs_in(tmp_path / "out/blobs", LAWN) == contents

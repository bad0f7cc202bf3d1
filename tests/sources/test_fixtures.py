"""Files that real programs left: each comes back as it was at each of its transactions."""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from history_site import HistorySite, back_up, rebuilt_from
from ZODB.FileStorage import FileStorage

from perdure.errors import UsageError
from perdure.log import read_log
from perdure.model import SilentObserver, Tid
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.snapshots import list_snapshots
from perdure.sources.filestorage import FileStorageSource

ARCHIVE = Path(__file__).parent.parent / "fixtures/repozo/repozo-fixtures.tar.gz"
NAMES = [
    "fs-blobs-bushy",
    "fs-blobs-lawn",
    "fs-old-index",
    "fs-packed",
    "fs-torn-tail",
    "fs-voted-tail",
    "fs-zlib",
]


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("fixtures")
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "repozo-fixtures"


@pytest.fixture(scope="module")
def expected(fixtures: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((fixtures / "expected.json").read_text())["filestorages"]
    return found


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    chosen: str = request.param
    return chosen


@pytest.fixture(params=[150, 1 << 20], ids=["small segments", "one segment"])
def backed_up(request: pytest.FixtureRequest, fixtures: Path, name: str) -> Iterator[HistorySite]:
    site = HistorySite(request.param)
    observer = SilentObserver()
    path, blobs = fixtures / name / "Data.fs", fixtures / name / "blobs"
    back_up(
        site.repository,
        path,
        window=site.window,
        clock=site.clock,
        observer=observer,
        blobs=blobs if blobs.is_dir() else None,
    )
    assert not observer.warnings
    yield site
    site.repository.close()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_every_fixture_is_tested(expected: dict[str, Any]) -> None:
    assert sorted(expected) == NAMES


def test_the_usable_part_comes_back(
    backed_up: HistorySite, expected: dict[str, Any], name: str, tmp_path: Path
) -> None:
    facts = expected[name]
    [report] = restore(backed_up.repository, RestoreRequest(tmp_path), SilentObserver())
    data = (tmp_path / "Data.fs").read_bytes()
    assert (len(data), sha256(data)) == (facts["usable_size"], facts["sha256_of_usable_part"])
    assert str(report.cut) == facts["transactions"][-1]["tid"]
    info = list_snapshots(backed_up.repository)[0].sources[0]
    assert (info.size, str(info.cut)) == (facts["usable_size"], facts["transactions"][-1]["tid"])


def test_it_opens_with_its_index_and_has_the_current_objects(
    backed_up: HistorySite, expected: dict[str, Any], name: str, tmp_path: Path
) -> None:
    restore(backed_up.repository, RestoreRequest(tmp_path), SilentObserver())
    storage: Any = FileStorage(str(tmp_path / "Data.fs"), read_only=True)
    assert storage._pos == expected[name]["usable_size"]
    for oid, facts in expected[name]["current"].items():
        if isinstance(facts, dict):
            data, tid = storage.load(bytes.fromhex(oid), "")
            assert (sha256(data), tid.hex()) == (facts["sha256"], facts["tid"])
    storage.close()


def blob_files(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): sha256(path.read_bytes()) for path in folder.rglob("*.blob")
    }


def test_exactly_its_blobs_come_back(
    backed_up: HistorySite, expected: dict[str, Any], fixtures: Path, name: str, tmp_path: Path
) -> None:
    original, records = fixtures / name / "blobs", expected[name]["blob_records"]
    [report] = restore(backed_up.repository, RestoreRequest(tmp_path), SilentObserver())
    if not original.is_dir():
        assert report.blobs is None or not report.blobs.count
        return
    assert report.blobs is not None
    assert report.blobs.count == len(records)
    there, restored = blob_files(original), blob_files(tmp_path / "blobs")
    assert len(restored) == len(records)
    assert restored.items() <= there.items()
    assert (tmp_path / "blobs/.layout").read_text() == (original / ".layout").read_text()
    assert {path.stat().st_mode & 0o777 for path in tmp_path.rglob("*.blob")} <= {0o444}
    assert (tmp_path / "blobs/tmp").is_dir()
    for facts in expected[name]["transactions"]:
        last_packed = [t["tid"] for t in expected[name]["transactions"] if t["status"] == "p"]
        if facts["tid"] >= max(last_packed, default=""):
            at = Wanted(at=Tid.from_text(facts["tid"]))
            restore(
                backed_up.repository, RestoreRequest(tmp_path, at, force=True), SilentObserver()
            )
            now = blob_files(tmp_path / "blobs")
            assert now.items() <= there.items()
            assert {path[-21:-5] for path in now} == {
                tid for _, tid in map(tuple, records) if tid <= facts["tid"]
            }


def test_at_each_transaction(
    backed_up: HistorySite, expected: dict[str, Any], name: str, tmp_path: Path
) -> None:
    transactions = expected[name]["transactions"]
    last_packed = max((t["tid"] for t in transactions if t["status"] == "p"), default="")
    for facts in transactions:
        tid = Tid.from_text(facts["tid"])
        request = RestoreRequest(tmp_path, Wanted(at=tid), force=True)
        if facts["tid"] < last_packed:
            with pytest.raises(UsageError, match="no snapshot has the source as it was") as error:
                restore(backed_up.repository, request, SilentObserver())
            assert "these moments can be had" in str(error.value.hint)
            data, _ = rebuilt_from(next(iter(backed_up.found().values())), tid)
        else:
            restore(backed_up.repository, request, SilentObserver())
            data = (tmp_path / "Data.fs").read_bytes()
        assert (len(data), sha256(data)) == (facts["end"], facts["sha256_of_file_up_to_end"])


def test_the_log(backed_up: HistorySite, expected: dict[str, Any], name: str) -> None:
    found = [
        (
            str(info.tid),
            info.position,
            info.position + info.size,
            info.status,
            info.user.hex(),
            info.description.hex(),
            info.records,
        )
        for info in read_log(backed_up.repository, "latest")
    ]
    assert found == [
        (
            facts["tid"],
            facts["pos"],
            facts["end"],
            facts["status"],
            facts["user"],
            facts["description"],
            len(facts["records"]),
        )
        for facts in expected[name]["transactions"]
    ]


def test_the_records(fixtures: Path, expected: dict[str, Any], name: str) -> None:
    found = []
    with FileStorageSource(fixtures / name / "Data.fs", window=1 << 20).cut() as cut:
        for extent in cut.extents(0):
            found += list(
                zip(
                    [f"{oid:016x}" for oid in extent.oid.tolist()],
                    extent.at.tolist(),
                    extent.prev.tolist(),
                    extent.length.tolist(),
                    strict=True,
                )
            )
    assert found == [
        (record["oid"], record["pos"], record["prev"], record["plen"])
        for facts in expected[name]["transactions"]
        for record in facts["records"]
    ]


def test_the_file_before_a_pack_the_file_after_it(
    fixtures: Path, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Data.fs.old, then what the pack made of it: every moment of both can be had."""
    site, path = HistorySite(1 << 20), tmp_path / "Data.fs"
    for state in ("Data.fs.old", "at-pack.fs", "Data.fs"):
        path.unlink(missing_ok=True)
        (tmp_path / "another-inode").touch()
        path.write_bytes((fixtures / "fs-packed" / state).read_bytes())
        site.back_up(path)
        (tmp_path / "another-inode").rename(tmp_path / f"after-{state}")
        site.clock.advance(minutes=1)
    site.check_all()
    # The pack put data in the place of one back pointer.
    assert site.reports[1].sources[0].bytes_new == 25
    for facts in expected["fs-packed"]["transactions"]:
        at = Tid.from_text(facts["tid"])
        restore(
            site.repository,
            RestoreRequest(tmp_path / "out", Wanted(at=at), force=True),
            SilentObserver(),
        )
        storage: Any = FileStorage(str(tmp_path / "out" / "Data.fs"), read_only=True)
        assert storage.lastTransaction().hex() == facts["tid"]
        storage.close()
    site.repository.close()

"""Repositories of an earlier version: today's program reads all of them, and goes on from them.

``golden/perdure-1`` and ``golden/site-1`` were written by the programs beside them, once; they are never
to be made anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from datafs import DataFs, Record, Transaction
from doubles import Clock, Restic
from history_site import back_up, rebuilt_from, transactions_in

from perdure.check import check
from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.model import SilentObserver, Subset, Tid
from perdure.repository import Owner, Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.snapshots import list_snapshots, sources_in
from perdure.stores.local import LocalStore

GOLDEN = Path(__file__).parent / "golden" / "perdure-1"
LATER = datetime(2036, 1, 1, tzinfo=UTC)
WINDOW = 8 << 10

Expected = list[dict[str, Any]]


@pytest.fixture
def expected() -> Expected:
    found: Expected = json.loads(GOLDEN.with_suffix(".json").read_text())
    return found


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy to write to."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "perdure-1"))


def opened(path: Path) -> Repository:
    return Repository.open(LocalStore(path), "golden", cache=None, clock=Clock(LATER), workers=2)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def assert_whole(repository: Repository, expected: Expected) -> None:
    """Every state comes back, and every moment of it that was noted."""
    listed = repository.snapshots()
    for each in expected:
        wanted = [(name, snapshot) for name, snapshot in listed if name == each["snapshot"]]
        for found in sources_in(repository, wanted, None):
            state = each["sources"].pop(found.record.name)
            data, _ = rebuilt_from(found)
            assert (len(data), digest(data)) == (state["size"], state["sha256"])
            for tid, sha256 in state["at"].items():
                assert digest(rebuilt_from(found, Tid(int(tid, 16)))[0]) == sha256
        assert not each["sources"]


def test_it_is_listed(expected: Expected) -> None:
    infos = list_snapshots(opened(GOLDEN))

    assert [info.id for info in infos] == [each["snapshot"] for each in expected]
    assert [list(info.tags) for info in infos] == [each["tags"] for each in expected]
    assert {(info.hostname, info.username, info.program) for info in infos} == {
        ("golden", "plone", "perdure golden")
    }
    for info, each in zip(infos, expected, strict=True):
        sizes = {name: state["size"] for name, state in each["sources"].items()}
        assert {source.name: source.size for source in info.sources} == sizes
        assert {source.status for source in info.sources} == {"complete"}


def test_it_is_whole(expected: Expected) -> None:
    repository = opened(GOLDEN)

    assert not check(repository, read_data=Subset(), observer=SilentObserver()).findings
    assert_whole(repository, expected)


def test_backups_go_on_from_it(copy: Path, expected: Expected, tmp_path: Path) -> None:
    """The file is restored (so it is another one: compare), and then grows (increment)."""
    repository = opened(copy)
    newest = list(sources_in(repository, repository.snapshots(), "main"))[-1]
    path = tmp_path / "Data.fs"
    path.write_bytes(rebuilt_from(newest)[0])
    data_before = stored(copy)
    (source,) = back_up(repository, path, window=WINDOW, clock=Clock(LATER)).sources
    assert (source.method, source.bytes_new) == ("compare", 0)
    assert stored(copy) - data_before < 20_000

    last = transactions_in(path.read_bytes())[-1]
    made = DataFs().add(Transaction([Record(0, b"new")], tid=last.tid + 1))
    moved = made.data[4:].replace((4).to_bytes(8, "big"), last.end.to_bytes(8, "big"))
    with path.open("ab") as file:
        file.write(moved)
    (source,) = back_up(repository, path, window=WINDOW, clock=Clock(LATER)).sources
    assert (source.method, source.transactions_new) == ("increment", 1)

    repository = opened(copy)
    assert not check(repository, read_data=Subset(), observer=SilentObserver()).findings
    assert_whole(repository, expected)
    newest = list(sources_in(repository, repository.snapshots(), "main"))[-1]
    assert rebuilt_from(newest)[0] == path.read_bytes()


def stored(repository: Path) -> int:
    return sum(path.stat().st_size for path in repository.rglob("*") if path.is_file())


@pytest.mark.slow
def test_stock_restic_finds_no_fault(restic: Restic, copy: Path) -> None:
    with opened(copy) as repository:
        repository.add_key("secret", FOR_KEY_FILES, Owner("plone", "golden", LATER))
    restic(copy, "check", "--read-data")


SITE = GOLDEN.with_name("site-1")


def test_a_site_with_blobs_is_whole(tmp_path: Path) -> None:
    repository = opened(SITE)
    assert not check(repository, read_data=Subset(), observer=SilentObserver()).findings
    for each in json.loads(SITE.with_suffix(".json").read_text()):
        target = tmp_path / each["snapshot"]
        request = RestoreRequest(target, Wanted(each["snapshot"]))
        restored = restore(repository, request, SilentObserver())
        missing = sum(done.blobs.missing for done in restored if done.blobs)
        assert missing == each["incomplete"]
        for name, state in each["sources"].items():
            assert digest((target / name / "Data.fs").read_bytes()) == state["sha256"]
            blobs = target / name / "blobs"
            found = {
                str(path.relative_to(blobs)): digest(path.read_bytes())
                for path in blobs.rglob("*.blob")
            }
            assert found.items() <= state["blobs"].items()
            assert len(found) == len(state["blobs"]) - (missing if name == "main" else 0)
    repository.close()

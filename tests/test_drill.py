"""A rehearsed restore says what a restore would do, and leaves nothing behind."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import ZODB
from blob_storage import BlobStorage
from history_site import back_up, transactions_in
from persistent import Persistent
from raw_storage import BROKEN, raw_storage, referring
from small_repository import Site
from test_check_objects import Databases
from ZODB.FileStorage import FileStorage

from perdure.drill import FAILED, PASSED, DrillReport, DrillRequest, drill
from perdure.errors import StoreError, UsageError
from perdure.model import SilentObserver, Tid
from perdure.restore_plan import Wanted

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def nothing_is_left(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "scratch").mkdir()
    yield
    assert list((tmp_path / "scratch").iterdir()) == []


def rehearse(
    site: Site,
    tmp_path: Path,
    wanted: Wanted = Wanted(),  # noqa: B008 - it is frozen
    *,
    sample: int = 1000,
    python: Path | None = None,
) -> DrillReport:
    request = DrillRequest(wanted, tmp_path / "scratch", sample, python)
    return drill(site.repository, request, site.clock, SilentObserver())


def site_python(folder: Path, code: str = "") -> Path:
    """A Python that finds a site's code in a folder, as those of a buildout do."""
    (folder / "sitecode.py").write_text(
        f"from persistent import Persistent\nclass Thing(Persistent):\n    pass\n{code}"
    )
    path = folder / "zopepy"
    places = [str(folder), *(each for each in sys.path if "site-packages" in each)]
    path.write_text(f'#!/bin/sh\nPYTHONPATH={":".join(places)} exec {sys.executable} "$@"\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


@pytest.mark.parametrize("classes", [False, True])
def test_a_sound_site(site: Site, tmp_path: Path, classes: bool) -> None:
    storage = BlobStorage(tmp_path / "site", seed=1)
    for _ in range(15):
        storage.step()
    storage.close()
    back_up(site.repository, storage.path, blobs=storage.blobs, clock=site.clock)
    site.clock.advance(minutes=90)
    python = site_python(tmp_path) if classes else None
    report = rehearse(site, tmp_path, python=python)
    assert report.verdict == PASSED, report
    assert report.snapshot_age.total_seconds() == 5400
    assert set(report.seconds) == {"restore", "verify", "load"}
    [source] = report.sources
    assert source.root == "persistent.mapping.PersistentMapping"
    assert source.loaded == source.objects > 1
    assert source.blobs_opened >= 1
    assert not source.unknown
    [few] = rehearse(site, tmp_path, sample=1, python=python).sources
    assert few.loaded == 2  # the root, and one more
    middle = transactions_in(storage.data)[-4]
    earlier = rehearse(site, tmp_path, Wanted(at=Tid(middle.tid)))
    assert earlier.verdict == PASSED
    assert earlier.sources[0].restored.cut.value == middle.tid


def test_a_database_without_transactions(site: Site, tmp_path: Path) -> None:
    FileStorage(str(tmp_path / "Data.fs")).close()
    back_up(site.repository, tmp_path / "Data.fs")
    report = rehearse(site, tmp_path)
    assert (report.verdict, report.data_age) == (PASSED, None)


@pytest.mark.parametrize("classes", [False, True])
def test_damaged_objects(site: Site, tmp_path: Path, classes: bool) -> None:
    raw_storage(tmp_path / "Data.fs", {0: referring(1), 1: BROKEN, 2: referring(99)})
    back_up(site.repository, tmp_path / "Data.fs")
    report = rehearse(site, tmp_path, python=site_python(tmp_path) if classes else None)
    assert report.verdict == FAILED
    failures = "\n".join(report.sources[0].failures)
    assert "object 0x0000000000000001" in failures
    if not classes:
        assert "object 0x0000000000000002: POSKeyError: 0x63" in failures


def test_records_that_are_compressed(site: Site, tmp_path: Path) -> None:
    raw_storage(tmp_path / "Data.fs", {0: b".z" + zlib.compress(referring(1)), 1: b".e?"})
    back_up(site.repository, tmp_path / "Data.fs")
    report = rehearse(site, tmp_path)
    assert report.verdict == PASSED
    assert report.sources[0].loaded == 2


class Vanished(Persistent):  # type: ignore[misc]
    """The site's Python does not know this class."""


def test_classes_that_the_site_does_not_know(site: Site, tmp_path: Path) -> None:
    database = ZODB.DB(FileStorage(str(tmp_path / "Data.fs")))
    with database.transaction() as connection:
        connection.root()["thing"] = Vanished()
    database.close()
    back_up(site.repository, tmp_path / "Data.fs")
    report = rehearse(site, tmp_path, python=site_python(tmp_path))
    assert report.verdict == PASSED  # what ZODB can work with
    assert report.sources[0].unknown == {"test_drill.Vanished": 1}


def test_several_databases(site: Site, tmp_path: Path) -> None:
    made = Databases(tmp_path)
    made.close()
    made.back_up(site)
    for python in (None, site_python(tmp_path)):
        report = rehearse(site, tmp_path, python=python)
        assert report.verdict == PASSED, report
        assert [each.restored.name for each in report.sources] == ["main", "catalog"]
        assert all(each.loaded == each.objects for each in report.sources)


def test_a_blob_that_is_missing(site: Site, tmp_path: Path) -> None:
    storage = BlobStorage(tmp_path / "site")
    storage.commit("one", "two")
    storage.close()
    min(storage.blobs.rglob("*.blob")).unlink()
    back_up(site.repository, storage.path, blobs=storage.blobs)
    report = rehearse(site, tmp_path)
    assert report.verdict == FAILED
    assert "1 blobs are missing from the snapshot" in report.sources[0].failures[0]


def test_a_damaged_repository(site: Site, tmp_path: Path) -> None:
    raw_storage(tmp_path / "Data.fs", {0: referring()}, {0: os.urandom(5000)})
    back_up(site.repository, tmp_path / "Data.fs")
    for name in site.names("data"):
        content = site.store.get(name)
        if len(content) > 4000:  # the records are what comes first
            site.store.delete(name)
            site.store.put(name, content[:100] + bytes(9) + content[109:])
    report = rehearse(site, tmp_path)
    assert report.verdict == FAILED
    assert report.failures[0].startswith("restore: chunk")
    assert set(report.seconds) == {"restore"}


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("raise SystemExit(7)", "exit code 7"),
        ("echo 'it is broken' >&2; exit 1", "it is broken"),
        ("exit 0", "did not answer"),
    ],
)
def test_a_python_that_fails(site: Site, tmp_path: Path, code: str, why: str) -> None:
    raw_storage(tmp_path / "Data.fs", {0: referring()})
    back_up(site.repository, tmp_path / "Data.fs")
    python = tmp_path / "python"
    python.write_text(
        f"#!{sys.executable}\n{code}\n" if "raise" in code else f"#!/bin/sh\n{code}\n"
    )
    python.chmod(0o755)
    report = rehearse(site, tmp_path, python=python)
    assert report.verdict == FAILED
    assert why in report.failures[0]
    python.chmod(0o644)
    with pytest.raises(UsageError, match="cannot be run"):
        rehearse(site, tmp_path, python=python)


def test_no_room(site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage = BlobStorage(tmp_path / "site")
    storage.commit("one", "two")
    storage.close()
    back_up(site.repository, storage.path, blobs=storage.blobs)
    free = SimpleNamespace(f_bavail=5, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: free)
    with pytest.raises(StoreError, match="has 20480 bytes free, and the drill may need"):
        rehearse(site, tmp_path)


def test_no_place(site: Site, tmp_path: Path) -> None:
    raw_storage(tmp_path / "Data.fs", {0: referring()})
    back_up(site.repository, tmp_path / "Data.fs")
    request = DrillRequest(Wanted(), tmp_path / "nowhere")
    with pytest.raises(StoreError, match="cannot be written to"):
        drill(site.repository, request, site.clock, SilentObserver())


def test_no_database(site: Site, tmp_path: Path) -> None:
    name = site.backup({"file": [b"content"]})
    with pytest.raises(UsageError, match="another program's"):
        rehearse(site, tmp_path, Wanted(name))


def test_what_a_killed_drill_left_is_removed(site: Site, tmp_path: Path) -> None:
    raw_storage(tmp_path / "Data.fs", {0: referring()})
    back_up(site.repository, tmp_path / "Data.fs")
    holder = (
        "import sys, time\nfrom pathlib import Path\nfrom perdure.drill import _scratch_below\n"
        f"with _scratch_below(Path({str(tmp_path / 'scratch')!r})) as scratch:\n"
        "    (scratch / 'file').write_text('x')\n    print(scratch, flush=True)\n    sys.stdin.read()\n"
    )
    killed, living = (
        subprocess.Popen(
            [sys.executable, "-c", holder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    )
    assert killed.stdout
    assert living.stdout
    left, used = (Path(each.stdout.readline().strip()) for each in (killed, living) if each.stdout)
    killed.kill()
    killed.communicate()
    assert left.exists()
    assert rehearse(site, tmp_path).verdict == PASSED
    assert not left.exists()
    assert used.exists()
    living.communicate("")


def test_a_backup_meanwhile_does_not_matter(site: Site, tmp_path: Path) -> None:
    storage = BlobStorage(tmp_path / "site", seed=1)
    for _ in range(5):
        storage.step()
    snapshot = back_up(site.repository, storage.path, blobs=storage.blobs).snapshot_id

    class Meanwhile(SilentObserver):
        done = False

        def progress(self, what: str, done: int, total: int) -> None:
            if not self.done:
                self.done = True
                storage.step()
                back_up(site.open(), storage.path, blobs=storage.blobs)

    request = DrillRequest(Wanted(), tmp_path / "scratch", 1000, None)
    report = drill(site.repository, request, site.clock, Meanwhile())
    storage.close()
    assert len(site.repository.snapshots()) == 2
    assert report.verdict == PASSED, report
    assert report.snapshot == snapshot

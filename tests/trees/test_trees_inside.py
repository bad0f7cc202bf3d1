"""File trees beside a database: listed, dumped, compared, added up, and restored in a drill."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from raw_storage import raw_storage, referring
from tree_site import TreeSite, later, tree_site

from perdure.backup import BackupRequest, backup
from perdure.check_objects import check_objects
from perdure.contents import contents_of
from perdure.diff import diff
from perdure.drill import PASSED, DrillRequest, drill
from perdure.errors import UsageError
from perdure.history.changes import ADDED, CHANGED, REMOVED, FileChange
from perdure.model import SilentObserver
from perdure.restore_plan import Wanted
from perdure.sources.files import FileTreeSource
from perdure.sources.filestorage import FileStorageSource
from perdure.sources.protocol import Source
from perdure.stats import stats


@pytest.fixture
def site() -> Iterator[TreeSite]:
    yield from tree_site()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "www"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "page").write_bytes(b"page")
    (folder / "changes").write_bytes(b"before")
    (folder / "goes").write_bytes(b"goes")
    (folder / "link").symlink_to("inner")
    return folder


@pytest.fixture
def single(tmp_path: Path) -> Path:
    path = tmp_path / "zope.conf"
    path.write_bytes(b"instancehome /srv\n")
    return path


def backed_up(site: TreeSite, tmp_path: Path, *trees: Path) -> str:
    """Back trees and a database up together; gives the snapshot."""
    path = tmp_path / "site" / "Data.fs"
    raw_storage(path, {0: referring(1), 1: referring()})
    sources: list[Source] = [
        FileStorageSource(path, "main"),
        *(FileTreeSource(tree) for tree in trees),
    ]
    with site.repository.lock() as lock:
        request = BackupRequest("www1", "plone")
        report = backup(site.repository, lock, sources, request, later, SilentObserver())
    assert report.snapshot_id
    return report.snapshot_id


def test_ls_and_dump(site: TreeSite, tmp_path: Path, files: Path, single: Path) -> None:
    backed_up(site, tmp_path, files, single)
    held = contents_of(site.repository, Wanted(), stored=False)
    assert [(e.path, e.kind) for e in held.list("", recursive=False)] == [
        ("Data.fs", "file"),
        ("www", "dir"),
        ("zope.conf", "file"),
    ]
    everything = [each.path for each in held.list("", recursive=True)]
    assert everything == [
        *("Data.fs", "www", "www/changes", "www/goes", "www/inner", "www/inner/page", "www/link"),
        "zope.conf",
    ]
    assert [e.path for e in held.list("www/inner", recursive=False)] == ["www/inner/page"]
    assert next(e.path for e in held.list("www", recursive=False)) == "www/changes"
    assert [e.size for e in held.list("zope.conf", recursive=False)] == [18]
    for path, data in (("www/inner/page", b"page"), ("zope.conf", single.read_bytes())):
        assert b"".join(held.read(path, SilentObserver())) == data
    for wrong in ("www", "www/inner"):
        with pytest.raises(UsageError, match="is a folder"):
            b"".join(held.read(wrong, SilentObserver()))
    for wrong in ("www/nothing", "zope.conf/x"):
        with pytest.raises(UsageError, match="there is no"):
            list(held.list(wrong, recursive=False))
    alone = contents_of(site.repository, Wanted(source=str(files)), stored=False)
    assert [each.path for each in alone.list("", recursive=False)] == ["www"]


def test_diff(site: TreeSite, tmp_path: Path, files: Path, single: Path) -> None:
    first = backed_up(site, tmp_path, files, single)
    (files / "changes").write_bytes(b"afterwards")
    (files / "goes").unlink()
    (files / "comes").write_bytes(b"comes")
    single.write_bytes(b"other")
    second = backed_up(site, tmp_path, files, single)
    found = diff(site.repository, first, second, None, SilentObserver())
    assert [each.name for each in found.databases] == ["main"]
    assert found.databases[0].objects_changed == 2
    below = str(files).lstrip("/")
    assert list(found.files) == [
        FileChange(f"{below}/changes", CHANGED, 6, 10),
        FileChange(f"{below}/comes", ADDED, None, 5),
        FileChange(f"{below}/goes", REMOVED, 4, None),
        FileChange(str(single).lstrip("/"), CHANGED, 18, 5),
    ]
    cut = f"{found.databases[0].before.cut}" if found.databases[0].before else ""
    moment = diff(site.repository, cut, second, None, SilentObserver())
    assert [each.name for each in moment.databases] == ["main"]
    assert list(moment.files) == []  # files are known at their backups only
    only = diff(site.repository, first, second, str(single), SilentObserver())
    assert only.databases == ()
    assert len(list(only.files)) == 1


def test_stats(site: TreeSite, tmp_path: Path, files: Path, single: Path) -> None:
    (files / "large").write_bytes(os.urandom(30_000))
    backed_up(site, tmp_path, files, single)
    found = stats(site.repository, SilentObserver())
    costs = {each.name: each for each in found.sources}
    assert set(costs) == {"main", str(files), str(single)}
    assert costs[str(files)].restored == 30_000 + 14
    assert 30_000 < costs[str(files)].stored < 32_000
    assert 0 < costs[str(single)].stored < 200
    assert found.snapshots[0].restored == sum(each.restored for each in found.sources)


@pytest.mark.slow
def test_drill(site: TreeSite, tmp_path: Path, files: Path, single: Path) -> None:
    (files / "inner").chmod(0o500)
    backed_up(site, tmp_path, files, single)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    report = drill(site.repository, DrillRequest(Wanted(), scratch), later, SilentObserver())
    assert report.verdict == PASSED, report
    main, www, conf = report.sources
    assert (main.loaded, main.objects) == (2, 2)
    assert www.restored.tree is not None
    assert www.restored.tree.files >= 3
    assert conf.restored.tree is not None
    request = DrillRequest(Wanted(source=str(files)), scratch)
    alone = drill(site.repository, request, later, SilentObserver())
    assert (alone.verdict, len(alone.sources)) == (PASSED, 1)
    assert list(scratch.iterdir()) == []


def test_objects(site: TreeSite, tmp_path: Path, files: Path) -> None:
    backed_up(site, tmp_path, files)
    [report] = check_objects(site.repository, Wanted(), SilentObserver())
    assert (report.source, report.damaged) == ("main", False)
    with pytest.raises(UsageError, match="files, not databases"):
        check_objects(site.repository, Wanted(source=str(files)), SilentObserver())

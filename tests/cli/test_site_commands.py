"""A whole site on the command line: found, configured, backed up, kept for a while, restored in place."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from blob_storage import BlobStorage, blobs_in
from command_line import Program

ZEO = """\
%define var {folder}/var
<zeo>
  address {folder}/zeo.sock
</zeo>
<filestorage catalog>
  path $var/catalog/Data.fs
</filestorage>
<filestorage main>
  path $var/main/Data.fs
  blob-dir $var/main/blobs
</filestorage>
"""


class Site:
    """A folder with a zeo.conf and two storages."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "var").mkdir(parents=True)
        self.main = BlobStorage(folder / "var/main")
        self.catalog = BlobStorage(folder / "var/catalog")
        self.configuration = folder / "zeo.conf"
        self.configuration.write_text(ZEO.format(folder=folder))
        self.commit()

    def commit(self) -> None:
        self.main.commit("one", "two")
        self.catalog.commit()

    def close(self) -> None:
        self.main.close()
        self.catalog.close()


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def names(summary: dict[str, Any]) -> list[str]:
    return [source["database"] for source in summary["sources"]]


def snapshots(program: Program) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(program("snapshots", "--json").out)
    return found


def test_nothing_is_said(
    program: Program, repository: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(site.folder)
    done = program("backup", "--json")
    assert names(done.summary) == ["catalog", "main"]
    assert done.summary["sources"][1]["blobs"]["count"] == 2
    assert done.summary["incomplete"] is False
    [snapshot] = snapshots(program)
    assert [source["database"] for source in snapshot["sources"]] == ["catalog", "main"]
    assert snapshot["sources"][1]["blobs"] == 2
    assert f"main: {site.main.path}" in program("snapshots").out
    assert "main (filestorage)" in program("sources").out


@pytest.mark.parametrize("option", ["--zeo-conf", "--source main"])
def test_a_configuration_is_named(
    program: Program, repository: Path, site: Site, option: str
) -> None:
    named = ("--zeo-conf", str(site.configuration))
    if option.startswith("--source"):
        done = program("backup", *named, *option.split(), "--json")
        assert names(done.summary) == ["main"]
        assert "'catalog'" in program("backup", *named, "--source", "other", code=2).err
    else:
        assert names(program("backup", *named, "--json").summary) == ["catalog", "main"]


def test_blobs_of_one_storage(program: Program, repository: Path, site: Site) -> None:
    path, blobs = str(site.main.path), str(site.main.blobs)
    done = program("backup", "--filestorage", path, code=3)
    assert "--blobs" in done.err
    done = program("backup", "--filestorage", path, "--no-blobs", "--json")
    assert done.summary["sources"][0]["blobs"] is None
    done = program("backup", "--filestorage", path, "--blobs", blobs, "--json")
    assert done.summary["sources"][0]["blobs"]["count"] == 2
    program("backup", "--blobs", blobs, "--zeo-conf", str(site.configuration), code=2)
    program("backup", "--filestorage", path, "--blobs", blobs, "--no-blobs", code=2)
    program("backup", "--filestorage", path, "--blobs", f"{blobs}/nowhere", code=14)


def test_what_the_configuration_says(program: Program, site: Site, tmp_path: Path) -> None:
    """Everything is in perdure.toml: repository, password, sources, hooks, monitoring, retention."""
    note = [sys.executable, "-c", "import os,sys; print(os.environ['PERDURE_EVENT'],"]
    note[-1] += f"file=open({str(tmp_path / 'events')!r}, 'a'))"
    (tmp_path / "perdure.toml").write_text(
        f"""
        [repository]
        location = "repository"
        password-file = "key"
        [[source]]
        zeo-conf = "site/zeo.conf"
        [retention]
        keep-last = 2
        prune = true
        [backup]
        tags = ["nightly"]
        [hooks]
        before = [{json.dumps(note)}]
        after = [{json.dumps(note)}]
        failed = [{json.dumps(note)}]
        finally = [{json.dumps(note)}]
        [monitoring]
        prometheus-textfile = "perdure.prom"
        """
    )
    program("init", "--new-password-file", "key")
    for _ in range(4):
        site.commit()
        program("backup")
    found = snapshots(program)
    assert len(found) == 2
    assert {tag for snapshot in found for tag in snapshot["tags"]} == {"nightly"}
    assert Path("events").read_text().split() == ["before", "after", "finally"] * 4
    assert "perdure_last_run_exit_code" in Path("perdure.prom").read_text()
    program("backup", "--no-forget")
    assert len(snapshots(program)) == 3
    assert "forgotten" in program("forget").out or len(snapshots(program)) == 2
    Path("events").unlink()
    site.close()
    site.main.path.unlink()
    program("backup", code=14)
    assert Path("events").read_text().split() == ["before", "failed", "finally"]
    program("check", "--read-data")


def test_nothing_but_the_environment(
    program: Program, repository: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERDURE_FILESTORAGE", str(site.main.path))
    monkeypatch.setenv("PERDURE_BLOBS", str(site.main.blobs))
    monkeypatch.setenv("PERDURE_KEEP_LAST", "1")
    monkeypatch.setenv("PERDURE_TAGS", "container")
    for _ in range(2):
        site.commit()
        program("backup")
    [snapshot] = snapshots(program)
    assert snapshot["tags"] == ["container"]
    assert snapshot["sources"][0]["blobs"] == 6


def test_in_place(
    program: Program, repository: Path, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    program("backup", "--zeo-conf", str(site.configuration))
    blobs, then = site.main.contents(), site.main.data
    site.commit()
    assert "in use" in program("restore", "--in-place", "--yes", code=14).err
    site.close()
    assert "nobody to ask" in program("restore", "--in-place", code=2).err
    dry = program("restore", "--in-place", "--dry-run", "--json").summary
    assert dry["dry_run"] is True
    assert [source["files"][0] for source in dry["sources"]] == [
        str(site.catalog.path),
        str(site.main.path),
    ]
    assert site.main.data != then
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    answers = iter(["y", "yes"])
    monkeypatch.setattr("click.prompt", lambda *_, **__: next(answers))
    program("restore", "--in-place", code=130)
    assert site.main.data != then
    program("restore", "--in-place")
    assert site.main.data == then
    assert blobs_in(site.main.blobs, "bushy") == blobs


def test_one_place_is_needed(program: Program, repository: Path, site: Site) -> None:
    program("backup", "--zeo-conf", str(site.configuration))
    assert "--in-place" in program("restore", code=2).err
    program("restore", "--to", "out", "--in-place", code=2)
    program("restore", "--to", "out")
    assert sorted(path.name for path in Path("out").iterdir()) == ["catalog", "main"]
    program("restore", "--to", "one", "--source", "main")
    assert (Path("one") / "Data.fs").read_bytes() == site.main.data
    assert "'catalog'" in program("log", code=2).err
    assert program("log", "--source", "catalog").out


def test_into_another_storage(
    program: Program, repository: Path, site: Site, tmp_path: Path
) -> None:
    program("backup", "--zeo-conf", str(site.configuration))
    into = tmp_path / "target.conf"
    into.write_text(
        f"<filestorage>\n  path {tmp_path}/target/Data.fs\n  blob-dir {tmp_path}/target/blobs\n"
        "</filestorage>\n"
    )
    (tmp_path / "target").mkdir()
    assert "--source" in program("restore", "--into", str(into), code=2).err
    program("restore", "--into", str(into), "--source", "main", "--dry-run")
    done = program("restore", "--into", str(into), "--source", "main", "--json")
    assert done.summary["copied"] > 0
    target = BlobStorage.__new__(BlobStorage)
    target.path, target.blobs = tmp_path / "target/Data.fs", tmp_path / "target/blobs"
    target.open()
    assert target.contents() == site.main.contents()
    target.close()
    again = program("restore", "--into", str(into), "--source", "main", "--json")
    assert again.summary["copied"] == 0

"""ls, dump, diff, stats, drill and check --objects, as they are typed."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from blob_storage import BlobStorage
from command_line import Program
from doubles import Restic
from raw_storage import BROKEN, raw_storage, referring
from ZODB.FileStorage.FileStorage import FileIterator
from ZODB.serialize import referencesf

from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.formats.object_records import read_record
from perdure.repository import Repository
from perdure.stores import open_store

pytestmark = [pytest.mark.usefixtures("bare_environment"), pytest.mark.slow]
FIXTURES = Path(__file__).parent.parent / "fixtures"


@pytest.fixture
def blobs(program: Program, repository: Path, tmp_path: Path) -> BlobStorage:
    """A site with blobs, of which there are two snapshots, tagged one and two."""
    storage = BlobStorage(tmp_path / "plone", seed=5)
    for tag in ("one", "two"):
        storage.commit("image", tag)
        program(*backup_of(storage.path), "--blobs", str(storage.blobs), "--tag", tag)
    storage.close()
    return storage


def backup_of(path: Path, name: str = "main") -> tuple[str, ...]:
    return "backup", "--filestorage", str(path), "--source", name


def array(program: Program, *arguments: str) -> list[dict[str, Any]]:
    found = json.loads(program(*arguments, "--json").out)
    assert isinstance(found, list)
    return found


def snapshot(program: Program, tag: str) -> str:
    [found] = array(program, "snapshots", "--tag", tag)
    return str(found["id"])


def test_ls(program: Program, blobs: BlobStorage) -> None:
    top = program("ls").out.splitlines()
    assert top[0].split() == ["size", "time", "(UTC)", "path"]
    assert [line.split()[-1] for line in top[1:]] == ["Data.fs", "blobs/"]
    assert str(blobs.path.stat().st_size) in top[1]
    everything = array(program, "ls", "--recursive")
    assert {each["path"] for each in everything} == {
        str(path.relative_to(blobs.path.parent))
        for path in (blobs.path, *blobs.blobs.rglob("*.blob"))
    }
    inside = array(program, "ls", "latest", "/blobs/", "-R")
    assert len(inside) == len(everything) - 1
    earlier = array(program, "ls", "-R", "--tag", "one", "--source", "main")
    assert len(earlier) < len(everything)
    stored = [each["path"] for each in array(program, "ls", "--stored")]
    assert "perdure.json" in stored
    assert any(path.endswith(".history") for path in stored)
    missing = program("ls", "latest", "nothing", code=2)
    assert "there is no 'nothing' in the snapshot" in missing.err
    assert not missing.out


def test_dump(program: Program, blobs: BlobStorage, tmp_path: Path) -> None:
    target = tmp_path / "out"
    done = program("dump", "latest", "Data.fs", "--output", str(target))
    assert done.out.startswith(f"wrote {target} (")
    assert target.read_bytes() == blobs.data
    assert "exists" in program("dump", "latest", "Data.fs", "-o", str(target), code=2).err
    log = array(program, "log", "--source", "main")
    first = log[1]
    summary = program(
        *("dump", "latest", "/Data.fs", "--at", first["tid"], "-o", str(target), "--force"),
        "--json",
    ).summary
    assert summary["size"] == first["position"] + first["bytes"]
    assert target.read_bytes() == blobs.data[: summary["size"]]
    path = max(blobs.blobs.rglob("*.blob"))
    program(
        "dump", "latest", f"blobs/{path.relative_to(blobs.blobs)}", "-o", str(target), "--force"
    )
    assert target.read_bytes() == path.read_bytes()
    assert "is a folder" in program("dump", "latest", "blobs", "-o", "x", code=2).err
    assert "standard" not in program("dump", "latest", "Data.fs", "--json", code=2).out


def test_dump_to_standard_output(program: Program, blobs: BlobStorage, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "perdure", "dump", "latest", "Data.fs"]
    done = subprocess.run(command, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, blobs.data, b"")


def test_a_terminal_gets_no_content(
    program: Program, blobs: BlobStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert "not go to a terminal" in program("dump", "latest", "Data.fs", code=2).err


def test_diff(program: Program, blobs: BlobStorage) -> None:
    one = snapshot(program, "one")
    text = program("diff", one[:8], "latest").out
    assert text.startswith("main: ")
    assert "transactions  +1 -0" in text
    assert "ZODB.blob.Blob" in text
    database, summary = program("diff", one, "--json").events
    assert summary == {"message_type": "summary", "databases": 1, "files": 0}
    classes = {each["class"]: each for each in database["classes"]}
    assert (classes["ZODB.blob.Blob"]["added"], classes["ZODB.blob.Blob"]["changed"]) == (1, 1)
    assert database["blobs_added"] == 2
    assert (database["before"]["snapshot_id"], database["packed"]) == (one, False)
    same = program("diff", "latest").out
    assert "objects       +0 -0, 0 changed" in same
    assert "no snapshot" in program("diff", "0123456789", code=2).err


def test_diff_shows_the_classes_with_the_most_bytes(
    program: Program, repository: Path, tmp_path: Path
) -> None:
    path = tmp_path / "Data.fs"
    raw_storage(path, {0: referring()})
    program(*backup_of(path))
    [one] = array(program, "snapshots")
    raw_storage(path, {n: b"cmod\nName%02d\n.N." % n for n in range(1, 31)})
    program(*backup_of(path))
    assert "10 more classes: --all shows them" in program("diff", one["id"]).out
    assert "mod.Name30" in program("diff", one["id"], "--all").out


def test_stats(program: Program, blobs: BlobStorage) -> None:
    text = program("stats").out
    assert "2 snapshots give back" in text
    assert "deduplication" in text
    found = program("stats", "--json").summary
    assert [each["restored"] for each in found["snapshots"]] == sorted(
        each["restored"] for each in found["snapshots"]
    )
    assert sum(each["added"] for each in found["snapshots"]) == found["stored"]
    only = program("stats", "--json", "--tag", "two").summary
    assert [each["id"] for each in only["snapshots"]] == [snapshot(program, "two")]
    assert only["stored"] == found["stored"]
    assert not program("stats", "--json", "--source", "other").summary["sources"]


def test_stats_of_a_database(program: Program, repository: Path, tmp_path: Path) -> None:
    raw_storage(tmp_path / "Data.fs", {0: referring()})
    database = f"<filestorage>\npath {tmp_path / 'Data.fs'}\n</filestorage>\nmount-point /"
    conf = tmp_path / "zope.conf"
    conf.write_text(f"<zodb_db main>\n{database}\n</zodb_db>\n")
    program("backup", "--zope-conf", str(conf))
    [source] = program("stats", "--json", "--source", "main").summary["sources"]
    assert source["database"] == "main"


def test_drill(program: Program, blobs: BlobStorage, tmp_path: Path) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    done = program("drill", "--scratch", str(scratch), "--sample", "50")
    assert "drill passed: snapshot" in done.out
    summary = program("drill", "--scratch", str(scratch), "--json").summary
    assert summary["verdict"] == "passed"
    assert summary["sources"][0]["loaded"] == summary["sources"][0]["objects"]
    assert set(summary["seconds"]) == {"restore", "verify", "load"}
    assert list(scratch.iterdir()) == []


@pytest.fixture
def damaged(program: Program, repository: Path, tmp_path: Path) -> list[int]:
    """The tids of a database in which something is broken; it is backed up."""
    path = tmp_path / "Data.fs"
    tids = raw_storage(path, {0: referring(1, 99), 1: BROKEN, 5: referring(6)})
    program(*backup_of(path))
    return tids


def test_a_drill_that_fails(program: Program, damaged: list[int]) -> None:
    done = program("drill", code=13)
    assert "error: main: object 0x0000000000000001" in done.err
    assert "drill failed: snapshot" in done.out
    assert "perdure check --objects" in done.err
    assert program("drill", "--json", code=13).events[-1]["verdict"] == "failed"


def test_a_drill_that_is_ended(
    program: Program, repository: Path, data_fs: Path, tmp_path: Path
) -> None:
    """SIGTERM while the site's Python works: it ends, too, and nothing is left."""
    program(*backup_of(data_fs))
    scratch, begun = tmp_path / "scratch", tmp_path / "begun"
    scratch.mkdir()
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\necho $$ > {begun}.new\nmv {begun}.new {begun}\nexec sleep 600\n")
    python.chmod(0o755)
    command = [sys.executable, "-m", "perdure", "drill", "--scratch", str(scratch)]
    drill = subprocess.Popen([*command, "--python", str(python)], stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not begun.exists() and drill.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    child = int(begun.read_text())
    assert len(list(scratch.iterdir())) == 1
    drill.terminate()
    _, said = drill.communicate(timeout=120)
    assert (drill.returncode, said) == (130, b"perdure: interrupted\n")
    assert list(scratch.iterdir()) == []
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_check_objects(program: Program, damaged: list[int]) -> None:
    assert "no damage was found" in program("check").out
    done = program("check", "--objects", code=13)
    assert f"of transaction {damaged[0]:016x}" in done.err
    assert "missing object: object 0x0000000000000000 (persistent.mapping." in done.err
    assert "1 objects are not in use any more" in done.out
    assert "objects in the snapshot are damaged" in done.err
    events = program("check", "--objects", "--json", "--source", "main", code=13).events
    assert {each["kind"] for each in events if each["message_type"] == "error"} == {
        "missing object",
        "broken record",
    }
    report = next(each for each in events if each["message_type"] == "objects")
    assert (report["damaged"], report["counts"]["missing object"]) == (True, 1)
    assert report["missing_unreachable"] == 1
    assert "say which --objects" in program("check", "--snapshot", "latest", code=2).err


def test_check_objects_of_many(program: Program, repository: Path, tmp_path: Path) -> None:
    raw_storage(tmp_path / "Data.fs", {0: referring(*range(100, 140))})
    program(*backup_of(tmp_path / "Data.fs"))
    done = program("check", "--objects", code=13)
    assert done.err.count("missing object: object") == 20
    assert "missing object: 20 more; --json names them" in done.err


def test_databases_that_real_programs_wrote(
    program: Program, repository: Path, tmp_path: Path
) -> None:
    with tarfile.open(FIXTURES / "repozo/repozo-fixtures.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    python2 = tmp_path / "repozo-fixtures/fs-python2/Data.fs"
    python2.parent.mkdir()
    with gzip.open(FIXTURES / "python2/Data.fs.gz") as file:
        python2.write_bytes(file.read())
    for path in sorted((tmp_path / "repozo-fixtures").glob("fs-*/Data.fs")):
        name, directory = path.parent.name, path.with_name("blobs")
        options = ("--blobs", str(directory)) if directory.is_dir() else ()
        program(*backup_of(path, name), *options)
        events = program("check", "--objects", "--json", "--source", name).events
        report = next(each for each in events if each["message_type"] == "objects")
        assert not report["damaged"]
        assert report["objects"] > 1
        dumped = tmp_path / f"{name}.fs"
        program("dump", "latest", "Data.fs", "--source", name, "-o", str(dumped))
        assert path.read_bytes().startswith(dumped.read_bytes())
        assert program("drill", "--source", name, "--json").summary["verdict"] == "passed"


def test_references_of_python_2(tmp_path: Path) -> None:
    with gzip.open(FIXTURES / "python2/Data.fs.gz") as file:
        data = file.read()
    (tmp_path / "Data.fs").write_bytes(b"FS30" + data[4:])  # else ZODB refuses it
    references = 0
    for transaction in FileIterator(str(tmp_path / "Data.fs")):
        for record in transaction:
            if record.data:
                strong = [r for r in read_record(record.data).references if not r.weak]
                with suppress(UnicodeDecodeError):  # texts that Python 3 cannot have
                    oids = referencesf(record.data)
                    assert [each.oid.to_bytes(8, "big") for each in strong] == oids
                    references += len(strong)
    assert references > 30


def test_snapshots_that_restic_wrote(
    program: Program, restic: Restic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "repo"
    monkeypatch.setenv("PERDURE_REPOSITORY", str(folder))
    monkeypatch.setenv("PERDURE_PASSWORD", "secret")
    Repository.create(
        open_store(str(folder)),
        "secret",
        kdf=FOR_KEY_FILES,  # restic's own choice takes its time at each command
        now=datetime.now(UTC),
        username="plone",
        hostname="www1",
    ).close()
    files = tmp_path / "files"
    (files / "inner").mkdir(parents=True)
    (files / "inner" / "näme \n").write_bytes(b"content")
    (files / "changes").write_bytes(b"before")
    (files / "link").symlink_to("changes")
    restic(folder, "backup", "files", cwd=tmp_path)
    [one] = array(program, "snapshots")
    (files / "changes").write_bytes(b"afterwards")
    (files / "inner" / "näme \n").unlink()
    (files / "new").write_bytes(b"x" * 5000)
    restic(folder, "backup", "files", cwd=tmp_path)
    listed = {each["path"]: each for each in array(program, "ls", one["id"], "-R")}
    assert set(listed) == {
        "files",
        "files/inner",
        "files/inner/näme \n",
        "files/changes",
        "files/link",
    }
    assert listed["files/link"]["target"] == "changes"
    assert listed["files/changes"]["size"] == 6
    assert "files/link -> changes" in program("ls", "latest", "files").out
    program("dump", one["id"], "files/changes", "-o", "dumped")
    assert Path("dumped").read_bytes() == b"before"
    assert "is a symlink" in program("dump", "latest", "files/link", "-o", "other", code=2).err
    lines = program("diff", one["id"]).out.splitlines()
    assert lines == [
        "M  files/changes (6 B to 10 B)",
        "-  files/inner/näme \\n (7 B)",
        "+  files/new (5.0 kB)",
    ]
    summary = program("stats", "--json").summary
    assert [each["restored"] for each in summary["snapshots"]] == [13, 5010]
    assert "another program's" in program("drill", code=2).err
    assert "no snapshot that matches" in program("check", "--objects", code=1).err
    restic(folder, "check", "--read-data")

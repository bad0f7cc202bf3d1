"""A DirectoryStorage becomes a FileStorage that has everything, for the old world and for the new one."""

from __future__ import annotations

import gzip
import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from directorystorage_homes import FIXTURES, READABLE, seen, states_of, unpack
from old_zope import PROGRAMS, OldZope, old_zope  # noqa: F401 - a fixture
from ZODB.FileStorage import FileIterator, FileStorage

from perdure.dropin.directorystorage.convert import ConvertReport, convert
from perdure.errors import SourceDamaged, SourceUnusable, UsageError
from perdure.model import SilentObserver, Tid
from perdure.sources.directorystorage.home import Home, LiveView


def converted(home: Path, *, force: bool = False) -> ConvertReport:
    return convert(home, home.parent / "Data.fs", force=force, observer=SilentObserver())


def records_of(file: Path) -> list[Any]:
    """Give transactions as ds2fs_records has them; ZODB on Python 3 reads a copy that it accepts."""
    copy = file.with_name("copy.fs")
    copy.write_bytes(b"FS30" + file.read_bytes()[4:])
    return [
        [
            each.tid.hex().upper(),
            each.user.decode("latin-1"),  # as the fixtures have it
            len(each.description),
            [
                [
                    record.oid.hex().upper(),
                    record.tid.hex().upper(),
                    hashlib.sha256(record.data).hexdigest() if record.data else None,
                ]
                for record in each
            ],
        ]
        for each in FileIterator(str(copy))
    ]


@pytest.mark.parametrize("name", READABLE)
def test_every_revision_is_there(tmp_path: Path, name: str) -> None:
    home, truth = unpack(name, tmp_path), seen(name)
    before = states_of(home)
    report = converted(home)
    assert report.file.read_bytes()[:4] == b"FS21"
    assert not (tmp_path / "Data.fs.index").exists()
    ours = records_of(report.file)
    assert (report.transactions, report.records) == (len(ours), sum(len(each[3]) for each in ours))
    told = truth.get("recovered_iter", {"transactions": []})["transactions"]
    by_tid = {each[0]: each for each in ours}
    for each in told:
        wanted = [[one["oid"], one["tid"], one["sha256"]] for one in each["records"]]
        assert by_tid[each["tid"]][3] == wanted
        assert by_tid[each["tid"]][1].encode("latin-1").hex().upper() == each["user_hex"]
    if name != "chunky-killed-pack":
        assert list(by_tid) == [each["tid"] for each in told]
    if "ds2fs_records" in truth:
        assert ours == truth["ds2fs_records"]
    assert states_of(home) == before


@pytest.mark.parametrize("name", ["bushy", "chunky"])
def test_it_holds_what_the_real_converter_wrote(tmp_path: Path, name: str) -> None:
    report = converted(unpack(f"{name}-clean", tmp_path))
    theirs = tmp_path / "theirs.fs"
    theirs.write_bytes(gzip.decompress((FIXTURES / f"{name}-ds2fs-Data.fs.gz").read_bytes()))
    ours = records_of(report.file)
    assert ours == records_of(theirs)


@pytest.mark.parametrize("name", ["chunky-clean", "chunky-packed-detailed", "bushy-killed-temp"])
def test_objects_are_those_that_the_real_storage_loads(tmp_path: Path, name: str) -> None:
    report = converted(unpack(name, tmp_path))
    file = tmp_path / "open.fs"
    file.write_bytes(b"FS30" + report.file.read_bytes()[4:])
    storage = FileStorage(str(file), read_only=True)
    for oid, known in seen(name)["recovered_api"]["objects"].items():
        if "sha256" in known:
            data, tid = storage.load(bytes.fromhex(oid))
            assert hashlib.sha256(data).hexdigest() == known["sha256"]
            assert tid.hex().upper() == known["tid"]
    storage.close()


def test_a_transaction_without_a_file_is_made_and_told(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    view = LiveView(Home(home))
    tids = [each.tid for each in view.chain(view.serial(), 0)]
    Path(view.where(f"t{tids[20]:016X}"[:7] + "." + f"{tids[20]:016X}"[6:])).unlink()
    report = converted(home)
    assert report.without_file == (Tid(tids[20]),)
    assert report.records == 88
    [made] = [each for each in records_of(report.file) if int(each[0], 16) == tids[20]]
    assert made[1] == ""
    assert made[2]
    assert made[3]


def test_what_is_there_stays(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    (tmp_path / "Data.fs").write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists"):
        converted(home)
    assert (tmp_path / "Data.fs").read_bytes() == b"precious"
    assert converted(home, force=True).transactions == 51


@pytest.mark.parametrize(
    ("name", "error"),
    [
        ("chunky-corrupt", SourceDamaged),
        ("bushy-minimal", SourceUnusable),
        ("chunky-replica-pending", SourceUnusable),
    ],
)
def test_what_cannot_be_converted_leaves_nothing(
    tmp_path: Path, name: str, error: type[Exception]
) -> None:
    home = unpack(name, tmp_path)
    with pytest.raises(error):
        converted(home)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["home"]


@pytest.mark.slow
def test_the_old_zodb_opens_undoes_and_commits(tmp_path: Path, old_zope: OldZope) -> None:  # noqa: F811
    report = converted(unpack("chunky-clean", tmp_path))
    told = json.loads(old_zope.run(PROGRAMS / "open_filestorage.py", report.file))
    assert told["keys"] == ["count", "folder", "log", "tree"]
    assert told["undoable"] == 51
    assert [
        [each[0].upper(), bytes.fromhex(each[1]).decode("latin-1")] for each in told["records"]
    ] == [each[:2] for each in seen("chunky-clean")["ds2fs_records"]]


@pytest.mark.slow
def test_the_way_on_to_python_3(tmp_path: Path) -> None:
    """zodbupdate makes of it what ZODB on Python 3 opens: docs/directorystorage-conversion.md."""
    from ZODB import DB

    report = converted(unpack("chunky-clean", tmp_path))
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from zodbupdate.main import main; main()"),
            *("--file", str(report.file)),
            *("--convert-py3", "--encoding", "utf-8", "--encoding-fallback", "latin1"),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert report.file.read_bytes()[:4] == b"FS30"
    db = DB(FileStorage(str(report.file)))
    connection = db.open()
    assert connection.root()["folder"]["doc43"]["title"] == "document 43"
    assert connection.root()["log"][0] == ("event", 3, "café")
    db.close()

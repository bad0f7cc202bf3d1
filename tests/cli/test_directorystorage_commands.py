"""A DirectoryStorage on the command line: backup, restore, convert."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from blob_storage import BlobStorage
from command_line import Program, bare_environment, program, repository  # noqa: F401 - fixtures
from directorystorage_homes import unpack
from directorystorage_site import below, files_of

from perdure.model import SilentObserver
from perdure.sources.directorystorage.writer import Counters, new_home


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return unpack("chunky-clean", tmp_path)


@pytest.mark.usefixtures("repository")
def test_backup_and_restore(program: Program, home: Path, tmp_path: Path) -> None:  # noqa: F811
    made = program("backup", "--directorystorage", str(home), "--json").summary
    [source] = made["sources"]
    assert (source["kind"], source["path"]) == ("directorystorage", str(home))
    again = program("backup", "--directorystorage", str(home), "--skip-if-unchanged")
    assert "nothing" in again.out
    place = tmp_path / "again"
    planned = program(
        "restore", "--into-directorystorage", str(place), "--dry-run", "--json"
    ).summary
    assert planned["dry_run"]
    assert planned["format"] == "chunky"
    assert not place.exists()
    done = program("restore", "--into-directorystorage", str(place), "--json").summary
    assert (done["transactions"], done["revisions"]) == (51, 88)
    assert below(place / "A") == below(home / "A")
    program("restore", "--into-directorystorage", str(tmp_path / "b"), "--format", "bushy")
    assert files_of(tmp_path / "b") == files_of(home)
    refused = program("restore", "--into-directorystorage", str(place), code=2)
    assert "is there already" in refused.err
    early = tmp_path / "early"
    program(
        *("restore", "--into-directorystorage", str(early)),
        *("--at", source["cut"][:8] + "af240355"),
    )
    assert len([each for each in files_of(early) if each.startswith("t")]) == 3
    program("restore", "--to", str(tmp_path / "out"))
    assert (tmp_path / "out" / "Data.fs").read_bytes()[:4] == b"FS21"
    (tmp_path / "into.conf").write_text("<filestorage>\npath into.fs\n</filestorage>\n")
    refused = program("restore", "--into", "into.conf", code=2)
    assert "Python 2's pickles" in refused.err
    assert not (tmp_path / "into.fs").exists()
    refused = program("restore", "--in-place", "--yes", code=2)
    assert "--into-directorystorage" in refused.err
    assert "/ alice" in program("log").out
    program("check", "--read-data")


@pytest.mark.usefixtures("repository")
def test_options_that_do_not_go_together(program: Program, tmp_path: Path) -> None:  # noqa: F811
    program("restore", "--to", "x", "--format", "flat", code=2)
    program("restore", "--to", "x", "--into-directorystorage", "y", code=2)
    (tmp_path / "Data.fs").write_bytes(b"FS30")
    program("backup", "--filestorage", "Data.fs")
    refused = program("restore", "--into-directorystorage", "y", code=2)
    assert "no DirectoryStorage" in refused.err


@pytest.mark.usefixtures("repository")
def test_a_declared_source(program: Program, home: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "perdure.toml").write_text('[[source]]\nname = "old"\ndirectorystorage = "home"\n')
    made = program("backup", "--json").summary
    assert made["sources"][0]["name"] == "old"
    assert made["sources"][0]["path"] == str(home)
    (tmp_path / "perdure.toml").write_text('[[source]]\ndirectorystorage = "nowhere"\n')
    program("backup", code=14)


ZOPE_CONF = """
%import DirectoryStorage
<zodb_db main>
  mount-point /
  <blobstorage>
    blob-dir blobs
    <directorystorage>
      path wrapped
    </directorystorage>
  </blobstorage>
</zodb_db>
"""


@pytest.mark.usefixtures("repository")
def test_a_site_with_blobs(program: Program, home: Path, tmp_path: Path) -> None:  # noqa: F811
    """A zope.conf names a DirectoryStorage that is wrapped into a storage with blobs."""
    made = BlobStorage(tmp_path / "site")
    made.commit("one", "two")
    made.commit("two")
    made.close()
    wrapped = tmp_path / "wrapped"
    with new_home(wrapped, "chunky") as new:
        new.configure({"settings": (home / "config" / "settings").read_bytes()})
        new.fill(made.path, iter(()), Counters(99, 0), SilentObserver())
    shutil.move(made.blobs, tmp_path / "blobs")
    (tmp_path / "zope.conf").write_text(ZOPE_CONF)
    found = program("sources", "--zope-conf", "zope.conf").out
    assert "directorystorage" in found
    [source] = program("backup", "--zope-conf", "zope.conf", "--json").summary["sources"]
    assert (source["kind"], source["database"]) == ("directorystorage", "main")
    assert source["blobs"]["count"] == 3
    place = tmp_path / "again"
    done = program("restore", "--into-directorystorage", str(place), "--json").summary
    assert below(place / "A") == below(wrapped / "A")
    files = below(tmp_path / "blobs")
    assert {name for name in files if name.endswith(".blob")} <= below(Path(done["blobs"])).keys()
    refused = program("restore", "--into-directorystorage", str(tmp_path / "again"), code=2)
    assert "is there already" in refused.err
    program("check", "--read-data")


def test_convert(program: Program, home: Path, tmp_path: Path) -> None:  # noqa: F811
    done = program("directorystorage", "convert", str(home), "Data.fs")
    assert "51 transactions, 88 records" in done.out
    assert "zodbupdate --convert-py3" in done.out
    refused = program("directorystorage", "convert", str(home), "Data.fs", code=2)
    assert "exists" in refused.err
    lost = sorted((home / "A" / "t040").iterdir())[10]
    lost.unlink()
    done = program("directorystorage", "convert", str(home), "Data.fs", "--force", "--json")
    assert len(done.summary["without_file"]) == 1
    assert done.summary["python_2"]
    assert "only revisions are left" in done.out
    program("directorystorage", "convert", str(tmp_path), "other.fs", code=14)
    assert not (tmp_path / "other.fs").exists()

"""Destinations of the real btw-backup, brought into a repository."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from btw_fixtures import Fixtures
from btw_site import tree
from command_line import Program
from doubles import Restic

from perdure.dropin.btw.importing import differences
from perdure.formats import keyfile

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(program: Program, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    if shutil.which("rdiff-backup", path=f"{Path(sys.executable).parent}:/usr/bin") is None:
        pytest.skip("rdiff-backup is not installed (Debian: apt-get install rdiff-backup)")
    monkeypatch.setenv("PERDURE_REPOSITORY", str(tmp_path / "repository"))
    monkeypatch.setenv("PERDURE_PASSWORD", "secret")
    monkeypatch.setattr(keyfile, "FOR_PASSWORDS", keyfile.FOR_KEY_FILES)  # quick, for each command
    assert program("init").code == 0
    return tmp_path / "repository"


@pytest.mark.usefixtures("repository")
def test_all_destinations(
    fixtures: Fixtures, program: Program, tmp_path: Path, restic: Restic
) -> None:
    options = ["import-btw-backup", "--config-dir", str(fixtures / "config")]
    rehearsed = program(*options, "--dry-run")
    assert rehearsed.out == "12 snapshots would be made; 0 versions in the repository already\n"
    done = program(*options, "-v")
    assert (done.code, done.err) == (0, "")
    assert done.out.endswith(
        "12 snapshots made, each verified; 0 versions in the repository already\n"
    )
    assert done.out.count(", verified\n") == 12
    assert program(*options).out.startswith("0 snapshots made, each verified; 12 versions in")
    for number, version in enumerate(fixtures.versions()[::3]):
        target = tmp_path / f"back-{number}"
        arguments = ["--source", version["destination"], "--at", version["version"]]
        assert program("restore", *arguments, "--to", str(target)).code == 0
        (top,) = target.iterdir()
        if version["name"] == "backup.tar":
            assert tree(top) == unpacked(fixtures, version, tmp_path / f"tar-{number}")
        else:
            assert [entry.name for entry in top.iterdir()] == [version["name"]]
            data = (top / version["name"]).read_bytes()
            assert hashlib.sha256(data).hexdigest() == version["sha256"]
    assert program("check", "--read-data").code == 0
    restic(str(tmp_path / "repository"), "check", "--read-data")


def unpacked(fixtures: Fixtures, version: dict[str, str], folder: Path) -> dict[str, bytes | str]:
    """What rdiff-backup and tar make of a version, by themselves."""
    program = shutil.which("rdiff-backup", path=f"{Path(sys.executable).parent}:/usr/bin")
    assert program
    folder.mkdir()
    repository = fixtures / f"root/{version['destination']}/{version['full']}"
    tar = folder.with_suffix(".tar")
    at = f"{version['version']}Z"
    subprocess.run([program, "restore", "--at", at, repository / "backup.tar", tar], check=True)
    assert hashlib.sha256(tar.read_bytes()).hexdigest() == version["sha256"]
    subprocess.run(["tar", "-C", folder, "-xpf", tar], check=True)
    return tree(folder)


@pytest.mark.usefixtures("repository")
def test_a_source_goes_on_under_its_own_path(
    fixtures: Fixtures, program: Program, tmp_path: Path
) -> None:
    source = fixtures / "source/site"
    options = ["import-btw-backup", "--config-dir", str(fixtures / "config"), "--as", str(source)]
    program(*options, code=2)
    assert program(*options, "site-tar").code == 0
    assert program("backup", "--tree", str(source)).code == 0
    listed = program("snapshots", "--source", str(source), "--json")
    assert listed.out.count('"time"') == 3
    assert (
        program(
            "restore", "--at", "2026-11-21T04:06:08", "--source", str(source), "--to", "old"
        ).code
        == 0
    )
    assert (tmp_path / "old/site/index.txt").read_text() != (source / "index.txt").read_text()


@pytest.mark.usefixtures("repository")
def test_a_damaged_version_is_no_snapshot(fixtures: Fixtures, program: Program) -> None:
    mirror = fixtures / "root/files-rdiff/2026-11-21T04:06:18/backup.tar"
    mirror.write_bytes(mirror.read_bytes().replace(b"one", b"two") + b"x")
    options = ["import-btw-backup", "--config-dir", str(fixtures / "config"), "files-rdiff"]
    failed = program(*options, code=13)
    assert "is damaged" in failed.err
    assert program("snapshots").out.count("files-rdiff") == 4  # what leads back to it is whole


def test_differences_are_seen(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "same").write_text("x")
    one, other = tmp_path / "one", tmp_path / "other"
    shutil.copystat(one / "same", other / "same")
    shutil.copystat(one, other)
    assert [*differences(one, other, metadata=True)] == []
    (other / "same").chmod(0o600)
    assert [*differences(one, other, metadata=True)] == ["same"]
    assert [*differences(one, other, metadata=False)] == []
    (other / "same").write_text("y")
    (other / "more").touch()
    assert [*differences(one, other, metadata=False)] == ["more", "same"]

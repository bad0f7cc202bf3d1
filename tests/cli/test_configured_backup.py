"""A backup that the file or the environment says everything about, from end to end."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Program

from perdure.formats.prometheus import EXIT_CODE, INCOMPLETE, LAST_SUCCESS, SOURCE_CUT, decode

pytestmark = pytest.mark.usefixtures("bare_environment")
_NOTE = "[['sh', '-c', 'echo $PERDURE_EVENT $PERDURE_STATUS $PERDURE_SNAPSHOT >> notes']]"


@pytest.fixture
def file(program: Program, data_fs: Path, tmp_path: Path) -> Path:
    """A configuration in a folder of its own, for a repository that is made."""
    folder = tmp_path / "etc"
    folder.mkdir()
    path = folder / "perdure.toml"
    path.write_text(
        "[repository]\nlocation = '../repo'\npassword-file = 'key'\n"
        f"[[source]]\nfilestorage = '{data_fs}'\nname = 'main'\n"
        "[backup]\ntags = ['nightly']\nhost = 'www1'\n"
        f"[hooks]\nbefore = {_NOTE}\nafter = {_NOTE}\nfailed = {_NOTE}\nfinally = {_NOTE}\n"
        "[monitoring]\nprometheus-textfile = 'perdure.prom'\n"
    )
    program("init", "--config", str(path), "--new-password-file", str(folder / "key"))
    return path


def metrics(file: Path) -> dict[str, float]:
    text = file.with_name("perdure.prom").read_text()
    return {sample.name: sample.value for sample in decode(text)}


def test_all_from_the_file(program: Program, file: Path) -> None:
    summary = program("backup", "--config", str(file), "--json").summary
    (snapshot,) = json.loads(program("snapshots", "--config", str(file), "--json").out)
    assert snapshot["id"] == summary["snapshot_id"]
    assert (snapshot["hostname"], snapshot["tags"]) == ("www1", ["nightly"])
    assert [source["name"] for source in snapshot["sources"]] == ["main"]
    notes = file.with_name("notes").read_text().splitlines()
    made = summary["snapshot_id"]
    assert notes == ["before", f"after success {made}", f"finally success {made}"]
    found = metrics(file)
    assert (found[EXIT_CODE], found[INCOMPLETE]) == (0, 0)
    assert {LAST_SUCCESS, SOURCE_CUT} < set(found)


def test_all_from_the_environment(
    program: Program, file: Path, data_fs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "REPOSITORY": tmp_path / "repo",
        "PASSWORD_FILE": file.with_name("key"),
        "FILESTORAGE": data_fs,
        "SOURCE": "main",
        "TAGS": "nightly,container",
        "HOST": "www2",
        "SKIP_IF_UNCHANGED": "true",
        "PROMETHEUS_TEXTFILE": tmp_path / "perdure.prom",
    }.items():
        monkeypatch.setenv(f"PERDURE_{name}", str(value))
    program("backup")
    program("backup")
    (snapshot,) = json.loads(program("snapshots", "--json").out)
    assert (snapshot["hostname"], snapshot["tags"]) == ("www2", ["nightly", "container"])
    assert [source["name"] for source in snapshot["sources"]] == ["main"]
    assert metrics(tmp_path / "x")[EXIT_CODE] == 0


def test_a_backup_that_fails(program: Program, file: Path, data_fs: Path) -> None:
    program("backup", "--config", str(file))
    success = metrics(file)[LAST_SUCCESS]
    data_fs.unlink()
    program("backup", "--config", str(file), code=14)
    notes = file.with_name("notes").read_text().splitlines()
    assert notes[3:] == ["before", "failed failed", "finally failed"]
    assert (metrics(file)[EXIT_CODE], metrics(file)[LAST_SUCCESS]) == (14, success)


@pytest.mark.slow
def test_a_backup_that_is_interrupted(file: Path) -> None:
    text = file.read_text().replace(
        "before = [[", "before = [['sh', '-c', 'kill -TERM $PPID; sleep 3'], ["
    )
    file.write_text(text)
    command = [sys.executable, "-m", "perdure", "backup", "--config", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    notes = file.with_name("notes").read_text().splitlines()
    assert notes == ["failed interrupted", "finally interrupted"]
    assert metrics(file)[EXIT_CODE] == 130

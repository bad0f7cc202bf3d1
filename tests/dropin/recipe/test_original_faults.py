"""Where the real collective.recipe.backup is wrong, and ours is right: each fault is shown on both."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from blob_site import BlobSite
from buildout_site import SiteTools
from command_line import Program
from recipe_pair import (
    Gate,
    call,
    changed,
    ended,
    next_second,
    ours,
    program_that,
    run,
    start,
    wait_for,
)

pytestmark = pytest.mark.slow

THEIRS = ("bin/theirdirs", "bin/theirdirs-restore")
OURS = ("parts/dirs/part.json",)
RSYNC = ('"rsync": []', '"rsync": ["--no-owner"]')
"""Ours needs no rsync, unless it has options for one."""


def newest(folder: Path) -> str:
    """Give the stamp of the newest backup of the database."""
    return max(path.name[:19] for path in (folder / "var/dirs/backups").glob("*fsz"))


@pytest.mark.parametrize(("tool", "manner"), [("rsync", "dirs"), ("tar", "increments")])
def test_a_program_that_fails(
    pair_site: BlobSite, program: Program, tmp_path: Path, tool: str, manner: str
) -> None:
    """Theirs says that all went well; ours fails, and nothing looks like a backup."""
    folder = pair_site.folder
    made = folder / "var" / manner
    bad = program_that(tmp_path / "bad", tool, "exit 23")
    pair_site.add()
    code, _ = call(folder, f"their{manner}", path=bad)
    assert code == 0
    assert list((made / "backups").glob("*.fsz"))
    assert not list((made / "blobs").glob("*/**/*.blob")) + list((made / "blobs").glob("*.tar"))
    shutil.rmtree(made)

    with changed(folder, (f"parts/{manner}/part.json",), *RSYNC):
        code, said = call(folder, manner, path=bad)
        assert code == 1
        assert f"{tool} ended with 23" in said
        assert not [path.name for path in (made / "blobs").iterdir()]
        assert not list((made / "backups").glob("*.fsz"))
        run(folder, manner)
    state = pair_site.state()
    pair_site.add()
    ours(program, folder, manner, "restore", "-n")
    assert pair_site.state() == state


def test_what_is_kept(pair_site: BlobSite, program: Program) -> None:
    """Theirs goes by times: it deletes the index of a full that it keeps, and files that are not its own."""
    folder = pair_site.folder
    backups = folder / "var" / "dirs" / "backups"
    notes = backups / "notes"
    with (
        changed(folder, OURS, '"fulls": 9', '"fulls": 2'),
        changed(folder, THEIRS[:1], "keep=9", "keep=2"),
    ):
        for who in ("ours", "theirs"):
            shutil.rmtree(backups.parent, ignore_errors=True)
            backups.mkdir(parents=True)
            notes.touch()
            os.utime(notes, (1, 1))
            for _ in range(3):
                next_second()
                pair_site.add()
                pair_site.pack()
                if who == "ours":
                    ours(program, folder, "dirs", "backup")
                else:
                    run(folder, "theirdirs")
                made = (backups / newest(folder)).with_suffix(".fsz").stat().st_mtime
                index = (backups / newest(folder)).with_suffix(".index")
                if index.exists():  # repozo writes it first; not every clock shows that
                    os.utime(index, (made - 0.1, made - 0.1))
            suffixes = sorted(path.suffix for path in backups.glob("2*"))
            every = [".dat", ".dat", ".fsz", ".fsz", ".index", ".index"]
            assert suffixes == (every if who == "ours" else every[:-1])
            assert notes.exists() == (who == "ours")
            assert len(list((backups.parent / "blobs").glob("blobs2.*"))) == 2


def test_options_of_this_and_of_other_parts(pairs: Path) -> None:
    """Theirs looks beside the data, and takes typing errors for false and for nothing at all."""
    script = (pairs / "bin" / "theirplain").read_text()
    assert f"'datafs': '{pairs}/fs2/Data.fs'" in script
    assert "'blobdir': 'blobs2'" in script  # wherever cron may run it
    assert "archive_blob=False" in script

    server = (pairs / "parts" / "zeoserver" / "etc" / "zeo.conf").read_text()
    part = json.loads((pairs / "parts" / "backup" / "part.json").read_text())
    (storage,) = part["storages"]
    assert storage["datafs"] == f"{pairs}/var/fs2/Data.fs"
    assert storage["blobs"] == f"{pairs}/var/blobs2"
    assert storage["datafs"] in server
    assert storage["blobs"] in server


def test_options_that_are_none(site_tools: SiteTools, tmp_path: Path) -> None:
    (tmp_path / "buildout.cfg").write_text(
        "[buildout]\nparts = backup\n[backup]\nrecipe = perdure\nblob_storage = var/b\n"
        "archive_blob = ture\n"
    )
    done = subprocess.run(
        [str(site_tools.folder / "bin" / "buildout"), "-N", "-o"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 1
    assert "archive_blob = ture is neither yes nor no" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_folder_with_a_space(pair_site: BlobSite, program: Program) -> None:
    """Theirs loses the blobs, and says that all went well."""
    folder = pair_site.folder
    spaced = folder / "var" / "di rs" / "blobs"
    pair_site.add()
    with (
        changed(folder, THEIRS, "/var/dirs/", "/var/di rs/"),
        changed(folder, OURS, "/var/dirs/", "/var/di rs/"),
    ):
        run(folder, "theirdirs")
        assert not list(spaced.rglob("*.blob"))
        shutil.rmtree(spaced.parent)
        run(folder, "dirs")
        state = pair_site.state()
        assert len(list(spaced.rglob("*.blob"))) == len(state) - 1
        pair_site.add()
        ours(program, folder, "dirs", "restore", "-n")
    assert pair_site.state() == state


def test_a_hook_that_fails(pair_site: BlobSite) -> None:
    """Theirs goes by the last line of it alone."""
    folder = pair_site.folder
    pair_site.add()
    with changed(folder, THEIRS[:1], "pre_command=''", r"pre_command='false\ntrue'"):
        run(folder, "theirdirs")
    shutil.rmtree(folder / "var" / "dirs")
    with changed(folder, OURS, '"pre": ""', r'"pre": "false\ntrue"'):
        code, said = call(folder, "dirs")
    assert (code, "pre_command" in said) == (1, True)
    assert not (folder / "var" / "dirs").exists()


def test_a_hook_that_says_a_lot(pair_site: BlobSite, tmp_path: Path) -> None:
    """Theirs waits for ever for what it does not read."""
    folder = pair_site.folder
    pair_site.add()
    begun, done = tmp_path / "begun", tmp_path / "done"
    hook = f"touch {begun}; head -c 300000 /dev/zero >&2; touch {done}"
    with changed(folder, OURS, '"pre": ""', f'"pre": "{hook}"'):
        run(folder, "dirs")
    assert done.exists()
    begun.unlink()
    done.unlink()
    with changed(folder, THEIRS[:1], "pre_command=''", f"pre_command='{hook}'"):
        process = start(folder, "theirdirs")
        try:
            wait_for(begun, process)
            time.sleep(1)
            assert process.poll() is None
            assert not done.exists()
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def test_blobs_of_another_time(pair_site: BlobSite, program: Program) -> None:
    """With rotating names theirs takes the blobs of the run before, and where some are gone, any."""
    folder = pair_site.folder
    with (
        changed(folder, THEIRS, "blob_timestamps=True", "blob_timestamps=False"),
        changed(folder, OURS, '"stamps": true', '"stamps": false'),
    ):
        pair_site.add()
        run(folder, "theirdirs")
        next_second()
        pair_site.add()
        run(folder, "theirdirs")
        state, stamp = pair_site.state(), newest(folder)

        run(folder, "theirdirs-restore", "-n", stamp)
        assert not pair_site.is_consistent()
        ours(program, folder, "dirs", "restore", "-n", stamp)
        assert pair_site.state() == state

        code, said = call(folder, "theirdirs-restore", "-n", stamp[:4])
        assert (code, "TypeError" in said) == (1, True)
        ours(program, folder, "dirs", "restore", "-n", "--through", stamp[:4])
        assert pair_site.state() == state

        shutil.rmtree(folder / "var" / "dirs" / "blobs" / "blobs2.0")
        refused = ours(program, folder, "dirs", "restore", "-n", code=13)
        assert "are in no backup; nothing was touched" in refused.err
        assert pair_site.state() == state
        run(folder, "theirdirs-restore", "-n")
        assert not pair_site.is_consistent()


def test_two_runs_at_once(pair_site: BlobSite, tmp_path: Path) -> None:
    """Theirs write into the same folder; ours refuses, when it has waited long enough."""
    folder = pair_site.folder
    pair_site.add()
    gate = Gate(tmp_path / "theirs")
    with gate.before_rsync(folder, "theirdirs") as first:
        run(folder, "theirdirs")
    assert ended(first)[0] == 0

    pair_site.add()
    gate = Gate(tmp_path / "ours")
    with (
        changed(folder, OURS, *RSYNC),
        changed(folder, OURS, '"lock_timeout": 600.0', '"lock_timeout": 0.0'),
    ):
        with gate.before_rsync(folder, "dirs") as first:
            code, said = call(folder, "dirs")
            assert (code, "another run works in" in said) == (11, True)
        code, said = ended(first)
        assert code == 0, said


def test_a_pack_during_the_run(pair_site: BlobSite, program: Program, tmp_path: Path) -> None:
    """Theirs has a Data.fs from before it, and the blobs from after it."""
    folder = pair_site.folder
    pair_site.add()
    with Gate(tmp_path / "theirs").before_rsync(folder, "theirdirs") as process:
        pair_site.pack()
    assert ended(process)[0] == 0
    run(folder, "theirdirs-restore", "-n")
    assert not pair_site.is_consistent()

    shutil.rmtree(folder / "var")
    pair_site = BlobSite(folder, "var/fs2/Data.fs", "var/blobs2")
    pair_site.add()
    with changed(folder, OURS, *RSYNC):
        with Gate(tmp_path / "ours").before_rsync(folder, "dirs") as process:
            pair_site.pack()
        code, said = ended(process)
        assert code == 0, said
    ours(program, folder, "dirs", "restore", "-n")
    assert pair_site.is_consistent()

"""The real collective.recipe.backup and ours, made by the real zc.buildout, on the same site and files."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from blob_site import BlobSite, State
from buildout_site import SiteTools
from command_line import Program

pytestmark = pytest.mark.slow

MANNERS = {
    "dirs": "",
    "tars": "archive_blob = true",
    "increments": "archive_blob = true\nincremental_blobs = true",
}
BUILDOUT = """\
[buildout]
parts = repozo {parts} zeoserver backup

[repozo]
recipe = zc.recipe.egg
eggs = ZODB
scripts = repozo

[zeoserver]
recipe = plone.recipe.zeoserver
eggs = ZEO
zeo-address = ${{buildout:directory}}/var/zeo.sock
file-storage = fs2/Data.fs
blob-storage = blobs2

[backup]
recipe = perdure
enable_fullbackup = true
enable_zipbackup = true
alternative_restore_source =
    Data var/dirs/backups var/dirs/blobs
additional_filestorages =
"""
PAIR = """
[{manner}]
recipe = perdure
keep = 9
locationprefix = var/{manner}
location = backups
blobbackuplocation = blobs
{options}

[their{manner}]
recipe = collective.recipe.backup
datafs = ${{buildout:directory}}/var/fs2/Data.fs
blob_storage = ${{buildout:directory}}/var/blobs2
locationprefix = ${{buildout:directory}}/var/{manner}
location = backups
blobbackuplocation = blobs
keep = 9
{options}
"""


def call(folder: Path, script: str, *arguments: str, path: str = "") -> tuple[int, str]:
    command = [str(folder / "bin" / script), *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    environment["PATH"] = f"{path}{os.pathsep if path else ''}{environment['PATH']}"
    done = subprocess.run(
        command,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    return done.returncode, done.stdout + done.stderr


def run(folder: Path, script: str, *arguments: str) -> str:
    code, text = call(folder, script, *arguments)
    assert code == 0, f"{script} gave {code}:\n{text}"
    return text


def next_second() -> None:
    """Wait until the clock shows another second: theirs takes the time as it is."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.02)


@pytest.fixture(scope="module")
def made(site_tools: SiteTools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A buildout with ours and theirs in pairs, for each manner one."""
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed (Debian: apt-get install rsync)")
    folder = tmp_path_factory.mktemp("buildout")
    parts = " ".join(f"{manner} their{manner}" for manner in MANNERS)
    pairs = [PAIR.format(manner=each, options=options) for each, options in MANNERS.items()]
    site_tools.build(folder, BUILDOUT.format(parts=parts) + "".join(pairs))
    return folder


@pytest.fixture
def site(made: Path) -> Iterator[BlobSite]:
    yield BlobSite(made, "var/fs2/Data.fs", "var/blobs2")
    shutil.rmtree(made / "var")
    (made / "var").mkdir()


def ours(program: Program, folder: Path, part: str, command: str, *arguments: str) -> None:
    program("site", "--part", str(folder / "parts" / part / "part.json"), command, *arguments)


def test_each_restores_what_either_made(site: BlobSite, program: Program) -> None:
    folder = site.folder
    states: dict[str, dict[str, State]] = {manner: {} for manner in MANNERS}
    for who, step in (
        ("ours", site.add),
        ("theirs", site.add),
        ("ours", site.pack),
        ("theirs", site.pack),
        ("ours", site.add),
    ):
        next_second()
        step()
        for manner, known in states.items():
            if who == "ours":
                ours(program, folder, manner, "backup")
            else:
                run(folder, f"their{manner}")
            newest = max(p.name[:19] for p in (folder / "var" / manner / "backups").glob("*.*fsz"))
            assert newest not in known
            known[newest] = site.state()

    for manner, known in states.items():
        for stamp, state in known.items():
            run(folder, f"their{manner}-restore", "-n", stamp)
            assert site.state() == state, (manner, stamp)
            shutil.rmtree(site.blobs)
            ours(program, folder, manner, "restore", "-n", stamp)
            assert site.state() == state, (manner, stamp)
            assert site.is_consistent()


def test_the_scripts_of_a_part_called_backup(site: BlobSite, program: Program) -> None:
    folder = site.folder
    scripts = {path.name for path in (folder / "bin").iterdir()}
    named = {"backup", "fullbackup", "snapshotbackup", "zipbackup", "altrestore"}
    restores = {"restore", "snapshotrestore", "ziprestore"}
    assert named | restores <= scripts
    assert {"dirs", "dirs-snapshot", "dirs-restore", "dirs-snapshotrestore"} <= scripts
    site.add()
    states = {}
    for script in ("backup", "snapshotbackup", "zipbackup"):
        site.add()
        run(folder, script, "-q")
        states[script] = site.state()
    for script, restore in zip(states, sorted(restores), strict=True):
        run(folder, restore, "--no-prompt")
        assert site.state() == states[script]
    ours(program, folder, "dirs", "backup")
    production = site.state()
    site.add()
    run(folder, "altrestore", "-n")
    assert site.state() == production
    assert (folder / "var" / "blobstoragezips" / "blobs2.0.tar").is_file()
    assert (folder / "var" / "backups").is_dir()  # in var, as the server has it
    code, text = call(folder, "restore")
    assert (code, site.state()) == (2, production)
    assert "nobody to ask" in text


def test_an_rsync_that_fails(site: BlobSite, tmp_path: Path) -> None:
    """Theirs says that all went well; ours fails, and nothing looks like a backup."""
    rsync = tmp_path / "rsync"
    rsync.write_text("#!/bin/sh\nexit 23\n")
    rsync.chmod(0o755)
    site.add()
    blobs = site.folder / "var" / "dirs" / "blobs"
    code, _ = call(site.folder, "theirdirs", path=str(tmp_path))
    assert code == 0
    assert not list(blobs.glob("*/**/*.blob"))
    shutil.rmtree(site.folder / "var" / "dirs")

    part = site.folder / "parts" / "dirs" / "part.json"
    text = part.read_text()
    part.write_text(text.replace('"rsync": []', '"rsync": ["--no-owner"]'))
    try:
        code, said = call(site.folder, "dirs", path=str(tmp_path))
        assert code == 1
        assert "rsync ended with 23" in said
        assert [path.name for path in blobs.iterdir()] == []
        assert not list((blobs.parent / "backups").glob("*.fsz"))
        run(site.folder, "dirs")
    finally:
        part.write_text(text)
    state = site.state()
    site.add()
    run(site.folder, "dirs-restore", "-n")
    assert site.state() == state


def test_what_is_kept(site: BlobSite, program: Program) -> None:
    """Theirs deletes the index of a full that it keeps, and stumbles over folders that are not its own."""
    folder = site.folder
    backups = folder / "var" / "dirs" / "backups"
    part = folder / "parts" / "dirs" / "part.json"
    text = part.read_text()
    script = folder / "bin" / "theirdirs"
    their_text = script.read_text()
    part.write_text(text.replace('"fulls": 9', '"fulls": 1'))
    assert "keep=9" in their_text
    script.write_text(their_text.replace("keep=9", "keep=1"))
    try:
        for who in ("ours", "theirs"):
            shutil.rmtree(backups.parent, ignore_errors=True)
            backups.mkdir(parents=True)
            for _ in range(2):
                next_second()
                site.add()
                site.pack()
                if who == "ours":
                    (backups / "notes").mkdir(exist_ok=True)
                    ours(program, folder, "dirs", "backup")
                else:
                    run(folder, "theirdirs")
            suffixes = sorted(path.suffix for path in backups.glob("2*"))
            assert suffixes == ([".dat", ".fsz", ".index"] if who == "ours" else [".dat", ".fsz"])
            assert (backups / "notes").is_dir() == (who == "ours")
            assert len(list((backups.parent / "blobs").glob("blobs2.*"))) == 1
    finally:
        part.write_text(text)
        script.write_text(their_text)


def test_a_word_that_is_no_boolean(site_tools: SiteTools, tmp_path: Path) -> None:
    """Theirs takes a typing error for false, without a word; ours says what is wrong."""
    for recipe, fails in (("collective.recipe.backup", False), ("perdure", True)):
        folder = tmp_path / recipe
        folder.mkdir()
        (folder / "buildout.cfg").write_text(
            f"[buildout]\nparts = backup\n[backup]\nrecipe = {recipe}\nblob_storage = var/b\n"
            "archive_blob = ture\nkeeep = 5\n"
        )
        done = subprocess.run(
            [str(site_tools.folder / "bin" / "buildout"), "-N", "-o"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert bool(done.returncode) == fails, done.stdout + done.stderr
        if fails:
            assert "archive_blob = ture is neither yes nor no" in done.stdout + done.stderr or (
                "there is no option keeep (did you mean keep?)" in done.stdout + done.stderr
            )

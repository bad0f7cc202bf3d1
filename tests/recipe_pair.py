"""A buildout with collective.recipe.backup and ours in pairs, on the same site and the same files.

Each pair makes its backups in another manner; what the one made the other restores.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import DEVNULL, PIPE, STDOUT, Popen

import pytest
from blob_site import BlobSite
from buildout_site import SiteTools
from command_line import Program, Result

LONGEST = 240
"""Seconds that a script may take on a loaded machine."""

MANNERS = {
    "dirs": "",
    "tars": "archive_blob = true",
    "increments": "archive_blob = true\nincremental_blobs = true",
}
BUILDOUT = """\
[buildout]
parts = repozo {parts} zeoserver backup theirplain

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

[theirplain]
recipe = collective.recipe.backup
locationprefix = var/theirplain
archive_blob = ture
keeep = 5
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


def start(folder: Path, script: str, *arguments: str, path: Path | None = None) -> Popen[str]:
    """Start a script; ``path``: a folder with programs that count before those of the system."""
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    if path is not None:
        environment["PATH"] = f"{path}{os.pathsep}{environment['PATH']}"
    return Popen(
        [str(folder / "bin" / script), *arguments],
        cwd=folder,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        text=True,
        env=environment,
        start_new_session=True,
    )


def call(folder: Path, script: str, *arguments: str, path: Path | None = None) -> tuple[int, str]:
    """Run a script; gives its exit code, and what it said."""
    return ended(start(folder, script, *arguments, path=path))


def run(folder: Path, script: str, *arguments: str) -> str:
    """Run a script, which has to succeed."""
    code, text = call(folder, script, *arguments)
    assert code == 0, f"{script} gave {code}:\n{text}"
    return text


def ended(process: Popen[str]) -> tuple[int, str]:
    """Wait until a script ends; gives its exit code, and what it said."""
    try:
        said, _ = process.communicate(timeout=LONGEST)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def wait_for(path: Path, process: Popen[str]) -> None:
    """Wait until a script that runs has made a file."""
    for _ in range(LONGEST * 20):
        if path.exists():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    raise AssertionError(f"{path} was not made in {LONGEST} s")


def program_that(folder: Path, name: str, does: str) -> Path:
    """Make a program, a shell script, in a folder of its own; gives the folder."""
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{does}\n")
    (folder / name).chmod(0o755)
    return folder


class Gate:
    """An rsync that waits, once it is called, until it is let go on."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self._reached, self._open = folder / "reached", folder / "open"
        wait = f"while [ ! -e '{self._open}' ]; do sleep 0.05; done"
        does = f"touch '{self._reached}'\n{wait}\nexec {shutil.which('rsync')} \"$@\""
        self.path = program_that(folder / "bin", "rsync", does)

    @contextmanager
    def before_rsync(self, folder: Path, script: str) -> Iterator[Popen[str]]:
        """Run a script; what is in the block is done when it has come to its rsync."""
        process = start(folder, script, path=self.path)
        try:
            wait_for(self._reached, process)
            yield process
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            self._open.touch()


@contextmanager
def changed(folder: Path, names: tuple[str, ...], old: str, new: str) -> Iterator[None]:
    """Replace a text in generated files, as other options would have it; in the end it is as before."""
    texts = {folder / name: (folder / name).read_text() for name in names}
    try:
        for path, text in texts.items():
            assert old in text, f"{old} is not in {path}"
            path.write_text(text.replace(old, new))
        yield
    finally:
        for path, text in texts.items():
            path.write_text(text)


def next_second() -> None:
    """Wait until the clock shows another second: theirs takes the time as it is."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.02)


@pytest.fixture(scope="session")
def pairs(site_tools: SiteTools, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A buildout with ours and theirs in pairs, for each manner one."""
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed (Debian: apt-get install rsync)")
    folder = tmp_path_factory.mktemp("buildout")
    parts = " ".join(f"{manner} their{manner}" for manner in MANNERS)
    written = [PAIR.format(manner=each, options=options) for each, options in MANNERS.items()]
    site_tools.build(folder, BUILDOUT.format(parts=parts) + "".join(written))
    return folder


@pytest.fixture
def pair_site(pairs: Path) -> Iterator[BlobSite]:
    """The site of that buildout, as yet empty."""
    yield BlobSite(pairs, "var/fs2/Data.fs", "var/blobs2")
    shutil.rmtree(pairs / "var")
    (pairs / "var").mkdir()


def ours(
    program: Program, folder: Path, part: str, command: str, *arguments: str, code: int = 0
) -> Result:
    """Run our program in this process, with the settings that buildout wrote."""
    settings = str(folder / "parts" / part / "part.json")
    return program("site", "--part", settings, command, *arguments, code=code)

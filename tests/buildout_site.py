"""Real zc.buildout sites: a ZEO server and an instance of Zope, made by the recipes that Plone uses.

Our recipe is there, and the one that it stands in for.

The tools are installed once, into a folder of the repository that git ignores.
"""

from __future__ import annotations

import fcntl
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

PACKAGES = (
    "zc.buildout==6.0.1",
    "plone.recipe.zope2instance==9.1.0",
    "plone.recipe.zeoserver==4.0.1",
    "Zope==6.3",
    "ZEO==6.2",
    "collective.recipe.backup==6.0.0",
    "zc.recipe.egg==6.0.0",
)
ROOT = Path(__file__).parent.parent
TOOLS = ROOT / ".venv" / "site-tools"
_INSTALL_SECONDS = 900
_RUN_SECONDS = 300

TWO_STORAGES = """\
[buildout]
parts = zeoserver instance

[zeoserver]
recipe = plone.recipe.zeoserver
eggs = ZEO
zeo-address = ${buildout:directory}/var/zeo.sock
zeo-conf-additional =
    <filestorage catalog>
      path ${buildout:directory}/var/filestorage/Catalog.fs
    </filestorage>

[instance]
recipe = plone.recipe.zope2instance
eggs = Zope
user = admin:admin
zeo-client = on
zeo-address = ${zeoserver:zeo-address}
shared-blob = on
blob-storage = ${buildout:directory}/var/blobstorage
zodb-temporary-storage = on
zope-conf-additional =
    <zodb_db catalog>
      mount-point /plone/portal_catalog
      <zeoclient>
        server ${zeoserver:zeo-address}
        storage catalog
        name catalogstorage
      </zeoclient>
    </zodb_db>
"""
"""A main database with blobs, and a catalog that is mounted; one ZEO server has both."""


@dataclass(frozen=True)
class SiteTools:
    """An environment with buildout, its recipes for Zope and ZEO, and Zope itself."""

    folder: Path

    def run(self, name: str, *arguments: str, cwd: Path) -> None:
        """Run one of its programs."""
        command = [str(self.folder / "bin" / name), *arguments]
        done = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, timeout=_RUN_SECONDS, check=False
        )
        assert done.returncode == 0, (
            f"{command} gave {done.returncode}:\n{done.stdout}{done.stderr}"
        )

    def build(self, folder: Path, buildout: str) -> None:
        """Write a buildout.cfg and run buildout, without the network."""
        (folder / "buildout.cfg").write_text(buildout)
        self.run("buildout", "-N", "-o", cwd=folder)


@dataclass(frozen=True)
class BuildoutSite:
    """A site with the two storages of TWO_STORAGES."""

    folder: Path

    @property
    def address(self) -> str:
        """Where its ZEO server listens."""
        return str(self.folder / "var" / "zeo.sock")

    @property
    def blobs(self) -> Path:
        """The blob directory of its main storage."""
        return self.folder / "var" / "blobstorage"

    @contextmanager
    def running(self) -> Iterator[None]:
        """Run its ZEO server."""
        log = self.folder / "var" / "log" / "server"
        with log.open("ab") as output:
            server = subprocess.Popen(
                [str(self.folder / "parts" / "zeoserver" / "bin" / "runzeo")],
                stdout=output,
                stderr=output,
                cwd=self.folder,
            )
            try:
                yield
                assert server.poll() is None, log.read_text()
            finally:
                server.terminate()
                server.wait(60)

    def open(self, storage: str) -> Any:
        """Open a database as the instance does, through the running server."""
        import ZEO

        blobs = {"blob_dir": str(self.blobs), "shared_blob_dir": True} if storage == "1" else {}
        return ZEO.DB(self.address, storage=storage, wait_timeout=60, **blobs)


@pytest.fixture(scope="session")
def site_tools() -> SiteTools:
    """Buildout with the recipes and Zope; installed by the first test that needs it."""
    TOOLS.parent.mkdir(exist_ok=True)
    with TOOLS.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = "\n".join((sys.version, *PACKAGES, (ROOT / "pyproject.toml").read_text()))
        marker = TOOLS / ".ready"
        if not (marker.is_file() and marker.read_text() == wanted):
            shutil.rmtree(TOOLS, ignore_errors=True)
            _install()
            marker.write_text(wanted)
    return SiteTools(TOOLS)


@pytest.fixture
def buildout_site(site_tools: SiteTools) -> Iterator[BuildoutSite]:
    """A new site with two storages, in a folder with a short name: a socket's path may not be long."""
    folder = Path(tempfile.mkdtemp(prefix="site-")).resolve()
    try:
        site_tools.build(folder, TWO_STORAGES)
        yield BuildoutSite(folder)
    finally:
        with suppress(OSError):
            shutil.rmtree(folder)


def _install() -> None:
    commands = (
        [sys.executable, "-m", "venv", str(TOOLS)],
        [
            *(str(TOOLS / "bin" / "python"), "-m", "pip", "install", "-q", "--retries=2"),
            *PACKAGES,
            *("-e", str(ROOT)),  # our own recipe, as it stands
        ],
    )
    for command in commands:
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False
            )
        except subprocess.TimeoutExpired:
            pytest.skip(f"zc.buildout and Zope could not be installed in {_INSTALL_SECONDS} s")
        if done.returncode:
            why = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
            pytest.skip(f"zc.buildout and Zope could not be installed from PyPI: {''.join(why)}")

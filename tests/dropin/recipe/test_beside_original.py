"""The real collective.recipe.backup and ours, made by the real zc.buildout, on the same site and files."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from blob_site import BlobSite, State
from buildout_site import SiteTools

pytestmark = pytest.mark.slow

BUILDOUT = """\
[buildout]
parts = repozo theirs zeoserver backup

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
keep = 9
{options}

[theirs]
recipe = collective.recipe.backup
datafs = ${{buildout:directory}}/var/fs2/Data.fs
blob_storage = ${{buildout:directory}}/var/blobs2
location = ${{buildout:directory}}/var/backups
snapshotlocation = ${{buildout:directory}}/var/snapshotbackups
blobbackuplocation = ${{buildout:directory}}/var/blobstoragebackups
blobsnapshotlocation = ${{buildout:directory}}/var/blobstoragesnapshots
keep = 9
{options}
"""


def run(folder: Path, script: str, *arguments: str, status: int = 0) -> str:
    command = [str(folder / "bin" / script), *arguments]
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command,
        cwd="/",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    assert done.returncode == status, (
        f"{command} gave {done.returncode}:\n{done.stdout}{done.stderr}"
    )
    return done.stdout + done.stderr


def next_second() -> None:
    """Wait until the clock shows another second: theirs takes the time as it is."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.02)


@pytest.fixture(params=["", "archive_blob = true", "archive_blob = true\nincremental_blobs = true"])
def site(request: pytest.FixtureRequest, site_tools: SiteTools, tmp_path: Path) -> BlobSite:
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed (Debian: apt-get install rsync)")
    site_tools.build(tmp_path, BUILDOUT.format(options=request.param))
    return BlobSite(tmp_path, "var/fs2/Data.fs", "var/blobs2")


def test_each_restores_what_either_made(site: BlobSite) -> None:
    folder = site.folder
    states: dict[str, State] = {}
    for script, step in (
        ("backup", site.add),
        ("theirs", site.add),
        ("backup", site.add),
        ("backup", site.pack),
        ("theirs", site.add),
        ("theirs", site.pack),
        ("backup", site.add),
    ):
        next_second()
        step()
        run(folder, script)
        newest = max(p.name[:19] for p in (folder / "var" / "backups").glob("*.*fsz"))
        assert newest not in states
        states[newest] = site.state()

    for restore in ("restore", "theirs-restore"):
        for stamp, state in states.items():
            run(folder, restore, "-n", stamp)
            assert site.state() == state, (restore, stamp)
            assert site.is_consistent()
        shutil.rmtree(site.blobs)
        shutil.rmtree(site.database.parent)
        run(folder, restore, "-n")
        assert site.state() == state


def test_snapshots_and_zips_go_both_ways(site: BlobSite) -> None:
    folder = site.folder
    site.add()
    run(folder, "snapshotbackup")
    first = site.state()
    next_second()
    site.add()
    run(folder, "theirs-snapshot")
    second = site.state()
    site.add()
    stamps = sorted(p.name[:19] for p in (folder / "var" / "snapshotbackups").glob("*.fsz"))
    for restore in ("snapshotrestore", "theirs-snapshotrestore"):
        for stamp, state in zip(stamps, (first, second), strict=True):
            run(folder, restore, "-n", stamp)
            assert site.state() == state, (restore, stamp)

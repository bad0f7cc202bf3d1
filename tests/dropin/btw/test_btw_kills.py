"""Jobs killed at random moments: what is here and there can be restored, and the next run completes it.

``PERDURE_TEST_KILLS`` says how often (twice unless told), for each kind of job.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from btw_site import BtwSite, tree
from postgresql import PostgreSQL

from perdure.dropin.btw import dumps, offsite
from perdure.dropin.btw.children import Children
from perdure.dropin.btw.command import main
from perdure.dropin.btw.destination import Destination
from perdure.dropin.btw.rdiff import restore_file
from perdure.dropin.btw.repository import DATA, Condition, sessions_in
from perdure.dropin.btw.restoring import versions_of

KILLS = int(os.environ.get("PERDURE_TEST_KILLS", "2"))
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"
CHILDREN = Children({"PATH": PATH, "TZ": "UTC"})

pytestmark = pytest.mark.slow


def run(site: BtwSite, *arguments: str | Path, code: int = 0) -> None:
    assert main(["--config-dir", str(site.config), *map(str, arguments)]) == code


def kill_somewhere(site: BtwSite, command: list[str | Path], at: float, everything: bool) -> None:
    """Start a job and kill it: alone, so that its children go on, or with them."""
    child = subprocess.Popen(
        site.command(*command),
        env=site.environ(),
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    time.sleep(at)
    if child.poll() is None:
        (os.killpg if everything else os.kill)(child.pid, signal.SIGKILL)
    child.wait()


def timed(site: BtwSite, command: list[str | Path]) -> float:
    started = time.monotonic()
    site.run(*command)
    return time.monotonic() - started


@pytest.mark.parametrize("kind", ["tar", "rdiff"])
def test_file_jobs(copied_site: BtwSite, kind: str) -> None:
    if shutil.which("rdiff-backup", path=PATH) is None:
        pytest.skip("rdiff-backup is not installed (Debian: apt-get install rdiff-backup)")
    site = copied_site
    chance = random.Random(kind)
    site.init(kind, MAX_INCREMENTAL_COUNT=2)
    site.destination("dst")
    data = site.source / "data"
    data.write_bytes(chance.randbytes(1_000_000))
    states = [tree(site.source)]
    command: list[str | Path] = ["fs", site.source, "dst"]
    duration = timed(site, command)
    for number in range(KILLS):
        data.write_bytes(chance.randbytes(1_000_000))
        states.append(tree(site.source))
        kill_somewhere(site, command, chance.uniform(0.3, 1.1) * duration, bool(number % 2))
        if kind == "rdiff":
            copies_are_whole(site, number)
        target = site.folder / f"back-{number}"
        run(site, "restore", "dst", target)
        assert tree(target) in states[-2:]
        run(site, *command)
        shutil.rmtree(target)
        run(site, "restore", "--offsite", "dst", target)
        assert tree(target) == states[-1]
        remote = {found.name: found.size for found in site.remote().objects("")}
        here = {
            name: len(held) for name, held in tree(site.root).items() if "restore.log" not in name
        }
        assert remote == here
    run(site, "verify", "--offsite")
    versions = list(versions_of(Destination(site.root, "dst").contents()))
    assert len(versions) == KILLS + 1


def copies_are_whole(site: BtwSite, number: int) -> None:
    """Have rdiff-backup restore all versions of all copies, as they are now."""
    remote = site.remote()
    names = {found.name.split("/")[1] for found in remote.objects("dst")} - {
        offsite.STAGED,
        "log.txt",
    }
    for name in names:
        target = site.folder / f"copy-{number}-{name}"
        offsite.fetch_repository(remote, f"dst/{name}", target)
        sessions = sessions_in(entry.name for entry in (target / DATA).iterdir())
        assert sessions.condition is not Condition.INTERRUPTED
        for time_ in sessions.times:
            restore_file(
                CHILDREN, target / "backup.tar", time_, target.with_suffix(f".{time_.timestamp()}")
            )


def test_database_jobs(
    copied_site: BtwSite, postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psycopg2

    if shutil.which("rdiff-backup", path=PATH) is None:
        pytest.skip("rdiff-backup is not installed (Debian: apt-get install rdiff-backup)")
    site = copied_site
    chance = random.Random(3)
    dsn = postgresql.database()
    name = dsn.split("'")[1]
    monkeypatch.setenv("PGHOST", str(postgresql.host))
    monkeypatch.setenv("PGUSER", postgresql.user)
    site.destination("dst")
    link = psycopg2.connect(dsn)
    link.autocommit = True
    cursor = link.cursor()
    cursor.execute(
        "create table t as select n, md5(n::text) as words from generate_series(1, 20000) n"
    )
    command: list[str | Path] = ["db", name, "dst"]
    duration = timed(site, command)
    contents = []
    for number in range(KILLS):
        cursor.execute("update t set words = %s where n = %s", (str(number), number + 1))
        kill_somewhere(site, command, chance.uniform(0.3, 1.1) * duration, bool(number % 2))
        run(site, "restore", "dst", site.folder / f"{number}.dump")
        run(site, *command)
        dump = site.folder / f"{number}.after"
        run(site, "restore", "--offsite", "dst", dump)
        contents.append(dumps.content_of(Children({**os.environ}), dump))
    link.close()
    assert len(set(contents)) == KILLS
    run(site, "verify", "--offsite")

"""A real backup process, killed at random moments.

``PERDURE_TEST_KILLS`` says how often (30 unless told).
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from datafs import DataFs, Record, Transaction
from history_site import rebuilt_from, snapshots_in, system_clock

from perdure.check import check
from perdure.formats.keyfile import KdfParameters
from perdure.model import SilentObserver, SnapshotId, Subset
from perdure.repository import Repository
from perdure.stores.local import LocalStore

KILLS = int(os.environ.get("PERDURE_TEST_KILLS", "30"))

pytestmark = pytest.mark.slow


class Victim:
    """A Data.fs that changes from run to run, a repository, and the process that is killed."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.random = random.Random(seed)
        self.path, self.store = folder / "Data.fs", LocalStore(folder / "repository")
        self.made = DataFs()
        self.states: set[str] = set()
        self.sound: dict[SnapshotId, str] = {}
        now = system_clock()
        parameters = KdfParameters(2, 1, 1)
        Repository.create(
            self.store, "secret", kdf=parameters, now=now, username="u", hostname="h"
        ).close()
        self.command = [
            *(sys.executable, "-m", "perdure", "-r", self.store.location, "--quiet", "backup"),
            *("--cache-dir", str(folder / "cache"), "--filestorage", str(self.path)),
        ]
        self.environment = os.environ | {
            "PERDURE_PASSWORD": "secret",
            "PYTHONPATH": os.pathsep.join(sys.path),
        }

    def change(self, pack: bool) -> None:
        """Commit some transactions; or pack, which makes a new file of the newest half."""
        if pack and len(self.made.ends) > 4:
            self.made = DataFs(tids=self.made.tids[-1:])
            self.made.add(Transaction([Record(n, self.bytes()) for n in range(20)], status=b"p"))
            self.path.rename(f"{self.path}.old")
        for _ in range(self.random.randint(1, 5)):
            oids = self.random.sample(range(40), 8)
            self.made.add(Transaction([Record(oid, self.bytes()) for oid in sorted(oids)]))
        with self.path.open("ab") as file:
            file.write(self.made.data[self.path.stat().st_size :])
        self.states.add(hashlib.sha256(self.made.data).hexdigest())

    def bytes(self) -> bytes:
        return self.random.randbytes(self.random.randint(10, 60_000))

    def run(self) -> float:
        started = time.monotonic()
        subprocess.run(self.command, env=self.environment, check=True, timeout=60)
        return time.monotonic() - started

    def kill_after(self, seconds: float) -> bool:
        """Start a backup and kill it; says whether it was still at work."""
        child = subprocess.Popen(self.command, env=self.environment, stderr=subprocess.PIPE)
        with child:
            time.sleep(seconds)
            child.send_signal(signal.SIGKILL)
            child.wait()
        assert child.returncode in (0, -signal.SIGKILL)
        return child.returncode != 0

    def verify(self, *, everything: bool = False) -> int:
        """All that was there is there; what is new is a state of the file; the check passes."""
        repository = Repository.open(self.store, "secret", cache=None, clock=system_clock)
        whole = Subset() if everything else None
        report = check(repository, read_data=whole, observer=SilentObserver())
        assert not report.damaged, report
        found = {each.id: each for each in snapshots_in(repository)}
        assert found.keys() >= self.sound.keys()
        for name, each in found.items():
            if everything or name not in self.sound:
                digest = hashlib.sha256(rebuilt_from(each)[0]).hexdigest()
                assert digest in self.states
                assert self.sound.setdefault(name, digest) == digest
        repository.close()
        return len(found)


def test_killed_at_random_moments(tmp_path: Path) -> None:
    victim = Victim(tmp_path, seed=11)
    victim.change(pack=False)
    usual = victim.run()
    struck = 0
    for number in range(KILLS):
        victim.change(pack=number % 10 == 9)
        at_work = victim.kill_after(victim.random.uniform(0.3, 1.05) * usual)
        struck += at_work
        usual *= (
            1.1 if at_work else 0.7
        )  # how long a run takes changes with the load of the machine
        victim.verify()
        if number % 5 == 4:
            before = victim.verify()
            victim.run()
            assert victim.verify() == before + 1
    victim.run()
    victim.verify(everything=True)
    print(
        f"{struck} of {KILLS} backups were killed at work, {len(victim.sound)} snapshots are whole"
    )
    assert struck > KILLS // 4

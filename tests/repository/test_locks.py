from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from small_repository import Site

from perdure.errors import RepositoryDamaged, RepositoryLocked
from perdure.repository import Lock, Repository
from perdure.repository.locks import Locks
from perdure.repository.processes import Process
from perdure.stores import open_store


def test_shared_locks_go_together(site: Site) -> None:
    with site.repository.lock(), site.open().lock():
        assert len(site.names("locks")) == 2
    assert site.names("locks") == []


@pytest.mark.parametrize(("first", "second"), [(True, True), (True, False), (False, True)])
def test_an_exclusive_lock_goes_with_no_other(site: Site, first: bool, second: bool) -> None:
    with site.repository.lock(exclusive=first):
        with pytest.raises(RepositoryLocked, match=f"process {os.getpid()} on .* from 2026-11-21"):
            site.open().lock(exclusive=second)
        assert len(site.names("locks")) == 1
    with site.open().lock(exclusive=second):
        pass


def test_of_two_at_the_same_time_at_most_one_gets_it(site: Site) -> None:
    # The other one writes its lock between our first look and our own lock.
    class Race(Locks):
        def write(self, exclusive: bool) -> tuple[str, object]:  # type: ignore[override]
            if not others:
                others.append(None)
                others[0] = Lock(site.open().locks, True)
            return super().write(exclusive)

    others: list[Lock | None] = []
    with pytest.raises(RepositoryLocked):
        Race(site.repository.files, site.clock, None).take(exclusive=False, wait=timedelta())
    assert others[0]
    assert site.names("locks") == [f"locks/{others[0].name}"]


def test_waiting(site: Site) -> None:
    holder = site.open().lock(exclusive=True)

    def sleep(seconds: float) -> None:
        site.clock.sleep(seconds)
        if site.clock() >= start + timedelta(seconds=20):
            holder.release()

    start = site.clock()
    locks = Locks(site.repository.files, site.clock, None, sleep)
    locks.take(exclusive=True, wait=timedelta(minutes=1)).release()
    assert timedelta(seconds=20) <= site.clock() - start < timedelta(seconds=31)


def test_waiting_in_vain(site: Site) -> None:
    start = site.clock()
    locks = Locks(site.repository.files, site.clock, None, site.clock.sleep)
    with site.open().lock(exclusive=True), pytest.raises(RepositoryLocked):
        locks.take(exclusive=True, wait=timedelta(seconds=90))
    assert site.clock() - start == timedelta(seconds=90)


def test_a_lock_is_written_anew(site: Site) -> None:
    with site.repository.lock(exclusive=True) as lock:
        names = {lock.name}
        for _ in range(100):
            site.clock.advance(minutes=1)
            lock.keep()
            names.add(lock.name)
            assert site.names("locks") == [f"locks/{lock.name}"]
            with pytest.raises(RepositoryLocked):
                site.open().lock()
        lock.verify()
    assert len(names) == 21
    assert site.names("locks") == []


def test_a_stale_lock_belongs_to_nobody(site: Site) -> None:
    lock = site.open().lock(exclusive=True)
    site.clock.advance(minutes=31)

    with site.repository.lock() as other:
        assert site.names("locks") == [f"locks/{other.name}"]
        for use in (lock.keep, lock.verify):
            with pytest.raises(RepositoryLocked, match="lost"):
                use()
    lock.release()


def test_a_removed_lock_is_noticed(site: Site) -> None:
    with site.repository.lock() as lock:
        assert site.open().unlock() == 0
        assert site.open().unlock(everything=True) == 1
        with pytest.raises(RepositoryLocked, match="lost"):
            lock.verify()
        site.clock.advance(minutes=6)
        with pytest.raises(RepositoryLocked, match="lost"):
            lock.keep()


def test_a_clock_that_jumps_back(site: Site) -> None:
    with site.repository.lock() as lock:
        site.clock.advance(minutes=-10)
        lock.verify()
        site.clock.advance(hours=-10)
        with pytest.raises(RepositoryLocked, match="lost"):
            lock.verify()


def test_unlock_removes_stale_locks(site: Site) -> None:
    old = site.open().lock()
    site.clock.advance(minutes=31)
    new = site.open().lock()

    assert site.repository.unlock() == 1
    assert site.names("locks") == [f"locks/{new.name}"]
    for lock in (old, new):
        lock.release()


def test_a_damaged_lock_stands_in_the_way(site: Site) -> None:
    site.store.put("locks/" + "ab" * 32, b"?")
    with pytest.raises(RepositoryDamaged, match="locks/abab"):
        site.repository.lock()
    site.repository.unlock(everything=True)
    site.store.put("locks/" + "ab" * 32, b"")  # an upload that was interrupted
    with site.repository.lock():
        pass


HOLD = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from perdure.repository import Repository
from perdure.stores import open_store
repository = Repository.open(
    open_store(sys.argv[1]), "secret", cache=Path(sys.argv[2]), clock=lambda: datetime.now(UTC)
)
repository.lock(exclusive=True)
print("locked", flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(not Path("/proc/self/ns/pid").exists(), reason="needs Linux's /proc")
def test_the_lock_of_a_process_that_was_killed(site: Site, tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "repository"))
    for name in [
        name for folder in ("keys", "") for name in site.store.contents if name.startswith(folder)
    ]:
        store.put(name, site.store.contents[name])
    cache = tmp_path / "cache"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, store.location, str(cache)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"locked\n"
    site.clock.now = datetime.now(UTC)
    repository = Repository.open(store, "secret", cache=cache, clock=site.clock)
    elsewhere = Repository.open(store, "secret", cache=None, clock=site.clock)

    with pytest.raises(RepositoryLocked):
        repository.lock()
    holder.kill()
    holder.communicate()
    with pytest.raises(RepositoryLocked):
        elsewhere.lock()  # who does not know the process must not judge it
    with repository.lock():
        pass
    assert list((cache / repository.id / "locks").iterdir()) == []


def test_certain_death() -> None:
    me = Process.current()
    assert not me.certainly_dead
    if not me.started:
        pytest.skip("this system does not tell when a process started")
    assert msgspec.structs.replace(me, started="1").certainly_dead
    for doubt in ({"boot": "x"}, {"namespace": "pid:[1]"}, {"started": ""}, {"boot": ""}):
        changed = msgspec.structs.replace(me, pid=1 << 22, **doubt)
        assert not changed.certainly_dead

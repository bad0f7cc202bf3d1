"""The copy: it can be restored at every moment, and the next run completes it, wherever one stopped."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from btw_site import BtwSite, tree

from perdure.dropin.btw import offsite
from perdure.dropin.btw.bucket import Found, has_content, part_size
from perdure.dropin.btw.destination import Destination
from perdure.dropin.btw.journal import Journal
from perdure.dropin.btw.locking import Wait
from perdure.dropin.btw.repository import DATA
from perdure.dropin.btw.state import Item, Kind
from perdure.dropin.btw.syncing import EVERYTHING, Copying, destinations_below
from perdure.errors import BackupIncomplete, NameNotFound, StoreError, StoreUnavailable
from perdure.model import SilentObserver

NOW = datetime(2026, 1, 9, tzinfo=UTC)
FIRST, SECOND, THIRD = (f"2026-01-0{day}T00:00:00Z" for day in (1, 2, 3))
NAME = "2026-01-01T00:00:00"


class Memory:
    """A bucket in memory, which can fail at its n-th call: before the effect, or after it."""

    location = "memory"

    def __init__(self, fail_at: int = 0, *, after: bool = False) -> None:
        self.held: dict[str, bytes] = {}
        self.log: list[str] = []
        self.fail_at, self.after, self.calls = fail_at, after, 0

    def objects(self, folder: str) -> Iterator[Found]:
        self._count(f"list {folder}", lambda: None)
        prefix = f"{folder}/" if folder else ""
        for name, data in sorted(self.held.items()):
            if name.startswith(prefix):
                yield Found(name, len(data), hashlib.md5(data).hexdigest())

    def put(self, name: str, data: bytes) -> None:
        self._count(f"put {name}", lambda: self.held.update({name: data}))

    def put_file(self, name: str, path: Path) -> None:
        self.put(name, path.read_bytes())

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        if name not in self.held:
            raise NameNotFound(name)
        return self.held[name][start:stop]

    def fetch(self, name: str, path: Path) -> None:
        path.write_bytes(self.get(name))

    def copy(self, source: str, target: str) -> None:
        data = self.get(source)
        self._count(f"copy {target}", lambda: self.held.update({target: data}))

    def delete(self, name: str) -> None:
        self._count(f"delete {name}", lambda: self.held.pop(name, None))

    def _count(self, what: str, effect: Callable[[], object]) -> None:
        self.calls += 1
        self.log.append(what)
        if self.fail_at and self.calls > self.fail_at:
            raise StoreUnavailable("dead")
        if self.calls == self.fail_at and not self.after:
            raise StoreError("failed before")
        effect()
        if self.calls == self.fail_at:
            raise StoreError("failed after")


def session(path: Path, *times: str) -> None:
    """Make files as rdiff-backup leaves them after sessions; what they hold tells of which."""
    shutil.rmtree(path, ignore_errors=True)
    data = path / DATA
    (data / "increments").mkdir(parents=True)
    (path / "backup.tar").write_text(f"state {times[-1]}")
    (data / "backup.log").write_text("".join(times))
    (data / "chars_to_quote").write_text("")
    (data / f"current_mirror.{times[-1]}.data").write_text("PID 1\n")
    for time in times:
        last = time == times[-1]
        kind = "snapshot" if last else "diff"
        (data / f"mirror_metadata.{time}.{kind}.gz").write_text(f"{kind} {time}")
        (data / f"session_statistics.{time}.data").write_text(time)
        if not last:
            (data / f"increments.{time}.dir").write_text("")
            (data / "increments" / f"backup.tar.{time}.diff.gz").write_text(f"back to {time}")


def copying(site: BtwSite, remote: Memory) -> Copying:
    journal = Journal(site.config, Wait(0), lambda: NOW)
    return Copying(site.root, remote, journal, SilentObserver(), site.config, Wait(0))


def fetched(remote: Memory, folder: Path) -> dict[str, bytes | str]:
    shutil.rmtree(folder, ignore_errors=True)
    remote.fail_at = 0
    offsite.fetch_repository(remote, f"dst/{NAME}", folder)
    return tree(folder)


def step(site: BtwSite, *times: str) -> dict[str, bytes | str]:
    """Change the repository here, as a backup does; gives what it holds."""
    journal = Journal(site.config, Wait(0), lambda: NOW)
    kind = Kind.PUSH if len(times) == 1 else Kind.SYNC
    journal.begin([Item(kind, f"dst/{NAME}/")])
    session(site.destination("dst") / NAME, *times)
    return tree(site.root / "dst" / NAME)


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("forgotten", [False, True], ids=["journal", "no-journal"])
def test_a_copy_can_be_restored_wherever_it_stops(
    site: BtwSite, after: bool, forgotten: bool
) -> None:
    """Fail at each call in turn; then the copy is the old state or the new one, and the next run ends it."""
    destination = Destination(site.root, site.destination("dst").name)
    old = step(site, FIRST, SECOND)
    whole = Memory()
    copying(site, whole).after_backup(destination)
    before = dict(whole.held)
    assert fetched(whole, site.folder / "copy") == old
    new = step(site, FIRST, SECOND, THIRD)
    for number in range(1, 1000):
        remote = Memory(number, after=after)
        remote.held = dict(before)
        if forgotten:
            site.state.write_bytes(b"")
        elif not Journal(site.config, Wait(0), lambda: NOW).state().pending:
            step(site, FIRST, SECOND, THIRD)
        try:
            copying(site, remote).after_backup(destination)
        except BackupIncomplete:
            assert fetched(remote, site.folder / "copy") in (old, new)
        else:
            break
        copying(site, remote).after_backup(destination)
        assert fetched(remote, site.folder / "copy") == new
        assert sorted(remote.held) == sorted(f"dst/{NAME}/{name}" for name in new)
        assert not Journal(site.config, Wait(0), lambda: NOW).state().pending
    assert number > 20


def test_a_first_copy_is_no_repository_until_it_is_whole(site: BtwSite) -> None:
    destination = Destination(site.root, site.destination("dst").name)
    new = step(site, FIRST)
    for number in range(1, 1000):
        remote = Memory(number, after=True)
        if not Journal(site.config, Wait(0), lambda: NOW).state().pending:
            step(site, FIRST)
        try:
            copying(site, remote).after_backup(destination)
        except BackupIncomplete:
            remote.fail_at = 0
            marked = any("current_mirror" in name for name in remote.held)
            assert not marked or fetched(remote, site.folder / "copy") == new
        else:
            break
        copying(site, remote).after_backup(destination)
        assert fetched(remote, site.folder / "copy") == new
    assert number > 5


def test_nothing_is_deleted_because_it_is_missing_here(site: BtwSite) -> None:
    """btw-backup mirrored a half-emptied ROOT_PATH, deletions included."""
    destination = Destination(site.root, site.destination("dst").name)
    step(site, FIRST, SECOND)
    (site.root / "dst/2026-01-01T00:00:00.tbz").write_bytes(b"tar")
    remote = Memory()
    copying(site, remote).after_backup(destination)
    before = dict(remote.held)
    (site.root / "dst/2026-01-01T00:00:00.tbz").unlink()
    (site.root / "dst" / NAME / DATA / "session_statistics.2026-01-01T00:00:00Z.data").unlink()
    (site.root / "dst" / NAME / "backup.tar").unlink()
    run = copying(site, remote)
    run.journal.begin([EVERYTHING])
    run.all()
    shutil.rmtree(site.root / "dst" / NAME)
    run.all()
    assert remote.held == before


def test_what_a_session_replaced_is_deleted_and_nothing_else(site: BtwSite) -> None:
    here = {f"{DATA}/{name}": 1 for name in (
        f"current_mirror.{THIRD}.data",
        f"mirror_metadata.{THIRD}.snapshot.gz",
        f"mirror_metadata.{FIRST}.diff.gz",
        f"increments.{FIRST}.dir",
    )}  # fmt: skip
    replaced = {f"{DATA}/{name}" for name in (
        f"current_mirror.{FIRST}.data",
        f"mirror_metadata.{FIRST}.snapshot.gz",
        f"session_statistics.{SECOND}.data",  # of a session that was taken back
        f"increments/backup.tar.{SECOND}.diff.gz",
    )}  # fmt: skip
    kept = {"backup.tar", f"{DATA}/notes", f"{DATA}/increments/x.2025-01-01T00:00:00Z.diff.gz"}
    kept |= {f"{DATA}/session_statistics.{FIRST}.data", f"session_statistics.{SECOND}.data"}
    there = {name: Found(name, 1, "") for name in {*here, *replaced, *kept}}
    plan = offsite.plan_change(here, there, lambda name, tag: True, thorough=False)
    assert set(plan.removed) == replaced
    assert plan.written == ()


def test_an_interrupted_repository_is_not_copied(site: BtwSite) -> None:
    destination = Destination(site.root, site.destination("dst").name)
    step(site, FIRST, SECOND)
    marker = site.root / "dst" / NAME / DATA / f"current_mirror.{THIRD}.data"
    marker.write_text("PID 2\n")
    remote = Memory()
    run = copying(site, remote)
    with pytest.raises(BackupIncomplete, match=NAME):
        run.after_backup(destination)
    assert remote.held == {}
    assert run.journal.state().pending


def test_what_the_state_file_lost_is_found(site: BtwSite) -> None:
    """btw-backup never copied a backup if it was killed before it wrote the line."""
    destination = Destination(site.root, site.destination("dst").name)
    step(site, FIRST)
    (site.root / "dst/2026-01-05T00:00:00.tbz").write_bytes(b"tar")
    (site.root / "dst/log.txt").write_text("a line\n")
    site.state.unlink()
    remote = Memory()
    copying(site, remote).after_backup(destination)
    assert {name for name in remote.held if DATA not in name} == {
        "dst/2026-01-05T00:00:00.tbz",
        "dst/log.txt",
        f"dst/{NAME}/backup.tar",
    }


def test_a_full_sync_compares_contents(site: BtwSite) -> None:
    step(site, FIRST)
    (site.root / "other files").mkdir()
    (site.root / "other files/x").write_text("x")
    (site.root / "link").symlink_to("other files/x")
    remote = Memory()
    run = copying(site, remote)
    run.all()
    assert "other files/x" not in remote.held
    damaged = f"dst/{NAME}/{DATA}/mirror_metadata.{FIRST}.snapshot.gz"
    whole = remote.held[damaged]
    remote.held[damaged] = bytes(len(whole))
    run.all()
    assert remote.held[damaged] != whole
    run.journal.begin([EVERYTHING])
    run.all()
    assert remote.held[damaged] == whole
    assert remote.held["other files/x"] == b"x"
    assert "link" not in remote.held
    remote.log.clear()
    run.journal.begin([EVERYTHING])
    run.all()
    assert not [call for call in remote.log if not call.startswith("list")]


def test_one_failure_does_not_stop_the_others(site: BtwSite) -> None:
    for name in ("a", "b"):
        (site.destination(name) / "2026-01-01T00:00:00.tbz").write_bytes(b"tar")

    class Fussy(Memory):
        def put_file(self, name: str, path: Path) -> None:
            if name.startswith("a/"):
                raise StoreError("refused")
            super().put_file(name, path)

    fussy = Fussy()
    run = copying(site, fussy)
    with pytest.raises(BackupIncomplete, match=r"a/2026-01-01T00:00:00\.tbz"):
        run.all()
    assert list(fussy.held) == ["b/2026-01-01T00:00:00.tbz"]
    assert run.observer.warnings[0].startswith("Error while processing: a/")  # type: ignore[attr-defined]


def test_an_old_path_out_of_the_root_is_dropped(site: BtwSite) -> None:
    site.state.write_text("2026-01-01T12:00:00 +push ../x/2026-01-01T12:00:00.tbz\n")
    remote = Memory()
    run = copying(site, remote)
    run.all()
    assert not run.journal.state().pending
    assert remote.held == {}


def test_a_path_that_never_came_to_be_is_no_longer_pending(site: BtwSite) -> None:
    site.state.write_text(
        "2026-01-01T12:00:00 +push dst/2026-01-01T12:00:00.tbz\n2026-01-01T12:00:00 +sync gone/x/\n"
    )
    run = copying(site, Memory())
    run.all()
    assert not run.journal.state().pending


def test_destinations_are_found_at_any_depth(site: BtwSite) -> None:
    session(site.destination("a/b") / NAME, FIRST)
    (site.destination("c") / "2026-01-01T00:00:00.tbz").touch()
    site.destination("d/e")
    assert list(destinations_below(site.root)) == ["a/b", "c"]


@pytest.mark.parametrize("part", [0, 5 << 20, 8 << 20, 15 << 20, 16 << 20])
def test_tags_of_all_programs_are_known(tmp_path: Path, part: int) -> None:
    path = tmp_path / "file"
    data = bytes(range(256)) * (1 << 16)  # 16 MiB
    data += b"more"
    path.write_bytes(data)
    tag = hashlib.md5(data).hexdigest()
    if part:
        parts = [hashlib.md5(data[at : at + part]).digest() for at in range(0, len(data), part)]
        tag = f"{hashlib.md5(b''.join(parts)).hexdigest()}-{len(parts)}"
    assert has_content(path, tag)
    path.write_bytes(data[:-1] + b"!")
    assert not has_content(path, tag)
    assert not has_content(path, "made in another way")


def test_parts_are_never_too_many() -> None:
    assert part_size(17 << 20) == 16 << 20
    for size in (1 << 38, 5 << 40):
        assert -(-size // part_size(size)) <= 10_000


def test_a_damaged_redo_is_refused(site: BtwSite) -> None:
    from perdure.errors import RepositoryDamaged

    remote = Memory()
    for text in (
        b"{",
        b'{"version": 2, "moved": [], "removed": []}',
        b'{"version":1,"moved":["../x"],"removed":[]}',
    ):
        remote.held = {f"dst/{offsite.STAGED}/{NAME}/redo.json": text}
        with pytest.raises(RepositoryDamaged):
            offsite.complete(remote, f"dst/{NAME}")

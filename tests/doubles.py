"""The doubles that tests use: small, real, and without a mock among them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perdure.errors import StoreError
from perdure.stores import Store

Restic = Callable[..., str]
"""The stock restic, as the fixture of that name gives it: a call with its arguments."""


class Clock:
    """A clock that is set by hand; `sleep` moves it."""

    def __init__(self, now: datetime = datetime(2026, 11, 21, 3, 15, tzinfo=UTC)) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(self, **time: float) -> None:
        self.now += timedelta(**time)

    def sleep(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


class FaultyStore:
    """Fails at its n-th call (from 1), before or after the effect; if ``dead``, at all later ones.

    The exception is a StoreError, so that what runs is what would run in earnest.
    """

    def __init__(
        self, store: Store, fail_at: int, *, after: bool = False, dead: bool = True
    ) -> None:
        self._store = store
        self._fail_at = fail_at
        self._after = after
        self._dead = dead
        self.calls = 0

    @property
    def location(self) -> str:
        return self._store.location

    @property
    def failed(self) -> bool:
        """Whether the fault has struck."""
        return self.calls >= self._fail_at

    def put(self, name: str, data: bytes) -> None:
        strikes = self._count()
        if not strikes or (self._after and self.calls == self._fail_at):
            self._store.put(name, data)
        self._fail(strikes, f"put {name}")

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        self._fail(self._count(), f"get {name}")
        return self._store.get(name, start, stop)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        self._fail(self._count(), f"list {prefix}")
        return self._store.list(prefix)

    def size(self, name: str) -> int:
        self._fail(self._count(), f"size {name}")
        return self._store.size(name)

    def delete(self, name: str) -> None:
        strikes = self._count()
        if strikes and self._after and self.calls == self._fail_at:
            self._store.delete(name)
        self._fail(strikes, f"delete {name}")
        self._store.delete(name)

    def _count(self) -> bool:
        self.calls += 1
        return self.calls == self._fail_at or (self._dead and self.calls > self._fail_at)

    def _fail(self, strikes: bool, what: str) -> None:
        if strikes:
            raise StoreError(f"injected fault at call {self.calls}: {what}")


class PowerCut:
    """Knows what of a directory would survive if the power failed now: only what was synced.

    A file's content counts as of its last fsync, a folder's names as of the folder's last fsync.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._contents: dict[int, bytes] = {}
        self._names: dict[str, dict[str, int]] = {}
        monkeypatch.setattr(os, "fsync", self._fsync)

    def _fsync(self, descriptor: int) -> None:
        path = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            with os.scandir(path) as entries:
                self._names[path] = {entry.name: entry.inode() for entry in entries}
        else:
            self._contents[status.st_ino] = Path(path).read_bytes()

    def survivors(self, root: Path, target: Path) -> None:
        """Write what survives of ``root`` into the new folder ``target``."""
        target.mkdir()
        for name, inode in self._names.get(str(root), {}).items():
            if str(root / name) in self._names or (root / name).is_dir():
                self.survivors(root / name, target / name)
            else:
                (target / name).write_bytes(self._contents.get(inode, b""))

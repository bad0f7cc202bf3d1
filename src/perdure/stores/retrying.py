"""A store that tries again: what a network or a busy server breaks off now may work in a moment."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from perdure.errors import StoreUnavailable
from perdure.stores.protocol import Store

Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to try: pauses in seconds, each up to twice the one before.

    ``first_contact`` is for as long as the store has never answered: then it is more likely that its
    name is wrong than that it is down. Both ends are well below the 30 minutes after which a lock is
    stale.
    """

    first_pause: float = 0.2
    longest_pause: float = 30.0
    total: float = 15 * 60.0
    first_contact: float = 5.0


class RetryingStore:
    """Repeats each call that raises StoreUnavailable; every other error goes on as it is.

    That is safe: a name is only ever put with the same bytes, and to delete what is gone already is what
    was wanted. ``sleep`` takes seconds, ``jitter`` gives a number from 0 to 1: many clients of one server
    must not come back all at once. ``told`` is told of each longer pause.
    """

    def __init__(
        self,
        store: Store,
        *,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
        jitter: Callable[[], float],
        told: Callable[[str], None],
        patience: Patience | None = None,
    ) -> None:
        self._store = store
        self._sleep, self._monotonic, self._jitter, self._told = sleep, monotonic, jitter, told
        self._patience = patience or Patience()
        self._answered = False
        self._mutex = threading.Lock()
        self.retries = 0

    @property
    def location(self) -> str:
        """The inner store's."""
        return self._store.location

    def put(self, name: str, data: bytes) -> None:
        """Put."""
        self._repeat(lambda: self._store.put(name, data))

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Get."""
        return self._repeat(lambda: self._store.get(name, start, stop))

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """List; all names at once, since half a list cannot be repeated."""
        yield from self._repeat(lambda: list(self._store.list(prefix)))

    def size(self, name: str) -> int:
        """Look."""
        return self._repeat(lambda: self._store.size(name))

    def delete(self, name: str) -> None:
        """Delete."""
        self._repeat(lambda: self._store.delete(name))

    def _repeat(self, call: Callable[[], Result]) -> Result:
        started = self._monotonic()
        pause = self._patience.first_pause
        while True:
            try:
                result = call()
            except StoreUnavailable as error:
                limit = self._patience.total if self._answered else self._patience.first_contact
                left = limit - (self._monotonic() - started)
                if left <= 0:
                    raise
                now = min(pause * (0.5 + 0.5 * self._jitter()), left)
                with self._mutex:
                    self.retries += 1
                if now >= _WORTH_TELLING:
                    self._told(f"{error}; trying again in {now:.0f} s")
                self._sleep(now)
                pause = min(2 * pause, self._patience.longest_pause)
            else:
                self._answered = True
                return result


_WORTH_TELLING = 3.0
"""Seconds of pause from which on somebody who watches should know why nothing goes on."""

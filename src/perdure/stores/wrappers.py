"""Stores around a store: the same five verbs, with something added."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime

from perdure.errors import NameNotFound, StoreError
from perdure.stores.memory import MemoryStore
from perdure.stores.protocol import LeavesBehind, Store

PAGE = 1000
"""Names that an object store gives in one answer: a list of more takes several requests."""


class CountingStore:
    """Counts the calls of each verb, and the bytes that went in and out.

    Over a store that makes a request of each call these are its requests, failed ones among them.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._mutex = threading.Lock()
        self.calls: Counter[str] = Counter()
        self.bytes_put = 0
        self.bytes_got = 0

    @property
    def location(self) -> str:
        """The inner store's."""
        return self._store.location

    def put(self, name: str, data: bytes) -> None:
        """Count and put."""
        self._count("put")
        self._store.put(name, data)
        with self._mutex:
            self.bytes_put += len(data)

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Count and get."""
        self._count("get")
        data = self._store.get(name, start, stop)
        with self._mutex:
            self.bytes_got += len(data)
        return data

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Count and list."""
        self._count("list")
        for number, found in enumerate(self._store.list(prefix), 1):
            if number % PAGE == 1 and number > 1:
                self._count("list")
            yield found

    def size(self, name: str) -> int:
        """Count and look."""
        self._count("size")
        return self._store.size(name)

    def delete(self, name: str) -> None:
        """Count and delete."""
        self._count("delete")
        self._store.delete(name)

    def _count(self, verb: str) -> None:
        with self._mutex:
            self.calls[verb] += 1


class LimitedStore:
    """Puts no more than so many bytes a second, on average: each put waits until those before are paid for.

    Locks are put at once: one that waits behind packfiles would grow stale.
    """

    def __init__(
        self,
        store: Store,
        bytes_per_second: float,
        sleep: Callable[[float], None],
        monotonic: Callable[[], float],
    ) -> None:
        self._store = store
        self._rate = bytes_per_second
        self._sleep = sleep
        self._monotonic = monotonic
        self._mutex = threading.Lock()
        self._free_at = monotonic()

    @property
    def location(self) -> str:
        """The inner store's."""
        return self._store.location

    def put(self, name: str, data: bytes) -> None:
        """Wait for its turn, and put."""
        now = self._monotonic()
        with self._mutex:  # packfiles come from several threads
            turn = max(now, self._free_at)
            self._free_at = turn + len(data) / self._rate
        if turn > now and not name.startswith("locks/"):
            self._sleep(turn - now)
        self._store.put(name, data)

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Get."""
        return self._store.get(name, start, stop)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """List."""
        return self._store.list(prefix)

    def size(self, name: str) -> int:
        """Look."""
        return self._store.size(name)

    def delete(self, name: str) -> None:
        """Delete."""
        self._store.delete(name)

    def leftovers(self, before: datetime) -> Iterator[tuple[str, int]]:
        """The inner store's, if it has any."""
        if isinstance(self._store, LeavesBehind):
            yield from self._store.leftovers(before)


KEPT_IN_DRY_RUN = 1 << 20
"""Bytes up to which a dry run keeps what is put."""


class DryRunStore:
    """Changes nothing: puts and deletes are for this process only; ``added`` counts their bytes.

    Of large values, packfiles that is, only the size is kept: nothing reads them in the run that made
    them, and all of a first backup would not fit into memory.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._new = MemoryStore(store.location)
        self._large: dict[str, int] = {}
        self._deleted: set[str] = set()
        self.added = 0

    @property
    def location(self) -> str:
        """The inner store's."""
        return self._store.location

    def put(self, name: str, data: bytes) -> None:
        """Remember, in memory."""
        self._deleted.discard(name)
        self.added += len(data)
        if len(data) > KEPT_IN_DRY_RUN:
            self._large[name] = len(data)
        else:
            self._new.put(name, data)

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Give what was put in this run, or what is in the store. Raises StoreError for large values."""
        if name in self._large:
            raise StoreError(f"{name} was put by this dry run, which keeps nothing so large")
        return self._holder(name).get(name, start, stop)

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give what would be there."""
        yield from self._new.list(prefix)
        yield from ((name, size) for name, size in self._large.items() if name.startswith(prefix))
        for name, size in self._store.list(prefix):
            if not (name in self._deleted or name in self._large or name in self._new.contents):
                yield name, size

    def size(self, name: str) -> int:
        """Give what was put in this run, or what is in the store."""
        return self._large[name] if name in self._large else self._holder(name).size(name)

    def delete(self, name: str) -> None:
        """Remember that it is gone."""
        self.size(name)
        self._large.pop(name, None)
        if name in self._new.contents:
            self._new.delete(name)
        self._deleted.add(name)

    def _holder(self, name: str) -> Store:
        if name in self._deleted:
            raise NameNotFound(f"there is no {name} in {self.location}")
        return self._new if name in self._new.contents else self._store

"""What is tried again, for how long, and what is not."""

from __future__ import annotations

import pytest
from doubles import Clock

from perdure.errors import NameNotFound, StoreError, StoreUnavailable
from perdure.stores.memory import MemoryStore
from perdure.stores.retrying import Patience, RetryingStore


class Moody(MemoryStore):
    """Fails so many times, at each call."""

    def __init__(self, failures: int, error: StoreError) -> None:
        super().__init__()
        self.failures, self.error, self.calls = failures, error, 0

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        self.calls += 1
        if self.failures:
            self.failures -= 1
            raise self.error
        return super().get(name, start, stop)


class Watched(Clock):
    """A clock that remembers how long it was slept."""

    def __init__(self) -> None:
        super().__init__()
        self.slept: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        super().sleep(seconds)


def retrying(store: MemoryStore, clock: Watched, told: list[str]) -> RetryingStore:
    return RetryingStore(
        store,
        sleep=clock.sleep,
        monotonic=lambda: clock.now.timestamp(),
        jitter=lambda: 1.0,
        told=told.append,
        patience=Patience(first_pause=1, longest_pause=8, total=60, first_contact=4),
    )


def test_it_goes_on_when_the_store_is_back() -> None:
    inner, clock, told = Moody(0, StoreUnavailable("busy")), Watched(), list[str]()
    store = retrying(inner, clock, told)
    store.put("config", b"c")
    inner.failures = 5

    assert store.get("config") == b"c"
    assert clock.slept == [1, 2, 4, 8, 8]
    assert store.retries == 5
    assert told == ["busy; trying again in 4 s", *["busy; trying again in 8 s"] * 2]


def test_it_gives_up_in_the_end() -> None:
    inner, clock = Moody(0, StoreUnavailable("busy")), Watched()
    store = retrying(inner, clock, [])
    store.put("config", b"c")
    inner.failures = 1000

    with pytest.raises(StoreUnavailable, match="busy"):
        store.get("config")
    assert sum(clock.slept) == 60


def test_what_never_answered_is_given_up_soon() -> None:
    clock = Watched()
    store = retrying(Moody(1000, StoreUnavailable("no such host")), clock, [])
    with pytest.raises(StoreUnavailable):
        store.get("config")
    assert sum(clock.slept) == 4


@pytest.mark.parametrize("error", [StoreError("forbidden"), NameNotFound("none")])
def test_other_errors_are_not_for_trying_again(error: StoreError) -> None:
    inner, clock = Moody(1, error), Watched()
    with pytest.raises(type(error)):
        retrying(inner, clock, []).get("config")
    assert (inner.calls, clock.slept) == (1, [])

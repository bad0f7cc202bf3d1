"""The store of a location as commands use it: what is far is counted, and tried again when it fails."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from perdure.cli import messages

if TYPE_CHECKING:
    from perdure.stores import Store
    from perdure.stores.retrying import RetryingStore
    from perdure.stores.wrappers import CountingStore

STOPPING = threading.Event()
"""Set when the program is interrupted: then nobody waits for a server to come back."""
_VERBS = {"put": "put", "get": "get", "list": "list", "size": "head", "delete": "delete"}


@dataclass
class Traffic:
    """What one command asked of object stores: requests by verb, and bytes; nothing if it used none."""

    _stores: list[tuple[CountingStore, RetryingStore]] = field(default_factory=list)

    def add(self, counting: CountingStore, retrying: RetryingStore) -> None:
        """Count what goes through a store, too."""
        self._stores.append((counting, retrying))

    def __bool__(self) -> bool:
        return bool(self._stores)

    def values(self) -> dict[str, object]:
        """Give it for programs."""
        verbs = self._verbs()
        return {
            "requests": sum(verbs.values()),
            "by_verb": verbs,
            "retries": sum(retrying.retries for _, retrying in self._stores),
            "bytes_sent": sum(counting.bytes_put for counting, _ in self._stores),
            "bytes_received": sum(counting.bytes_got for counting, _ in self._stores),
        }

    def spoken(self) -> str:
        """Give it for people."""
        verbs = self._verbs()
        retries = sum(retrying.retries for _, retrying in self._stores)
        by_verb = ", ".join(f"{number} {verb}" for verb, number in verbs.items() if number)
        again = f", {messages.count(retries, 'retry', 'retries')}" if retries else ""
        sent = messages.size(sum(counting.bytes_put for counting, _ in self._stores))
        received = messages.size(sum(counting.bytes_got for counting, _ in self._stores))
        return (
            f"{messages.count(sum(verbs.values()), 'request')} ({by_verb}{again}),"
            f" {sent} sent, {received} received"
        )

    def _verbs(self) -> dict[str, int]:
        return {
            name: sum(counting.calls[verb] for counting, _ in self._stores)
            for verb, name in _VERBS.items()
        }


def _pause(seconds: float) -> None:
    if STOPPING.wait(seconds):
        raise KeyboardInterrupt


def reach(
    location: str,
    environment: Mapping[str, str],
    told: Callable[[str], None],
    traffic: Traffic | None = None,
) -> Store:
    """Give the store of a location; ``told`` is told when one that is far makes us wait.

    Raises UsageError.
    """
    from perdure.stores import is_far, open_store

    store = open_store(location, environment)
    if not is_far(location):
        return store
    import random  # takes a while, and a local repository needs nothing of all this

    from perdure.stores.retrying import RetryingStore
    from perdure.stores.wrappers import CountingStore

    counting = CountingStore(store)
    retrying = RetryingStore(
        counting,
        sleep=_pause,
        monotonic=time.monotonic,
        jitter=random.random,
        told=told,
    )
    if traffic is not None:
        traffic.add(counting, retrying)
    return retrying

"""What a store is: named byte strings in a directory or elsewhere.

A store has five verbs and no opinion. Names are relative paths with ``/`` between their parts. What
a store must do, and `tests/stores/test_contract.py` holds every one to:

* ``put`` is all or nothing, and when it returns the bytes survive a power failure;
* what was put is seen by every later ``get``, ``list`` and ``size``, of this process and of others;
* a name that is not there raises NameNotFound, everything else that goes wrong StoreError.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Protocol, runtime_checkable


class Store(Protocol):
    """Where named bytes live."""

    @property
    def location(self) -> str:
        """Where the store is, for messages; without secrets."""

    def put(self, name: str, data: bytes) -> None:
        """Keep ``data`` under ``name``, whole and durably. Raises StoreError."""

    def get(self, name: str, start: int = 0, stop: int | None = None) -> bytes:
        """Give the bytes from ``start`` to ``stop``. Raises NameNotFound; StoreError for fewer."""

    def list(self, prefix: str) -> Iterator[tuple[str, int]]:
        """Give name and size of everything below a folder such as ``data/``, in no order."""

    def size(self, name: str) -> int:
        """Give the length in bytes. Raises NameNotFound."""

    def delete(self, name: str) -> None:
        """Remove a name. Raises NameNotFound; an object store does not tell that it had no such name."""


@runtime_checkable
class LeavesBehind(Protocol):
    """A store in which a process that is killed leaves files behind that are not listed."""

    def leftovers(self, before: datetime) -> Iterator[tuple[str, int]]:
        """Give name and size of those last written before a time; ``delete`` removes them."""

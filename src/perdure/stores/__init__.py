"""Stores: the dumb thing under a repository, named byte strings in a directory or elsewhere.

A store has five verbs and no opinion. Names are relative paths with ``/`` between their parts. What
a store must do, and `tests/stores/test_contract.py` holds every one to:

* ``put`` is all or nothing, and when it returns the bytes survive a power failure;
* what was put is seen by every later ``get``, ``list`` and ``size``, of this process and of others;
* a name that is not there raises NameNotFound, everything else that goes wrong StoreError.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Protocol, runtime_checkable

from perdure.errors import UsageError


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


def open_store(location: str, environment: Mapping[str, str] | None = None) -> Store:
    """Give the store of a path, a ``file://`` URL, or a place in an object store.

    ``environment`` says who one is to an object store (see `perdure.stores.credentials`). Nothing is asked
    of a server yet. Raises UsageError for what is no location, or where credentials lack.
    """
    if location.startswith("file://"):
        return _local(location.removeprefix("file://"))
    if not location:
        raise UsageError(
            "no repository is named", hint="give its folder with -r, or set PERDURE_REPOSITORY"
        )
    if is_far(location):
        from perdure.stores.objectstore import open_object_store
        from perdure.stores.places import parse_place

        return open_object_store(parse_place(location), environment or {})
    scheme = re.match(r"([a-z][a-z0-9+]+):", location)
    if scheme:
        raise UsageError(
            f"repositories at {scheme[1]}: are not supported",
            hint="a repository lies in a local folder (write ./name if its name has a colon), or at"
            " s3://bucket/prefix, gs://bucket/prefix or az://container/prefix",
        )
    return _local(location)


def is_far(location: str) -> bool:
    """Tell whether a location is in an object store: each call to it is a request over a network."""
    return location.startswith(("s3:", "gs:", "az:", "azure:"))


def _local(path: str) -> Store:
    from perdure.stores.local import LocalStore  # only the store that is used is imported

    return LocalStore(path)

"""Stores: the dumb thing under a repository. `protocol` says what a store is; here one is opened."""

from __future__ import annotations

import re
from collections.abc import Mapping

from perdure.errors import UsageError
from perdure.stores.protocol import LeavesBehind, Store

__all__ = ["LeavesBehind", "Store", "is_far", "open_store"]


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

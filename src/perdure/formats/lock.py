"""Locks, ``locks/<id>``: who works on a repository.

A sealed file of JSON (see `perdure.formats.envelope`), named by the SHA-256 of its bytes::

    {"time":"2026-11-21T03:15:00.25Z",   when it was written; it is written anew every few minutes
     "exclusive":false,                  shared locks go together, an exclusive one with no other
     "hostname":"www1","username":"plone","pid":4711,
     "uid":1000,"gid":1000}              left out if 0

An empty file among the locks is one whose writing was interrupted, and is no lock.
"""

from __future__ import annotations

from datetime import datetime

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.golang import decode_json, encode_json, parse_moment


class LockRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A lock's content."""

    time: str
    exclusive: bool
    hostname: str
    username: str
    pid: int
    uid: int = 0
    gid: int = 0

    @classmethod
    def decode(cls, text: bytes, where: str) -> LockRecord:
        """Read a lock. Raises RepositoryDamaged, naming ``where``."""
        record = decode_json(text, cls, where)
        try:
            parse_moment(record.time)
        except ValueError as error:
            raise RepositoryDamaged(f"{where} has no time: {error}") from None
        return record

    def encode(self) -> bytes:
        """Give the lock's JSON."""
        return encode_json(self)

    @property
    def moment(self) -> datetime:
        """When the lock was written, in UTC."""
        return parse_moment(self.time)

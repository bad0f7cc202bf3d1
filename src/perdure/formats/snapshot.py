"""Snapshots, ``snapshots/<id>``: one immutable record of what was backed up, and when.

A sealed file of JSON (see `perdure.formats.envelope`), named by the SHA-256 of its bytes; fields in
this order, those that are empty left out, but for ``tree`` and ``paths``::

    {"time":"2026-11-21T03:15:00.25Z",   RFC 3339, to the nanosecond
     "parent":"...",                     the snapshot it was compared with
     "tree":"...",                       the root tree's chunk id
     "paths":["/srv/plone/var"],         what was backed up
     "hostname":"www1","username":"plone","uid":1000,"gid":1000,
     "excludes":[...],"tags":[...],
     "original":"...",                   the snapshot that this one was made of by a change of tags
     "program_version":"perdure 0.1.0",
     "summary":{...}}                    numbers for people (since restic 0.17)

restic ignores fields that it does not know and loses them when it rewrites a snapshot; so does this
module, and nothing of Perdure's own is kept here.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.golang import decode_json, encode_json, parse_moment
from perdure.model import ChunkId


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup did, in numbers; bytes where it says data."""

    backup_start: str
    backup_end: str
    files_new: int = 0
    files_changed: int = 0
    files_unmodified: int = 0
    dirs_new: int = 0
    dirs_changed: int = 0
    dirs_unmodified: int = 0
    data_blobs: int = 0
    tree_blobs: int = 0
    data_added: int = 0
    data_added_packed: int = 0
    total_files_processed: int = 0
    total_bytes_processed: int = 0


class Snapshot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A snapshot's record. Times are text, so that their time zones survive."""

    time: str
    parent: str | None = None
    tree: str
    paths: tuple[str, ...] | None
    hostname: str = ""
    username: str = ""
    uid: int = 0
    gid: int = 0
    excludes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    original: str | None = None
    program_version: str = ""
    summary: Summary | None = None

    @classmethod
    def decode(cls, text: bytes, where: str) -> Snapshot:
        """Read a snapshot. Raises RepositoryDamaged, naming ``where``."""
        snapshot = decode_json(text, cls, where)
        if not re.fullmatch("[0-9a-f]{64}", snapshot.tree):
            raise RepositoryDamaged(f"{where} names no tree: {snapshot.tree!r}")
        try:
            parse_moment(snapshot.time)
        except ValueError as error:
            raise RepositoryDamaged(f"{where} has no time: {error}") from None
        return snapshot

    def encode(self) -> bytes:
        """Give the snapshot's JSON."""
        return encode_json(self)

    @property
    def moment(self) -> datetime:
        """When the snapshot was made, in UTC."""
        return parse_moment(self.time)

    @property
    def local_moment(self) -> datetime:
        """The same, at the offset with which it is written: restic writes local times."""
        offset = "+00:00" if self.time.endswith("Z") else self.time[-6:]
        zone = datetime.strptime(offset, "%z").tzinfo
        try:
            return self.moment.astimezone(zone)
        except OverflowError:  # at the ends of the calendar
            return self.moment

    @property
    def root(self) -> ChunkId:
        """The root tree."""
        return ChunkId(bytes.fromhex(self.tree))

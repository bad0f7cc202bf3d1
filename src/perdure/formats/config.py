"""The file ``config``: what makes a repository a repository.

Sealed JSON, never compressed (see `perdure.formats.sealing`)::

    {"version":2,                       the format; any other is refused
     "id":"9ed7...",                    64 hexadecimal digits, random: which repository this is
     "chunker_polynomial":"3079a0609528b7"}   hexadecimal (see `perdure.formats.polynomial`)
"""

from __future__ import annotations

import re

import msgspec

from perdure.errors import PerdureError, RepositoryDamaged
from perdure.formats.golang import decode_json, encode_json

VERSION = 2


class Config(msgspec.Struct, frozen=True):
    """A repository's config."""

    version: int
    id: str
    chunker_polynomial: str

    @classmethod
    def decode(cls, text: bytes, where: str) -> Config:
        """Read a config. Raises RepositoryDamaged, PerdureError for another version."""
        version = decode_json(text, _Version, where).version
        if version != VERSION:
            raise PerdureError(
                f"{where} has version {version} of the repository format; only 2 is understood",
                hint="restic migrate upgrade_repo_v2 makes version 2 of version 1"
                if version == 1
                else "a newer Perdure may understand it",
            )
        config = decode_json(text, cls, where)
        if not re.fullmatch("[0-9a-f]{64}", config.id):
            raise RepositoryDamaged(f"{where} has an id that is none: {config.id!r}")
        return config

    def encode(self) -> bytes:
        """Give the config's JSON."""
        return encode_json(self)


class _Version(msgspec.Struct):
    version: int

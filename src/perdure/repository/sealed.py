"""Sealed documents: a repository's index files, snapshots and locks."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator

from perdure.errors import RepositoryDamaged
from perdure.formats import envelope
from perdure.formats.sealing import NONCE_SIZE, MasterKey, SealBroken, seal, unseal
from perdure.stores import Store

is_id = re.compile("[0-9a-f]{64}").fullmatch
"""Whether a name is an id; restic passes over other names, and so does Perdure."""


class SealedFiles:
    """Reads and writes sealed documents in the folders of a store."""

    def __init__(self, store: Store, key: MasterKey) -> None:
        self._store = store
        self._key = key

    def at(self, store: Store) -> SealedFiles:
        """Give the files, sealed with the same key, of another store."""
        return SealedFiles(store, self._key)

    def save(
        self, folder: str, document: bytes, before: Callable[[str], None] | None = None
    ) -> tuple[str, int]:
        """Write a document; gives its id and its file's size. ``before`` is told the id first."""
        content = seal(self._key, envelope.encode(document), os.urandom(NONCE_SIZE))
        name = hashlib.sha256(content).hexdigest()
        if before:
            before(name)
        self._store.put(f"{folder}/{name}", content)
        return name, len(content)

    def load(self, folder: str, name: str) -> bytes:
        """Give a document. Raises NameNotFound, RepositoryDamaged."""
        content = self._store.get(f"{folder}/{name}")
        where = self.where(folder, name)
        if hashlib.sha256(content).hexdigest() != name:
            raise RepositoryDamaged(f"{where} is damaged: its SHA-256 is not its name")
        try:
            return envelope.decode(unseal(self._key, content), where)
        except SealBroken as error:
            raise RepositoryDamaged(f"{where} is damaged: {error}") from None

    def list(self, folder: str) -> Iterator[tuple[str, int]]:
        """Give the id and size of each file of a folder."""
        for name, size in self._store.list(f"{folder}/"):
            file = name.rpartition("/")[2]
            if is_id(file):
                yield file, size

    def delete(self, folder: str, name: str) -> None:
        """Remove a document. Raises NameNotFound."""
        self._store.delete(f"{folder}/{name}")

    @property
    def location(self) -> str:
        """Where the store is."""
        return self._store.location

    def where(self, folder: str, name: str) -> str:
        """Say which file it is, for messages."""
        return f"{folder}/{name} in {self._store.location}"

"""The snapshots of a repository: listed, found, written, removed.

Snapshots are many and never change, so the cache keeps their documents: only those not seen before
are read. The cache's file is 32 bytes of SHA-256 and then what they are of, a JSON object of id and
document; if it is anything else it is made again.
"""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from pathlib import Path

import msgspec

from perdure.errors import NameNotFound, RepositoryDamaged, UsageError
from perdure.formats.snapshot import Snapshot
from perdure.model import SnapshotId
from perdure.repository.sealed import SealedFiles

FOLDER = "snapshots"
_DIGEST_SIZE = 32
_HINT = (
    "other snapshots can be restored by their ids; perdure repair snapshots --forget drops what cannot be"
    " read from the list"
)


class Snapshots:
    """The snapshots of one repository. ``cache`` is a file, or None to do without."""

    def __init__(self, files: SealedFiles, cache: Path | None) -> None:
        self._files = files
        self._cache = cache

    def all(self) -> list[tuple[SnapshotId, Snapshot]]:
        """Give all snapshots, oldest first. Raises RepositoryDamaged, StoreError."""
        known = self._cached()
        documents: dict[str, str] = {}
        for name, _ in self._files.list(FOLDER):
            with suppress(NameNotFound):  # forgotten meanwhile
                documents[name] = known.get(name) or self._document(name).decode()
        found = [(SnapshotId(name), self._decode(name, text)) for name, text in documents.items()]
        if documents.keys() != known.keys():
            self._keep(documents)
        return sorted(found, key=lambda pair: (pair[1].moment, pair[0]))

    def damaged(self) -> list[SnapshotId]:
        """Give the ids of snapshots whose own files cannot be read. Raises StoreError."""
        found = []
        for name, _ in self._files.list(FOLDER):
            try:
                self.load(name)
            except NameNotFound:  # forgotten meanwhile
                continue
            except RepositoryDamaged:
                found.append(SnapshotId(name))
        return found

    def find(self, wanted: str) -> tuple[SnapshotId, Snapshot]:
        """Give the snapshot of a unique id prefix, or the ``latest``. Raises UsageError."""
        if wanted == "latest":
            snapshots = self.all()
            if not snapshots:
                raise UsageError(f"there is no snapshot at {self._files.location}")
            return snapshots[-1]
        names = [name for name, _ in self._files.list(FOLDER) if name.startswith(wanted)]
        if len(names) != 1 or not wanted:
            raise UsageError(
                f"{len(names) or 'no'} snapshots have an id that starts with {wanted!r}",
                hint="perdure snapshots lists them",
            )
        return SnapshotId(names[0]), self.load(names[0])

    def load(self, name: str) -> Snapshot:
        """Read one snapshot. Raises NameNotFound, RepositoryDamaged, StoreError."""
        return self._decode(name, self._document(name).decode())

    def save(self, snapshot: Snapshot) -> tuple[SnapshotId, int]:
        """Write a snapshot; gives its id and the size of its file."""
        text = snapshot.encode()
        name, size = self._files.save(FOLDER, text)
        if self._cache and (known := self._cached()):
            self._keep({**known, name: text.decode()})
        return SnapshotId(name), size

    def delete(self, name: SnapshotId) -> None:
        """Remove a snapshot. Raises NameNotFound."""
        self._files.delete(FOLDER, name)

    def _document(self, name: str) -> bytes:
        try:
            return self._files.load(FOLDER, name)
        except RepositoryDamaged as error:
            raise RepositoryDamaged(str(error), hint=_HINT) from None

    def _decode(self, name: str, text: str) -> Snapshot:
        return Snapshot.decode(text.encode(), self._files.where(FOLDER, name))

    def _cached(self) -> dict[str, str]:
        if self._cache:
            with suppress(OSError, msgspec.MsgspecError):
                content = self._cache.read_bytes()
                text = content[_DIGEST_SIZE:]
                if hashlib.sha256(text).digest() == content[:_DIGEST_SIZE]:
                    return msgspec.json.decode(text, type=dict[str, str])
        return {}

    def _keep(self, documents: dict[str, str]) -> None:
        if self._cache:
            with suppress(OSError):
                text = msgspec.json.encode(documents)
                self._cache.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                temporary = self._cache.with_suffix(f".{os.getpid()}.tmp")
                temporary.write_bytes(hashlib.sha256(text).digest() + text)
                temporary.replace(self._cache)

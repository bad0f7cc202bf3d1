"""Blobs on their way back from a snapshot into a blob directory: only what is not there and right."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from perdure.errors import StoreError
from perdure.history.blobs import EarlierBlobs
from perdure.history.folders import StoredFile
from perdure.model import BlobId, ChunkKind, Observer, Tid
from perdure.repository import Repository
from perdure.sources.blob_writer import BlobTarget

_NAMED = 20
"""How many blobs are named that the snapshot lacks."""


@dataclass(frozen=True, slots=True)
class BlobsRestored:
    """What became of blobs; sizes in bytes. ``kept`` were there already, and right."""

    count: int = 0
    size: int = 0
    kept: int = 0
    removed: int = 0
    missing: int = 0


class RestoringBlobs:
    """The blobs of a snapshot, up to a transaction, on their way into a directory."""

    def __init__(
        self,
        repository: Repository,
        kept: EarlierBlobs,
        until: Tid | None,
        path: Path,
        observer: Observer,
    ) -> None:
        self._repository, self._observer = repository, observer
        facts = kept.record
        self._folder, self._until = kept.folder, until
        self._target = BlobTarget(path, facts.layout)
        self._all: set[BlobId] = set()
        self._missing = [
            BlobId(oid, tid.value)
            for oid, tid in facts.missing
            if self._until is None or tid <= self._until
        ]
        self._result = BlobsRestored(missing=len(self._missing))
        self._expected = facts.count

    def lacking(self) -> Iterator[tuple[BlobId, StoredFile]]:
        """Give the blobs that are not there, or not right."""
        for blob, file in self._folder.files(self._until):
            self._all.add(blob)
            stands = self._target.stands(blob, file.chunks, file.size)
            self._result = replace(
                self._result,
                count=self._result.count + 1,
                size=self._result.size + file.size,
                kept=self._result.kept + stands,
            )
            self._observer.progress("blobs", len(self._all), max(self._expected, len(self._all)))
            if not stands:
                yield blob, file

    def write(self) -> None:
        """Write what is lacking, durably."""
        try:
            self._target.begin()
            wanted = list(self.lacking())
            contents = self._repository.load_many(
                ChunkKind.DATA, (chunk for _, file in wanted for chunk in file.chunks)
            )
            for number, (blob, file) in enumerate(wanted):
                self._target.write(blob, (next(contents) for _ in file.chunks))
                self._observer.progress("write blobs", number + 1, len(wanted))
            self._target.settle()
        except OSError as error:
            raise StoreError(
                f"{error.filename or self._target.path} cannot be written: {error.strerror}",
                hint="make room, or give a directory that this user may write to; what is there by"
                " now is used when you restore again",
            ) from error
        for blob in self._missing[:_NAMED]:
            self._observer.warning(
                f"blob {blob} is missing from the snapshot: its file was nowhere when it was made"
            )

    def clear(self) -> BlobsRestored:
        """Remove the blobs that the restored database does not have."""
        removed = 0
        for stray in list(self._target.strays(self._all)):
            self._target.remove(stray)
            removed += 1
        return replace(self._result, removed=removed)

    def survey(self) -> BlobsRestored:
        """Say what would be done."""
        for _ in self.lacking():
            pass
        return replace(self._result, removed=sum(1 for _ in self._target.strays(self._all)))

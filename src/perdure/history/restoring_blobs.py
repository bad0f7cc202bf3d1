"""Blobs on their way back from a snapshot into a blob directory: only what is not there and right."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from perdure.errors import RepositoryDamaged, StoreError
from perdure.history.blobs import SnapshotBlobs
from perdure.history.folders import StoredFile
from perdure.model import BlobId, ChunkKind, Observer, Tid
from perdure.pool import Pool
from perdure.repository import Repository
from perdure.sources.blob_writer import BlobTarget

_WRITERS, _WAITING = 4, 32 << 20
"""Threads that write files, and bytes that may wait for them."""
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
    """The blobs of a snapshot, up to a transaction, on their way into a directory.

    ``alone``: nothing else has blobs there. A blob that the snapshot lacks, and that is there, stays.
    """

    def __init__(
        self,
        repository: Repository,
        kept: SnapshotBlobs,
        until: Tid | None,
        path: Path,
        observer: Observer,
        *,
        alone: bool,
    ) -> None:
        self._repository, self._observer = repository, observer
        self._folder, self._until, self._facts = kept.folder, until, kept.record
        self._target = BlobTarget(path, kept.record.layout)
        self._missing = {
            BlobId(oid, tid.value)
            for oid, tid in kept.record.missing
            if until is None or tid <= until
        }
        self._tidies = alone and not kept.record.unseen
        self._wanted: set[BlobId] = set(self._missing)
        self._result = BlobsRestored()

    def write(self) -> None:
        """Write what is lacking, durably. Raises DamageFound, StoreError."""
        with self._translated():
            self._target.begin()
            standing, lacking = self._compare()
            contents = self._repository.load_many(
                ChunkKind.DATA, (chunk for _, file in lacking for chunk in file.chunks)
            )
            with closing(Pool(_WRITERS, _WAITING)) as writers:
                self._write_all(lacking, contents, writers)
            for blob in standing:
                self._target.mend(blob)
            self._target.settle()
        self._warn_of_missing()

    def _write_all(
        self,
        lacking: list[tuple[BlobId, StoredFile]],
        contents: Iterator[bytes],
        writers: Pool,
    ) -> None:
        """Write files: small ones by threads, as their content comes; large ones block by block."""
        jobs: deque[Future[None]] = deque()
        for number, (blob, file) in enumerate(lacking):
            if len(file.chunks) <= 1:
                content = [next(contents) for _ in file.chunks]
                jobs.append(writers.submit(file.size, self._write_one, (blob, content)))
            else:
                self._target.write(blob, (next(contents) for _ in file.chunks))
            while jobs and (jobs[0].done() or number + 1 == len(lacking)):
                jobs.popleft().result()
            self._observer.progress("write blobs", number + 1, len(lacking))

    def _write_one(self, job: tuple[BlobId, list[bytes]]) -> None:
        self._target.write(*job)

    def clear(self) -> BlobsRestored:
        """Remove the blobs that the restored database does not have. Raises StoreError."""
        with self._translated():
            strays = self._strays()
            for stray in strays:
                self._target.remove(stray)
        return replace(self._result, removed=len(strays))

    def survey(self) -> BlobsRestored:
        """Say what would be done."""
        self._compare()
        return replace(self._result, removed=len(self._strays()))

    def _compare(self) -> tuple[list[BlobId], list[tuple[BlobId, StoredFile]]]:
        """Say which blobs stand in the directory, and which are lacking there."""
        standing: list[BlobId] = []
        lacking: list[tuple[BlobId, StoredFile]] = []
        size = 0
        for blob, file in self._folder.files(self._until):
            if not self._target.new and self._target.stands(blob, file.chunks, file.size):
                standing.append(blob)
            else:
                lacking.append((blob, file))
            self._wanted.add(blob)
            size += file.size
            done = len(standing) + len(lacking)
            self._observer.progress("blobs", done, max(self._facts.count, done))
        count = len(standing) + len(lacking)
        if self._until is None and count != self._facts.count:
            raise RepositoryDamaged(
                f"{self._folder.folder.path} of the snapshot has {count} blobs, not {self._facts.count}"
            )
        missing = sum(not self._target.there(blob) for blob in self._missing)
        self._result = BlobsRestored(count, size, kept=len(standing), missing=missing)
        return standing, lacking

    def _strays(self) -> list[Path]:
        tidies = self._tidies and not self._target.new
        return list(self._target.strays(self._wanted)) if tidies else []

    def _warn_of_missing(self) -> None:
        lost = sorted(blob for blob in self._missing if not self._target.there(blob))
        for blob in lost[:_NAMED]:
            self._observer.warning(
                f"blob {blob} is missing: its file could not be read when the snapshot was made"
            )
        if len(lost) > _NAMED:
            self._observer.warning(f"{len(lost) - _NAMED} more blobs are missing")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(
                f"{error.filename or self._target.path} cannot be written: {error.strerror}",
                hint="make room, or let this user write there; what is there by now is used when you"
                " restore again",
            ) from error

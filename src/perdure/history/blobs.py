"""The blobs of a source in a snapshot: kept from run to run, taken from a blob directory where new."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO

from perdure.errors import DamageFound
from perdure.formats.blobs import CHUNK_SIZE, folders_in_snapshot, name_in_snapshot, parse_name
from perdure.formats.manifest import BlobsRecord
from perdure.history.folders import Folder, StoredFile
from perdure.model import BlobId, ChunkId, ChunkKind, Observer, Tid
from perdure.repository import Writer
from perdure.sources.protocol import Blobs

MOST_WARNINGS = 20
"""How many blobs are spoken of one by one."""
_IN_WORK = 256
"""How many blobs may be on their way into the repository."""


class BlobFolder:
    """The folder of a snapshot that holds a source's blobs."""

    def __init__(self, folder: Folder) -> None:
        self.folder = folder

    def find(self, blob: BlobId) -> StoredFile | None:
        """Give a blob's file; None if it is not there. Raises RepositoryDamaged."""
        folder = self.folder
        for name in folders_in_snapshot(blob):
            if name not in folder:
                return None
            folder = folder.folder(name)
        name = name_in_snapshot(blob)
        return folder.file(name) if name in folder else None

    def whole(self, file: StoredFile) -> bool:
        """Whether the repository has all chunks of a file."""
        return self.folder.has_chunks(file)

    def put(self, blob: BlobId, file: StoredFile) -> None:
        """Enter a blob."""
        folder = self.folder
        for name in folders_in_snapshot(blob):
            folder = folder.folder(name)
        folder.put(name_in_snapshot(blob), file)

    def remove(self, blob: BlobId) -> None:
        """Take a blob out."""
        folder = self.folder
        for name in folders_in_snapshot(blob):
            folder = folder.folder(name)
        folder.remove(name_in_snapshot(blob))

    def files(self, until: Tid | None = None) -> Iterator[tuple[BlobId, StoredFile]]:
        """Give the blobs of all transactions up to ``until``, by the minute. Raises DamageFound."""
        last = folders_in_snapshot(BlobId(0, until.value)) if until is not None else None
        yield from _files(self.folder, (), last, until)


def _files(
    folder: Folder, path: tuple[str, ...], last: tuple[str, ...] | None, until: Tid | None
) -> Iterator[tuple[BlobId, StoredFile]]:
    for inner in folder.folders():
        below = (*path, inner.path.name)
        if last is None or below <= last[: len(below)]:
            yield from _files(inner, below, last, until)
    yield from blobs_directly_in(folder, until)


def blobs_directly_in(folder: Folder, until: Tid | None) -> Iterator[tuple[BlobId, StoredFile]]:
    """Give the blobs of one folder, of transactions up to ``until``. Raises DamageFound."""
    for name in folder.files():
        blob = parse_name(name, str(folder.path))
        if until is None or blob.tid <= until.value:
            yield blob, folder.file(name)


@dataclass(slots=True)
class KeptBlobs:
    """What became of blobs: how many were entered (bytes), how many were new, which files are nowhere."""

    count: int = 0
    size: int = 0
    new: int = 0
    bytes_read: int = 0
    missing: dict[BlobId, str] = field(default_factory=dict)
    """With what is the matter with each."""


@dataclass(frozen=True, slots=True)
class FoundBlobs:
    """The blobs that a run found among the records that it read."""

    certain: AbstractSet[BlobId] = frozenset()
    uncertain: AbstractSet[BlobId] = frozenset()
    """Of encrypted records, which are blobs if there are files for them."""
    everything: bool = False
    """All records of the source were read, not only those that are new."""


@dataclass(frozen=True, slots=True)
class SnapshotBlobs:
    """What a snapshot has of a source's blobs."""

    record: BlobsRecord
    folder: BlobFolder


def keep_blobs(
    blobs: Blobs,
    found: FoundBlobs,
    earlier: SnapshotBlobs | None,
    target: BlobFolder,
    writer: Writer,
    observer: Observer,
    *,
    verify: bool = False,
    check: bool = False,
) -> tuple[BlobFolder, BlobsRecord, KeptBlobs]:
    """Make the folder of the blobs at a cut: as the last snapshot has them, or else from their files.

    ``target`` is an empty folder, used where all of them were found. With ``verify`` all files are read,
    and what differs from the last snapshot is taken anew; with ``check`` those are that the repository has
    lost. Raises RepositoryDamaged, StoreError.
    """
    certain, uncertain, base = set(found.certain), found.uncertain, None
    if earlier is not None and not found.everything:
        target, base = earlier.folder, earlier.record
        certain |= {BlobId(oid, tid.value) for oid, tid in base.missing}
        if verify or check:
            certain |= {b for b, file in target.files() if verify or not target.whole(file)}
    known = earlier.folder if earlier is not None else None
    keeper = _Keeper(blobs, target, known, writer, observer, verify=verify)
    if blobs.place is not None:
        keeper.keep_all(certain, uncertain)
    kept = keeper.kept
    seen = blobs.place is not None
    record = BlobsRecord(
        place=blobs.place if seen or base is None else base.place,
        tree=target.folder.path.name,
        count=kept.count + (base.count if base else 0),
        size=kept.size + (base.size if base else 0),
        missing=tuple((blob.oid, Tid(blob.tid)) for blob in sorted(kept.missing)),
        layout=blobs.layout if seen or base is None else base.layout,
        unseen=not seen and bool(certain or (base and base.unseen)),
    )
    return target, record, kept


class _Keeper:
    def __init__(
        self,
        blobs: Blobs,
        target: BlobFolder,
        earlier: BlobFolder | None,
        writer: Writer,
        observer: Observer,
        *,
        verify: bool,
    ) -> None:
        self._blobs, self._target, self._earlier = blobs, target, earlier
        self._writer, self._observer, self._verify = writer, observer, verify
        self._pending: deque[tuple[BlobId, list[Future[ChunkId]], int, StoredFile | None]] = deque()
        self.kept = KeptBlobs()
        self._warnings = 0

    def keep_all(self, certain: AbstractSet[BlobId], uncertain: AbstractSet[BlobId]) -> None:
        """Enter blobs, in the order of their transactions."""
        order = sorted(certain | uncertain, key=lambda blob: (blob.tid, blob.oid))
        for number, blob in enumerate(order):
            self._keep(blob, certain=blob in certain)
            if not number % _IN_WORK:
                self._observer.progress("blobs", number, len(order))
        self._settle(0)

    def _keep(self, blob: BlobId, *, certain: bool) -> None:
        have = self._target.find(blob)
        if have is not None and not self._verify and self._target.whole(have):
            return
        known = have or self._known(blob)
        whole = known is not None and self._target.whole(known)
        if known is not None and whole and not self._verify:
            self._enter(blob, known)
            return
        try:
            file = self._blobs.open(blob)
            if file is not None:
                with closing(file):
                    self._read(blob, file, known)
                self.kept.new += not whole
                return
        except OSError as error:
            self._lacking(blob, known, f"cannot be read: {error.strerror}")
            return
        if certain or known:
            self._lacking(blob, known, "has no file")

    def _known(self, blob: BlobId) -> StoredFile | None:
        try:
            return self._earlier.find(blob) if self._earlier else None
        except DamageFound as error:
            self._observer.warning(f"{error}; blob {blob} is stored again")
            return None

    def _settle(self, most: int) -> None:
        """Enter what is in the repository by now, until at most so many are on their way."""
        while len(self._pending) > most:
            blob, chunks, size, known = self._pending.popleft()
            file = StoredFile(tuple(chunk.result() for chunk in chunks), size)
            if known is not None and known != file:
                self._warn(f"blob {blob} has changed since it was stored")
            self._enter(blob, file)

    def _read(self, blob: BlobId, file: BinaryIO, known: StoredFile | None) -> None:
        chunks, size = [], 0
        while data := file.read(CHUNK_SIZE):
            chunks.append(self._writer.add(ChunkKind.DATA, data))
            size += len(data)
        self.kept.bytes_read += size
        self._pending.append((blob, chunks, size, known))
        self._settle(_IN_WORK)

    def _lacking(self, blob: BlobId, known: StoredFile | None, why: str) -> None:
        if known is not None and self._target.whole(known):
            self._warn(f"blob {blob} {why}; it stays as it was stored before")
            self._enter(blob, known)
            return
        if self._target.find(blob) is not None and known is not None:
            self._target.remove(blob)
            self.kept.count -= 1
            self.kept.size -= known.size
        self.kept.missing[blob] = why

    def _enter(self, blob: BlobId, file: StoredFile) -> None:
        have = self._target.find(blob)
        self.kept.count += have is None
        self.kept.size += file.size - (have.size if have is not None else 0)
        self._target.put(blob, file)

    def _warn(self, message: str) -> None:
        """Warn, but not thousands of times: of a directory that is not mounted, every blob is gone."""
        self._warnings += 1
        if self._warnings <= MOST_WARNINGS:
            self._observer.warning(message)
        elif self._warnings == MOST_WARNINGS + 1:
            self._observer.warning("more blobs are so; is the blob directory mounted?")

"""The blobs of a source in a snapshot: kept from run to run, taken from a blob directory where new."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from typing import BinaryIO

from perdure.errors import DamageFound
from perdure.formats.blobs import CHUNK_SIZE, folders_in_snapshot, name_in_snapshot, parse_name
from perdure.formats.manifest import BlobsRecord
from perdure.history.folders import Folder, StoredFile, store_together
from perdure.model import BlobId, ChunkId, ChunkKind, Observer, Tid
from perdure.pool import Pool
from perdure.repository import Writer
from perdure.sources.protocol import Blobs

MOST_WARNINGS = 20
"""How many blobs are spoken of one by one."""
_READERS = 4
_FIRST = 128 << 10
"""Bytes of a blob that are read ahead."""
_DAY = 3
"""How many folders lead to that of a day."""
_DAYS = 30
"""How many days are stored together."""
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

    def turn_to(self, day: tuple[str, ...], before: tuple[str, ...] | None) -> None:
        """Load the folders of a day together, and let go of those of another. Raises RepositoryDamaged."""
        if before is not None:
            self.descend(before).forget()
        self.descend(day).prefetch()

    def descend(self, names: tuple[str, ...]) -> Folder:
        """Give a folder within, a new one where there is none. Raises RepositoryDamaged."""
        folder = self.folder
        for name in names:
            folder = folder.folder(name)
        return folder

    def put(self, blob: BlobId, file: StoredFile) -> None:
        """Enter a blob."""
        self.descend(folders_in_snapshot(blob)).put(name_in_snapshot(blob), file)

    def remove(self, blob: BlobId) -> None:
        """Take a blob out."""
        self.descend(folders_in_snapshot(blob)).remove(name_in_snapshot(blob))

    def files(self, until: Tid | None = None) -> Iterator[tuple[BlobId, StoredFile]]:
        """Give the blobs of all transactions up to ``until``, by the minute. Raises DamageFound."""
        last = folders_in_snapshot(BlobId(0, until.value)) if until is not None else None
        yield from _files(self.folder, (), last, until)


def _files(
    folder: Folder, path: tuple[str, ...], last: tuple[str, ...] | None, until: Tid | None
) -> Iterator[tuple[BlobId, StoredFile]]:
    if len(path) == _DAY:
        folder.prefetch()
    for inner in folder.folders():
        below = (*path, inner.path.name)
        if last is None or below <= last[: len(below)]:
            yield from _files(inner, below, last, until)
    yield from blobs_directly_in(folder, until)
    if len(path) == _DAY:
        folder.forget()


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
    keeper = _Keeper(blobs, target, known, writer, observer, verify=verify, fresh=base is None)
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


@dataclass(frozen=True, slots=True)
class _Begun:
    """The beginning of a blob's file, and the file where there is more; or why there is none."""

    blob: BlobId
    data: bytes = b""
    rest: BinaryIO | None = None
    ready: StoredFile | None = None
    """What the last snapshot has, and will do."""
    why: str = ""
    failed: bool = False
    """It is there, and cannot be read."""


@dataclass(frozen=True, slots=True)
class _Pending:
    """A blob on its way into the folder: its chunks, or the file that is ready."""

    blob: BlobId
    chunks: Sequence[Future[ChunkId]] = ()
    size: int = 0
    known: StoredFile | None = None
    ready: StoredFile | None = None


_Job = tuple[BlobId, StoredFile | None]


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
        fresh: bool,
    ) -> None:
        self._blobs, self._target, self._earlier = blobs, target, earlier
        self._writer, self._observer, self._verify = writer, observer, verify
        self._pending: deque[_Pending] = deque()
        self.kept = KeptBlobs()
        self._warnings = 0
        self._fresh = fresh
        self._before: dict[BlobId, StoredFile] = {}
        self._days: dict[tuple[str, ...], Folder] = {}
        self._known_day: tuple[str, ...] | None = None

    def keep_all(self, certain: AbstractSet[BlobId], uncertain: AbstractSet[BlobId]) -> None:
        """Enter blobs, in the order of their transactions; their files are opened ahead, by threads."""
        order = sorted(certain | uncertain, key=lambda blob: (blob.tid, blob.oid))
        if self._blobs.parallel:
            with closing(Pool(_READERS, _READERS * _FIRST * 8)) as readers:
                jobs = ((_FIRST, job) for job in self._jobs(order))
                for begun in readers.in_order(self._begin, jobs):
                    self._take(begun, certain)
        else:
            for job in self._jobs(order):
                self._take(self._begin(job), certain)
        self._settle(0)

    def _jobs(self, order: Sequence[BlobId]) -> Iterator[_Job]:
        """Give each blob that is to be entered, with the file that the last snapshot has, if that will do."""
        for number, blob in enumerate(order):
            if not number % _IN_WORK:
                self._observer.progress("blobs", number, len(order))
            have = None if self._fresh else self._target.find(blob)
            if have is not None and not self._verify and self._target.whole(have):
                continue
            known = have or self._known(blob)
            whole = known is not None and self._target.whole(known)
            if known is not None and whole and not self._verify:
                yield blob, known
                continue
            if known is not None:
                self._before[blob] = known
            self.kept.new += not whole
            yield blob, None

    def _begin(self, job: _Job) -> _Begun:
        """Open the file of a blob and read its beginning, which mostly is all of it."""
        blob, ready = job
        if ready is not None:
            return _Begun(blob, ready=ready)
        try:
            file = self._blobs.open(blob)
            if file is None:
                return _Begun(blob, why="has no file")
            data = file.read(_FIRST)
        except OSError as error:
            return _Begun(blob, why=f"cannot be read: {error.strerror}", failed=True)
        if len(data) < _FIRST:
            file.close()
            return _Begun(blob, data)
        return _Begun(blob, data, file)

    def _take(self, begun: _Begun, certain: AbstractSet[BlobId]) -> None:
        """Enter a blob whose file was opened, or note that it is missing; in the order of the jobs."""
        if begun.ready is not None:
            self._put(_Pending(begun.blob, ready=begun.ready))
            return
        blob, known = begun.blob, self._before.pop(begun.blob, None)
        try:
            if not begun.why:
                self._read(begun, known)
                return
        except OSError as error:
            begun = _Begun(blob, why=f"cannot be read: {error.strerror}", failed=True)
        self.kept.new -= 1
        if begun.failed or known is not None or blob in certain:
            self._lacking(blob, known, begun.why)

    def _known(self, blob: BlobId) -> StoredFile | None:
        """Give what the last snapshot has of a blob; its folders are loaded a day at a time."""
        if self._earlier is None:
            return None
        try:
            day = folders_in_snapshot(blob)[:_DAY]
            if self._fresh and day != self._known_day:
                self._earlier.turn_to(day, self._known_day)
                self._known_day = day
            return self._earlier.find(blob)
        except DamageFound as error:
            self._warn(f"{error}; blob {blob} is stored again")
            return None

    def _put(self, pending: _Pending) -> None:
        self._pending.append(pending)
        self._settle(_IN_WORK)

    def _settle(self, most: int) -> None:
        """Enter what is in the repository by now, until at most so many are on their way."""
        while len(self._pending) > most:
            pending = self._pending.popleft()
            file = pending.ready
            if file is None:
                chunks = tuple(chunk.result() for chunk in pending.chunks)
                file = StoredFile(chunks, pending.size)
                if pending.known is not None and pending.known != file:
                    self._warn(f"blob {pending.blob} has changed since it was stored")
            self._enter(pending.blob, file)

    def _read(self, begun: _Begun, known: StoredFile | None) -> None:
        chunks, size = [], 0
        with closing(begun.rest or BytesIO()) as rest:
            data = begun.data + rest.read(CHUNK_SIZE - len(begun.data))
            while data:
                chunks.append(self._writer.add(ChunkKind.DATA, data))
                size += len(data)
                data = rest.read(CHUNK_SIZE)
        self.kept.bytes_read += size
        self._put(_Pending(begun.blob, chunks, size, known))

    def _lacking(self, blob: BlobId, known: StoredFile | None, why: str) -> None:
        if known is not None and self._target.whole(known):
            self._warn(f"blob {blob} {why}; it stays as it was stored before")
            self._put(_Pending(blob, ready=known))
            return
        if known is not None and not self._fresh and self._target.find(blob) is not None:
            self._target.remove(blob)
            self.kept.count -= 1
            self.kept.size -= known.size
        self.kept.missing[blob] = why

    def _enter(self, blob: BlobId, file: StoredFile) -> None:
        have = None if self._fresh else self._target.find(blob)
        self.kept.count += have is None
        self.kept.size += file.size - (have.size if have is not None else 0)
        day = folders_in_snapshot(blob)[:_DAY]
        if self._fresh and day not in self._days:
            if len(self._days) == _DAYS:
                self._finish_days()
            self._days[day] = self._target.descend(day)
        self._target.put(blob, file)

    def _finish_days(self) -> None:
        """Store the folders of days that are over, and let go of them: there may be very many."""
        store_together(list(self._days.values()), self._writer)
        for folder in self._days.values():
            folder.forget()
        self._days.clear()

    def _warn(self, message: str) -> None:
        """Warn, but not thousands of times: of a directory that is not mounted, every blob is gone."""
        self._warnings += 1
        if self._warnings <= MOST_WARNINGS:
            self._observer.warning(message)
        elif self._warnings == MOST_WARNINGS + 1:
            self._observer.warning("more blobs are so; is the blob directory mounted?")

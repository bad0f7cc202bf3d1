"""Any ZODB storage through its iterator: RelStorage, a ZEO client without access to files, NEO ...

**What is read.** The history of such a storage is that of its canonical file (sources/canonical.py): the
FileStorage that holds its transactions. So it is restored as a FileStorage is. The bytes are made a window
at a time, in a temporary file, as they are asked for; each transaction is asked for once.

**The cut** is the storage's last transaction when it was opened. What is committed meanwhile is not asked
for: the iterator is told to stop there. RelStorage's iterator reads one snapshot of its database
(REPEATABLE READ), a ZEO server's the file as it was. Tids that do not rise are refused (SourceDamaged): an
increment could not follow them. An iterator that cannot be told where to begin is read from the first
transaction on, which costs time. Transactions without records are kept as they are.

**An increment** asks for what follows the last cut. Prev pointers lead to records before it: where these
stand is told by the layouts and catalogues of the history (``Past``), which are some thousandths of it;
for nothing else is the repository read.

**A pack** is noticed by a transaction that is gone or has changed: the first one, the first that no pack had
rewritten (its status is "p" afterwards), the last one. Each is remembered by its tid and the SHA-256 of
its records (the first 256), since device and inode mean nothing here. If one does not stand, everything
is read and compared with the catalogues, and only what is new is stored. A second pack that ends before the
first unpacked transaction drops records that no moment needs and may go unnoticed; then more than the
storage has is restored, all of it right. Parts that a run would read again to store them better are
compared first, and ``--verify-source`` compares all of them.

**A storage without history** (history-free RelStorage) gives each object at its current revision only:
each commit takes older ones out of the transactions before. Its canonical file is append-only all the
same: an increment appends the transactions behind the last cut, and what earlier snapshots have stays
shared. The newest revision of each object is right; records that the storage has dropped stay as garbage.
All its transactions count as packed (status "p"), so that the moments which can be restored are its cuts:
``restore --at`` says so. Its iterator is read without a stop, at the snapshot of the database that the
connection has: with a stop, objects that were changed after it would be missing. That it is the same
database is told by some objects, none of which may have an older revision than before. Where more than
half of the file is garbage it is stored anew, and after a thousand increments compared as a whole.

**Blobs** come through the storage into an empty temporary folder and leave it at once, unless the
configuration names a directory that is shared with the server.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, BinaryIO

from perdure.formats.filestorage import MAGIC_SIZE, TransactionHeader, above
from perdure.formats.manifest import Mark, Position, Proof, StoragePosition
from perdure.model import BlobId, Tid
from perdure.sources.canonical import MAGIC, Canonical, Newest, Spool
from perdure.sources.filestorage import WINDOW, FileStorageCut
from perdure.sources.iterating import Reader, StorageReader
from perdure.sources.opening import describe, opened_storage, read_text, translated
from perdure.sources.protocol import Blobs, Companion, Evidence, Past

if TYPE_CHECKING:
    from perdure.formats.extent import Extent

FILE_NAME = "Data.fs"
"""What the file is called that a storage is restored as: its place is no path."""
_BLOCK = 1 << 20
_SAMPLE = 32
"""Objects of a transaction that a storage without history is recognised by."""


class StorageSource:
    """A storage, by the ZConfig text of its section; named by its place unless a name is given.

    ``window``: bytes of the canonical file that are looked at together. ``without_blobs``: they are not
    asked for. ``database``: what the site calls it.
    """

    kind = "storage"
    file_name = FILE_NAME

    def __init__(
        self,
        zconfig: str,
        name: str | None = None,
        window: int = WINDOW,
        *,
        without_blobs: bool = False,
        database: str = "",
    ) -> None:
        self.place = describe(zconfig)
        self.name = name or self.place
        self.database = database
        self._zconfig, self._window, self._without_blobs = zconfig, window, without_blobs

    @classmethod
    def from_file(
        cls,
        path: Path,
        name: str | None = None,
        *,
        without_blobs: bool = False,
        database: str = "",
    ) -> StorageSource:
        """Make a source of a ZConfig file with one storage section. Raises SourceUnusable."""
        return cls(read_text(path), name, without_blobs=without_blobs, database=database)

    @contextmanager
    def cut(self) -> Iterator[StorageCut]:
        """Open the storage read-only and fix what is read. Raises SourceUnusable."""
        with TemporaryDirectory(prefix="perdure-") as folder:
            cache = Path(folder, "blobs")
            with opened_storage(self._zconfig, read_only=True, blob_cache=cache) as storage:

                def guard() -> Any:
                    return translated(self._zconfig, "cannot be read")

                blobs = None if self._without_blobs else _StorageBlobs(storage, self, cache, guard)
                reader = StorageReader(storage, self.place, guard)
                with closing(StorageCut(reader, self.place, self._window, blobs)) as cut:
                    yield cut

    def concerns(self) -> Iterator[str]:
        """Nothing more is known of a storage than that it can be read."""
        return iter(())


class _StorageBlobs:
    """The blobs of a storage, as it gives them."""

    layout: str | None = None
    parallel = False

    def __init__(
        self, storage: Any, source: StorageSource, cache: Path, guard: Callable[[], Any]
    ) -> None:
        self._storage, self._cache, self._guard = storage, cache, guard
        self.place: str | None = source.place if hasattr(storage, "loadBlob") else None

    def open(self, blob: BlobId) -> BinaryIO | None:
        """Open the file of a blob; None when there is none. Raises OSError when it cannot be read."""
        from ZODB.POSException import Unsupported
        from ZODB.utils import p64

        with self._guard():
            try:
                path = self._storage.loadBlob(p64(blob.oid), p64(blob.tid))
            except (KeyError, Unsupported, AssertionError):  # RelStorage asserts that it has a row
                return None
        if path is None:
            return None
        file = open(path, "rb")  # noqa: SIM115 - whoever asked closes it
        if self._cache in Path(path).parents:
            os.unlink(path)
        return file


class _Stream:
    """The canonical file from a position on, made once, in order."""

    def __init__(
        self,
        reader: Reader,
        began: int,
        after: int,
        stop: int | None,
        canonical: Canonical,
        magic: bytes,
    ) -> None:
        self.began, self._magic = began, magic
        self.first: int | None = None
        self.unpacked: int | None = None
        """The tids of the first transaction, and of the first that no pack rewrote."""
        self.canonical = canonical
        self._reader = reader
        self._transactions = reader.transactions(after, stop)
        self._next: Any = None

    @property
    def position(self) -> int:
        """Where what was not yet made begins."""
        return self.canonical.position

    def fill(self, size: int, end: int | None = None, last_tid: int | None = None) -> Spool | None:
        """Make some more of the file: about ``size`` bytes; None at its end, or where it was to stop."""
        spool = Spool(self.position, self._magic)
        self.canonical.begin(spool)
        while spool.size < size and (end is None or self.position < end):
            if self._next is None:
                self._next = next(self._transactions, None)
            if self._next is None:
                break
            tid = int.from_bytes(self._next.tid, "big")
            if above(tid, last_tid):
                break
            self._add(tid, self._next, spool)
            self._next = None
        if not spool.size:
            spool.close()
            return None
        spool.flush()
        return spool

    def _add(self, tid: int, transaction: Any, spool: Spool) -> None:
        packed = self._reader.is_packed(transaction)
        if self.first is None:
            self.first = tid
        if self.unpacked is None and not packed:
            self.unpacked = tid
        records = self._reader.records(transaction)
        before = self.canonical.add(transaction, records, spool, packed=packed)
        self._reader.note(transaction, before)

    def close(self) -> None:
        """Let go of the storage's iterator."""
        self._next = None
        close = getattr(self._transactions, "close", None)
        if close is not None:
            close()


class StorageCut:
    """A storage up to its last transaction, as the bytes of its canonical file.

    ``magic``: how that begins; ``links_packed``: as in ``Canonical``.
    """

    companion: Companion | None = None

    def __init__(
        self,
        reader: Reader,
        where: str,
        window: int = WINDOW,
        blobs: Blobs | None = None,
        *,
        magic: bytes = MAGIC,
        links_packed: bool = False,
    ) -> None:
        self.magic, self._links_packed = magic, links_packed
        self.where, self.window, self.blobs = where, window, blobs
        self.bytes_read = 0
        self._reader = reader
        self.tid = reader.last_tid()
        self.limit = max(reader.size(), MAGIC_SIZE)
        self._stream: _Stream | None = None
        self._spool: Spool | None = None
        self._told: StoragePosition | None = None
        self._past: Past | None = None

    def close(self) -> None:
        """Let go of the storage and of the temporary file."""
        self._let_go(self._spool)
        self._let_go(self._stream)
        self._spool = self._stream = None

    def resume(self, past: Past) -> None:
        """Be told what earlier runs made; afterwards ``limit`` says whether anything follows it."""
        assert self._told is not None, "only what stands is built upon"
        self._past, self.limit = past, self._told.size
        if self.tid != self._told.last.value:
            following = self._spool_at(self._told.size)
            self.limit = following.end if following else self._told.size

    def extents(
        self,
        start: int,
        end: int | None = None,
        *,
        last_tid: int | None = None,
        expected: int | None = None,
    ) -> Iterator[Extent]:
        """Make the canonical file from ``start`` on, a window at a time.

        ``start`` is 0, where the last call stopped, or where a layout of the past begins. It stops at
        ``end``, before a transaction above ``last_tid``, or at the cut. Each extent is valid until the
        next one is asked for. Raises SourceDamaged, SourceUnusable.
        """
        position = start
        bounded = end is not None or last_tid is not None
        while True:
            spool = self._spool
            if spool is None or spool.start != position or bounded:
                size = min(self.window, expected or self.window)
                spool = self._fill(position, size, end, last_tid)
            if spool is None:
                return
            made = FileStorageCut(Path(self.where), spool.descriptor, self.window)
            for extent in made.extents(position):
                self.limit = max(self.limit, extent.end)
                yield extent
            position, expected = spool.end, None

    def _fill(
        self, position: int, size: int, end: int | None = None, last_tid: int | None = None
    ) -> Spool | None:
        stream = self._stream_at(position)
        self._let_go(self._spool)
        self._spool = stream.fill(size, end, last_tid)
        self.bytes_read += self._spool.size if self._spool else 0
        return self._spool

    def _stream_at(self, position: int) -> _Stream:
        if self._stream is not None and self._stream.position == position:
            return self._stream
        self._let_go(self._stream)
        after, newest = 0, None
        if position:
            assert self._past is not None, "the file is made from its beginning, or from a layout's"
            after, newest = self._past.last_tid(position), self._newest(self._past, position)
        stop = self.tid if self._reader.keeps_history else None
        canonical = Canonical(position, newest, self.where, links_packed=self._links_packed)
        self._stream = _Stream(self._reader, position, after, stop, canonical, self.magic)
        return self._stream

    def _newest(self, past: Past, position: int) -> Newest:
        """Ask the past only when a record needs it."""
        known: Newest | None = None

        def newest(oid: int) -> tuple[int, int]:
            nonlocal known
            known = known or past.newest(position)
            return known(oid)

        return newest

    def _let_go(self, held: Spool | _Stream | None) -> None:
        if held is not None:
            held.close()

    def read(self, position: int, size: int) -> bytes:
        """Read bytes of the window that was made last; none of what is elsewhere."""
        spool = self._spool
        if spool is None or not spool.start <= position < spool.end:
            return b""
        return spool.read(position, size)

    def identify(self, position: int) -> tuple[int, int] | None:
        """Give oid and tid of a record before the first position that a prev pointer leads to."""
        return self._stream.canonical.outer.get(position) if self._stream else None

    def data_at(self, position: int, limit: int) -> bytes | None:
        """There are no back pointers to follow."""
        return None

    def proof(self, position: int, size: int) -> Proof:
        """Give the SHA-256 of a range, which is made again; ranges come in the order of the file."""
        digest = hashlib.sha256()
        at, end = position, position + size
        while at < end:
            spool = self._spool_at(at)
            if spool is None:
                break
            data = spool.read(at, min(_BLOCK, end - at))
            digest.update(data)
            at += len(data)
        return Proof(position, size, digest.hexdigest())

    def _spool_at(self, position: int) -> Spool | None:
        spool = self._spool
        if spool is not None and spool.start <= position < spool.end:
            return spool
        return self._fill(position, self.window)

    def position(self, last: TransactionHeader | None) -> Position:
        """Say how a later run recognises this storage, read up to behind ``last``."""
        stream, told = self._stream, self._told
        if stream is not None and stream.began == 0:
            told = None
        final = last.tid if last else None
        size = last.end if last else MAGIC_SIZE
        first = told.first if told else None
        return Position(
            0,
            0,
            None,
            None,
            StoragePosition(
                last=Tid(self.tid),
                keeps_history=self._reader.keeps_history,
                size=size,
                whole=told.whole if told else size,
                first=first or self._mark(stream.first if stream else None),
                unpacked=self._unpacked(told),
                final=self._mark(final),
                objects=self._objects(told, final),
            ),
        )

    def _mark(self, tid: int | None) -> Mark | None:
        return self._reader.mark(tid) if self._reader.keeps_history else None

    def _unpacked(self, told: StoragePosition | None) -> Mark | None:
        if told and told.unpacked:
            return told.unpacked
        return self._mark(self._stream.unpacked if self._stream else None)

    def _objects(
        self, told: StoragePosition | None, final: int | None
    ) -> tuple[tuple[int, Tid], ...]:
        if self._reader.keeps_history:
            return ()
        first = self._stream.first if self._stream else None
        found = dict(told.objects[:_SAMPLE]) if told else self._sample(first)
        return tuple((found | self._sample(final)).items())

    def _sample(self, tid: int | None) -> dict[int, Tid]:
        return {oid: Tid(tid) for oid in self._reader.objects(tid, _SAMPLE)} if tid else {}

    def evidence(self, earlier: Position | None) -> Evidence:
        """Look whether the storage is the one that an earlier run read, and was not packed since."""
        told = earlier.storage if earlier else None
        keeps = self._reader.keeps_history
        if told is None or told.keeps_history != keeps:
            return Evidence(same_file=False, first_stands=False, last_stands=False)
        self._told = told
        last_stands = self.tid >= told.last.value
        if not keeps:
            return Evidence(
                True, self._moved_on(told), last_stands, certain=False, whole=told.whole
            )
        first_stands = self._stands(told.first) and self._stands(told.unpacked)
        if first_stands and told.unpacked:
            first_stands = self._reader.unpacked(told.unpacked.tid.value)
        last_stands = last_stands and self._stands(told.final)
        return Evidence(True, first_stands, last_stands, certain=False)

    def _stands(self, mark: Mark | None) -> bool:
        return mark is None or self._reader.mark(mark.tid.value) == mark

    def _moved_on(self, told: StoragePosition) -> bool:
        """Whether no object has an older revision than before, and not all are gone."""
        now = [(self._reader.current_tid(oid), tid.value) for oid, tid in told.objects]
        known = [(current, tid) for current, tid in now if current is not None]
        return all(current >= tid for current, tid in known) and (bool(known) or not now)

    @property
    def replaced(self) -> bool:
        """A storage has no file that could be another one by now."""
        return False

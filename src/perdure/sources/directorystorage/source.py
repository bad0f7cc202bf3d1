"""A DirectoryStorage as a source: the history of the FileStorage that holds its transactions.

**The cut** is the last transaction committed when the HOME was opened. It is read beside the living process,
without a lock and without its help (sources/directorystorage/home.py); while a pack runs it is refused.

**An increment** follows the transactions back from the last one to the last cut. That the earlier run read
this storage, and that no pack ran since, is told by marks: each is the SHA-256 of a transaction's file and
of ``x.packed``. Where they do not stand everything is read and compared.

**Beside the history** its companion keeps what a FileStorage has no place for
(formats/directorystorage_particulars.py), with everything in ``config/``.

The file begins with "FS21", as Python 2 writes it, unless the root object has a pickle of Python 3's ZODB.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec

from perdure.errors import SourceDamaged
from perdure.formats.directorystorage import RevisionFile
from perdure.formats.directorystorage_names import LAST_OID, PACKED, transaction_name
from perdure.formats.directorystorage_particulars import (
    CONFIG,
    FACTS,
    NO_POINTER,
    OLD_POINTER,
    USUAL_POINTER,
    HomeFacts,
    Particulars,
    Revision,
    particulars_of,
)
from perdure.formats.filestorage import PYTHON_2, PYTHON_3
from perdure.formats.manifest import Mark, Position
from perdure.model import Tid
from perdure.sources.blobs import BlobDirectory
from perdure.sources.directorystorage.contents import (
    Contents,
    HomeRecord,
    HomeTransaction,
    PointerState,
)
from perdure.sources.directorystorage.home import Home, files_below, read_file
from perdure.sources.filestorage import WINDOW
from perdure.sources.protocol import Blobs, Evidence
from perdure.sources.storage import StorageCut

_MOST_CONFIG = 1 << 20
_FIRST_OF_PYTHON_3 = 3
"""The pickle protocol that ZODB writes on Python 3; on Python 2, DirectoryStorage's ZODB writes 1."""
_POINTERS = {
    PointerState.USUAL: USUAL_POINTER,
    PointerState.OLD: OLD_POINTER,
    PointerState.NONE: NO_POINTER,
}


class DirectoryStorageSource:
    """A DirectoryStorage, by its HOME; named by that path unless a name is given.

    ``window``: bytes of the history's file that are looked at together. ``blobs``: the blob directory of a
    storage that is wrapped into one with blobs. ``database``: what the site calls it.
    """

    kind = "directorystorage"

    def __init__(
        self,
        path: Path,
        name: str | None = None,
        window: int = WINDOW,
        *,
        blobs: Path | None = None,
        database: str = "",
    ) -> None:
        self.path = path.absolute()
        self.place = str(self.path)
        self.name = name or self.place
        self.database = database
        self._window, self._blobs = window, blobs
        self._cut: DirectoryStorageCut | None = None

    @contextmanager
    def cut(self) -> Iterator[DirectoryStorageCut]:
        """Look which transaction is the last one. Raises SourceUnusable."""
        contents = Contents(Home(self.path))
        blobs = BlobDirectory(self._blobs) if self._blobs else None
        with closing(DirectoryStorageCut(contents, self._window, blobs)) as cut:
            self._cut = cut
            yield cut

    def concerns(self) -> Iterator[str]:
        """Say what is not right with the storage, though it can be read."""
        strange = Home(self.path).journal().strange
        if strange:
            yield (
                f"{self.place}/journal holds {', '.join(sorted(strange)[:3])}: the storage will not start"
                " as long as it is there"
            )
        lost = self._cut.lost if self._cut else []
        if lost:
            yield (
                f"{self.place}: the files of {len(lost)} transactions are missing, {lost[0]} the first of"
                " them; their revisions are in the snapshot, who made them and why is not known"
            )


class DirectoryStorageCut(StorageCut):
    """A DirectoryStorage up to a transaction, as the bytes of a FileStorage."""

    def __init__(
        self, contents: Contents, window: int = WINDOW, blobs: Blobs | None = None
    ) -> None:
        self._home_reader = HomeReader(contents)
        super().__init__(
            self._home_reader,
            contents.where,
            window,
            blobs,
            magic=magic_of(contents),
            links_packed=True,
        )
        self.companion = HomeCompanion(contents, self._home_reader)
        self._packed = contents.packed

    @property
    def without_file(self) -> list[Tid]:
        """The transactions that were read and have revisions, but no file of their own."""
        return [Tid(each.tid) for each in self._home_reader.noted(0) if each.missing]

    @property
    def lost(self) -> list[Tid]:
        """Those of them that no pack has dropped."""
        return [tid for tid in self.without_file if tid.value >= self._packed]

    def evidence(self, earlier: Position | None) -> Evidence:
        """Look whether this is the storage that an earlier run read, and was not packed since."""
        found = super().evidence(earlier)
        told = earlier.storage if earlier else None
        if found.continues and told is not None:
            before = told.unpacked.tid.value - 1 if told.unpacked else told.last.value
            self._home_reader.boundary = before
        return found

    def position(self, last: Any) -> Position:
        """Say how a later run recognises this storage. Raises SourceUnusable when a pack ran meanwhile."""
        self.check_steady()
        return super().position(last)

    def check_steady(self) -> None:
        """Make sure that no pack has begun since the cut was taken. Raises SourceUnusable."""
        self._home_reader.check_steady()


class HomeReader:
    """The transactions of a HOME, for its canonical file; it notes what that has no place for."""

    keeps_history = True

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._noted: dict[int, bytes] = {}
        self._previous = 0
        self._read: list[tuple[RevisionFile, PointerState]] = []
        self.boundary: int | None = None
        """Up to which transaction moments are not whole, where an earlier run has found it out."""

    def last_tid(self) -> int:
        """Give the tid of the last transaction; 0: there is none."""
        return self._contents.serial

    def size(self) -> int:
        """How many bytes there are is not told before they are read."""
        return 0

    def transactions(self, after: int, stop: int | None) -> Iterator[HomeTransaction]:
        """Give the transactions above ``after`` and up to ``stop``. Raises SourceDamaged."""
        self._previous = after
        yield from self._contents.transactions(after, stop, boundary=self.boundary)

    def records(self, transaction: HomeTransaction) -> Iterator[HomeRecord]:
        """Read the revisions of a transaction."""
        self._read = []
        for record in transaction:
            without_data = replace(record.file, data=b"")
            self._read.append((without_data, record.pointer))
            yield record

    def note(self, transaction: HomeTransaction, before: list[int]) -> None:
        """Keep how the transaction's files deviate from what its FileStorage tells."""
        revisions = [
            Revision(file, _POINTERS[pointer], tid)
            for (file, pointer), tid in zip(self._read, before, strict=True)
        ]
        tid = transaction.number
        found = particulars_of(tid, transaction.said, self._previous, revisions)
        self._previous = tid
        self._noted.pop(tid, None)
        if found is not None:
            self._noted[tid] = msgspec.msgpack.encode(found)

    def noted(self, after: int) -> Iterator[Particulars]:
        """Give what was noted of transactions above ``after``, tids rising."""
        for tid in sorted(self._noted):
            if tid > after:
                yield msgspec.msgpack.decode(self._noted[tid], type=Particulars)

    def is_packed(self, transaction: HomeTransaction) -> bool:
        """Whether some moment before a transaction is not whole any more."""
        return bool(transaction.status == "p")

    def mark(self, tid: int | None) -> Mark | None:
        """Say what a transaction's file and ``x.packed`` are."""
        if tid is None:
            return None
        raw = self._contents.view.fixed(transaction_name(tid), tid) or b""
        packed = self._contents.packed.to_bytes(8, "big")
        return Mark(Tid(tid), hashlib.sha256(packed + raw).hexdigest())

    def unpacked(self, tid: int) -> bool:
        """Packs are told by the marks."""
        return True

    def objects(self, tid: int | None, most: int) -> list[int]:
        """Objects are not needed to recognise a storage that keeps its history."""
        return []

    def current_tid(self, oid: int) -> int | None:
        """Objects are not needed to recognise a storage that keeps its history."""
        return None

    def check_steady(self) -> None:
        """Make sure that no pack has begun. Raises SourceUnusable."""
        self._contents.check_steady()


class HomeCompanion:
    """What a HOME holds beside what its history tells."""

    def __init__(self, contents: Contents, reader: HomeReader) -> None:
        self._contents, self._reader = contents, reader

    def files(self) -> Iterator[tuple[str, bytes]]:
        """Give the files that are kept whole: their paths, and what they hold. Raises SourceDamaged."""
        yield FACTS, self._facts().encode()
        folder = self._contents.home.path / CONFIG
        for path in sorted(files_below(folder)):
            raw = read_file(folder / path, _MOST_CONFIG)
            if raw is not None:
                yield f"{CONFIG}/{path}", raw

    def noted(self, after: int) -> list[Particulars]:
        """Give what was noted of transactions above ``after``, tids rising."""
        return list(self._reader.noted(after))

    def _facts(self) -> HomeFacts:
        view = self._contents.view
        return HomeFacts(
            format=self._contents.home.settings.layout,
            last_oid=None if view.counter_bytes(LAST_OID) is None else view.last_oid(),
            packed=None if view.counter_bytes(PACKED) is None else view.packed(),
        )


def magic_of(contents: Contents) -> bytes:
    """Give the magic of a FileStorage that holds the same: by the pickle of the root object."""
    pointer = contents.view.pointer(0)
    try:
        data = contents.revision(0, pointer.tid).data if pointer else b""
    except SourceDamaged:
        return PYTHON_2  # what is damaged is told when it is read
    newer = data[:1] == b"\x80" and data[1:2] >= bytes([_FIRST_OF_PYTHON_3])
    return PYTHON_3 if newer else PYTHON_2

"""A DirectoryStorage as a read-only ZODB storage, at the moment when it was opened.

Nothing in HOME is touched, so it may be opened beside the process that has it. Records come as they are:
those of a Python 2 site hold Python 2's pickles, which ZODB on Python 3 loads only where they have no strings
that it must know the encoding of; docs/directorystorage-conversion.md has the way on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ZODB.BaseStorage import BaseStorage
from ZODB.interfaces import IStorage, IStorageIteration
from ZODB.POSException import POSKeyError, ReadOnlyError
from ZODB.utils import p64, u64
from zope.interface import implementer

from perdure.formats.directorystorage import RevisionFile
from perdure.model import Tid
from perdure.sources.directorystorage.contents import Contents, HomeTransaction
from perdure.sources.directorystorage.home import Home

_BYTES_PER_OBJECT = 300


@implementer(IStorage, IStorageIteration)
class DirectoryStorage(BaseStorage):  # type: ignore[misc]
    """The storage of a HOME. Raises SourceUnusable when there is none that can be read."""

    _is_read_only = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._contents = Contents(Home(path))
        self._view = self._contents.view
        self._ltid = p64(self._contents.serial)
        self._oid = p64(self._view.last_oid())

    def load(self, oid: bytes, version: str = "") -> tuple[bytes, bytes]:
        """Give data and tid of an object's current revision. Raises POSKeyError."""
        found = self._current(u64(oid))
        if found is None or not found.data:
            raise POSKeyError(oid)
        return found.data, p64(found.tid)

    def loadSerial(self, oid: bytes, serial: bytes) -> bytes:  # noqa: N802 - ZODB's name
        """Give the data of a revision. Raises POSKeyError."""
        found = self._view.revision(u64(oid), u64(serial)) if serial <= self._ltid else None
        if found is None or not found.data:
            raise POSKeyError(oid, serial)
        return found.data

    def loadBefore(  # noqa: N802 - ZODB's name
        self, oid: bytes, tid: bytes
    ) -> tuple[bytes, bytes, bytes | None] | None:
        """Give data and tid of the last revision before a tid, and the tid of the one behind it.

        None: there was none then. Raises POSKeyError for an object that there is not, or was no more.
        """
        following = None
        found = self._current(u64(oid))
        if found is None:
            raise POSKeyError(oid)
        while found is not None and p64(found.tid) >= tid:
            following = p64(found.tid)
            found = self._previous(found)
        if found is None:
            return None
        if not found.data:
            raise POSKeyError(oid)
        return found.data, p64(found.tid), following

    def history(self, oid: bytes, size: int = 1) -> list[dict[str, Any]]:
        """Say when and by whom an object was changed, the newest first; ``size``: how many at most."""
        found = self._current(u64(oid))
        if found is None:
            raise POSKeyError(oid)
        entries: list[dict[str, Any]] = []
        while found is not None and len(entries) < size:
            said = self._view.transaction(found.tid)
            entries.append(
                {
                    "tid": p64(found.tid),
                    "time": Tid(found.tid).time.timestamp(),
                    "user_name": said.user if said else b"",
                    "description": said.description if said else b"",
                    "size": len(found.data),
                }
            )
            found = self._previous(found)
        return entries

    def iterator(self, start: bytes | None = None, stop: bytes | None = None) -> HomeIterator:
        """Iterate over the transactions from ``start`` to ``stop``, both included."""
        after = u64(start) - 1 if start and u64(start) else 0
        return HomeIterator(self._contents.transactions(after, None if stop is None else u64(stop)))

    def __len__(self) -> int:
        """Say about how many objects there are."""
        return int(u64(self._oid)) + 1

    def getSize(self) -> int:  # noqa: N802 - ZODB's name
        """Say about how many bytes there are, which is a guess."""
        return len(self) * _BYTES_PER_OBJECT

    def close(self) -> None:
        """Nothing is held open."""

    def store(
        self, oid: bytes, serial: bytes, data: bytes, version: str, transaction: object
    ) -> None:
        """Raise ReadOnlyError."""
        raise ReadOnlyError

    def pack(self, pack_time: float, referencesf: Callable[..., Any]) -> None:
        """Raise ReadOnlyError."""
        raise ReadOnlyError

    def _current(self, oid: int) -> RevisionFile | None:
        """Give an object's newest revision up to the moment when the storage was opened."""
        pointer = self._view.pointer(oid)
        if pointer is None:
            return None
        found: RevisionFile | None = self._contents.revision(oid, pointer.tid)
        while found is not None and found.tid > self._contents.serial:
            found = self._previous(found)
        return found

    def _previous(self, revision: RevisionFile) -> RevisionFile | None:
        return self._view.revision(revision.oid, revision.prev) if revision.prev else None


class HomeIterator:
    """Transactions, one after the other."""

    def __init__(self, transactions: Iterator[HomeTransaction]) -> None:
        self._transactions = transactions

    def __iter__(self) -> HomeIterator:
        return self

    def __next__(self) -> HomeTransaction:
        return next(self._transactions)

    def close(self) -> None:
        """Let go of it."""
        self._transactions = iter(())

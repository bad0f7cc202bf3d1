"""A storage's transactions through its iterator, in order, with every error of its driver translated."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from itertools import islice
from typing import Any, Protocol

from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats.manifest import Mark
from perdure.model import Tid

PACKED = "p"
_RECORDS_IN_MARK = 256

Translate = Callable[[], AbstractContextManager[None]]


class Reader(Protocol):
    """What a canonical file is made from: transactions, in order, and how to know them again."""

    keeps_history: bool

    def last_tid(self) -> int:
        """Give the tid of the last transaction; 0: there is none."""

    def size(self) -> int:
        """Say about how many bytes there are; 0 where that is not told."""

    def transactions(self, after: int, stop: int | None) -> Iterator[Any]:
        """Give the transactions above ``after`` and up to ``stop``, tids rising. Raises SourceDamaged."""

    def records(self, transaction: Any) -> Iterator[Any]:
        """Give the records of a transaction."""

    def note(self, transaction: Any, before: list[int]) -> None:
        """Be told, once a transaction was written, the tids of the records before its records."""

    def is_packed(self, transaction: Any) -> bool:
        """Whether the moments before a transaction are gone."""

    def mark(self, tid: int | None) -> Mark | None:
        """Say what a transaction is; None when it is not there."""

    def unpacked(self, tid: int) -> bool:
        """Whether a transaction is there, and no pack has rewritten it."""

    def objects(self, tid: int | None, most: int) -> list[int]:
        """Give the oids of some records of a transaction."""

    def current_tid(self, oid: int) -> int | None:
        """Give the tid of an object's current revision; None when there is none."""


class StorageReader:
    """A storage that is open for reading, as numbers and transactions.

    ``translate`` gives a context that turns what a driver raises into SourceUnusable.
    """

    def __init__(self, storage: Any, where: str, translate: Translate) -> None:
        self._storage, self._where, self._translate = storage, where, translate
        if not callable(getattr(storage, "iterator", None)):
            raise SourceUnusable(
                f"{where} has no iterator: its transactions cannot be read",
                hint="back the storage up that it is made from",
            )
        self._ranges = _takes_ranges(storage.iterator)
        self.keeps_history = self._keeps_history()

    def last_tid(self) -> int:
        """Give the tid of the last transaction; 0: there is none."""
        with self._translate():
            return int.from_bytes(self._storage.lastTransaction(), "big")

    def size(self) -> int:
        """Say about how many bytes the storage has; 0 where it does not tell."""
        with self._translate():
            size = getattr(self._storage, "getSize", int)()
        return size if isinstance(size, int) else 0

    def transactions(self, after: int, stop: int | None) -> Iterator[Any]:
        """Give the transactions above ``after`` and up to ``stop``.

        Raises SourceDamaged when their tids do not rise.
        """
        begun = self._begin(after + 1, stop)
        last, first = after, True
        try:
            for transaction in self._guarded(begun):
                tid = int.from_bytes(transaction.tid, "big")
                if first and tid <= after:
                    continue
                if stop is not None and tid > stop:
                    return
                if tid <= last:
                    raise SourceDamaged(
                        f"{self._where}: transaction {Tid(tid)} comes after {Tid(last)}; tids must rise",
                        hint="if it is a FileStorage, back its Data.fs up as such (--filestorage)",
                    )
                last, first = tid, False
                yield transaction
        finally:
            close = getattr(begun, "close", None)
            if close is not None:
                with self._translate():
                    close()

    def records(self, transaction: Any) -> Iterator[Any]:
        """Give the records of a transaction."""
        return self._guarded(transaction)

    def note(self, transaction: Any, before: list[int]) -> None:
        """A ZODB iterator gives all that a FileStorage holds; there is nothing to note beside it."""

    def is_packed(self, transaction: Any) -> bool:
        """Whether the moments before a transaction are gone: a pack rewrote it, or none are kept at all."""
        return not self.keeps_history or _status(transaction) == PACKED

    def mark(self, tid: int | None) -> Mark | None:
        """Say what the first records of a transaction are; None when it is not there."""
        for transaction in self._only(tid):
            digest = hashlib.sha256()
            for record in islice(self.records(transaction), _RECORDS_IN_MARK):
                data = record.data or b""
                digest.update(record.oid + len(data).to_bytes(8, "big"))
                digest.update(data)
            return Mark(Tid.from_bytes(transaction.tid), digest.hexdigest())
        return None

    def unpacked(self, tid: int) -> bool:
        """Whether a transaction is there, and no pack has rewritten it."""
        return any(_status(transaction) != PACKED for transaction in self._only(tid))

    def objects(self, tid: int | None, most: int) -> list[int]:
        """Give the oids of some records of a transaction."""
        for transaction in self._only(tid):
            records = islice(self.records(transaction), most)
            return [int.from_bytes(record.oid, "big") for record in records]
        return []

    def _only(self, tid: int | None) -> Iterator[Any]:
        """Give the transaction of that tid, if there is one; it can be read until the next is asked for."""
        return iter(()) if tid is None else self.transactions(tid - 1, tid)

    def current_tid(self, oid: int) -> int | None:
        """Give the tid of an object's current revision; None when there is none."""
        from ZODB.utils import load_current, p64

        with self._translate():
            try:
                return int.from_bytes(load_current(self._storage, p64(oid))[1], "big")
            except KeyError:
                return None

    def _begin(self, start: int, stop: int | None) -> Any:
        from ZODB.utils import p64

        with self._translate():
            if not self._ranges:
                return self._storage.iterator()
            return self._storage.iterator(p64(start), None if stop is None else p64(stop))

    def _guarded(self, items: Iterable[Any]) -> Iterator[Any]:
        with self._translate():
            iterator = iter(items)
        while True:
            with self._translate():
                try:
                    item = next(iterator)
                except StopIteration:
                    return
            yield item

    def _keeps_history(self) -> bool:
        """Whether a transaction, once committed, stays as it is until a pack.

        RelStorage says so. Of others it is believed unless they cannot undo and call even their last
        transaction packed, as a history-free RelStorage behind a ZEO server does.
        """
        says = getattr(self._storage, "keep_history", None)
        if isinstance(says, bool):
            return says
        with self._translate():
            undoes = getattr(self._storage, "supportsUndo", bool)()
        if undoes:
            return True
        tid = self.last_tid()
        return not tid or self.unpacked(tid)


def _status(transaction: Any) -> str:
    status = transaction.status
    return status.decode("ascii", "replace") if isinstance(status, bytes) else str(status)


def _takes_ranges(iterator: Callable[..., Any]) -> bool:
    """Whether an iterator method can be told where to start and to stop."""
    try:
        inspect.signature(iterator).bind(b"", b"")
    except TypeError:
        return False
    except ValueError:
        return True
    return True

"""Walk through the bytes of a Data.fs that come one after the other, in pieces of any size, without numpy."""

from __future__ import annotations

import struct
from collections.abc import Callable

from perdure.formats.filestorage import (
    MAGIC_SIZE,
    RECORD_HEADER,
    TRAILER_SIZE,
    TRANSACTION_HEADER,
    VERSION_SIZE,
    TransactionHeader,
    check_magic,
    damage,
)
from perdure.formats.newest import PAGE, PAGE_BITS, Newest

_RECORD = struct.Struct(">Q16xQHQ")
"""A record's header without tid and prev."""


def _any(header: TransactionHeader) -> bool:
    return True


class Walk:
    """Follows a Data.fs that is fed to it from its beginning, or from behind a transaction, on.

    What it is fed must be committed transactions and nothing else; each record must name the position
    that its transaction has, so that bytes which do not belong here are noticed. The walk ends for good
    before the first transaction that ``accept`` refuses, unless it is resumed.
    """

    def __init__(
        self,
        where: str,
        start: int = 0,
        *,
        accept: Callable[[TransactionHeader], bool] = _any,
        newest: Newest | None = None,
    ) -> None:
        self.where = where
        """What messages call the source of the bytes."""
        self.position = start
        """Behind the last header, data, or transaction that was understood."""
        self.newest = Newest() if newest is None else newest
        """What it met of each object, beside what was known before; of undone transactions nothing."""
        self.last_tid: int | None = None
        self.stopped = False
        """Whether ``accept`` has refused the transaction at ``position``."""
        self._accept = accept
        self._given = start
        self._rest = b""
        self._inside: TransactionHeader | None = None

    def feed(self, data: bytes) -> bytes | memoryview:
        """Go on with these bytes; gives what belongs to the database for sure.

        The beginning of a header that is cut is kept back, and given with what is fed next. Raises
        SourceDamaged, and SourceUnusable for another file than a Data.fs.
        """
        if self.stopped:
            return b""
        if self._rest:
            data = self._rest + data
        start, end = self._given, self._given + len(data)
        self._follow(data, start)
        self._given = min(self.position, end)
        if self._given == end:
            self._rest = b""
            return data
        self._rest = b"" if self.stopped else data[self._given - start :]
        return memoryview(data)[: self._given - start]

    @property
    def inside(self) -> bool:
        """Whether the end of a transaction is still to come."""
        return self._inside is not None

    def resume(self) -> None:
        """Ask again about the transaction that was refused: what is fed next begins with it."""
        self.stopped = False

    def check_end(self) -> None:
        """Check that what was fed ends with a transaction. Raises SourceDamaged, SourceUnusable."""
        if self.stopped:
            return
        fed = self._given + len(self._rest)
        if fed < MAGIC_SIZE:
            check_magic(self._rest, self.where)
        if self._rest or self._inside:
            position, tid = self.position, None
            if self._inside:
                position, tid = self._inside.position, self._inside.tid
            raise damage(position, tid, f"it ends inside a transaction, at {fed}", self.where)

    def _follow(self, data: bytes, start: int) -> None:
        """Go from header to header in ``data``, which lies at ``start``."""
        if self.position == 0:
            if len(data) < MAGIC_SIZE:
                return
            check_magic(data, self.where)
            self.position = MAGIC_SIZE
        while self._inside or self._begin(data, start):
            if not (self._records(data, start) and self._end(data, start)):
                return

    def _begin(self, data: bytes, start: int) -> bool:
        """Enter the next transaction; False if its header is not all there, or it is refused."""
        offset = self.position - start
        if offset + TRANSACTION_HEADER.size > len(data):
            return False
        header = TransactionHeader.parse(data, offset, self.position)
        if not self._accept(header):
            self.stopped = True
            return False
        if not header.plausible:
            why = f"no transaction starts here (status {header.status!r}, length {header.length})"
            raise damage(self.position, header.tid, why, self.where)
        self._inside = header
        skipped = header.status == b"u"  # as ZODB's readers do
        size = header.length if skipped else TRANSACTION_HEADER.size + header.text_length
        self.position += size
        return True

    def _records(self, data: bytes, start: int) -> bool:
        """Note the records of the transaction; False if there are more than ``data`` has."""
        header = self._inside
        assert header is not None
        transaction, end = header.position, header.position + header.length
        position, limit = self.position, start + len(data) - RECORD_HEADER.size
        stop = min(end, limit + 1)
        unpack, bits, low, number = _RECORD.unpack_from, PAGE_BITS, PAGE - 1, -1
        page = None
        while position < stop:
            oid, tloc, version, length = unpack(data, position - start)
            if tloc != transaction:
                why = f"its record names {tloc} as its transaction's position, not {transaction}"
                raise damage(position, header.tid, why, self.where)
            if oid >> bits != number or page is None:
                number = oid >> bits
                page = self.newest.page(number)
            page[oid & low] = position
            position += 42 + (length or 8)
            if version:
                position += version + VERSION_SIZE
        if end - RECORD_HEADER.size < position != end:
            why = "its data records do not end where it ends"
            raise damage(transaction, header.tid, why, self.where)
        self.position = position
        return position == end

    def _end(self, data: bytes, start: int) -> bool:
        """Leave the transaction; False if its last bytes are not all there."""
        header = self._inside
        assert header is not None
        offset = self.position - start
        if offset + TRAILER_SIZE > len(data):
            return False
        again = int.from_bytes(data[offset : offset + TRAILER_SIZE], "big")
        if again != header.length:
            why = f"its length is {header.length} before and {again} behind it"
            raise damage(header.position, header.tid, why, self.where)
        self.position += TRAILER_SIZE
        self.last_tid, self._inside = header.tid, None
        return True

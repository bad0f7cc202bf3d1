"""Walk through the bytes of a Data.fs that come one after the other, in pieces of any size."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.formats.extent import Extent, scan, scan_part
from perdure.formats.filestorage import MAGIC_SIZE, TRANSACTION_HEADER, TransactionHeader, damage

_LARGE = 8 << 20
"""A transaction above this is not kept in memory as a whole."""


class Walk:
    """Takes a Data.fs apart that is fed to it from its beginning, or from behind a transaction, on.

    What it is fed must be committed transactions and nothing else; each record must name the position
    that its transaction has, so that bytes which do not belong here are noticed.
    """

    def __init__(self, where: str, start: int = 0) -> None:
        self.where = where
        """What messages call the source of the bytes."""
        self.position = start
        """Behind the last record or transaction that was taken apart."""
        self.last_tid: int | None = None
        self._rest = b""
        self._needed = 0
        self._inside: TransactionHeader | None = None

    @property
    def fed(self) -> int:
        """Position behind the last byte that was fed."""
        return self.position + len(self._rest)

    def feed(self, data: bytes) -> Iterator[Extent]:
        """Give what can be taken apart by now. Raises SourceDamaged."""
        buffer = b"".join((self._rest, data)) if self._rest else data
        taken = 0
        while len(buffer) - taken >= self._needed:
            view = memoryview(buffer)[taken:]
            extent = self._next(view)
            if extent is None:
                break
            if extent.headers:
                self.last_tid = extent.headers[-1].tid
            taken += extent.end - extent.start
            self.position = extent.end
            self._needed = 0
            yield extent
        self._rest = buffer[taken:]

    def _next(self, view: memoryview) -> Extent | None:
        if self._inside is None:
            extent = scan(view, self.position, where=self.where)
            if extent.end > extent.start:
                return extent
            header = self._header(view)
            if header is None:
                self._needed = TRANSACTION_HEADER.size if self.position else MAGIC_SIZE
                return None
            if header.size <= _LARGE:
                self._needed = header.size
                return None
            self._inside = header
        part = scan_part(view, self.position, self._inside, where=self.where)
        if part.end == part.start:
            left = self._inside.end - self.position
            self._needed = min(max(2 * len(view), _LARGE), left)
            return None
        if part.end == self._inside.end:
            self._inside = None
        return part

    def _header(self, view: memoryview) -> TransactionHeader | None:
        if len(view) < TRANSACTION_HEADER.size:
            return None
        header = TransactionHeader.parse(view, 0, self.position)
        if not header.plausible:
            why = f"no transaction starts here (status {header.status!r}, length {header.length})"
            raise damage(self.position, header.tid, why, self.where)
        return header

    def check_end(self) -> None:
        """Check that what was fed ends with a transaction. Raises SourceDamaged."""
        if self._rest or self._inside:
            tid = self._inside.tid if self._inside else None
            why = f"it ends inside a transaction, at {self.fed}"
            raise damage(self.position, tid, why, self.where)

"""A range of a Data.fs, taken apart into columns: what formats/filestorage.py describes, many at a time."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from perdure.formats.columns import Numbers
from perdure.formats.filestorage import (
    MAGIC_SIZE,
    RECORD_HEADER,
    TRAILER_SIZE,
    TRANSACTION_HEADER,
    VERSION_SIZE,
    VOTED,
    Buffer,
    TransactionHeader,
    above,
    check_magic,
    damage,
)

_VERSION_AND_LENGTH = struct.Struct(">HQ").unpack_from
_LENGTH = struct.Struct(">Q").unpack_from


@dataclass(frozen=True)
class Extent:
    """A range of a Data.fs, taken apart into columns; positions are those of the file.

    It holds whole transactions, but for two cases: a transaction too large for one extent is cut between
    two records, so that an extent may begin inside its first transaction (``begins_inside``) or end inside
    its last one (``ends_inside``).
    """

    start: int
    end: int
    data: memoryview
    """The bytes [start, end) of the file."""
    headers: tuple[TransactionHeader, ...]
    """Of each transaction, also of one that began in the extent before."""
    records_of: NDArray[np.int64]
    """How many records each transaction has in this extent."""
    at: NDArray[np.int64]
    """Position of each record, in file order."""
    begins_inside: bool
    ends_inside: bool
    walked: bool
    """False when the records of an undone transaction could not be told apart (they are left out)."""

    @cached_property
    def transaction_of(self) -> NDArray[np.int64]:
        """For each record, the number of its transaction in this extent."""
        return np.repeat(np.arange(len(self.headers)), self.records_of)

    @cached_property
    def by_oid(self) -> NDArray[np.int64]:
        """The numbers of the records, ordered by oid and then as in the file."""
        return np.argsort(self.oid, kind="stable")

    @cached_property
    def _fields(self) -> NDArray[np.uint8]:
        """The header of each record, one in a row of 42 bytes."""
        if not len(self.at):
            return np.zeros((0, RECORD_HEADER.size), np.uint8)
        raw = np.frombuffer(self.data, np.uint8)
        # Indexing takes rows of the windows one by one; np.take would first write out all of them.
        rows: NDArray[np.uint8] = sliding_window_view(raw, RECORD_HEADER.size)[self.at - self.start]
        return rows

    def _field(self, offset: int) -> Numbers:
        return self._fields[:, offset : offset + 8].copy().view(">u8")[:, 0].astype(np.uint64)

    @cached_property
    def oid(self) -> Numbers:
        """The oid of each record."""
        return self._field(0)

    @cached_property
    def tid(self) -> Numbers:
        """The tid that each record names."""
        return self._field(8)

    @cached_property
    def prev(self) -> Numbers:
        """The prev position of each record."""
        return self._field(16)

    @cached_property
    def tloc(self) -> Numbers:
        """The position of its transaction that each record names."""
        return self._field(24)

    @cached_property
    def has_versions(self) -> bool:
        """Whether a record belongs to a version."""
        return bool(self._fields[:, 32:34].any())

    @cached_property
    def length(self) -> Numbers:
        """The length of each record's data; 0 where there is a back pointer instead."""
        return self._field(34)

    @cached_property
    def transaction_tids(self) -> Numbers:
        """The tid of each transaction."""
        return np.array([h.tid for h in self.headers], np.uint64)

    @cached_property
    def transaction_positions(self) -> Numbers:
        """The position of each transaction."""
        return np.array([h.position for h in self.headers], np.uint64)

    @cached_property
    def undone(self) -> NDArray[np.bool_]:
        """For each record, whether ZODB skips its transaction (status "u")."""
        return np.array([h.status == b"u" for h in self.headers], bool)[self.transaction_of]

    @cached_property
    def packed(self) -> NDArray[np.bool_]:
        """For each record, whether its transaction was rewritten by a pack (status "p")."""
        return np.array([h.status == b"p" for h in self.headers], bool)[self.transaction_of]

    @cached_property
    def ordered(self) -> bool:
        """Whether the tids rise, so that oid and tid tell its records apart but for one transaction's."""
        tids = self.transaction_tids
        return bool((tids[1:] > tids[:-1]).all() and (self.tid == tids[self.transaction_of]).all())

    @property
    def regular(self) -> bool:
        """Whether the model of a history can express the extent: rising tids, no versions, known records."""
        return (
            self.walked
            and not self.has_versions
            and self.ordered
            and bool((self.tloc == self.transaction_positions[self.transaction_of]).all())
        )

    def text(self, number: int) -> memoryview:
        """User, description and extension of a transaction; nothing of one that the extent begins inside."""
        header = self.headers[number]
        if header.position < self.start:
            return self.data[:0]
        first = header.position - self.start + TRANSACTION_HEADER.size
        return self.data[first : first + header.text_length]


def check_transaction(data: Buffer, offset: int, header: TransactionHeader, where: str) -> None:
    """Check the lengths and the status of a transaction that is wholly in ``data``. Raises SourceDamaged."""
    if not header.plausible:
        why = f"its header cannot be right (status {header.status!r}, length {header.length})"
        raise damage(header.position, header.tid, why, where)
    again = _LENGTH(data, offset + header.length)[0]
    if again != header.length:
        raise damage(
            header.position,
            header.tid,
            f"its length is {header.length} before and {again} behind it",
            where,
        )


def walk_records(data: Buffer, first: int, end: int, found: list[int]) -> int:
    """Append the offset of each record in ``data[first:end]`` to ``found``.

    Returns the offset behind the last record that lies wholly before ``end``; that is ``end`` itself
    unless the record there is cut, or damaged.
    """
    append, lengths = found.append, _VERSION_AND_LENGTH
    limit = end - RECORD_HEADER.size
    offset = first
    while offset <= limit:
        version, length = lengths(data, offset + 32)
        behind = offset + 42 + (length or 8)
        if version:
            behind += version + VERSION_SIZE
        if behind > end:
            break
        append(offset)
        offset = behind
    return offset


def scan(
    data: Buffer, start: int, *, where: str, last_tid: int | None = None, limit: int | None = None
) -> Extent:
    """Take the whole transactions at the beginning of ``data`` apart, which lie at ``start`` in the file.

    It stops before the first transaction that ``data`` does not hold wholly or that is only voted, before
    one whose tid is above ``last_tid``, and at ``limit`` (a position). The result may hold no transaction
    at all. Raises SourceDamaged.
    """
    headers: list[TransactionHeader] = []
    counts: list[int] = []
    found: list[int] = []
    size = len(data) if limit is None else min(len(data), limit - start)
    offset, walked = 0, True
    if start == 0 and size >= MAGIC_SIZE:
        check_magic(bytes(data[:MAGIC_SIZE]), where)
        offset = MAGIC_SIZE
    while offset + TRANSACTION_HEADER.size <= size:
        header = TransactionHeader.parse(data, offset, start + offset)
        behind = offset + header.size
        if behind > size or header.status == VOTED or above(header.tid, last_tid):
            break
        check_transaction(data, offset, header, where)
        before = len(found)
        first = offset + TRANSACTION_HEADER.size + header.text_length
        stopped = walk_records(data, first, behind - TRAILER_SIZE, found)
        if stopped != behind - TRAILER_SIZE:
            if header.status != b"u":
                raise damage(
                    start + stopped, header.tid, "its data records do not end where it ends", where
                )
            del found[before:]
            walked = False
        headers.append(header)
        counts.append(len(found) - before)
        offset = behind
    return _checked(
        Extent(
            start=start,
            end=start + offset,
            data=memoryview(data)[:offset],
            headers=tuple(headers),
            records_of=np.array(counts, np.int64),
            at=np.array(found, np.int64) + start,
            begins_inside=False,
            ends_inside=False,
            walked=walked,
        ),
        where,
    )


def scan_part(data: Buffer, start: int, header: TransactionHeader, *, where: str) -> Extent:
    """Take as many records of one large transaction apart as ``data``, at ``start`` in the file, holds.

    ``start`` is the transaction's position, or that of a record inside it. The result ends inside the
    transaction unless ``data`` reaches its end; it is empty when the first record does not fit. Raises
    SourceDamaged.
    """
    found: list[int] = []
    inside = start > header.position
    first = 0 if inside else TRANSACTION_HEADER.size + header.text_length
    records_end = header.position + header.length - start
    walkable = min(len(data), records_end)
    offset = walk_records(data, first, walkable, found) if first <= walkable else 0
    complete = offset == records_end
    if not complete and len(data) >= records_end:
        raise damage(start + offset, header.tid, "its data records do not end where it ends", where)
    if complete and len(data) >= records_end + TRAILER_SIZE:
        check_transaction(data, header.position - start, header, where)
        offset += TRAILER_SIZE
    elif complete and found:
        offset = found.pop()
        complete = False
    return _checked(
        Extent(
            start=start,
            end=start + offset,
            data=memoryview(data)[:offset],
            headers=(header,),
            records_of=np.array([len(found)], np.int64),
            at=np.array(found, np.int64) + start,
            begins_inside=inside,
            ends_inside=not complete,
            walked=True,
        ),
        where,
    )


def _checked(extent: Extent, where: str) -> Extent:
    """Check that each record names its transaction's position, as ZODB does. Raises SourceDamaged."""
    right = extent.transaction_positions[extent.transaction_of]
    wrong = np.flatnonzero((extent.tloc != right) & ~extent.undone)
    if len(wrong):
        record = int(wrong[0])
        why = f"its record names {extent.tloc[record]} as its transaction's position, not {right[record]}"
        raise damage(int(extent.at[record]), int(extent.tid[record]), why, where)
    return extent

"""The records of a layout's range as columns, without their data: what catalogues and layouts tell."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.errors import DamageFound
from perdure.formats.arrangement import Arrangement
from perdure.formats.columns import Numbers
from perdure.formats.extent import Extent, scan, scan_part
from perdure.formats.filestorage import (
    POINTER_SIZE,
    RECORD_HEADER,
    VERSION_SIZE,
    TransactionHeader,
)
from perdure.formats.history import LayoutName
from perdure.formats.layout import ODD_BACK, Layout
from perdure.history.in_repository import RepositoryHistory
from perdure.model import Tid

Ordinals = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Rows:
    """Records in file order; those of transactions that ZODB skips (status "u") are among them.

    ``back`` has the numbers of the records with a back pointer. Where it leads to is in ``back_tid`` (0: to
    nothing, the object is gone), or, if that is a row of ``odd``, a position of the file.
    """

    layout: Layout
    oid: Numbers
    transaction: Ordinals
    length: Ordinals
    """Bytes of data; 0 for a back pointer."""
    at: Ordinals
    back: Ordinals
    back_tid: Numbers
    odd: dict[int, int]
    """By the number of a record: the position that its back pointer names."""

    @property
    def tid(self) -> Numbers:
        """The tid of each record."""
        return self.layout.transactions.tid[self.transaction]

    def counted(self, until: Tid | None) -> Mask:
        """Say which transactions ZODB counts in a file that ends with the last one not above ``until``."""
        return counted(self.layout, until)


def counted(layout: Layout, until: Tid | None) -> Mask:
    """Say which transactions of a range ZODB counts in a file that is cut behind ``until``."""
    transactions = layout.transactions
    result = ~transactions.undone
    if until is not None:
        above = np.flatnonzero(transactions.tid > np.uint64(until.value))
        if len(above):
            result[above[0] :] = False
    return result


def rows_of(history: RepositoryHistory, name: LayoutName) -> Rows:
    """Give the records of a layout's range. Raises DamageFound."""
    layout = history.layout(name)
    if layout.facts.verbatim:
        return _rows_in(verbatim_extent(history, name, layout), layout)
    where = f"{history.where}: {name}"
    catalogues = [history.catalogue(segment) for segment in history.segments(layout)]
    arrangement = Arrangement(layout, catalogues, where)
    length = arrangement.lengths.copy()
    length[arrangement.back] = 0
    is_back = layout.odd_field == ODD_BACK
    odd = zip(layout.odd_record[is_back].tolist(), layout.odd_value[is_back].tolist(), strict=True)
    return Rows(
        layout,
        arrangement.oid,
        arrangement.transaction,
        length,
        arrangement.at,
        arrangement.back,
        layout.back_tid,
        dict(odd),
    )


def verbatim_extent(history: RepositoryHistory, name: LayoutName, layout: Layout) -> Extent:
    """Load the range of a layout that is stored as it is, and take it apart. Raises DamageFound."""
    segments = history.segments(layout)
    data = b"".join(history.chunks(chunk for each in segments for chunk in each.payload.chunks))
    return parse_verbatim(data, layout, f"{history.where}: {name}")


def parse_verbatim(data: bytes, layout: Layout, where: str) -> Extent:
    """Take the bytes of a layout's range apart, which may be a part of one large transaction.

    Raises DamageFound.
    """
    facts, transactions = layout.facts, layout.transactions
    if facts.begins is None and not facts.ends_inside:
        return scan(data, facts.start, where=where)
    if facts.begins is None:
        header = TransactionHeader.parse(data, 0, facts.start)
        return scan_part(data, facts.start, header, where=where)
    if not len(transactions):
        raise DamageFound(f"{where}: it is in the middle of a transaction that it does not name")
    tid, length = int(transactions.tid[0]), int(transactions.length[0])
    status = bytes([int(transactions.status[0])])
    return scan_part(
        data,
        facts.start,
        TransactionHeader(facts.begins, tid, length, status, 0, 0, 0),
        where=where,
    )


def _rows_in(extent: Extent, layout: Layout) -> Rows:
    back = np.flatnonzero(extent.length == 0)
    pointers = {}
    for number in back.tolist():
        start = data_offset(extent, number)
        pointers[number] = int.from_bytes(extent.data[start : start + POINTER_SIZE], "big")
    return Rows(
        layout,
        extent.oid,
        extent.transaction_of,
        extent.length.astype(np.int64),
        extent.at,
        back,
        np.zeros(len(back), np.uint64),
        {number: position for number, position in pointers.items() if position},
    )


def data_offset(extent: Extent, number: int) -> int:
    """Say where in an extent's bytes the data of a record begins."""
    start = int(extent.at[number]) - extent.start
    version = int.from_bytes(extent.data[start + 32 : start + 34], "big")
    return start + RECORD_HEADER.size + (version + VERSION_SIZE if version else 0)

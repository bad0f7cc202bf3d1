"""Give the bytes of a Data.fs from its history one after the other, without a file to read back from.

What a restore reads back - where an earlier record stands - is looked up in layouts and catalogues here.
"""

from __future__ import annotations

import bisect
import hashlib
from collections.abc import Iterator, Sequence

import numpy as np

from perdure.errors import DamageFound
from perdure.formats.assembly import Assembly
from perdure.formats.history import LayoutName
from perdure.formats.references import groups_of, note_newest
from perdure.formats.revisions import Revisions
from perdure.history.in_repository import RepositoryHistory
from perdure.history.reading import Piece, check_follows, check_seamless, names_until
from perdure.history.rebuilding import cut_position
from perdure.history.rows import Rows, parse_verbatim, rows_of
from perdure.model import Observer, Tid

_REMEMBERED = 4
"""So many ranges are remembered of those that earlier records were looked up in."""


def stream(history: RepositoryHistory, until: Tid | None, observer: Observer) -> Iterator[bytes]:
    """Give the file of a history, up to the last transaction that is not above ``until``.

    Each range is proved by its SHA-256 before any of its bytes is given. Raises DamageFound.
    """
    names = history.names()
    check_seamless(names, history.where)
    return _Streaming(history, names_until(names, until)).run(until, observer)


def size_until(history: RepositoryHistory, until: Tid) -> int:
    """Say how many bytes the file of a history has up to a transaction. Raises DamageFound."""
    names = names_until(history.names(), until)
    check_seamless(names, history.where)
    layout = history.layout(names[-1])
    stop = cut_position(layout, until)
    return layout.facts.end if stop is None else stop


class _Streaming:
    def __init__(self, history: RepositoryHistory, names: Sequence[LayoutName]) -> None:
        self._history, self._names = history, names
        self._revisions = Revisions()
        self._end = 0
        self._recent: dict[LayoutName, Rows] = {}

    def run(self, until: Tid | None, observer: Observer) -> Iterator[bytes]:
        for piece in self._history.pieces(self._names):
            facts = piece.layout.facts
            check_follows(piece.layout, self._end, piece.where)
            blocks = self._verbatim(piece) if facts.verbatim else self._assembled(piece)
            stop = cut_position(piece.layout, until)
            self._end = facts.end if stop is None else stop
            left = self._end - facts.start
            for block in blocks:
                part = block[: max(left, 0)]
                left -= len(part)
                if part:
                    yield part
            observer.progress("dump", self._end, max(self._names[-1].start, self._end))

    def _assembled(self, piece: Piece) -> list[bytes]:
        assembly = Assembly(
            piece.layout,
            piece.catalogues,
            piece.payloads,
            self._revisions,
            self._locate,
            piece.where,
        )
        blocks = _proved(list(assembly.blocks()), piece)
        assembly.note(self._revisions)
        return blocks

    def _verbatim(self, piece: Piece) -> list[bytes]:
        blocks = _proved(piece.payloads[0], piece)
        extent = parse_verbatim(b"".join(blocks), piece.layout, piece.where)
        note_newest(
            self._revisions, groups_of(extent), extent.transaction_of, extent.transaction_tids
        )
        return blocks

    def _locate(self, oid: int, tid: int) -> int:
        """Say where the last record of an object in an earlier transaction stands."""
        first = bisect.bisect_left(self._names, tid, key=lambda name: name.last_tid)
        for name in (*self._names[first:], *self._names[:first]):
            if name.start < self._end:
                rows = self._rows(name)
                mine = (rows.oid == oid) & (rows.tid == tid) & rows.counted(None)[rows.transaction]
                if mine.any():
                    return int(rows.at[np.flatnonzero(mine)[-1]])
        raise DamageFound(
            f"{self._history.where}: object {oid:#x} has no record of transaction {tid:016x} before"
            f" byte {self._end}, but a later record refers to it"
        )

    def _rows(self, name: LayoutName) -> Rows:
        rows = self._recent.pop(name, None) or rows_of(self._history, name)
        self._recent[name] = rows
        if len(self._recent) > _REMEMBERED:
            del self._recent[next(iter(self._recent))]
        return rows


def _proved(blocks: list[bytes], piece: Piece) -> list[bytes]:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    if digest.hexdigest() != piece.layout.facts.sha256:
        raise DamageFound(
            f"{piece.where}: its range of the file came out with the SHA-256 {digest.hexdigest()},"
            f" not with {piece.layout.facts.sha256}"
        )
    return blocks

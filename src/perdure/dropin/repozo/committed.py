"""Read what is committed of a source, while a server may write to it, with a walk following."""

from __future__ import annotations

from collections.abc import Iterator

from perdure.dropin.repozo.pieces import CHUNK
from perdure.formats.filestorage import TransactionHeader
from perdure.formats.newest import Newest
from perdure.formats.walking import Walk
from perdure.sources.filestorage import FileStorageCut


def committed(
    cut: FileStorageCut, start: int, newest: Newest, end: int | None = None
) -> Iterator[bytes | memoryview]:
    """Give the transactions from ``start`` on, up to ``end`` or to where the committed part of the file ends.

    ``newest`` gets the records. A header is always read before what follows it. Raises SourceDamaged.
    """

    def whole(header: TransactionHeader) -> bool:
        return header.plausible and header.end <= _limit(cut, end)

    walk = Walk(cut.where, start, accept=whole, newest=newest)
    position = start
    while position < _limit(cut, end):
        data = cut.read(position, min(CHUNK, _limit(cut, end) - position))
        position += len(data)
        sure = walk.feed(data)
        if sure:
            yield sure
        if walk.stopped:
            if cut.look(walk.position) is None:
                return
            walk.resume()  # it was finished just now
            position = walk.position
        elif not data:
            break
    if walk.inside:
        walk.check_end()  # the file has become shorter


def _limit(cut: FileStorageCut, end: int | None) -> int:
    return cut.limit if end is None else min(end, cut.limit)

"""Whether a source still begins with what a chain holds."""

from __future__ import annotations

import hashlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

from perdure.dropin.repozo.chain import Piece
from perdure.dropin.repozo.failures import VerificationFail
from perdure.dropin.repozo.lane import Lane
from perdure.dropin.repozo.pieces import CHUNK, read_piece
from perdure.formats.newest import Newest
from perdure.formats.repozo import Line
from perdure.formats.walking import Walk
from perdure.model import Observer
from perdure.pool import Pool
from perdure.sources.filestorage import FileStorageCut

_AHEAD = 4 << 20


def difference_quick(cut: FileStorageCut, pieces: Sequence[Piece]) -> str | None:
    """Compare the last range that is not empty, by its MD5; gives what differs, None if nothing does.

    An empty range, as repozo writes them, would prove nothing.
    """
    line = [piece.line for piece in pieces if piece.line is not None and piece.line.size][-1]
    if cut.limit < line.end:
        return f"{cut.where} has shrunk"
    if _md5(_source(cut, line.start, line.end)) == line.md5:
        return None
    return f"the bytes {line.start} to {line.end} of {cut.where} have changed"


def difference(
    cut: FileStorageCut,
    pieces: Sequence[Piece],
    start: int,
    observer: Observer,
    newest: Newest | None,
) -> str | None:
    """Compare each byte of these pieces, of which the first begins at ``start``, with the source.

    The files themselves are read, too: what is damaged is not built upon. On the way ``newest`` gets
    the records that the source has there. Gives what differs. Raises SourceDamaged.
    """
    position = start
    walk = Walk(cut.where, start, newest=newest) if newest is not None else None
    with closing(Pool(1, _AHEAD)) as pool:
        for piece in pieces:
            try:
                faults: list[str] = []
                with (
                    closing(read_piece(piece, faults)) as chunks,
                    closing(_ahead(pool, chunks)) as ahead,
                ):
                    for data in ahead:
                        if cut.read(position, len(data)) != data:
                            return _differs(cut, piece, position + len(data))
                        position += len(data)
                        if walk is not None:
                            walk.feed(data)
                        observer.progress("compare", position, max(position, cut.limit))
            except VerificationFail as error:
                return str(error)
            if faults:
                return f"{piece.path} is damaged: {faults[0]}"
            if piece.line is not None and position != piece.line.end:
                return f"{piece.path} ends at byte {position}, should end at {piece.line.end}"
    return None


def _differs(cut: FileStorageCut, piece: Piece, end: int) -> str:
    if cut.limit < end:
        return f"{cut.where} has shrunk"
    return f"{cut.where} has changed within what {piece.path.name} holds"


def line_of(cut: FileStorageCut, piece: Piece, start: int, end: int) -> Line:
    """Make the line of a piece that holds a range of the source."""
    return Line(piece.path.name, start, end, _md5(_source(cut, start, end)))


def _ahead(pool: Pool, chunks: Iterator[bytes]) -> Generator[bytes]:
    """Give chunks that a thread reads and decompresses while the one before is worked on.

    When it is closed no thread is in ``chunks`` any more.
    """
    coming = pool.submit(CHUNK, _next_of, chunks)
    try:
        while data := coming.result():
            coming = pool.submit(CHUNK, _next_of, chunks)
            yield data
    finally:
        if not coming.cancel():
            coming.exception()


def _next_of(chunks: Iterator[bytes]) -> bytes:
    """Give the next chunk; nothing at the end."""
    return next(chunks, b"")


def _source(cut: FileStorageCut, start: int, end: int) -> Iterator[bytes]:
    for position in range(start, end, CHUNK):
        yield cut.read(position, min(CHUNK, end - position))


def _md5(chunks: Iterator[bytes]) -> str:
    md5 = hashlib.md5(usedforsecurity=False)
    with closing(Lane()) as hashing:
        for data in chunks:
            hashing.submit(len(data), md5.update, data)
        hashing.settle()
    return md5.hexdigest()

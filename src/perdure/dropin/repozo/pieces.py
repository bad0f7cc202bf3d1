"""The bytes of a repository's data files, decompressed where they are gzip."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path

from perdure.dropin.repozo.chain import Piece, State
from perdure.dropin.repozo.failures import VerificationFail
from perdure.errors import DamageFound
from perdure.formats.filestorage import (
    MAGIC_SIZE,
    RECORD_HEADER,
    TRAILER_SIZE,
    TRANSACTION_HEADER,
    TransactionHeader,
)
from perdure.model import Tid

CHUNK = 1 << 20
_AHEAD = 1 << 20
"""Bytes within which an increment must tell where it belongs."""


def read_piece(piece: Piece, faults: list[str]) -> Generator[bytes]:
    """Give what a piece stands for, some megabytes at a time.

    What is wrong with a gzip file around its data is added to ``faults``. Raises VerificationFail.
    """
    chunks = _read(piece.path, CHUNK)
    if not piece.name.zipped:
        yield from chunks
        return
    from perdure.formats.gzip_member import decompress

    try:
        yield from decompress(chunks, faults)
    except DamageFound as error:
        raise VerificationFail(
            f"{piece.path} is damaged: {error}", hint="recover an earlier state with -D"
        ) from None


def _read(path: Path, size: int) -> Iterator[bytes]:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        raise VerificationFail(f"{path} is missing") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        while True:
            try:
                data = os.read(descriptor, size)
            except OSError as error:
                raise _unreadable(path, error) from error
            if not data:
                return
            yield data
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> VerificationFail:
    return VerificationFail(f"{path} cannot be read: {error.strerror}")


def measure(piece: Piece) -> int:
    """Give the bytes that a piece stands for, by its file alone. Raises VerificationFail."""
    if piece.stored is None:
        raise VerificationFail(f"{piece.path} is missing")
    if not piece.name.zipped:
        return piece.stored
    return sum(map(len, read_piece(piece, [])))


def locate(piece: Piece) -> int | None:
    """Tell at which byte of the database an increment belongs, by its first record.

    Each record names the position of its transaction. None where there is no record near the beginning.
    Raises VerificationFail.
    """
    data = _beginning(piece)
    offset = 0
    while offset + TRANSACTION_HEADER.size <= len(data):
        header = TransactionHeader.parse(data, offset, offset)
        record = offset + TRANSACTION_HEADER.size + header.text_length
        if not header.plausible:
            return None
        if record + RECORD_HEADER.size <= min(offset + header.length, len(data)):
            _, tid, _, tloc, _, _ = RECORD_HEADER.unpack_from(data, record)
            return tloc - offset if tid == header.tid and tloc >= offset else None
        offset += header.size
    return None


def _beginning(piece: Piece) -> bytes:
    parts, size = [], 0
    with closing(read_piece(piece, [])) as chunks:
        for data in chunks:
            parts.append(data[:_AHEAD])
            size += len(data)
            if size >= _AHEAD:
                break
    return b"".join(parts)


def last_tid(state: State) -> Tid | None:
    """Give the last transaction of a state; None for a database without one.

    Of a plain file only the end is read; a gzip file is decompressed. Raises VerificationFail.
    """
    for piece in reversed(state.pieces):
        found = _last_tid_zipped(piece) if piece.name.zipped else _last_tid_plain(piece.path)
        if found is not None:
            return found
    return None


def _last_tid_plain(path: Path) -> Tid | None:
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            if size <= MAGIC_SIZE:
                return None
            file.seek(max(size - TRAILER_SIZE, 0))
            begin = size - TRAILER_SIZE - int.from_bytes(file.read(TRAILER_SIZE), "big")
            if begin >= 0:
                file.seek(begin)
                header = TransactionHeader.parse(
                    file.read(TRANSACTION_HEADER.size).ljust(TRANSACTION_HEADER.size, b"\0"),
                    0,
                    begin,
                )
                if header.plausible and header.end == size:
                    return Tid(header.tid)
    except FileNotFoundError:
        raise VerificationFail(f"{path} is missing") from None
    except OSError as error:
        raise _unreadable(path, error) from error
    raise VerificationFail(f"{path} does not end with a transaction")


def _last_tid_zipped(piece: Piece) -> Tid | None:
    """Go from header to header, which needs nothing of what is between them."""
    found: Tid | None = None
    at = MAGIC_SIZE if piece.name.full else 0
    begin, rest = 0, b""
    for data in read_piece(piece, []):
        data = rest + data
        while at + TRANSACTION_HEADER.size <= begin + len(data):
            header = TransactionHeader.parse(data, at - begin, at)
            if not header.plausible:
                raise VerificationFail(
                    f"{piece.path} is damaged: no transaction begins at its byte {at}"
                )
            found, at = Tid(header.tid), header.end
        rest = data[at - begin :]
        begin += len(data) - len(rest)
    return found

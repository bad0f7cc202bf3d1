"""Read the pieces of a state and prove them: size, MD5, gzip, and that they are one Data.fs.

A MD5 that is right proves that a piece is what was written, not that it is what should have been: a pack
between the decision and the copy, or an increment that went onto a chain to which it does not belong, pass
every check of sums. So the bytes are walked through as well (formats/walking.py): each record names the
position of its transaction, which is right only in the file that it was written to.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Protocol

from perdure.dropin.repozo.chain import Piece
from perdure.dropin.repozo.failures import VerificationFail
from perdure.dropin.repozo.joining import Placed
from perdure.dropin.repozo.lane import Lane
from perdure.dropin.repozo.pieces import read_piece
from perdure.errors import PerdureError, SourceDamaged, SourceUnusable, UsageError
from perdure.formats.filestorage import TransactionHeader
from perdure.formats.newest import Newest
from perdure.formats.walking import Walk
from perdure.model import Observer, Tid


class Sink(Protocol):
    """Where proved bytes go; they count only when all are there."""

    def write(self, data: bytes | memoryview) -> object:
        """Append bytes."""


HINT = "recover an earlier state with -D"


@dataclass(frozen=True, slots=True)
class Proof:
    """What is known of a piece that was read."""

    placed: Placed
    end: int
    """Position behind it."""
    md5: str
    faults: tuple[str, ...]
    """What is wrong with its file, though the bytes in it are right."""

    @property
    def by_sum(self) -> bool:
        """Whether the .dat knows its MD5; else its structure alone speaks for it."""
        return self.placed.piece.line is not None


class Prover:
    """Reads the pieces of one state, or of one chain, in order.

    ``start``: the byte of the database at which the first one begins. ``until``: the last transaction
    that is wanted; what is behind it is read and proved, but goes nowhere.
    """

    def __init__(
        self, observer: Observer, phase: str, *, start: int = 0, until: Tid | None = None
    ) -> None:
        self._until = until
        self._walk = Walk("", start, accept=self._wanted)
        self._observer, self._phase = observer, phase
        self._hashing = Lane()

    @property
    def end(self) -> int:
        """Position behind the last byte that is wanted."""
        return self._walk.position

    @property
    def tid(self) -> Tid | None:
        """The last transaction so far that is wanted."""
        return None if self._walk.last_tid is None else Tid(self._walk.last_tid)

    @property
    def newest(self) -> Newest:
        """Where the newest record of each object stands, of what was read."""
        return self._walk.newest

    def close(self) -> None:
        """End the thread that hashes."""
        self._hashing.close()

    def read(self, placed: Placed, sink: Sink | None = None) -> Proof:
        """Read a piece to its end and prove it. Raises VerificationFail, and what the sink raises."""
        faults: list[str] = []
        with closing(read_piece(placed.piece, faults)) as chunks:
            return self.check(placed, chunks, faults, sink)

    def check(
        self, placed: Placed, chunks: Iterator[bytes], faults: list[str], sink: Sink | None
    ) -> Proof:
        """Prove that bytes are those of a piece. Raises VerificationFail, and what the sink raises."""
        piece = placed.piece
        md5 = hashlib.md5(usedforsecurity=False)
        size, broken = 0, None
        self._walk.where = str(piece.path)
        for data in chunks:
            size += len(data)
            self._hashing.submit(len(data), md5.update, data)
            if broken is None:
                broken = self._walk_through(data, sink)
            done = placed.start + size
            self._observer.progress(self._phase, done, max(done, placed.end or 0))
        self._hashing.settle()
        _check_sums(piece, size, md5.hexdigest(), faults)
        try:
            if broken:
                raise broken
            self._walk.check_end()
        except PerdureError as error:
            raise VerificationFail(str(error), hint=HINT) from None
        return Proof(placed, placed.start + size, md5.hexdigest(), tuple(faults))

    def _walk_through(self, data: bytes, sink: Sink | None) -> PerdureError | None:
        """Follow bytes and hand on what is wanted; gives what is wrong with them."""
        try:
            wanted = self._walk.feed(data)
        except (SourceDamaged, SourceUnusable) as error:
            return error  # the sums are looked at first: they say it more plainly
        if sink is not None and wanted:
            sink.write(wanted)
        return None

    def _wanted(self, header: TransactionHeader) -> bool:
        if self._until is None or header.tid <= self._until.value:
            return True
        if header.status == b"p":
            raise UsageError(
                f"{self._until} was before a pack: of what it removed nothing is in this chain",
                hint="take an earlier backup, or a later moment",
            )
        return False


def prove(
    prover: Prover, placed: Sequence[Placed], sink: Sink | None, *, sums: bool, observer: Observer
) -> list[Proof]:
    """Read the pieces of a state; with ``sums`` the .dat must have the MD5 of each.

    Raises VerificationFail.
    """
    proofs: list[Proof] = []
    for each in placed:
        proof = prover.read(each, sink)
        path = each.piece.path
        if not proof.by_sum:
            dat = "its line in the .dat is missing: only its structure could be checked"
            if sums:
                raise VerificationFail(f"{path} cannot be verified: {dat}")
            observer.warning(f"{path}: {dat}")
        for fault in proof.faults:
            observer.warning(f"{path}: {fault}; its MD5 is right")
        proofs.append(proof)
    return proofs


def _check_sums(piece: Piece, size: int, md5: str, faults: Sequence[str]) -> None:
    """Compare what was read with what the .dat says. Raises VerificationFail."""
    line, path = piece.line, piece.path
    zipped = " (when uncompressed)" if piece.name.zipped else ""
    if line is None:
        if faults:
            raise VerificationFail(f"{path} is damaged: {faults[0]}", hint=HINT)
    elif size != line.size:
        raise VerificationFail(
            f"{path} is {size} bytes{zipped}, should be {line.size} bytes", hint=HINT
        )
    elif md5 != line.md5:
        raise VerificationFail(
            f"{path} has checksum {md5}{zipped} instead of {line.md5}", hint=HINT
        )

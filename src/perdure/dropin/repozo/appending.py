"""Recover onto a file that an earlier recovery has left: check it, then append what is new.

A FileStorage is a sequence of transactions: with the first of those that are appended it is a later state
of the same database, with a part of one it is as after a crash of the server, and ZODB cuts it. So a run
that is killed leaves a database that can be opened, and the next run goes on behind what it finds. Nothing
is appended that was not proved before; the old index stays right for what stood there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.dropin.repozo.failures import VerificationFail
from perdure.dropin.repozo.joining import Placed
from perdure.dropin.repozo.pieces import CHUNK
from perdure.dropin.repozo.proving import Proof, Prover, prove
from perdure.errors import DamageFound, StoreError
from perdure.model import Observer, Tid
from perdure.sources.durable import owner_for, sync_directory, write_all
from perdure.sources.filestorage_writer import held_lock

if TYPE_CHECKING:
    from perdure.formats.newest import Newest

_PART = ".perdure-part"


@dataclass(frozen=True, slots=True)
class Appended:
    """What came of it: ``end`` is None when the file cannot be continued, and ``reason`` says why."""

    end: int | None = None
    tid: Tid | None = None
    kept: int = 0
    proofs: Sequence[Proof] = ()
    reason: str = ""


def append(
    output: Path, placed: Sequence[Placed], until: Tid | None, observer: Observer, *, quick: bool
) -> Appended:
    """Append to a file what a state has beyond it, if the file is the beginning of that state.

    ``quick``: of what stands there only the last range is compared. Raises TargetInUse, VerificationFail,
    StoreError.
    """
    if not output.exists():
        return Appended(reason=f"{output} does not exist")
    with held_lock(output, owner_for(output)):
        try:
            descriptor = os.open(output, os.O_RDWR | os.O_CLOEXEC)
            try:
                return _Appending(output, descriptor, observer).run(placed, until, quick=quick)
            finally:
                os.close(descriptor)
        except OSError as error:
            raise StoreError(f"{output} cannot be continued: {error.strerror}") from error


class _Differs(Exception):
    """The file is not the beginning of the state; the message says where."""


class _Comparing:
    """A sink that compares what is there already with what should be."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor, self._at, self._end = descriptor, start, end

    def write(self, data: bytes | memoryview) -> None:
        """Compare the next bytes. Raises _Differs."""
        there = os.pread(self._descriptor, min(len(data), max(self._end - self._at, 0)), self._at)
        if there != data[: len(there)]:
            raise _Differs(f"it differs behind byte {self._at}")
        self._at += len(data)


class _Adding:
    """A sink that writes behind what is there already."""

    def __init__(self, descriptor: int, start: int, end: int) -> None:
        self._descriptor, self._at, self._end = descriptor, start, end

    def write(self, data: bytes | memoryview) -> None:
        """Write the next bytes, but for those that stand there."""
        there = min(max(self._end - self._at, 0), len(data))
        write_all(self._descriptor, data[there:], self._at + there)
        self._at += len(data)


class _Appending:
    """One file that is continued."""

    def __init__(self, output: Path, descriptor: int, observer: Observer) -> None:
        self._output, self._descriptor, self._observer = output, descriptor, observer
        self._size = os.fstat(descriptor).st_size

    def run(self, placed: Sequence[Placed], until: Tid | None, *, quick: bool) -> Appended:
        """Check what stands, prove what is new, append it, write the index."""
        standing = [each for each in placed if each.end is not None and each.end <= self._size]
        new = placed[len(standing) :]
        if not standing:
            return Appended(reason=f"{self._output} ends inside the full backup")
        start = standing[-1].end
        assert start is not None
        if not new and (until or self._size > start):
            return Appended(reason=f"{self._output} has more than what is wanted")
        try:
            newest = self._check(standing, quick=quick)
            end = self._prove(new, start, until)
        except _Differs as why:
            return Appended(reason=f"{self._output}: {why}")
        if end < self._size:
            return Appended(reason=f"{self._output} has more than what is wanted")
        with closing(Prover(self._observer, "recover", start=start, until=until)) as prover:
            proofs = self._add(prover, new, start)
            self._write_index(newest, prover, placed[-1], whole=until is None)
            return Appended(prover.end, prover.tid, self._size, proofs)

    def _check(self, standing: Sequence[Placed], *, quick: bool) -> Newest | None:
        """Compare ranges of the file with the sums in the .dat; gives its records if all was read."""
        if quick:
            last = [each for each in standing if each.end != each.start][-1:]
            start = last[0].start
        else:
            last, start = list(standing), 0
        with closing(Prover(self._observer, "compare", start=start)) as prover:
            for each in last:
                if each.piece.line is None:
                    raise _Differs(f"the .dat does not tell what {each.piece.path.name} should be")
                try:
                    prover.check(each, self._range(each), [], None)
                except VerificationFail as error:
                    raise _Differs(f"it is not what was recovered ({error})") from None
            return None if quick else prover.newest

    def _range(self, placed: Placed) -> Iterator[bytes]:
        assert placed.end is not None
        for start in range(placed.start, placed.end, CHUNK):
            yield os.pread(self._descriptor, min(CHUNK, placed.end - start), start)

    def _prove(self, new: Sequence[Placed], start: int, until: Tid | None) -> int:
        """Read what is new without writing it, and compare what stands of it; gives where it ends."""
        with closing(Prover(self._observer, "verify", start=start, until=until)) as prover:
            comparing = _Comparing(self._descriptor, start, self._size)
            prove(prover, new, comparing, sums=False, observer=self._observer)
            return prover.end

    def _add(self, prover: Prover, new: Sequence[Placed], start: int) -> list[Proof]:
        try:
            adding = _Adding(self._descriptor, start, self._size)
            proofs = prove(prover, new, adding, sums=False, observer=self._observer)
            os.fsync(self._descriptor)
        except BaseException:
            os.ftruncate(self._descriptor, self._size)
            os.fsync(self._descriptor)
            raise
        return proofs

    def _write_index(
        self, newest: Newest | None, prover: Prover, last: Placed, *, whole: bool
    ) -> None:
        """Put the new index beside the file; where none can be had, ZODB makes one from the old one on."""
        from perdure.formats import fsindex

        if newest is None and whole:
            newest = _index_beside(last, prover)
        if newest is None:
            return
        newest.update(prover.newest)
        index = self._output.with_name(f"{self._output.name}.index")
        part = self._output.with_name(f".{self._output.name}.index{_PART}")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        try:
            end = 0
            for data in fsindex.encode(newest, prover.end):
                end = write_all(descriptor, data, end)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        part.rename(index)
        sync_directory(index.parent)


def _index_beside(last: Placed, prover: Prover) -> Newest | None:
    """Take the index that the backup has of this state, if it fits what was read of it."""
    from perdure.formats import fsindex

    path = last.piece.path.with_name(f"{last.piece.name.stamp}.index")
    try:
        index = fsindex.decode(path.read_bytes())
    except (OSError, DamageFound):
        return None
    known = index.newest()
    fits = all(known.position(oid) == position for oid, position in prover.newest.items())
    return known if fits and index.end == prover.end else None

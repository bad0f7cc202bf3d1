"""Recover a Data.fs: to a file that is replaced only by a whole one, to a stream, or onto an earlier one."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from perdure.dropin.repozo.appending import append
from perdure.dropin.repozo.chain import State
from perdure.dropin.repozo.choosing import Choice, choose
from perdure.dropin.repozo.failures import NoFiles
from perdure.dropin.repozo.joining import Placed, join
from perdure.dropin.repozo.proving import Proof, Prover, Sink, prove
from perdure.errors import UsageError
from perdure.model import Observer, Tid
from perdure.pool import Pool
from perdure.sources.filestorage_writer import new_filestorage, writing

PHASE = "recover"


@dataclass(frozen=True, slots=True)
class RecoverRequest:
    """What to recover, and how."""

    repository: Path
    date: str | None = None
    """``yyyy[-mm[-dd[-hh[-mm[-ss]]]]]``: the last backup that is not after it, compared as a text; an ISO
    time with a T, or a tid: that moment, between two backups or not; None: the newest backup."""
    with_verify: bool = False
    """Each file must have its checksum in the .dat; where it has, it is checked in any case."""
    incremental: bool = False
    """Append to the file that is there, if it is the beginning of what is wanted."""
    quick: bool = False
    """With ``incremental``: look only at the last range of the file that is there."""


@dataclass(frozen=True, slots=True)
class RecoverReport:
    """What was recovered; sizes in bytes."""

    state: State
    size: int
    tid: Tid | None
    """The last transaction; None: there is none, or an earlier run recovered all of them."""
    proofs: tuple[Proof, ...]
    """The files that were read."""
    kept: int = 0
    """Bytes that stood there already."""
    reason: str = ""
    """Why nothing of an earlier file could be kept, where that was asked for."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The data files that the state consists of."""
        return self.state.files


def recover(request: RecoverRequest, output: Path, observer: Observer) -> RecoverReport:
    """Recover to a file, with its index; an old one is there until the new one is whole and durable.

    Raises NoFiles, VerificationFail, UsageError for a date that is none, NoRepository, TargetInUse when a
    server holds the file's lock, StoreError.
    """
    return recover_choice(choose(request.repository, request.date), request, output, observer)


def recover_choice(
    choice: Choice, request: RecoverRequest, output: Path, observer: Observer
) -> RecoverReport:
    """Recover what was chosen already. Raises what `recover` raises but for NoRepository."""
    from perdure.formats import fsindex

    _check_output(output)
    placed = join(choice.state.pieces)
    reason = ""
    if request.incremental:
        added = append(output, placed, choice.until, observer, quick=request.quick)
        if added.end is not None:
            return RecoverReport(
                choice.state, added.end, added.tid, tuple(added.proofs), kept=added.kept
            )
        reason = added.reason
    with (
        closing(Pool(1)) as pool,
        new_filestorage(output, pool, force=True) as new,
        writing(new),
        closing(Prover(observer, PHASE, until=choice.until)) as prover,
    ):
        proofs = _prove(request, choice, prover, placed, new, observer)
        new.finish(fsindex.encode(prover.newest, prover.end))
        new.commit()
        return RecoverReport(choice.state, prover.end, prover.tid, proofs, reason=reason)


def _check_output(output: Path) -> None:
    """Check that a file can be put there. Raises UsageError, before a pipe would be waited for."""
    if output.exists() and not output.is_file():
        what = "a folder" if output.is_dir() else "no ordinary file"
        raise UsageError(
            f"{output} is {what}",
            hint="give the path of the Data.fs to write; without -o it goes to standard output",
        )


def recover_to_stream(
    request: RecoverRequest, stream: BinaryIO, observer: Observer
) -> RecoverReport:
    """Recover to a stream: the first byte is written when everything was proved once.

    Raises what `recover` raises, and OSError of the stream.
    """
    choice = choose(request.repository, request.date)
    placed = join(choice.state.pieces)
    with closing(Prover(observer, "verify", until=choice.until)) as prover:
        _prove(request, choice, prover, placed, None, observer)
    with closing(Prover(observer, PHASE, until=choice.until)) as prover:
        proofs = _prove(request, choice, prover, placed, stream, observer)
        stream.flush()
        return RecoverReport(choice.state, prover.end, prover.tid, proofs)


def _prove(
    request: RecoverRequest,
    choice: Choice,
    prover: Prover,
    placed: Sequence[Placed],
    sink: Sink | None,
    observer: Observer,
) -> tuple[Proof, ...]:
    proofs = prove(prover, placed, sink, sums=request.with_verify, observer=observer)
    if choice.until is not None and prover.tid is None:
        raise NoFiles(f"there is no transaction at {choice.until} or before it")
    return tuple(proofs)

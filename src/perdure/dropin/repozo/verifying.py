"""Verify a repository: all chains, not the newest alone, and each file of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.repozo.chain import Chain, Piece
from perdure.dropin.repozo.failures import NoFiles, VerificationFail
from perdure.dropin.repozo.folder import list_folder
from perdure.dropin.repozo.joining import Placed
from perdure.dropin.repozo.pieces import measure
from perdure.dropin.repozo.proving import Prover
from perdure.errors import DamageFound
from perdure.model import Observer


@dataclass(frozen=True, slots=True)
class VerifyRequest:
    """What to verify, and how."""

    repository: Path
    quick: bool = False
    """Sizes only, and that the files join; a gzip file is decompressed to know its size."""


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """What was found."""

    chains: int
    files: int
    size: int
    """Bytes of the database that the files stand for, together."""
    problems: tuple[str, ...]
    """What is wrong; nothing, if each state can be recovered as it was."""
    notes: tuple[str, ...]
    """What is odd, and does no harm."""


def verify(request: VerifyRequest, observer: Observer) -> VerifyReport:
    """Read the files of all chains. Raises NoFiles, NoRepository, StoreError."""
    listing = list_folder(request.repository)
    if not listing.chains:
        raise NoFiles("No files in repository")
    problems: list[str] = []
    notes = [f"{request.repository / name} belongs to no backup" for name in listing.strays]
    for chain in reversed(listing.chains):
        found = list(chain.problems)
        checks = _sizes(chain, found) if request.quick else _contents(chain, observer, notes)
        found += (problem for problem in checks if problem not in found)
        problems += found
    pieces = [piece for chain in listing.chains for piece in chain.pieces]
    return VerifyReport(
        chains=len(listing.chains),
        files=len(pieces),
        size=sum(piece.size or 0 for piece in pieces),
        problems=tuple(problems),
        notes=tuple(notes),
    )


def _sizes(chain: Chain, found: list[str]) -> Iterator[str]:
    for piece in chain.pieces:
        if piece.stored is None or piece.line is None or not piece.name.zipped:
            continue  # what is to be said of it is said
        try:
            size = measure(piece)
        except VerificationFail as error:
            yield str(error)
            continue
        if size != piece.line.size:
            yield (
                f"{piece.path} is {size} bytes (when uncompressed), should be {piece.line.size} bytes"
            )


def _contents(chain: Chain, observer: Observer, notes: list[str]) -> Iterator[str]:
    """Read a chain in order, as far as it hangs together; behind a gap each file for itself."""
    with closing(Prover(observer, "verify")) as prover:
        joined, end = True, 0
        for piece in chain.pieces:
            if piece.stored is None:
                joined = False
                continue
            begin = piece.line.start if piece.line else end
            joined = joined and begin == end
            placed = Placed(piece, begin, None)
            try:
                if not joined:
                    with closing(Prover(observer, "verify", start=begin)) as alone:
                        proof = alone.read(placed)
                else:
                    proof = prover.read(placed)
            except VerificationFail as error:
                yield str(error)
                joined = False
                continue
            yield from (f"{piece.path}: {fault}" for fault in proof.faults)
            end = proof.end
            if joined:
                yield from _index(piece, prover, notes)


def _index(piece: Piece, prover: Prover, notes: list[str]) -> Iterator[str]:
    """Compare the index of a state with what was read."""
    from perdure.formats import fsindex

    path = piece.path.with_name(f"{piece.name.stamp}.index")
    try:
        index = fsindex.decode(path.read_bytes())
    except FileNotFoundError:
        notes.append(f"{path} is missing: recovery makes a new one")
        return
    except DamageFound as error:
        yield f"{path} is damaged: {error}; recovery makes a new one"
        return
    if index.end != prover.end or not index.agrees_with(prover.newest):
        yield f"{path} is not the index of this state; recovery makes a new one"

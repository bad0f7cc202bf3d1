"""Which files make which state: chains and states of a repository, found without reading a data file.

The list of files alone is not believed, nor is the .dat alone: files may be gone, lines may be missing,
names may be out of order (a full and its increment of the same second; a clock that was set back).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from perdure.formats.repozo import Dat, DataName, Line, time_of


@dataclass(frozen=True, slots=True)
class Piece:
    """A data file that is there, or that a .dat tells of."""

    path: Path
    name: DataName
    line: Line | None
    """What the .dat says of it."""
    stored: int | None
    """Bytes on disk; None: the file is missing."""

    @property
    def size(self) -> int | None:
        """Bytes that it stands for, as far as that can be known without decompressing it."""
        if self.line is not None:
            return self.line.size
        return None if self.name.zipped else self.stored


@dataclass(frozen=True, slots=True)
class Chain:
    """A full and its increments, in the order in which they were made."""

    stamp: str
    """Of its full, and of its .dat."""
    folder: Path
    pieces: tuple[Piece, ...]
    dat: Dat | None
    """None: there is none."""

    @property
    def dat_path(self) -> Path:
        """Where its .dat is, or should be."""
        return self.folder / f"{self.stamp}.dat"

    @property
    def states(self) -> tuple[State, ...]:
        """The states that its pieces make, oldest first."""
        return tuple(State(self, self.pieces[:count]) for count in range(1, len(self.pieces) + 1))

    @property
    def problems(self) -> tuple[str, ...]:
        """What does not fit together in it; nothing, if it can be continued as it is."""
        return tuple(_problems(self))


@dataclass(frozen=True, slots=True)
class State:
    """The database as one backup found it."""

    chain: Chain
    pieces: tuple[Piece, ...]

    @property
    def stamp(self) -> str:
        """When the backup was made."""
        return self.pieces[-1].name.stamp

    @property
    def time(self) -> datetime:
        """When the backup was made, UTC. Raises DamageFound when the name of its file is no time."""
        return time_of(self.stamp)

    @property
    def files(self) -> tuple[Path, ...]:
        """The data files, in the order of the .dat."""
        return tuple(piece.path for piece in self.pieces)

    @property
    def size(self) -> int | None:
        """Bytes of the Data.fs; None where the .dat does not tell."""
        line = self.pieces[-1].line
        return line.end if line else None


def find_chains(
    folder: Path, files: Mapping[str, int], dats: Mapping[str, Dat]
) -> tuple[Chain, ...]:
    """Arrange the files of a repository, name to size; ``dats`` by stamp. Oldest chain first."""
    names = {name: parsed for name in files if (parsed := DataName.parse(name))}
    listed = {line.name for dat in dats.values() for line in dat.lines}
    loose = sorted(
        (parsed for name, parsed in names.items() if name not in listed and not parsed.full),
        key=lambda name: name.stamp,
    )
    stamps = sorted({*dats, *(each.stamp for each in names.values() if each.full)})
    if loose and (not stamps or loose[0].stamp < stamps[0]):
        stamps.insert(0, loose[0].stamp)  # increments whose full and .dat are gone
    chains: list[Chain] = []
    for stamp, following in pairwise([*stamps, "~"]):
        dat = dats.get(stamp)
        lines = dat.lines if dat else ()
        fulls = [
            name
            for name in names.values()
            if name.full and name.stamp == stamp and str(name) not in listed
        ]
        own = [name for name in loose if stamp <= name.stamp < following]
        order = _merged(lines, fulls if not _has_full(lines) else [], own)
        pieces = tuple(
            Piece(folder / str(name), name, line, files.get(str(name))) for name, line in order
        )
        if pieces:
            chains.append(Chain(stamp, folder, pieces, dat))
    return tuple(chains)


def _has_full(lines: Sequence[Line]) -> bool:
    return bool(lines) and lines[0].start == 0 and _name(lines[0]).full


def _merged(
    lines: Sequence[Line], fulls: Sequence[DataName], loose: Sequence[DataName]
) -> Iterator[tuple[DataName, Line | None]]:
    """Give the full, then what is listed in the order of the list, the rest between them by its stamp."""
    for full in fulls[:1]:
        yield full, None
    left = list(loose)
    for line in lines:
        name = _name(line)
        while left and left[0].stamp < name.stamp:
            yield left.pop(0), None
        yield name, line
    yield from ((name, None) for name in left)


def _name(line: Line) -> DataName:
    name = DataName.parse(line.name)
    assert name is not None  # else it were no line
    return name


def state_at(chains: Sequence[Chain], date: str | None) -> State | None:
    """Find the last state that is not after a date, compared as a text; None: the newest of all."""
    for chain in reversed(chains):
        if date is None:
            return chain.states[-1]
        if chain.stamp <= date:
            # Whatever the order of the names, or of the list: what was made by then is part of it.
            fitting = [state for state in chain.states if state.stamp <= date]
            return fitting[-1] if fitting else chain.states[0]
    return None


def unlisted_last(chain: Chain) -> Piece | None:
    """Give the newest increment if it alone is not in the .dat, as a killed run leaves it."""
    last = chain.pieces[-1]
    if len(chain.pieces) == 1 or last.line is not None or last.stored is None:
        return None
    rest = Chain(chain.stamp, chain.folder, chain.pieces[:-1], chain.dat)
    return last if not rest.problems and _in_order(chain) else None


def _in_order(chain: Chain) -> bool:
    """Whether repozo, which goes by the names alone, takes the files in the same order."""
    names = [str(piece.name) for piece in chain.pieces]
    stamps = [piece.name.stamp for piece in chain.pieces]
    return names == sorted(names) and len(set(stamps)) == len(stamps)


def _problems(chain: Chain) -> Iterator[str]:
    if chain.dat is None:
        yield f"{chain.dat_path} is missing"
    else:
        yield from (f"{chain.dat_path}: {fault}" for fault in chain.dat.faults)
        if not chain.dat.lines:
            yield f"{chain.dat_path} is empty"
    if not chain.pieces[0].name.full:
        yield f"no full backup stands before {chain.pieces[0].path}"
    end = 0
    for piece in chain.pieces:
        yield from _file_problems(piece, chain)
        if piece.line is not None:
            if piece.line.start != end:
                yield (
                    f"{piece.path} begins at byte {piece.line.start} of the database, but what stands"
                    f" before it ends at {end}"
                )
            end = piece.line.end
    if not _in_order(chain):
        yield f"the names of the files of {chain.stamp} are not in the order in which they were made"


def _file_problems(piece: Piece, chain: Chain) -> Iterator[str]:
    if piece.stored is None:
        yield f"{piece.path} is missing"
    elif piece.line is None:
        if chain.dat is not None:
            yield f"{piece.path} is not listed in {chain.dat_path.name}"
    elif not piece.name.zipped and piece.stored != piece.line.size:
        yield f"{piece.path} is {piece.stored} bytes, should be {piece.line.size} bytes"

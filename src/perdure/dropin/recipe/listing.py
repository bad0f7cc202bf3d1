"""Which dates can be restored, and whether each of them really can."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin import repozo
from perdure.dropin.recipe.containers import Container, containers
from perdure.dropin.recipe.pairing import locate
from perdure.dropin.recipe.part import Part, Place, Storage
from perdure.dropin.recipe.recovering import recovered
from perdure.dropin.recipe.referenced import Referenced, reading
from perdure.dropin.recipe.undoing import unfinished
from perdure.errors import PerdureError
from perdure.model import Observer

_MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Dated:
    """A backup of a storage; ``blobs`` are the names of the backups of its blobs of the same time."""

    storage: str
    stamp: str
    full: bool
    size: int | None
    """Bytes of the database; None where nothing tells."""
    blobs: tuple[str, ...]
    snapshot: str | None = None
    """The id of the snapshot that it is, if it is in a repository."""


@dataclass(frozen=True, slots=True)
class Verified:
    """Whether a date of a storage can be restored; ``problem`` says why not."""

    storage: str
    stamp: str
    blobs: int
    problem: str | None


def list_backups(part: Part, places: Sequence[Place]) -> list[Dated]:
    """List what there is, oldest first. Raises PerdureError."""
    found: list[Dated] = []
    for storage, place in zip(part.storages, places, strict=True):
        blobs = containers(Path(place.blobs)) if part.blobs and storage.blobs else []
        if not part.databases:
            found += [Dated(storage.spoken, b.time, True, None, (b.entry.name,)) for b in blobs]
            continue
        folder = Path(place.files)
        for chain in repozo.chains(folder) if folder.is_dir() else ():
            for number, state in enumerate(chain.states):
                names = tuple(b.entry.name for b in blobs if b.time == state.stamp)
                found.append(Dated(storage.spoken, state.stamp, number == 0, state.size, names))
    marked = _marked(part, places)
    return sorted(
        (each for each in found if each.stamp not in marked),
        key=lambda each: (each.stamp, each.storage),
    )


def verify_backups(part: Part, places: Sequence[Place], observer: Observer) -> list[Verified]:
    """Try every date: each database is recovered, and each blob that it has is looked for.

    It needs room for the largest database in the folder for temporary files.
    """
    verified: list[Verified] = []
    marked = _marked(part, places)
    with tempfile.TemporaryDirectory(prefix="perdure-") as scratch:
        for storage, place in zip(part.storages, places, strict=True):
            blobs = containers(Path(place.blobs)) if part.blobs and storage.blobs else None
            if part.databases and Path(place.files).is_dir():
                for chain in repozo.chains(Path(place.files)):
                    observer.progress("verify", len(verified), 0)
                    verified += _verify_chain(storage, chain, marked, blobs, Path(scratch))
            elif blobs is not None:
                verified += [
                    Verified(storage.spoken, each.time, len(each.blobs), each.damage)
                    for each in blobs
                ]
    return verified


def _marked(part: Part, places: Sequence[Place]) -> frozenset[str]:
    return unfinished(Path(places[-1].files if part.databases else places[-1].blobs))


def _verify_chain(
    storage: Storage,
    chain: repozo.Chain,
    marked: frozenset[str],
    blobs: Sequence[Container] | None,
    scratch: Path,
) -> list[Verified]:
    """Recover the last state of a chain, whose beginning all others are."""
    states = tuple(state for state in chain.states if state.stamp not in marked)
    if not states:
        return []
    if chain.problems and len(states) == len(chain.states):
        told = "; ".join(chain.problems)
        return [Verified(storage.spoken, state.stamp, 0, told) for state in states]
    try:
        with recovered(chain.folder, states[-1].stamp, scratch / "Data.fs") as datafs:
            verified = []
            with reading(datafs) as file:
                for state in states:
                    found = file.advance(state.size if state is not states[-1] else None)
                    problem = None if blobs is None else _lacking(found, blobs, state.stamp)
                    count = len(found.certain)
                    verified.append(Verified(storage.spoken, state.stamp, count, problem))
            return verified
    except PerdureError as error:
        return [Verified(storage.spoken, state.stamp, 0, str(error)) for state in states]


def _lacking(found: Referenced, blobs: Sequence[Container], stamp: str) -> str | None:
    missing = sorted(locate(found, blobs, stamp).missing)
    if not missing:
        return None
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    named = ", ".join(map(str, missing[:_MOST_NAMED]))
    return f"{len(missing)} blob files are in no backup: {named}{more}"

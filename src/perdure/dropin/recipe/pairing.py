"""Which backups of blobs have what a Data.fs needs: decided by what is in them, not by the clock."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

from perdure.dropin.recipe.containers import Container
from perdure.dropin.recipe.naming import Form
from perdure.dropin.recipe.referenced import Referenced
from perdure.model import BlobId

_COMPARED = 2
"""With so many backups one is compared: each takes as long as to list a directory."""


@dataclass(slots=True)
class Located:
    """Where the blobs of a Data.fs are: for each place, which to take from it."""

    places: list[tuple[Container, set[BlobId]]] = field(default_factory=list)
    missing: set[BlobId] = field(default_factory=set)
    size: int = 0
    """Bytes of all their files."""
    notes: list[str] = field(default_factory=list)
    """What was odd: damaged tars, files of different sizes."""


def locate(wanted: Referenced, places: Sequence[Container], stamp: str) -> Located:
    """Find the blobs of a Data.fs that was backed up at ``stamp``.

    A backup that has all of them is taken alone: the first one made then or later, else the last one before.
    Otherwise, or where its files are not as long as in others, each blob is looked for in all; of files that
    differ in size the largest is the one that was not cut off. Raises StoreError.
    """
    order = _preferred(places, stamp)
    for each in order:
        if wanted.certain and wanted.certain <= each.blobs.keys():
            found = wanted.all & each.blobs.keys()
            if not _is_like_others(each, found, order):
                break
            size = sum(each.blobs[blob] for blob in found)
            return Located([(each, found)], set(), size)
    return _gathered(wanted, order)


def _preferred(places: Sequence[Container], stamp: str) -> list[Container]:
    ascending = sorted(places, key=lambda each: each.time)
    later = [each for each in ascending if each.time >= stamp]
    earlier = [each for each in ascending if each.time < stamp]
    return [*later, *reversed(earlier)]


def _is_like_others(one: Container, blobs: Collection[BlobId], order: Sequence[Container]) -> bool:
    """Whether the files of a directory are as long as in others: a copy may have been cut off."""
    if one.entry.form is not Form.DIRECTORY:
        return True  # the end of a tar proves it whole
    others = [each for each in order if each is not one and each.entry.form is Form.DIRECTORY]
    return all(
        other.blobs.get(blob, one.blobs[blob]) == one.blobs[blob]
        for other in others[:_COMPARED]
        for blob in blobs
    )


def _gathered(wanted: Referenced, order: Sequence[Container]) -> Located:
    best: dict[BlobId, tuple[int, int]] = {}
    differing = set()
    for number, each in enumerate(order):
        for blob in wanted.all & each.blobs.keys():
            size = each.blobs[blob]
            if blob in best and size != best[blob][0]:
                differing.add(blob)
            if blob not in best or size > best[blob][0]:
                best[blob] = (size, number)
    located = Located(
        missing=wanted.certain - best.keys(), size=sum(size for size, _ in best.values())
    )
    by_place: defaultdict[int, set[BlobId]] = defaultdict(set)
    for blob, (_, number) in best.items():
        by_place[number].add(blob)
    located.places = [(order[number], blobs) for number, blobs in sorted(by_place.items())]
    located.notes = [each.damage for each in order if each.damage]
    located.notes += [
        f"blob {blob} has different sizes in several backups; the largest is taken"
        for blob in sorted(differing)
    ]
    return located

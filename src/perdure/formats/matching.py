"""Which records of a rewritten Data.fs are in the catalogues of its history already.

A pack moves records and drops some; their oid, tid and data stay. An extent of the new file is looked up
in the catalogues of the old segments that hold its transactions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from perdure.formats.catalogue import Catalogue, Ordinals
from perdure.formats.columns import Numbers
from perdure.formats.extent import Extent

_MIX = np.uint64(0x9E3779B97F4A7C15)
MISSING = 254


def match(
    extent: Extent,
    digests: Numbers,
    catalogues: Sequence[Catalogue],
    usable: Sequence[NDArray[np.bool_]],
) -> tuple[Numbers, list[NDArray[np.bool_]]]:
    """Look the records of an extent up by oid, tid, length and digest.

    ``usable`` says for each catalogue of which records the data is still stored.

    Returns for each record of the extent the number of the catalogue that has it, or MISSING; and for
    each catalogue which of its records were found. Within a catalogue the found records stand in the
    order of the file: one that would break it counts as missing.
    """
    source = np.full(len(extent.at), MISSING, np.uint64)
    live: list[NDArray[np.bool_]] = []
    for number, catalogue in enumerate(catalogues):
        wanted = np.flatnonzero((source == MISSING) & (extent.length > 0))
        found = _look_up(extent, digests, wanted, catalogue)
        hit = found >= 0
        hit[hit] = usable[number][found[hit]]
        hit[hit] = _in_file_order(catalogue, found[hit])
        source[wanted[hit]] = number
        mask = np.zeros(len(catalogue), bool)
        mask[found[hit]] = True
        live.append(mask)
    return source, live


def _look_up(extent: Extent, digests: Numbers, wanted: Ordinals, catalogue: Catalogue) -> Ordinals:
    """For each wanted record, the number of its equal in the catalogue, or -1."""
    if not len(catalogue) or not len(wanted):
        return np.full(len(wanted), -1, np.int64)
    keys = _key(catalogue.oid, catalogue.tid, catalogue.digest)
    order = np.argsort(keys, kind="stable")
    oid, tid, digest = extent.oid[wanted], extent.tid[wanted], digests[wanted]
    place = np.searchsorted(keys[order], _key(oid, tid, digest))
    candidate = order[np.minimum(place, len(order) - 1)]
    equal = (
        (catalogue.oid[candidate] == oid)
        & (catalogue.tid[candidate] == tid)
        & (catalogue.digest[candidate] == digest)
        & (catalogue.length[candidate] == extent.length[wanted].astype(np.int64))
    )
    return np.where(equal, candidate, -1)


def _key(oid: Numbers, tid: Numbers, digest: Numbers) -> Numbers:
    """One number that sorts and finds; equality is decided by the columns themselves."""
    return (oid * _MIX + tid) * _MIX + digest


def _in_file_order(catalogue: Catalogue, found: Ordinals) -> NDArray[np.bool_]:
    """Which of the found records, given in the order of the extent, rise in the catalogue's file order."""
    place = np.empty(len(catalogue), np.int64)
    place[catalogue.file_order] = np.arange(len(catalogue))
    places = place[found]
    rises = np.ones(len(found), bool)
    if len(found):
        rises[1:] = places[1:] > np.maximum.accumulate(places)[:-1]
    return rises

"""Data.fs.index: where the newest record of each object stands, so that ZODB opens a Data.fs at once.

A stream of pickles, protocol 3: the position behind the last transaction that the index knows; then for
each prefix of six bytes of the oids, ascending, a pair: the prefix, and a byte string of the last two
bytes of each oid, ascending, followed by the position (6 bytes, big-endian) of each, in the same order;
then None. Perdure writes such files and never reads one. Source: ZODB.fsIndex of ZODB 6.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from itertools import groupby

import numpy as np

from perdure.formats.columns import Numbers
from perdure.formats.revisions import Revisions


def encode(revisions: Revisions, end: int) -> Iterator[bytes]:
    """Give the bytes of an index of a file that ends at ``end``, piece by piece."""
    yield _pickled(end)
    for prefix, group in groupby(revisions.pages(), key=lambda page: page[0] >> 16):
        suffixes, positions = [], []
        for first, page, _ in group:
            used = np.flatnonzero(page)
            suffixes.append((used + (first & 0xFFFF)).astype(">u2").tobytes())
            positions.append(_six_bytes(page[used]))
        if any(suffixes):
            yield _pickled((prefix.to_bytes(6, "big"), b"".join(suffixes + positions)))
    yield _pickled(None)


def _six_bytes(positions: Numbers) -> bytes:
    return positions.astype(">u8").view(np.uint8).reshape(-1, 8)[:, 2:].tobytes()


def _pickled(value: object) -> bytes:
    return pickle.dumps(value, protocol=3)

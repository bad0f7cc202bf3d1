"""The cache's file of positions: both ways, merged, and damaged."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import DamageFound
from perdure.formats.positions import Page, Positions, encode, merged
from perdure.formats.revisions import Revisions

OIDS = st.dictionaries(
    st.one_of(st.integers(0, 600), st.integers(1 << 40, (1 << 40) + 600), st.just((1 << 64) - 1)),
    st.tuples(st.integers(1, 1 << 62), st.integers(1, (1 << 64) - 1)),
    max_size=40,
)
Known = dict[int, tuple[int, int]]


def revisions(known: Known) -> Revisions:
    made = Revisions()
    oids = sorted(known)
    columns = [np.array([known[oid][n] for oid in oids], np.uint64) for n in (0, 1)]
    made.update(np.array(oids, np.uint64), *columns)
    return made


def file_of(pages: list[Page]) -> bytes:
    return b"".join(encode(np.array([first for first, *_ in pages], np.uint64), pages))


@given(OIDS, OIDS)
def test_both_ways_and_merged(older: Known, newer: Known) -> None:
    first = Positions(file_of(list(revisions(older).pages())))
    both = Positions(file_of(list(merged(first.pages(), revisions(newer).pages()))))
    for positions, known in ((first, older), (both, older | newer)):
        for oid in [*older, *newer, 0, 255, 256, 1 << 41]:
            assert positions.revision(oid) == known.get(oid, (0, 0))


def test_every_damage_is_found() -> None:
    known = {oid: (oid + 1, 7) for oid in (3, 300, 1 << 40)}
    data = file_of(list(revisions(known).pages()))
    for place in [*range(60), *range(60, len(data), 97), len(data) - 1]:
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        with pytest.raises(DamageFound):
            list(Positions(damaged).pages())
    for size in (0, 10, 40, len(data) - 1):
        with pytest.raises(DamageFound):
            Positions(data[:size])
    with pytest.raises(DamageFound):
        Positions(data + b"x")

"""From a Data.fs to payload, catalogue and layout, and back; damaged ones; golden ones."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from datafs import DataFs, Record, Transaction, simple
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import DamageFound
from perdure.formats import catalogue as catalogue_module
from perdure.formats.assembly import Assembly
from perdure.formats.catalogue import CHUNK_LIMIT, Catalogue, cut_chunks
from perdure.formats.extent import scan
from perdure.formats.layout import BACK_POINTER, Layout
from perdure.formats.references import describe, groups_of
from perdure.formats.revisions import Revisions
from perdure.formats.segment import (
    NOTHING,
    digest_records,
    make_layout,
    make_segment,
    ranks,
    verbatim_layout,
)

GOLDEN = Path(__file__).parent.parent / "golden/history-1"


def example() -> DataFs:
    """A little of everything that a layout says."""
    made = simple(3)
    made.add(Transaction([Record(0, made.at[0], prev=made.at[-1])], extension=b"\x80\x03}."))
    made.add(Transaction([Record(1, 0, prev=made.at[3])], status=b"p"))
    made.add(Transaction([Record(7, b"seven"), Record(7, b"again"), Record(8, 99, prev=55)]))
    return made.add(Transaction(user="Jürgen".encode(), description=b"nothing"))


def parts(made: DataFs) -> tuple[bytes, bytes, bytes]:
    """Give the layout, the catalogue and the payload of a whole file."""
    extent = scan(made.data, 0, where="Data.fs")
    pieces, digests = digest_records(extent)
    stored = np.flatnonzero(extent.length > 0)
    segment = make_segment(extent, stored, pieces, digests, ranks(extent, 0))
    source = np.where(extent.length > 0, 0, BACK_POINTER).astype(np.uint64)
    repeated = {(7, made.tids[5])} if len(made.tids) > 5 else set()
    found = describe(extent, groups_of(extent), Revisions(), lambda _: None, repeated)
    layout = make_layout(
        extent,
        hashlib.sha256(made.data).hexdigest(),
        [segment.name],
        source if source.any() else NOTHING,
        [None],
        found,
    )
    return layout.encode(), segment.catalogue.encode(), b"".join(segment.chunks())


def assemble(layout: bytes, catalogue: bytes, payload: bytes) -> bytes:
    """Put a file together from its parts, as a restore does, without proof of the result."""
    decoded = Catalogue.decode(catalogue, "the catalogue")
    chunks, start = [], 0
    for size in decoded.chunks.tolist():
        chunks.append(payload[start : start + size])
        start += size

    def nowhere(oid: int, tid: int) -> int:
        raise DamageFound(f"{oid} {tid} is nowhere")

    read = Layout.decode(layout, "the layout")
    count = len(read.facts.segments)
    made = Assembly(read, [decoded] * count, [chunks] * count, Revisions(), nowhere, "the range")
    data = b"".join(made.blocks())
    if hashlib.sha256(data).hexdigest() != read.facts.sha256:
        raise DamageFound("the digest differs")
    return data


LAYOUT, CATALOGUE, PAYLOAD = parts(example())


def test_both_ways() -> None:
    for made in (example(), simple(1), simple(40, objects=9)):
        assert assemble(*parts(made)) == made.data


def test_the_payload_is_ordered_by_object() -> None:
    decoded = Catalogue.decode(CATALOGUE, "the catalogue")
    keys = list(zip(decoded.oid.tolist(), decoded.tid.tolist(), decoded.rank.tolist(), strict=True))
    assert keys == sorted(keys)
    assert PAYLOAD.endswith(b"sevenagain")


@pytest.mark.parametrize(
    ("name", "data"), [("layout", LAYOUT), ("catalogue", CATALOGUE), ("payload", PAYLOAD)]
)
def test_golden(name: str, data: bytes) -> None:
    """These bytes stand for version 1 for ever: what differs needs a new version, and a reader of both."""
    assert data == (GOLDEN / f"example.{name}").read_bytes()


def test_golden_ones_are_read() -> None:
    golden = [(GOLDEN / f"example.{n}").read_bytes() for n in ("layout", "catalogue", "payload")]
    assert assemble(*golden) == example().data == (GOLDEN / "example.fs").read_bytes()


@pytest.mark.parametrize("end", range(0, len(LAYOUT), 7))
def test_a_truncated_layout_is_found(end: int) -> None:
    with pytest.raises(DamageFound):
        assemble(LAYOUT[:end], CATALOGUE, PAYLOAD)


@pytest.mark.parametrize("end", range(0, len(CATALOGUE), 7))
def test_a_truncated_catalogue_is_found(end: int) -> None:
    with pytest.raises(DamageFound):
        assemble(LAYOUT, CATALOGUE[:end], PAYLOAD)


@given(st.integers(0, 2), st.data())
def test_flipped_bytes_are_found(which: int, data: st.DataObject) -> None:
    found = [LAYOUT, CATALOGUE, PAYLOAD]
    flipped = bytearray(found[which])
    for _ in range(data.draw(st.integers(1, 3))):
        flipped[data.draw(st.integers(0, len(flipped) - 1))] ^= data.draw(st.integers(1, 255))
    found[which] = bytes(flipped)
    with suppress(DamageFound):
        assert assemble(*found) == example().data


COLUMNS = [
    *("tid", "status", "length", "user", "description", "extension", "records", "text", "source"),
    *("back_oid", "back_tid", "prev_tid", "odd_record", "odd_field", "odd_value"),
]
HUGE = [
    0,
    1,
    2,
    254,
    255,
    256,
    65535,
    65536,
    1 << 28,
    (1 << 31) - 1,
    (1 << 62) - 1,
    1 << 63,
    2**64 - 1,
]


@given(st.data())
def test_layouts_that_lie_are_found(data: st.DataObject) -> None:
    layout = Layout.decode(LAYOUT, "the layout")
    for name in data.draw(st.lists(st.sampled_from(COLUMNS), min_size=1, max_size=2)):
        column = np.array(getattr(layout.transactions, name, getattr(layout, name, None)))
        lie = changed(column.tolist(), data)
        lies: dict[str, Any] = {name: np.array(lie, np.uint64)}
        if hasattr(layout.transactions, name):
            lies = {"transactions": replace(layout.transactions, **lies)}
        layout = replace(layout, **lies)
    with suppress(DamageFound):
        assert assemble(layout.encode(), CATALOGUE, PAYLOAD) == example().data


@given(st.data())
def test_facts_that_lie_are_found(data: st.DataObject) -> None:
    layout = Layout.decode(LAYOUT, "the layout")
    numbers = st.sampled_from([0, 1, 4, 50, len(example().data), 1 << 40, 1 << 62, -1, -(1 << 62)])
    lies = data.draw(
        st.fixed_dictionaries(
            {},
            optional={
                "start": numbers,
                "end": numbers,
                "begins": st.none() | numbers,
                "magic": st.sampled_from(["", "FS21", "FS30", "F", "ü"]),
                "ends_inside": st.booleans(),
                "verbatim": st.booleans(),
                "segments": st.lists(st.sampled_from(["x", "y"]), max_size=2).map(tuple),
            },
        )
    )
    lying = replace(layout, facts=msgspec.structs.replace(layout.facts, **lies))
    with suppress(DamageFound):
        assert assemble(lying.encode(), CATALOGUE, PAYLOAD) == example().data


@given(st.data())
def test_catalogues_that_lie_are_found(data: st.DataObject) -> None:
    catalogue = Catalogue.decode(CATALOGUE, "the catalogue")
    names = ["tids", "oid", "transaction", "rank", "length", "digest", "chunks"]
    name = data.draw(st.sampled_from(names))
    lies: dict[str, Any] = {
        name: np.array(changed(getattr(catalogue, name).tolist(), data), np.uint64)
    }
    with suppress(DamageFound):
        lying = replace(catalogue, **lies).encode()
        assert assemble(LAYOUT, lying, PAYLOAD) == example().data


@given(st.lists(st.booleans(), max_size=30))
def test_bitmaps_that_lie_are_found(live: list[bool]) -> None:
    lying = replace(Layout.decode(LAYOUT, "the layout"), live=(np.array(live, bool),))
    with suppress(DamageFound):
        assert assemble(lying.encode(), CATALOGUE, PAYLOAD) == example().data


def changed(values: list[int], data: st.DataObject) -> list[int]:
    """Change, drop or add a number."""
    place = data.draw(st.integers(0, len(values)))
    new = [data.draw(st.sampled_from(HUGE))] if data.draw(st.booleans()) else []
    return values[:place] + new + values[place + data.draw(st.integers(0, 1)) :]


@pytest.mark.parametrize(
    ("lengths", "chunks"),
    [
        ([], []),
        ([5], [5]),
        ([CHUNK_LIMIT], [CHUNK_LIMIT]),
        ([CHUNK_LIMIT - 1, 1, 1], [CHUNK_LIMIT, 1]),
        ([CHUNK_LIMIT - 1, 2], [CHUNK_LIMIT - 1, 2]),
        ([CHUNK_LIMIT + 1], [CHUNK_LIMIT, 1]),
        ([3, CHUNK_LIMIT + 1, 4], [3, CHUNK_LIMIT, 1 + 4]),
        ([2 * CHUNK_LIMIT, 7], [CHUNK_LIMIT, CHUNK_LIMIT, 7]),
    ],
)
def test_chunks(lengths: list[int], chunks: list[int]) -> None:
    assert cut_chunks(np.array(lengths, np.int64)).tolist() == chunks


@given(st.lists(st.integers(1, 3 * CHUNK_LIMIT), max_size=30))
def test_chunks_cover_all_and_stay_small(lengths: list[int]) -> None:
    chunks = cut_chunks(np.array(lengths, np.int64))
    assert chunks.sum() == sum(lengths)
    assert all(0 < size <= CHUNK_LIMIT for size in chunks.tolist())


def test_a_verbatim_layout_has_all_transactions() -> None:
    extent = scan(example().data, 0, where="Data.fs")
    layout = verbatim_layout(extent, hashlib.sha256(extent.data).hexdigest())
    again = Layout.decode(layout.encode(), "the layout")
    assert again.facts == layout.facts
    assert again.transactions.tid.tolist() == example().tids


@given(st.lists(st.sampled_from([1, 2, 5, 9, 10, 11, 19, 20, 21, 35]), max_size=20))
def test_payloads_are_cut_and_joined(lengths: list[int]) -> None:
    """Records longer than a chunk among short ones: no byte is lost between the chunks."""
    made = DataFs()
    made.add(Transaction([Record(n, b"%c" % (65 + n) * size) for n, size in enumerate(lengths)]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(catalogue_module, "CHUNK_LIMIT", 10)
        if lengths:
            layout, catalogue, payload = parts(made)
            assert payload == b"".join(b"%c" % (65 + n) * size for n, size in enumerate(lengths))
            assert assemble(layout, catalogue, payload) == made.data

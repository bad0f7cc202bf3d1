"""Files of columns: both ways, damaged, and byte for byte as they were from the first version on."""

from __future__ import annotations

import tracemalloc

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import DamageFound
from perdure.formats import columns


class Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str = ""


KIND, VERSION = b"test", 3
numbers = st.lists(st.integers(0, 2**64 - 1), max_size=20)


def encode(**values: tuple[list[int], bool]) -> bytes:
    found = {name: (np.array(v, np.uint64), delta) for name, (v, delta) in values.items()}
    return columns.encode(KIND, VERSION, Facts("Zoë"), found)


def decode(data: bytes) -> dict[str, list[int]]:
    facts, found = columns.decode(data, KIND, VERSION, Facts, "the file")
    assert facts == Facts("Zoë")
    return {name: values.tolist() for name, values in found.items()}


def with_table(table: bytes, rest: bytes = b"") -> bytes:
    head = columns.MAGIC + KIND + VERSION.to_bytes(4, "little")
    return head + len(table).to_bytes(4, "little") + table + rest


TABLE = b'{"facts":{"name":"Zo\xc3\xab"},"columns":[%s]}'

BYTES = [
    ({}, with_table(TABLE % b"")),
    (
        {"a": ([], False)},
        with_table(TABLE % b'{"name":"a","count":0,"width":0,"delta":false}'),
    ),
    (
        {"a": ([0, 0, 0], False)},
        with_table(TABLE % b'{"name":"a","count":3,"width":0,"delta":false}'),
    ),
    (
        {"a": ([1, 258], False), "b": ([7], False)},
        with_table(
            TABLE % b'{"name":"a","count":2,"width":2,"delta":false},'
            b'{"name":"b","count":1,"width":1,"delta":false}',
            b"\x01\x02\x00\x01\x07",
        ),
    ),
    (
        {"a": ([1000, 1001, 1003], True)},
        with_table(
            TABLE % b'{"name":"a","count":3,"width":2,"delta":true}', b"\xe8\x01\x02\x03\x00\x00"
        ),
    ),
    (
        {"a": ([5, 4], True)},
        with_table(
            TABLE % b'{"name":"a","count":2,"width":8,"delta":true}',
            b"\x05\xff" + b"\x00\xff" * 7,
        ),
    ),
]


@pytest.mark.parametrize(("values", "data"), BYTES)
def test_table(values: dict[str, tuple[list[int], bool]], data: bytes) -> None:
    assert encode(**values) == data
    assert decode(data) == {name: numbers for name, (numbers, _) in values.items()}


@given(st.dictionaries(st.text("abc", min_size=1), st.tuples(numbers, st.booleans()), max_size=4))
def test_both_ways(values: dict[str, tuple[list[int], bool]]) -> None:
    assert decode(encode(**values)) == {name: found for name, (found, _) in values.items()}


EXAMPLE = encode(a=([1, 2**64 - 1, 3], True), b=([0] * 9, False), c=([70000], False))


@pytest.mark.parametrize("end", range(len(EXAMPLE)))
def test_every_truncation_is_found(end: int) -> None:
    with pytest.raises(DamageFound, match="the file"):
        decode(EXAMPLE[:end])


@given(st.integers(0, len(EXAMPLE) - 1), st.integers(1, 255))
def test_a_flipped_byte_raises_nothing_else(place: int, flip: int) -> None:
    data = bytearray(EXAMPLE)
    data[place] ^= flip
    try:
        columns.decode(bytes(data), KIND, VERSION, Facts, "the file")
    except DamageFound as error:
        assert "the file" in str(error)  # noqa: PT017


@given(st.binary(max_size=200))
def test_noise_raises_nothing_else(noise: bytes) -> None:
    for data in (noise, with_table(noise), with_table(TABLE % noise, noise)):
        with pytest.raises(DamageFound):
            columns.decode(data, KIND, VERSION + 1, Facts, "the file")


@pytest.mark.parametrize(
    ("table", "why"),
    [
        (b'{"name":"a","count":-1,"width":1,"delta":false}', "cannot be read"),
        (b'{"name":"a","count":1,"width":9,"delta":false}', "cannot be read"),
        (b'{"name":"a","count":9,"width":1,"delta":false}', "column a ends at"),
        (b'{"name":"a","count":268435457,"width":1,"delta":false}', "cannot be read"),
        (b'{"name":"a","count":268435456,"width":0,"delta":false}', "zeros"),
        (b'{"name":"a","count":1,"width":0},{"name":"a","count":2,"width":0}', "two columns"),
        (b'{"name":"a","count":1,"width":0,"sorted":true}', "cannot be read"),
        (b"", "bytes follow"),
    ],
)
def test_tables_that_lie(table: bytes, why: str) -> None:
    with pytest.raises(DamageFound, match=why):
        decode(with_table(TABLE % table, b"12345"))


def test_a_claim_costs_no_memory() -> None:
    """A table of contents may not make the reader allocate what the file does not have."""
    entry = b'{"name":"a%d","count":16777216,"width":0,"delta":true}'
    data = with_table(TABLE % b",".join(entry % number for number in range(1000)))
    tracemalloc.start()
    with pytest.raises(DamageFound, match="zeros"):
        decode(data)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 300 << 20


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "no such file"),
        (b"Perdure\n" + b"cata" + EXAMPLE[12:], "no such file"),
        (EXAMPLE[:12] + (4).to_bytes(4, "little") + EXAMPLE[16:], "version 4"),
        (EXAMPLE[:16] + (2**32 - 1).to_bytes(4, "little") + EXAMPLE[20:], "table of contents ends"),
        (EXAMPLE + b"x", "1 bytes follow"),
    ],
)
def test_not_this_file(data: bytes, why: str) -> None:
    with pytest.raises(DamageFound, match=why):
        decode(data)

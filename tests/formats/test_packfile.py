from __future__ import annotations

import hashlib
from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import RepositoryDamaged
from perdure.formats.packfile import (
    Entry,
    decode_header,
    encode_header,
    encode_length,
    expected_size,
    header_range,
)
from perdure.formats.sealing import OVERHEAD
from perdure.model import ChunkId, ChunkKind

A, B = ChunkId(b"a" * 32), ChunkId(b"b" * 32)

TABLE = [
    ([], b""),
    ([Entry(ChunkKind.DATA, A, 0, 40, 0)], b"\x00\x28\0\0\0" + A),
    ([Entry(ChunkKind.TREE, A, 0, 40, 0)], b"\x01\x28\0\0\0" + A),
    ([Entry(ChunkKind.DATA, A, 0, 40, 257)], b"\x02\x28\0\0\0\x01\x01\0\0" + A),
    (
        [Entry(ChunkKind.TREE, A, 0, 40, 1), Entry(ChunkKind.TREE, B, 40, 32, 0)],
        b"\x03\x28\0\0\0\x01\0\0\0" + A + b"\x01\x20\0\0\0" + B,
    ),
]


@pytest.mark.parametrize(("entries", "header"), TABLE)
def test_header(entries: list[Entry], header: bytes) -> None:
    end = sum(entry.length for entry in entries)

    assert encode_header(entries) == header
    assert decode_header(header, end, "it") == entries
    assert expected_size(entries) == end + len(header) + OVERHEAD + 4


@given(
    st.lists(
        st.tuples(
            st.sampled_from(ChunkKind),
            st.binary(min_size=32, max_size=32),
            st.integers(32, 1 << 30),
            st.integers(0, 1 << 30),
        )
    )
)
def test_any_header(parts: list[tuple[ChunkKind, bytes, int, int]]) -> None:
    offset = 0
    entries = []
    for kind, name, length, content_length in parts:
        entries.append(Entry(kind, ChunkId(name), offset, length, content_length))
        offset += length

    assert decode_header(encode_header(entries), offset, "it") == entries
    assert all(a.offset + a.length == b.offset for a, b in pairwise(entries))


@pytest.mark.parametrize(
    "header",
    [
        b"\x04\x28\0\0\0" + A,  # a type that is unknown
        b"\x00\x28\0\0\0" + A[:-1],
        b"\x02\x28\0\0\0" + A,
        b"\x00\x29\0\0\0" + A,  # does not end where the header starts
        b"\x00\x1f\0\0\0" + A,  # shorter than a sealed nothing
        b"\x02\x28\0\0\0\xff\xff\xff\xff" + A,  # 4 GiB uncompressed
    ],
)
def test_damaged_headers(header: bytes) -> None:
    with pytest.raises(RepositoryDamaged, match="packfile x"):
        decode_header(header, 40, "packfile x")


@given(st.binary(max_size=200))
def test_no_header_does_harm(header: bytes) -> None:
    with suppress(RepositoryDamaged):
        decode_header(header, 40, "it")


def test_header_range() -> None:
    sealed = b"s" * 100

    assert header_range(encode_length(sealed), 1000, "it") == (896, 996)


@pytest.mark.parametrize(
    ("tail", "size"),
    [
        (b"", 0),
        (b"123", 3),
        (b"\0\0\0\0", 1000),
        (b"\x20\0\0\0", 1000),
        (b"\xe5\x03\0\0", 1000),
        (b"\xff" * 4, 1 << 40),
    ],
)
def test_impossible_header_lengths(tail: bytes, size: int) -> None:
    with pytest.raises(RepositoryDamaged):
        header_range(tail, size, "it")


def test_size_of_content() -> None:
    name = ChunkId(hashlib.sha256(b"").digest())

    assert Entry(ChunkKind.DATA, name, 0, 40, 0).size == 8
    assert Entry(ChunkKind.DATA, name, 0, 40, 99).size == 99

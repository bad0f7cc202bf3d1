"""Which records are blobs, and where blobs are."""

from __future__ import annotations

import pickle
import zlib
from pathlib import Path

import pytest
from datafs import DataFs, Record, Transaction
from hypothesis import given
from hypothesis import strategies as st
from ZODB.blob import BushyLayout, FilesystemHelper, LawnLayout
from ZODB.utils import p64

from perdure.errors import DamageFound
from perdure.formats.blob_records import RECORD_LIMIT, BlobRecords, is_blob
from perdure.formats.blobs import (
    BUSHY,
    LAWN,
    folders_in_snapshot,
    name_in_snapshot,
    parse_name,
    path_in_directory,
)
from perdure.formats.extent import scan
from perdure.model import BlobId, Tid

MODERN = b"\x80\x03cZODB.blob\nBlob\nq\x00.\x80\x03N."
BLOBS = {
    "protocol 3": MODERN,
    "protocol 2": b"\x80\x02cZODB.blob\nBlob\nq\x01.\x80\x02N.",
    "protocol 1, of Python 2": b"cZODB.blob\nBlob\nq\x01.N.",
    "class and arguments": b"(cZODB.blob\nBlob\nq\x01)tq\x02.N.",
    "names as strings": b"((U\tZODB.blobq\x01U\x04Blobq\x02tq\x03Nt.N.",
    "names as strings, protocol 4": pickle.dumps((("ZODB.blob", "Blob"), None), 4) + b"N.",
    "compressed": b".z" + zlib.compress(MODERN),
}
OTHERS = {
    "empty": b"",
    "of another class": b"\x80\x03cpersistent.mapping\nPersistentMapping\nq\x00.\x80\x03}.",
    "that refers to one": b"\x80\x03ca.b\nC\nq\x00.\x80\x03C\x08\0\0\0\0\0\0\0\x01cZODB.blob\nBlob\n\x86Q.",
    "of the module, not the class": b"\x80\x03cZODB.blob\nBlobStorage\n.\x80\x03N.",
    "of a like module": b"\x80\x03cmy.ZODB.blob\nBlob\n.\x80\x03N.",
    "that speaks of it": b"\x80\x03ca\nB\n.\x80\x03X\x0e\0\0\0ZODB.blob Blob.",
    "cut short": MODERN[:9],
    "no pickle": b"ZODB.blob\xff\xff",
    "compressed, damaged": b".zZODB.blob",
    "compressed, another": b".z" + zlib.compress(b"\x80\x03ca\nB\n.\x80\x03N."),
}


@pytest.mark.parametrize("name", list(BLOBS))
def test_a_blob(name: str) -> None:
    assert is_blob(BLOBS[name])


@pytest.mark.parametrize("name", list(OTHERS))
def test_no_blob(name: str) -> None:
    assert not is_blob(OTHERS[name])


@given(st.binary(max_size=80), st.booleans())
def test_anything_else_is_none_and_raises_nothing(data: bytes, compressed: bool) -> None:
    assert not is_blob(b".z" + zlib.compress(data) if compressed else data)
    is_blob(b"ZODB.blob" + data)
    is_blob(MODERN[: len(data)] + data)


def test_what_expands_without_end_is_bounded() -> None:
    assert not is_blob(b".z" + zlib.compress(b"\0" * (64 << 20), 9)[:RECORD_LIMIT])


def test_the_blobs_of_a_file() -> None:
    """Certain, encrypted, behind back pointers, too large to be one, of an undone transaction."""
    made = DataFs()
    made.add(
        Transaction(
            [
                Record(1, MODERN),
                Record(2, b".e" + bytes(60)),
                Record(3, OTHERS["of another class"]),
                Record(4, MODERN + bytes(RECORD_LIMIT)),
            ]
        )
    )
    made.add(Transaction([Record(5, MODERN)], status=b"u"))
    extent = scan(made.data, 0, where="Data.fs")
    found = BlobRecords()
    found.add(extent, lambda _: None)
    tid = extent.headers[0].tid
    assert found.certain == {BlobId(1, tid)}
    assert found.uncertain == {BlobId(2, tid)}


numbers = st.integers(0, 2**64 - 1)


@given(numbers, numbers)
def test_paths_are_those_of_zodb(oid: int, tid: int) -> None:
    blob = BlobId(oid, tid)
    for layout, theirs in ((BUSHY, BushyLayout()), (LAWN, LawnLayout())):
        assert path_in_directory(blob, layout) == theirs.getBlobFilePath(p64(oid), p64(tid))


@given(numbers, st.integers(0, (1 << 64) - 1))
def test_names_in_snapshots(oid: int, tid: int) -> None:
    blob = BlobId(oid, tid)
    assert parse_name(name_in_snapshot(blob), "a folder") == blob
    assert all(name.isdigit() for name in folders_in_snapshot(blob))


def test_folders_are_of_the_minute() -> None:
    tid = Tid.from_text("040d2a65027b92cc")
    year, month, day, minute = folders_in_snapshot(BlobId(1, tid.value))
    assert f"{tid.time:%Y %m %d %H%M}" == f"{year} {month} {day} {minute}"


@given(st.tuples(numbers, numbers), st.tuples(numbers, numbers))
def test_folders_are_in_the_order_of_tids(one: tuple[int, int], other: tuple[int, int]) -> None:
    first, second = sorted((BlobId(*one), BlobId(*other)), key=lambda blob: blob.tid)
    if (first.tid >> 32) // (31 * 24 * 60 * 12) < 8100 > (second.tid >> 32) // (31 * 24 * 60 * 12):
        assert folders_in_snapshot(first) <= folders_in_snapshot(second)


@pytest.mark.parametrize("name", ["", "x.blob", "1.2.blob", f"{'0' * 16}.{'G' * 16}.blob", "../a"])
def test_names_that_are_none(name: str) -> None:
    with pytest.raises(DamageFound, match="not the name of a blob"):
        parse_name(name, "a folder")


def test_a_directory_that_zodb_made(tmp_path: Path) -> None:
    for layout in (BUSHY, LAWN):
        helper = FilesystemHelper(str(tmp_path / layout), layout)
        helper.create()
        path = helper.getBlobFilename(p64(0x0A12), p64(77))
        assert path == str(tmp_path / layout / path_in_directory(BlobId(0x0A12, 77), layout))

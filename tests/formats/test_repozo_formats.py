"""repozo's names and lines, gzip members, walks through a Data.fs, indexes: read and written."""

from __future__ import annotations

import gzip
import io
import zlib
from datetime import UTC, datetime

import numpy as np
import pytest
from datafs import DataFs, Record, Transaction
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import DamageFound, PerdureError
from perdure.formats.extent import scan
from perdure.formats.fsindex import decode, encode
from perdure.formats.gzip_member import BLOCK, DICTIONARY, Member, compress, decompress
from perdure.formats.newest import PAGE, Newest
from perdure.formats.references import groups_of, note_newest
from perdure.formats.repozo import (
    DataName,
    Line,
    encode_lines,
    parse_dat,
    side_stamp,
    stamp_of,
    time_of,
)
from perdure.formats.revisions import Revisions
from perdure.formats.walking import Walk

STAMP = "2026-11-21-03-15-07"
MD5 = "d41d8cd98f00b204e9800998ecf8427e"


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        (f"{STAMP}.fs", DataName(STAMP, full=True, zipped=False)),
        (f"{STAMP}.fsz", DataName(STAMP, full=True, zipped=True)),
        (f"{STAMP}.deltafs", DataName(STAMP, full=False, zipped=False)),
        (f"{STAMP}.deltafsz", DataName(STAMP, full=False, zipped=True)),
        (f"{STAMP}.fs.bak", None),
        (f"{STAMP}.dat", None),
        (f"x{STAMP}.fs", None),
        ("2026-11-21.fs", None),
        ("tmp.tmp", None),
    ],
)
def test_names(name: str, parsed: DataName | None) -> None:
    assert DataName.parse(name) == parsed
    assert parsed is None or str(parsed) == name


def test_stamps_are_gmt() -> None:
    time = datetime(2026, 11, 21, 3, 15, 7, tzinfo=UTC)
    assert stamp_of(time) == STAMP
    assert time_of(STAMP) == time
    assert side_stamp(f"{STAMP}.dat", "dat") == STAMP
    assert side_stamp(f"{STAMP}.dat", "index") is None
    with pytest.raises(DamageFound):
        time_of("2026-13-21-03-15-07")


LINES = (Line(f"{STAMP}.fs", 0, 4, MD5), Line(f"{STAMP}.deltafsz", 4, 1 << 40, MD5))


@pytest.mark.parametrize("repository", ["repo", "/srv/backup", ".", "", "../ü", "a b", "a\nb"])
def test_lines_come_back(repository: str) -> None:
    data = encode_lines(LINES, repository)
    assert parse_dat(data).lines == LINES
    assert not parse_dat(data).faults
    assert [len(line.split()) for line in data.splitlines()] == [4, 4]
    assert parse_dat(data.replace(b"\n", b"\r\n")).lines == LINES


@pytest.mark.parametrize(
    "line",
    [
        b"no line",
        b"r/2026.fs 0 4 " + MD5.encode(),
        f"{STAMP}.fs 4 0 {MD5}".encode(),
        f"{STAMP}.fs 0 4x {MD5}".encode(),
        f"{STAMP}.fs 0 {'9' * 30} {MD5}".encode(),
        f"{STAMP}.fs 0 4 {MD5[:-1]}".encode(),
        b"\xff\xfe\x00",
    ],
)
def test_lines_without_sense_are_faults(line: bytes) -> None:
    found = parse_dat(line + b"\n" + encode_lines(LINES, "r"))
    assert found.lines == LINES
    assert len(found.faults) == 1
    assert len(parse_dat(encode_lines(LINES, "r") + line[:5]).faults) == 1


def packed(data: bytes) -> bytes:
    member, parts, before = Member(), [Member.header], b""
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        part, crc, size = compress(memoryview(block), before)
        member.note(crc, size)
        parts.append(part)
        before = block[-DICTIONARY:]
    return b"".join([*parts, member.trailer()])


@pytest.mark.parametrize("size", [0, 1, 1000, BLOCK, BLOCK + 1, 3 * BLOCK - 7])
def test_what_is_compressed_is_ordinary_gzip(size: int) -> None:
    data = (b"a Plone site " * (size // 13 + 1))[:size]
    made = packed(data)
    assert gzip.decompress(made) == data
    inflater = zlib.decompressobj(31)
    assert inflater.decompress(made) == data  # one member
    assert inflater.eof
    assert not inflater.unused_data
    faults: list[str] = []
    assert b"".join(decompress(iter([made]), faults)) == data
    assert not faults


@given(st.binary(max_size=300), st.lists(st.integers(1, 40), min_size=1, max_size=30))
def test_gzip_is_read_in_any_pieces(data: bytes, cuts: list[int]) -> None:
    made = io.BytesIO()
    with gzip.GzipFile("a name", "wb", fileobj=made) as file:
        file.write(data)
    whole = made.getvalue() + gzip.compress(b"second") + bytes(5)
    chunks, at = [], 0
    for cut in [*cuts, len(whole)]:
        chunks.append(whole[at : at + cut])
        at += cut
    faults: list[str] = []
    assert b"".join(decompress(filter(None, chunks), faults)) == data + b"second"
    assert not faults


def test_gzip_headers_with_everything() -> None:
    made = gzip.compress(b"data")
    flags = 2 | 4 | 8 | 16
    extra = (3).to_bytes(2, "little") + b"abc"
    full = made[:3] + bytes([flags]) + made[4:10] + extra + b"name\0" + b"comment\0" + b"\0\0"
    assert b"".join(decompress(iter([full + made[10:]]), [])) == b"data"


@given(st.binary(max_size=200), st.data())
def test_gzip_that_is_damaged_is_an_error_or_a_fault(data: bytes, draw: st.DataObject) -> None:
    made = bytearray(gzip.compress(data, mtime=0))
    place = draw.draw(st.integers(0, len(made) - 1))
    made[place] ^= 1 << draw.draw(st.integers(0, 7))
    faults: list[str] = []
    try:
        found = b"".join(decompress(iter([bytes(made)]), faults))
    except DamageFound:
        return
    assert faults or found == data


def database() -> bytes:
    made = DataFs()
    for number in range(7):
        size = 5000 if number == 3 else 40
        records = [Record(oid, b"x" * size) for oid in range(number, number + 4)]
        made.add(Transaction(records, user=b"user", status=b"p" if number < 2 else b" "))
    made.add(Transaction())
    return made.data


@given(cuts=st.lists(st.integers(1, 7000), min_size=1, max_size=20))
def test_a_walk_in_any_pieces_finds_all_records(cuts: list[int]) -> None:
    data, right = database(), Revisions(whole=True)
    extent = scan(data, 0, where="whole")
    note_newest(right, groups_of(extent), extent.transaction_of, extent.transaction_tids)
    walk, at, given = Walk("Data.fs"), 0, b""
    for cut in [*cuts, len(data)]:
        given += walk.feed(data[at : at + cut])
        at += cut
    walk.check_end()
    assert given == data
    assert walk.position == len(data)
    assert b"".join(encode(walk.newest, at)) == b"".join(encode(right, at))


@given(cuts=st.lists(st.integers(1, 7000), min_size=1, max_size=20), last=st.integers(0, 8))
def test_a_walk_gives_nothing_of_what_is_refused(cuts: list[int], last: int) -> None:
    data = database()
    headers = scan(data, 0, where="whole").headers
    tid = headers[last - 1].tid if last else 0
    end = headers[last - 1].end if last else headers[0].position
    walk, at, given = Walk("Data.fs", accept=lambda header: header.tid <= tid), 0, b""
    for cut in [*cuts, len(data)]:
        given += walk.feed(data[at : at + cut])
        at += cut
    walk.check_end()
    assert (given, walk.position) == (data[:end], end)


@given(st.integers(4, len(database()) - 1), st.integers(0, 7))
def test_a_walk_stops_at_what_does_not_belong_there(place: int, bit: int) -> None:
    data = database()
    walk = Walk("Data.fs", start=0)
    with pytest.raises(PerdureError):
        list(walk.feed(data[: place - place % 50 + 10] + data[place - place % 50 + 11 :]))
        walk.check_end()


def test_an_index_comes_back_and_damage_is_noticed() -> None:
    revisions = Revisions(whole=True)
    oids = np.array([0, 1, 70000, 1 << 41], np.uint64)
    revisions.update(oids, np.array([4, 5, 6, 1 << 40], np.uint64), oids)
    data = b"".join(encode(revisions, 1 << 41))
    index = decode(data)
    assert index.end == 1 << 41
    assert index.agrees_with(revisions)
    assert index.agrees_with(index.newest())
    assert list(index.newest().items()) == [(0, 4), (1, 5), (70000, 6), (1 << 41, 1 << 40)]
    newest = index.newest()
    newest.page((1 << 41) // PAGE)[1] = 7
    assert b"".join(encode(newest, 5)).endswith(b"".join(encode(Newest(dict(newest.parts())), 5)))
    assert newest.position((1 << 41) + 1) == 7
    revisions.update(oids[:1], np.array([9], np.uint64), oids[:1])
    assert not index.agrees_with(revisions)
    for size in range(len(data)):
        with pytest.raises(DamageFound):
            decode(data[:size])
    for bad in (b"cos\nsystem\n.", b"\x80\x03N.", b"\x80\x03M\1\0.\x80\x03M\1\0.", data + b"."):
        with pytest.raises(DamageFound):
            decode(bad)

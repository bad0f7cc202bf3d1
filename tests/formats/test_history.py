"""Names in a history, the manifest, the index that ZODB reads, and what is known of revisions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from living_storage import index_of_perdure

from perdure.errors import DamageFound
from perdure.formats import history
from perdure.formats.fsindex import encode
from perdure.formats.history import LayoutName, segment_folder, segment_name
from perdure.formats.manifest import BlobsRecord, Manifest, Position, Proof, SourceRecord
from perdure.formats.revisions import Revisions
from perdure.model import Tid

TID = Tid(0x040D29681389DD77)

LAYOUT_NAMES = [
    (LayoutName(0, 0), "00000000000000-0000000000000000.layout", "000000"),
    (LayoutName(0x4001F3A, TID.value), "00000004001f3a-040d29681389dd77.layout", "000000"),
    (LayoutName(1 << 34, TID.value), "00000400000000-040d29681389dd77.layout", "000001"),
]


@pytest.mark.parametrize(("value", "text", "folder"), LAYOUT_NAMES)
def test_names_of_layouts(value: LayoutName, text: str, folder: str) -> None:
    assert (str(value), value.folder) == (text, folder)
    assert LayoutName.parse(text, "the folder") == value


@pytest.mark.parametrize(
    "name",
    [
        *("", "x", "00000000000000-0000000000000000", "../../etc/passwd", "0-0.layout"),
        *(LAYOUT_NAMES[1][1].upper(), LAYOUT_NAMES[1][1] + "\n", LAYOUT_NAMES[1][1][1:]),
    ],
)
def test_other_names_of_layouts(name: str) -> None:
    with pytest.raises(DamageFound, match=r"the folder: .* is not the name of a layout"):
        LayoutName.parse(name, "the folder")


@given(st.lists(st.tuples(st.integers(0, 1 << 55), st.integers(0, 2**64 - 1)), max_size=9))
def test_names_sort_as_their_values(values: list[tuple[int, int]]) -> None:
    names = [LayoutName(*value) for value in values]
    assert [str(name) for name in sorted(names)] == sorted(map(str, names))


def test_names_of_segments() -> None:
    name = segment_name(TID.value, b"content")
    assert name == "040d29681389dd77-ed7002b439e9ac84"
    assert segment_folder(name, "the history") == ("2026", "11")


@pytest.mark.parametrize("name", ["", "..", "a/b", "040d29681389dd77", "g" * 16 + "-" + "0" * 16])
def test_other_names_of_segments(name: str) -> None:
    with pytest.raises(DamageFound, match="is not the name of a segment"):
        segment_folder(name, "the history")


@given(st.integers(0, 2**64 - 1))
def test_every_tid_has_a_folder(tid: int) -> None:
    year, month = segment_folder(segment_name(tid, b""), "the history")
    assert 1900 <= int(year) < 10000
    assert 1 <= int(month) <= 12


def test_the_suffix_is_part_of_the_format() -> None:
    assert (history.SUFFIX, history.LAYOUTS, history.SEGMENTS) == (
        ".history",
        "layouts",
        "segments",
    )


MANIFEST = Manifest(
    1,
    (
        SourceRecord(
            name="main",
            kind="filestorage",
            path="/srv/Zoë/Data.fs",
            tree="Data.fs.history",
            cut=TID,
            size=1029,
            last_packed=Tid(0),
            transactions=7,
            records=9,
            position=Position(64768, 131, Proof(4, 130, "a" * 64), Proof(900, 129, "b" * 64)),
            repeated=((7, TID),),
            garbage=((0, 100, 250),),
            database="main",
            blobs=BlobsRecord(
                place="/srv/Zoë/blobs",
                tree="Data.fs.blobs",
                count=3,
                size=70,
                missing=((9, TID),),
                layout="lawn",
            ),
        ),
    ),
)
MANIFEST_BYTES = (
    '{"perdure":1,"sources":[{"name":"main","kind":"filestorage","path":"/srv/Zoë/Data.fs",'
    '"tree":"Data.fs.history","cut":"040d29681389dd77","size":1029,"last_packed":"0000000000000000",'
    '"transactions":7,"records":9,"status":"complete","position":{"device":64768,"inode":131,'
    f'"first":{{"position":4,"size":130,"sha256":"{"a" * 64}"}},'
    f'"last":{{"position":900,"size":129,"sha256":"{"b" * 64}"}}}},'
    '"repeated":[[7,"040d29681389dd77"]],"garbage":[[0,100,250]],'
    '"database":"main","blobs":{"place":"/srv/Zoë/blobs","tree":"Data.fs.blobs","count":3,"size":70,'
    '"missing":[[9,"040d29681389dd77"]],"layout":"lawn","unseen":false},"files":null,"server":null}]}\n'
).encode()


def test_the_manifest_both_ways() -> None:
    assert MANIFEST.encode() == MANIFEST_BYTES
    assert Manifest.decode(MANIFEST_BYTES, "perdure.json") == MANIFEST


@pytest.mark.parametrize("end", range(len(MANIFEST_BYTES) - 2))
def test_a_truncated_manifest_is_found(end: int) -> None:
    with pytest.raises(DamageFound, match=r"perdure\.json cannot be read"):
        Manifest.decode(MANIFEST_BYTES[:end], "perdure.json")


@given(st.integers(0, len(MANIFEST_BYTES) - 1), st.integers(1, 255))
def test_a_flipped_byte_of_a_manifest_raises_nothing_else(place: int, flip: int) -> None:
    data = bytearray(MANIFEST_BYTES)
    data[place] ^= flip
    try:
        Manifest.decode(bytes(data), "perdure.json")
    except DamageFound as error:
        assert "perdure.json" in str(error)  # noqa: PT017


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        (b'"perdure":1', b'"perdure":2', "version 2"),
        (b'"size"', b'"bytes"', "cannot be read"),
        (b'"040d29681389dd77"', b'"040d29681389dd7"', "cannot be read"),
        (b'"040d29681389dd77"', b"17", "cannot be read"),
    ],
)
def test_manifests_of_others(old: bytes, new: bytes, why: str) -> None:
    with pytest.raises(DamageFound, match=why):
        Manifest.decode(MANIFEST_BYTES.replace(old, new, 1), "perdure.json")


oids = st.one_of(st.integers(0, 600), st.integers(65400, 65700), st.integers(0, 2**64 - 1))
runs = st.lists(st.dictionaries(oids, st.integers(1, 2**47), max_size=20), max_size=5)


@given(runs)
def test_revisions_are_a_map(runs: list[dict[int, int]]) -> None:
    revisions, known = Revisions(), dict[int, tuple[int, int]]()
    for number, run in enumerate(runs):
        found = sorted(run)
        positions = np.array([run[oid] for oid in found], np.uint64)
        revisions.update(np.array(found, np.uint64), positions, positions + np.uint64(number))
        known |= {oid: (run[oid], run[oid] + number) for oid in found}
    asked = sorted({*known, 1, 255, 256, 2**64 - 1})
    position, tid = revisions.lookup(np.array(asked, np.uint64))
    expected = [known.get(oid, (0, 0)) for oid in asked]
    assert list(zip(position.tolist(), tid.tolist(), strict=True)) == expected
    assert all(revisions.position(oid) == known.get(oid, (0, 0))[0] for oid in asked)


@given(runs)
def test_zodb_reads_the_index(
    tmp_path_factory: pytest.TempPathFactory, runs: list[dict[int, int]]
) -> None:
    revisions, known = Revisions(), dict[int, int]()
    for run in runs:
        positions = np.array([run[oid] for oid in sorted(run)], np.uint64)
        revisions.update(np.array(sorted(run), np.uint64), positions, positions)
        known |= run
    assert index_of_perdure(revisions, 123456, tmp_path_factory.mktemp("index")) == known


def test_the_bytes_of_an_index() -> None:
    revisions = Revisions()
    revisions.update(*(np.array(v, np.uint64) for v in ([1, 0x10002], [4, 1000], [9, 9])))
    assert b"".join(encode(revisions, 5000)) == (
        b"\x80\x03M\x88\x13."
        b"\x80\x03C\x06\x00\x00\x00\x00\x00\x00q\x00C\x08\x00\x01\x00\x00\x00\x00\x00\x04q\x01\x86q\x02."
        b"\x80\x03C\x06\x00\x00\x00\x00\x00\x01q\x00C\x08\x00\x02\x00\x00\x00\x00\x03\xe8q\x01\x86q\x02."
        b"\x80\x03N."
    )

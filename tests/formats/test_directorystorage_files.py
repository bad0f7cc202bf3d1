"""The files and names of a DirectoryStorage, both ways, against those of the real one."""

from __future__ import annotations

import tarfile

import pytest
from directorystorage_homes import FIXTURES, FULL

from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats.directorystorage import (
    PointerFile,
    RevisionFile,
    TransactionFile,
    parse_counter,
)
from perdure.formats.directorystorage_names import (
    FORMATS,
    Kind,
    name_at,
    parse_journal_name,
    parse_name,
    path_of,
    pointer_name,
    revision_name,
    transaction_name,
)
from perdure.formats.directorystorage_settings import parse_settings, with_layout

OID, TID = 0x0123456789ABCDEF, 0x0123456789ABCDEF
PATHS = [
    ("bushy", revision_name(OID, TID), "o0/12/34/56/78/9A/BC/DEF/0123456789ABCDEF"),
    ("bushy", pointer_name(OID), "o0/12/34/56/78/9A/BC/DEF/c"),
    ("bushy", transaction_name(TID), "t0/12/345/6789ABCDEF"),
    ("bushy", "x.oid", "x/oid"),
    ("bushy", "o0123456789ABCDEF", "o0/12/34/56/78/9A/BC/DEF"),
    ("chunky", revision_name(OID, TID), "o012/345/678/9AB/CDEF.0123456789ABCDEF"),
    ("chunky", pointer_name(OID), "o012/345/678/9AB/CDEF.c"),
    ("chunky", transaction_name(TID), "t012/345.6789ABCDEF"),
    ("chunky", "x.oid", "x/oid"),
    ("lawn", revision_name(OID, TID), "o0123456789ABCDEF/0123456789ABCDEF"),
    ("lawn", pointer_name(OID), "o0123456789ABCDEF/c"),
    ("lawn", transaction_name(TID), "t012345/6789ABCDEF"),
    ("lawn", "x.oid", "x/oid"),
    ("flat", revision_name(OID, TID), revision_name(OID, TID)),
    ("flat", "x.oid", "x.oid"),
]


@pytest.mark.parametrize(("layout", "name", "path"), PATHS)
def test_names_and_paths(layout: str, name: str, path: str) -> None:
    assert path_of(name, layout) == path
    assert name_at(path, layout) == parse_name(name)


@pytest.mark.parametrize("layout", FORMATS)
@pytest.mark.parametrize(
    "path",
    [
        "o012/345/678/9AB/CDEF.c-1795233548-deleted",
        "o0/12/34/56/78/9A/BC/DEF/c.mark",
        "o012345/6789ABCDEF.c",
        "o0123456789abcdef.c",
        "x/other",
        "README",
        "",
    ],
)
def test_what_is_no_file_of_the_storage(layout: str, path: str) -> None:
    assert name_at(path, layout) is None


def test_names_of_the_journal() -> None:
    assert parse_journal_name("working_0123456789ABCDEF_done") == (TID, True)
    assert parse_journal_name("working_0123456789ABCDEF_temp") == (TID, False)
    assert parse_journal_name(".keep") is None


@pytest.mark.parametrize("name", FULL)
def test_real_files_come_back_as_the_same_bytes(name: str) -> None:
    found = 0
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
        members = {each.name: each for each in archive if each.isfile()}
        settings = archive.extractfile("home/config/settings")
        assert settings
        layout = parse_settings(settings.read(), "settings").layout
        for path, member in members.items():
            below = path.removeprefix("home/A/")
            known = None if below == path else name_at(below, layout)
            if known is None:
                continue
            file = archive.extractfile(member)
            assert file
            raw = file.read()
            try:
                if known.kind is Kind.REVISION:
                    revision = RevisionFile.parse(raw, path)
                    assert revision.encode() == raw
                    assert revision.md5_stands or name == "chunky-corrupt"
                elif known.kind is Kind.TRANSACTION:
                    transaction = TransactionFile.parse(raw, path)
                    assert transaction.encode() == raw
                    assert transaction.md5_stands or name == "chunky-corrupt"
                elif known.kind is Kind.POINTER:
                    assert PointerFile.parse(raw, path).encode() == raw
                else:
                    parse_counter(raw, path)
            except SourceDamaged:
                assert name == "chunky-corrupt"
            found += 1
    assert found or name == "chunky-empty"


GOOD = RevisionFile(1, 2, 0, b"data").encode()
SAID = TransactionFile(2, 1, b"user", b"description", b"", (1, 2)).encode()


@pytest.mark.parametrize(
    "raw", [b"", GOOD[:71], GOOD[:-1], GOOD + b"x", b"\0" + GOOD[1:], GOOD[:4] + GOOD]
)
def test_broken_revisions_are_refused(raw: bytes) -> None:
    with pytest.raises(SourceDamaged):
        RevisionFile.parse(raw, "here")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        SAID[:59],
        SAID[:-1],
        SAID + b"x",
        b"\0" + SAID[1:],
        SAID[:16] + b"\1" + SAID[17:],
        SAID[:49] + b"\5" + SAID[50:],
        SAID[:57] + b"\f" + SAID[58:],
    ],
)
def test_broken_transactions_are_refused(raw: bytes) -> None:
    with pytest.raises(SourceDamaged):
        TransactionFile.parse(raw, "here")


@pytest.mark.parametrize("raw", [b"", bytes(7), bytes(12), bytes(9)])
def test_broken_pointers_and_counters_are_refused(raw: bytes) -> None:
    with pytest.raises(SourceDamaged):
        PointerFile.parse(raw, "here")
    with pytest.raises(SourceDamaged):
        parse_counter(raw, "here")


SETTINGS = b"""
[structure]
format: chunky
version = 0.11
[storage]
classname: Full
[keepclass]
a.B = extra 50%
"""


def test_settings() -> None:
    known = parse_settings(SETTINGS, "here")
    assert (known.layout, known.classname, known.keep_policy) == ("chunky", "Full", "detailed")
    again = with_layout(SETTINGS, "lawn")
    assert again == SETTINGS.replace(b"chunky", b"lawn")
    assert parse_settings(again, "here").layout == "lawn"


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"0.11", b"0.10"),
        (b"chunky", b"bushy4"),
        (b"Full", b"Half"),
        (b"[structure]", b"[other]"),
        (b"format", b"no line"),
    ],
)
def test_settings_that_are_not_known_are_refused(old: bytes, new: bytes) -> None:
    with pytest.raises(SourceUnusable):
        parse_settings(SETTINGS.replace(old, new), "here")

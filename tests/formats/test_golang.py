from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import RepositoryDamaged
from perdure.formats.golang import (
    decode_json,
    encode_json,
    format_time,
    parse_moment,
    parse_time,
    quote,
    unquote,
)

# (value, bytes), as Go 1.22 writes them
JSON = [
    ({"a": 1, "b": [], "c": None}, rb'{"a":1,"b":[],"c":null}'),
    ("<a href='x'>&amp;", rb'''"\u003ca href='x'\u003e\u0026amp;"'''),
    ("\u2028\u2029\u2027", '"\\u2028\\u2029\u2027"'.encode()),
    ('"\\/\b\f\n\r\t\x00\x1f\x7f', b'"\\"\\\\/\\b\\f\\n\\r\\t\\u0000\\u001f\x7f"'),
    ("ünï☃𝄞", '"ünï☃𝄞"'.encode()),
]

# (text, quoted), as restic 0.14 wrote them
QUOTED = [
    ("a.txt", "a.txt"),
    ('q"uo\\te<>&', 'q\\"uo\\\\te<>&'),
    ("new\nline\ttab", "new\\nline\\ttab"),
    ("bad\udcff\udcfename", "bad\\xff\\xfename"),
    ("ünï☃𝄞", "ünï☃𝄞"),
    ("ls\u2028ps\u2029zw\u200b nb\u00a0", "ls\\u2028ps\\u2029zw\\u200b nb\\u00a0"),
    ("del\x7fbell\x07", "del\\x7fbell\\a"),
    ("\U000e0001", "\\U000e0001"),
    ("\x00\x0b\x1b", "\\x00\\v\\x1b"),
    ("a'b", "a'b"),
]

TIMES = [
    (0, "1970-01-01T00:00:00Z"),
    (1_000_000_000_000_000_001, "2001-09-09T01:46:40.000000001Z"),
    (1_795_248_805_509_460_881, "2026-11-21T08:13:25.509460881Z"),
    (1_795_248_805_500_000_000, "2026-11-21T08:13:25.5Z"),
    (-1, "1969-12-31T23:59:59.999999999Z"),
    (-62135596800_000_000_000, "0001-01-01T00:00:00Z"),
    (-62135596801_000_000_000, "0000-12-31T23:59:59Z"),
    (-62167219200_000_000_000, "0000-01-01T00:00:00Z"),
    (253402300799_000_000_000, "9999-12-31T23:59:59Z"),
]


@pytest.mark.parametrize(("value", "text"), JSON)
def test_json(value: object, text: bytes) -> None:
    assert encode_json(value) == text
    assert decode_json(text, type(value), "it") == value


def test_damaged_json_names_the_place() -> None:
    with pytest.raises(RepositoryDamaged, match="the config cannot be read"):
        decode_json(b'{"a"', dict, "the config")
    with pytest.raises(RepositoryDamaged):
        decode_json(b"[" * 100_000, list, "deep")


@pytest.mark.parametrize(("text", "quoted"), QUOTED)
def test_quote(text: str, quoted: str) -> None:
    assert quote(text) == quoted
    assert unquote(quoted) == text


@given(st.binary())
def test_any_name_survives_quoting(raw: bytes) -> None:
    name = raw.decode("utf-8", "surrogateescape")

    assert unquote(quote(name)) == name


def test_unquote_takes_what_go_takes() -> None:
    assert unquote("\\xc3\\xa9\\303\\251\\u00e9\\U0001d11e") == "ééé𝄞"


@pytest.mark.parametrize("text", ["\\", "\\q", "\\x4", "\\u12", "\\ud800", "\\U00110000", "\\8"])
def test_unquote_refuses(text: str) -> None:
    with pytest.raises(ValueError, match=r"quoted string|no character"):
        unquote(text)


@pytest.mark.parametrize(("nanoseconds", "text"), TIMES)
def test_times(nanoseconds: int, text: str) -> None:
    assert format_time(nanoseconds) == text
    assert parse_time(text) == nanoseconds


def test_times_with_an_offset() -> None:
    assert parse_time("2026-11-21T09:13:25.5+01:00") == parse_time("2026-11-21T08:13:25.5Z")
    assert parse_moment("2026-11-21T09:13:25.123456789+01:00").isoformat() == (
        "2026-11-21T08:13:25.123456+00:00"
    )


def test_times_beyond_the_calendar_are_moved_into_it() -> None:
    assert format_time(10**21) == "9999-12-31T23:59:59Z"
    assert format_time(-(10**21)) == "0000-01-01T00:00:00Z"


@pytest.mark.parametrize(
    "text", ["", "2026-11-21", "2026-13-21T00:00:00Z", "x", "0000-02-30T00:00:00Z"]
)
def test_what_is_no_time(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse_time(text)

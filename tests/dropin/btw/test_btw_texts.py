"""Names, settings, state lines and s3cmd's settings: texts into values."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.dropin.btw.names import destination_name, source_hash, time_name, time_of
from perdure.dropin.btw.repository import Condition, sessions_in
from perdure.dropin.btw.s3cmd import connection, parse_s3cmd
from perdure.dropin.btw.settings import parse_settings, parse_span
from perdure.dropin.btw.state import Item, Kind, begun, done, replay
from perdure.errors import UsageError

NOW = datetime(2026, 11, 21, 4, 6, 8, tzinfo=UTC)


@pytest.mark.parametrize(
    ("path", "expected"),
    [("/etc", "FAAdkg"), ("/tmp/btw-fixture/site", "l0qmag"), ("/tmp/btw-fixture/files", "jt-7rg")],
)
def test_hashes_are_those_of_btw_backup(path: str, expected: str) -> None:
    assert source_hash(path) == expected


def test_times() -> None:
    assert time_name(NOW) == "2026-11-21T04:06:08"
    assert time_of("2026-11-21T04:06:08.tbz") == time_of("2026-11-21T04:06:08") == NOW
    for name in (
        "log.txt",
        "2026-11-21T04:06:08.tbz.1",
        "2026-13-21T04:06:08",
        "x2026-11-21T04:06:08",
    ):
        assert time_of(name) is None


@pytest.mark.parametrize("name", ["/abs", "..", "../x", "a/../../x", "", ".", "a\nb", "a/.."])
def test_destinations_stay_below_the_root(name: str) -> None:
    with pytest.raises(UsageError):
        destination_name(name)


def test_destinations_lose_what_is_needless() -> None:
    assert destination_name("a//b/./c/") == "a/b/c"


def test_settings_are_literals() -> None:
    text = '# a comment\nROOT_PATH="/srv" "/x"\n"a text"\nCOUNT = -2\nON = True\nNOT = None\n'
    values = {"ROOT_PATH": "/srv/x", "COUNT": -2, "ON": True, "NOT": None}
    assert parse_settings(text, "config.py") == values


@pytest.mark.parametrize(
    "line",
    [
        "import os",
        "X = __import__('os').system('touch /tmp/owned')",
        "X = 'a' + 'b'",
        "X = [1]",
        "X: int = 1",
        "X = Y = 1",
        "X.y = 1",
        "if True: X = 1",
        "X = f'{1}'",
        "X = 1.5",
        "X = b'x'",
        "X += 1",
        "open('/tmp/owned', 'w')",
        "def f(: pass",
    ],
)
def test_what_is_more_than_a_literal_is_refused_by_line(line: str) -> None:
    with pytest.raises(UsageError, match=r"config\.py, line 3"):
        parse_settings(f'ROOT_PATH = "/srv"\n\n{line}\n', "config.py")


@pytest.mark.parametrize("text", ["(" * 5000, "\0", "X = " + "-" * 90000 + "1"])
def test_what_would_exhaust_a_parser_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_settings(text, "config.py")


@pytest.mark.parametrize(
    ("text", "span"),
    [
        ("24h", timedelta(hours=24)),
        ("7d", timedelta(days=7)),
        ("0s", timedelta()),
        ("90", timedelta(seconds=90)),
        ("1h30m", timedelta(hours=1, minutes=30)),
        ("1 week, 2 days", timedelta(weeks=1, days=2)),
        ("1.5 hours", timedelta(minutes=90)),
        ("12:30:00", timedelta(hours=12, minutes=30)),
        ("2:30", timedelta(minutes=2, seconds=30)),
        ("2 days, 4:13:02", timedelta(days=2, hours=4, minutes=13, seconds=2)),
        ("3 Mins 5 secs", timedelta(minutes=3, seconds=5)),
    ],
)
def test_spans(text: str, span: timedelta) -> None:
    assert parse_span(text) == span


@pytest.mark.parametrize("text", ["", "x", "24 hh", "h", "-1d"])
def test_no_spans(text: str) -> None:
    with pytest.raises(UsageError):
        parse_span(text)


def test_state_lines_tell_what_is_pending() -> None:
    one, all_ = Item(Kind.PUSH, "a b\r/ü.tbz"), Item(Kind.SYNC, "")
    lines = begun(one, NOW) + begun(all_, NOW)
    assert lines.decode() == ("2026-11-21T04:06:08 +push a b\r/ü.tbz\n2026-11-21T04:06:08 +sync \n")
    assert replay(lines).pending == (one, all_)
    assert replay(lines + done(one, NOW) + done(one, NOW)).pending == (all_,)


@given(st.binary(max_size=200), st.integers(min_value=0, max_value=120))
def test_no_state_file_is_an_error(noise: bytes, cut: int) -> None:
    lines = begun(Item(Kind.PUSH, "x/1.tbz"), NOW) * 2 + noise
    replay(lines)
    replay(lines[:cut])
    replay(noise + b"\n" + lines)


def test_a_path_out_of_the_root_is_not_safe() -> None:
    assert not Item(Kind.PUSH, "../x").safe
    assert not Item(Kind.PUSH, "/x").safe
    assert Item(Kind.SYNC, "").safe


def test_sessions() -> None:
    names = [
        "current_mirror.2026-01-03T00:00:00Z.data",
        "increments.2026-01-01T00:00:00Z.dir",
        "increments.2026-01-02T01:00:00+01:00.dir",
        "backup.log",
    ]
    found = sessions_in(names)
    assert found.condition is Condition.SOUND
    assert [time.day for time in found.times] == [1, 2, 3]
    assert found.increments == 2
    interrupted = sessions_in([*names, "current_mirror.2026-01-04T00:00:00Z.data"])
    assert interrupted.condition is Condition.INTERRUPTED
    assert interrupted.times == found.times
    assert sessions_in(names[1:]).condition is Condition.UNFINISHED


S3CFG = '[default]\n# no\naccess_key = AK\nsecret_key = "S=K%"\nhost_base = {base}\nhost_bucket = {bucket}\n'


@pytest.mark.parametrize(
    ("base", "bucket", "more", "endpoint", "virtual"),
    [
        ("s3.amazonaws.com", "%(bucket)s.s3.amazonaws.com", "", None, True),
        ("minio:9000", "minio:9000", "use_https = False", "http://minio:9000", False),
        ("s.example", "%(bucket)s.s.example", "", "https://foo.s.example", True),
        ("s.example", "", "use_https = True", "https://s.example", False),
    ],
)
def test_where_s3cmd_goes(
    base: str, bucket: str, more: str, endpoint: str | None, virtual: bool
) -> None:
    settings = parse_s3cmd(S3CFG.format(base=base, bucket=bucket) + more + "\n")
    place = connection(settings, "s3://foo/some/path/", None)
    assert (place.endpoint, place.virtual_host) == (endpoint, virtual)
    assert (place.bucket, place.prefix, place.region) == ("foo", "some/path", "us-east-1")
    assert (place.access_key, place.secret_key) == ("AK", "S=K%")
    assert "S=K%" not in repr(place)
    overridden = connection(settings, "s3://foo", "127.0.0.1:99")
    assert overridden.endpoint in {"http://127.0.0.1:99", "https://127.0.0.1:99"}
    assert not overridden.virtual_host


def test_what_s3cmd_would_encrypt_is_refused() -> None:
    with pytest.raises(UsageError, match="encrypt"):
        connection(parse_s3cmd("encrypt = True\n"), "s3://foo/x", None)
    with pytest.raises(UsageError, match="S3_URI_PREFIX"):
        connection({}, "http://foo/x", None)

"""What the texts of a configuration mean."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.config.values import (
    Address,
    Count,
    Duration,
    Location,
    Rate,
    Span,
    TimeOfDay,
    Url,
)
from perdure.errors import UsageError


@pytest.mark.parametrize(
    ("kind", "text", "value", "again"),
    [
        (Duration, "90s", 90, "1m30s"),
        (Duration, "1h30m", 5400, "1h30m"),
        (Duration, "0.5s", 0.5, "0.5s"),
        (Duration, "0s", 0, "0s"),
        (Duration, "24h", 86400, "24h"),
        (Rate, "500", 500 << 10, "500K"),
        (Rate, "500K", 500 << 10, "500K"),
        (Rate, "5M", 5 << 20, "5M"),
        (Rate, "1g", 1 << 30, "1G"),
        (Rate, "1.5MiB/s", 3 << 19, "1536K"),
        (Count, "7", 7, "7"),
        (Count, "0", 0, "0"),
        (Count, "unlimited", -1, "unlimited"),
        (Count, "-1", -1, "unlimited"),
        (Span, "1y6m7d12h", "1y6m7d12h", "1y6m7d12h"),
        (Span, "30d", "30d", "30d"),
        (TimeOfDay, "3:15", "03:15", "03:15"),
        (TimeOfDay, "23:59", "23:59", "23:59"),
        (Url, "https://hc.example/x?y=1", "https://hc.example/x?y=1", "https://hc.example/x?y=1"),
        (Address, "a.b+c@example.org", "a.b+c@example.org", "a.b+c@example.org"),
        (Address, "root", "root", "root"),
    ],
)
def test_what_a_text_means(kind: Any, text: str, value: object, again: str) -> None:
    parsed = kind.parse(text)
    assert type(parsed) is kind
    assert (parsed.total_seconds() if kind is Duration else parsed) == value
    assert str(parsed) == again
    assert kind.parse(again) == parsed


@pytest.mark.parametrize(
    ("kind", "texts"),
    [
        (Duration, ["", "5", "5 m", "-5m", "m", "5d", "1h1h1h1h", "9999999999h"]),
        (Rate, ["", "0", "15", "-5M", "5T", "M", "5 M", "1e9"]),
        (Count, ["", "-2", "1.5", "many", "9999999999", "٣"]),
        (Span, ["", "5", "5w", "1d1y", "-1d", "m"]),
        (TimeOfDay, ["", "24:00", "3", "12:60", "03:15:30", "03.15"]),
        (
            Url,
            ["", "x", "file:///etc/passwd", "https://", "http://a b/", "http://h:0x/", "ftp://h/"],
        ),
        (Url, ["http://h/\n", "https://user:geheim@host/"]),
        (Address, ["", "a b", "-oQ/tmp", "a@b@c", "a@b\nBcc: c", "A <a@b>", "a,b", "@b"]),
    ],
)
def test_what_means_nothing(kind: Any, texts: list[str]) -> None:
    for text in texts:
        with pytest.raises(UsageError) as caught:
            kind.parse(text)
        assert "geheim" not in str(caught.value)


def test_a_url_below_another() -> None:
    assert Url.parse("https://hc.example/x/?y=1").below("fail") == "https://hc.example/x/fail?y=1"
    assert Url.parse("http://hc.example").below("start") == "http://hc.example/start"
    assert Url.parse("https://hc.example:81/secret").host == "https://hc.example:81/..."


@pytest.mark.parametrize(
    ("text", "folder", "shown"),
    [
        ("/srv/backup", "/srv/backup", "/srv/backup"),
        ("file:///srv/backup", "/srv/backup", "file:///srv/backup"),
        ("s3://key:secret@bucket/x", None, "s3://bucket/x"),
    ],
)
def test_locations(text: str, folder: str | None, shown: str) -> None:
    assert Location(text).folder == folder
    assert Location(text).without_secrets == shown

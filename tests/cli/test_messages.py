"""Texts for people."""

from __future__ import annotations

import pytest

from perdure.cli import messages


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (9949, "9.9 kB"),
        (9999, "10 kB"),
        (185_000_000, "185 MB"),
        (999_999_999, "1.0 GB"),
        (10**18, "1000 PB"),
    ],
)
def test_sizes(count: int, text: str) -> None:
    assert messages.size(count) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")],
)
def test_durations(value: float, text: str) -> None:
    assert messages.seconds(value) == text


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("jörg ☃", "jörg ☃"),
        ("two\nlines\t\x1b[31m", r"two\nlines\t\x1b[31m"),
        (b"caf\xe9", r"caf\xe9"),
        ("bad\udce9", r"bad\udce9"),
        ("\u202egnp", r"\u202egnp"),
    ],
)
def test_what_others_wrote_is_made_safe(text: str | bytes, shown: str) -> None:
    assert messages.printable(text) == shown

"""Names of backups of blobs, stamps and dates: read and written."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.dropin.recipe.dates import moment_of, parse_date, stamp_of
from perdure.dropin.recipe.naming import Entry, Form, entry_name
from perdure.errors import UsageError

STAMP = "2026-11-21-04-06-06"


@pytest.mark.parametrize(
    ("name", "base", "stamp", "number", "form", "delta"),
    [
        (f"blobstorage.{STAMP}", "blobstorage", STAMP, None, Form.DIRECTORY, False),
        (f"blobs of x.{STAMP}.tar", "blobs of x", STAMP, None, Form.TAR, False),
        (f"b.{STAMP}.tar.gz", "b", STAMP, None, Form.COMPRESSED, False),
        (f"b.{STAMP}.delta.tar", "b", STAMP, None, Form.TAR, True),
        (f"b.{STAMP}.delta.tar.gz", "b", STAMP, None, Form.COMPRESSED, True),
        (f"b.{STAMP}.snar", "b", STAMP, None, Form.NOTES, False),
        ("b.0", "b", None, 0, Form.DIRECTORY, False),
        ("b.12.tar", "b", None, 12, Form.TAR, False),
        (f"b.1.{STAMP}", "b.1", STAMP, None, Form.DIRECTORY, False),
    ],
)
def test_names(
    name: str, base: str, stamp: str | None, number: int | None, form: Form, delta: bool
) -> None:
    entry = Entry(name, base, stamp, number, form, delta)
    assert Entry.parse(name) == entry
    mark = stamp if stamp is not None else number
    assert mark is not None
    assert entry_name(base, mark, form, delta=delta) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "latest",
            "blobstorage",
            ".0",
            "b.00",
            "b.x",
            f"b.{STAMP}.delta",
            f"b.{STAMP}.delta.snar",
        ),
        *(
            f".perdure-b.{STAMP}",
            f"b.{STAMP}.zip",
            f"b.{STAMP[:-1]}",
            f"{STAMP}.fsz",
            "b.0.tar.bz2",
        ),
    ],
)
def test_what_is_no_backup(name: str) -> None:
    assert Entry.parse(name) is None


@given(st.text())
def test_any_name(name: str) -> None:
    entry = Entry.parse(name)
    assert entry is None or entry.name == name


@pytest.mark.parametrize(
    ("text", "begins", "through"),
    [
        ("2026", "2026-01-01-00-00-00", "2026-12-31-23-59-59"),
        ("2026-2", "2026-02-01-00-00-00", "2026-02-28-23-59-59"),
        ("2026-11-21", "2026-11-21-00-00-00", "2026-11-21-23-59-59"),
        ("2026-11-21-04", "2026-11-21-04-00-00", "2026-11-21-04-59-59"),
        ("2026-11-21-4-6", "2026-11-21-04-06-00", "2026-11-21-04-06-59"),
        (STAMP, STAMP, STAMP),
        ("2026-11-21T04:06:06", STAMP, STAMP),
        ("2026-11-21T05:06:06.9+01:00", STAMP, STAMP),
        ("2026-11-21 04:06:06Z", STAMP, STAMP),
    ],
)
def test_dates(text: str, begins: str, through: str) -> None:
    assert parse_date(text) == begins
    assert parse_date(text, through=True) == through


@pytest.mark.parametrize(
    "text",
    ["", "x", "20", "2026-13", "2030-02-30", "0000-01-01", "2026-11-21-24", "20261121", "now"],
)
def test_what_is_no_date(text: str) -> None:
    with pytest.raises(UsageError):
        parse_date(text)


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 12, 31)))
def test_stamps_sort_as_moments(moment: datetime) -> None:
    stamp = stamp_of(moment.replace(tzinfo=UTC))
    assert moment_of(stamp) == moment.replace(microsecond=0, tzinfo=UTC)
    assert parse_date(stamp) == stamp

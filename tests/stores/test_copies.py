"""Copies of packfiles in a local folder, in front of a store that is far."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from perdure.errors import NameNotFound
from perdure.stores.copies import SMALL, CopyingStore
from perdure.stores.memory import MemoryStore
from perdure.stores.wrappers import CountingStore

NOW = datetime(2026, 11, 21, tzinfo=UTC)
NAME = f"data/ab/{'ab' * 32}"
OTHER = f"data/cd/{'cd' * 32}"


@pytest.fixture
def inner() -> CountingStore:
    return CountingStore(MemoryStore())


def at(inner: CountingStore, folder: Path, now: datetime = NOW) -> CopyingStore:
    return CopyingStore(inner, folder, now)


def test_what_is_small_is_kept_when_it_is_put(inner: CountingStore, tmp_path: Path) -> None:
    store = at(inner, tmp_path / "new" / "folder")
    store.put(NAME, b"0123456789")
    store.put(OTHER, bytes(SMALL + 1))

    assert store.get(NAME, 2, 5) == b"234"
    assert inner.calls["get"] == 0
    assert store.get(OTHER, 2, 5) == bytes(3)
    assert inner.calls["get"] == 1


def test_a_part_is_asked_for_once(inner: CountingStore, tmp_path: Path) -> None:
    inner.put(NAME, b"0123456789")
    for _ in range(3):
        assert at(inner, tmp_path).get(NAME, 2, 5) == b"234"
    assert inner.calls["get"] == 1
    at(inner, tmp_path).fetch(NAME)
    at(inner, tmp_path).fetch(NAME)
    assert inner.calls["get"] == 2
    assert at(inner, tmp_path).get(NAME, 7, 10) == b"789"
    assert inner.calls["get"] == 2


def test_a_copy_that_is_short_is_none(inner: CountingStore, tmp_path: Path) -> None:
    store = at(inner, tmp_path)
    store.put_and_keep(NAME, b"0123456789")
    (tmp_path / NAME.rpartition("/")[2]).write_bytes(b"01")
    assert store.get(NAME, 2, 5) == b"234"


def test_what_is_forgotten_is_read_again(inner: CountingStore, tmp_path: Path) -> None:
    store = at(inner, tmp_path)
    store.put(NAME, b"0123456789")
    store.get(NAME, 1, 2)
    store.forget(NAME)
    assert not list(tmp_path.iterdir())
    assert store.get(NAME, 1, 2) == b"1"
    store.delete(NAME)
    with pytest.raises(NameNotFound):
        store.get(NAME, 1, 2)


def test_what_was_not_used_for_a_month_goes(inner: CountingStore, tmp_path: Path) -> None:
    store = at(inner, tmp_path)
    store.put(NAME, b"0123456789")
    store.put(OTHER, b"0123456789")
    for path in tmp_path.iterdir():
        os.utime(path, (NOW.timestamp(), NOW.timestamp()))
    later = at(inner, tmp_path, NOW + timedelta(days=20))
    later.get(NAME, 0, 1)
    later.tidy()
    assert len(list(tmp_path.iterdir())) == 2
    at(inner, tmp_path, NOW + timedelta(days=40)).tidy()
    assert [path.name for path in tmp_path.iterdir()] == [NAME.rpartition("/")[2]]


def test_where_there_can_be_no_copies(inner: CountingStore, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = at(inner, tmp_path / "file")
    store.put(NAME, b"0123456789")
    store.fetch(NAME)
    assert store.get(NAME, 2, 5) == b"234"
    store.tidy()
    store.delete(NAME)

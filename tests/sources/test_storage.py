"""Storages through their iterators: what comes back, what an increment costs, how packs are noticed."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest
from history_site import rebuilt_from
from hypothesis import given, settings
from hypothesis import strategies as st
from living_storage import STEPS, LivingStorage
from storage_site import StorageSite, contents_of, copied, opened, transactions_in

from perdure.model import Tid


def filestorage(path: Path) -> str:
    return f"<filestorage>\n path {path}\n</filestorage>\n"


@pytest.fixture
def living(tmp_path: Path) -> Iterator[LivingStorage]:
    made = LivingStorage(tmp_path, 1)
    yield made
    made.close()


@pytest.fixture
def site(living: LivingStorage) -> StorageSite:
    return StorageSite(filestorage(living.path), window=3000)


def check(site: StorageSite, folder: Path, number: int = -1) -> None:
    """The newest snapshot has what ZODB copies of the storage, at each of its moments."""
    with opened(site.zconfig.replace("</file", " read-only true\n</file")) as storage:
        expected = copied(storage, folder / f"oracle-{len(site.ids)}.fs")
        contents = contents_of(storage)
    assert site.restored(number) == expected
    assert site.contents(folder, number) == contents
    headers = transactions_in(expected)
    for header, following in pairwise(headers):
        data, _ = rebuilt_from(site.found(number), Tid(header.tid))
        assert data == expected[: following.position]


def test_a_whole_storage(site: StorageSite, living: LivingStorage, tmp_path: Path) -> None:
    for step in (living.commits, living.undo, living.metadata, living.large_transaction):
        step()
    living.large_record()
    living.undo_creation()
    living.same_object_twice()
    report = site.back_up()
    assert (report.method, report.kind) == ("full", "storage")
    check(site, tmp_path)
    assert not site.warnings


def test_increments(living: LivingStorage, tmp_path: Path) -> None:
    site = StorageSite(filestorage(living.path))
    for _ in range(20):
        living.commits()
    whole = site.back_up().bytes_read
    assert site.back_up().method == "nothing"
    living.commit()
    living.large_transaction()
    report = site.back_up()
    assert report.method == "increment"
    assert report.transactions_new == 2
    assert report.bytes_read < whole / 2
    check(site, tmp_path)
    check_again = site.back_up(verify_source=True)
    assert check_again.method == "nothing"
    assert not site.warnings


def test_a_pack(site: StorageSite, living: LivingStorage, tmp_path: Path) -> None:
    for _ in range(20):
        living.commits()
    first = site.back_up()
    living.db.pack()
    living.commit()
    report = site.back_up()
    assert report.method == "compare"
    assert report.bytes_new < first.bytes_new / 10
    check(site, tmp_path)
    assert len(site.restored(0)) > len(site.restored(1))


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    window=st.sampled_from([700, 5000, 1 << 20]),
    steps=st.lists(
        st.sampled_from([step for step in STEPS if step is not LivingStorage.reopen]),
        min_size=4,
        max_size=14,
    ),
)
def test_any_history(
    tmp_path_factory: pytest.TempPathFactory, seed: int, window: int, steps: list[object]
) -> None:
    folder = tmp_path_factory.mktemp("any")
    living = LivingStorage(folder, seed)
    site = StorageSite(filestorage(living.path), window)
    for number, step in enumerate(steps):
        step(living)  # type: ignore[operator]
        if number % 2:
            site.back_up()
    site.back_up()
    check(site, folder)
    living.close()

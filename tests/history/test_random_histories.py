"""Random histories of a real FileStorage: every snapshot gives every moment back, byte for byte."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from history_site import HistorySite, rebuilt_from
from hypothesis import given, settings
from hypothesis import strategies as st
from living_storage import STEPS, LivingStorage, index_of_perdure, index_of_zodb

from perdure import plan
from perdure.formats import catalogue

Step = tuple[str, bool]

LIKELY = [step.__name__ for step, weight in STEPS.items() for _ in range(weight)]
steps = st.lists(
    st.tuples(st.sampled_from(LIKELY), st.sampled_from([True, True, False])), max_size=14
)
windows = st.sampled_from([300, 2000, 9000, 1 << 20])


def live_through(seed: int, taken: list[Step], window: int, every_moment: bool = True) -> None:
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "SEGMENT_SIZE", window)
        patch.setattr(plan, "REWRITE_BUDGET", 2 * window)
        patch.setattr(catalogue, "CHUNK_LIMIT", seed % 3 * 600 + 100)
        folder = Path(name)
        storage = LivingStorage(folder, seed)
        site = HistorySite(window)
        site.back_up(storage.path)
        for step, backed_up in taken:
            getattr(storage, step)()
            if backed_up:
                back_up(site, storage)
        back_up(site, storage)
        storage.close()
        site.check_all(every_moment)
        compare_indexes(site, folder)
        site.repository.close()


def back_up(site: HistorySite, storage: LivingStorage) -> None:
    """Back up, sometimes while a transaction is voted that is then finished or aborted."""
    verify = storage.random.random() < 0.2
    if storage.random.random() < 0.8:
        site.back_up(storage.path, verify_source=verify)
        return
    metadata, usable = storage.vote()
    site.back_up(storage.path, usable=usable, verify_source=verify)
    if storage.random.random() < 0.5:
        storage.storage.tpc_finish(metadata)
    else:
        storage.storage.tpc_abort(metadata)


def compare_indexes(site: HistorySite, folder: Path) -> None:
    for found in site.found().values():
        data, rebuilt = rebuilt_from(found)
        if len(data) > 4:
            index = index_of_perdure(rebuilt.revisions, rebuilt.size, folder)
            assert index == index_of_zodb(data, folder)


@pytest.mark.slow
@settings(max_examples=int(os.environ.get("PERDURE_TEST_HISTORIES", "25")))
@given(seed=st.integers(0, 1 << 32), taken=steps, window=windows)
def test_any_history(seed: int, taken: list[Step], window: int) -> None:
    live_through(seed, taken, window)

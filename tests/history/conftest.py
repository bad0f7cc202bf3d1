"""What the tests of histories share."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import ZODB.FileStorage  # its module of the same name is hidden by the class
from history_site import HistorySite

from perdure import plan


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """ZODB syncs at each commit; what is tested here does not depend on it."""
    assert ZODB.FileStorage
    monkeypatch.setattr(sys.modules["ZODB.FileStorage.FileStorage"], "fsync", lambda _: None)


@pytest.fixture
def history_site(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], HistorySite]]:
    """Make a repository for histories whose segments have some size, instead of 64 MiB."""
    made: list[HistorySite] = []

    def make(window: int) -> HistorySite:
        monkeypatch.setattr(plan, "SEGMENT_SIZE", window)
        monkeypatch.setattr(plan, "REWRITE_BUDGET", 2 * window)
        made.append(HistorySite(window))
        return made[-1]

    yield make
    for site in made:
        site.repository.close()

"""What a history tells of the records before a position: with a cache, without, and with a damaged one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from living_storage import LivingStorage
from storage_site import StorageSite

from perdure import plan
from perdure.formats.extent import scan
from perdure.formats.history import LayoutName
from perdure.formats.layout import Layout
from perdure.history import past
from perdure.history.in_repository import RepositoryHistory
from perdure.history.past import HistoryPast

WINDOW = 3000


class Site(StorageSite):
    """A repository with a cache."""

    def __init__(self, folder: Path) -> None:
        self.living = LivingStorage(folder, 11)
        self.cache = folder / "cache"
        zconfig = f"<filestorage>\n path {self.living.path}\n</filestorage>\n"
        super().__init__(zconfig, WINDOW, self.cache)

    @property
    def history(self) -> RepositoryHistory:
        return self.found().history

    def files(self) -> list[Path]:
        return sorted(self.cache.glob("*/past/*"))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    for module in (past, plan):
        monkeypatch.setattr(module, "SEGMENT_SIZE", WINDOW)
    made = Site(tmp_path)
    for _ in range(8):
        made.living.commits()
    made.back_up()
    yield made
    made.living.close()
    made.repository.close()


def check(site: Site, told: HistoryPast | None = None) -> None:
    """What is told of each position is what the bytes before it say."""
    told = told or HistoryPast(site.history)
    data = site.restored()
    names = site.history.names()
    whole = [name.start for name in names if site.history.layout(name).facts.begins is None]
    for position in [*whole, len(data)]:
        extent = scan(data[:position], 0, where="") if position else None
        known = {}
        if extent is not None:
            columns = (extent.oid.tolist(), extent.at.tolist(), extent.tid.tolist())
            known = {oid: (at, tid) for oid, at, tid in zip(*columns, strict=True)}
        newest = told.newest(position)
        for oid in [*known, 1 << 50]:
            assert newest(oid) == known.get(oid, (0, 0))
        last = max((header.tid for header in extent.headers), default=0) if extent else 0
        assert told.last_tid(position) == last


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The layouts that are loaded."""
    names: list[str] = []
    load = RepositoryHistory.layout

    def layout(history: RepositoryHistory, name: LayoutName) -> Layout:
        names.append(str(name))
        return load(history, name)

    monkeypatch.setattr(RepositoryHistory, "layout", layout)
    return names


def test_with_a_cache(site: Site, loaded: list[str]) -> None:
    assert len(site.history.names()) > 5
    size = site.found().record.size
    HistoryPast(site.history).newest(size)
    assert len(loaded) == len(site.history.names())
    assert len(site.files()) == 1
    loaded.clear()
    newest = HistoryPast(site.history).newest(size)
    assert newest(0)[0]
    assert len(loaded) < len(site.history.names()) / 2
    check(site)
    check(site)


def test_it_grows_with_the_history(site: Site, loaded: list[str]) -> None:
    for _ in range(4):
        HistoryPast(site.history).newest(site.found().record.size)
        assert len(site.files()) == 1
        site.living.commits()
        site.living.undo()
        site.back_up()
        loaded.clear()
        HistoryPast(site.history).newest(site.found().record.size)
        assert len(loaded) < len(site.history.names())
        check(site)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "folder"])
def test_a_damaged_cache(site: Site, damage: str) -> None:
    size = site.found().record.size
    HistoryPast(site.history).newest(size)
    (file,) = site.files()
    data = file.read_bytes()
    if damage == "flip":
        file.write_bytes(data[:-5000] + bytes(byte ^ 1 for byte in data[-5000:]))
    elif damage == "cut":
        file.write_bytes(data[:-1])
    elif damage == "empty":
        file.write_bytes(b"")
    else:
        file.unlink()
        file.mkdir()
    check(site)


def test_a_page_that_is_damaged_while_it_is_used(site: Site) -> None:
    size = site.found().record.size
    HistoryPast(site.history).newest(size)
    (file,) = site.files()
    told = HistoryPast(site.history)
    newest = told.newest(size)
    data = file.read_bytes()
    with file.open("r+b") as changed:
        changed.seek(len(data) // 2)
        changed.write(bytes(len(data) - len(data) // 2))
    assert newest(0)[0]
    check(site, told)


def test_without_a_cache(site: Site) -> None:
    site.repository.close()
    site.repository = site.open()
    check(site)
    assert not site.files()

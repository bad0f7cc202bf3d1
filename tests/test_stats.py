"""What a repository is said to cost is what is there, and what goes when a snapshot does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from blob_storage import BlobStorage
from history_site import back_up
from small_repository import Site, backup

from perdure.errors import RepositoryDamaged
from perdure.formats.packfile import expected_size
from perdure.model import SilentObserver
from perdure.repository.checking import check_repository
from perdure.stats import Stats, stats


@pytest.fixture
def whole_repository(site: Site) -> Iterator[None]:
    """The repository that a test wrote is whole."""
    yield
    assert not check_repository(site.repository, SilentObserver(), read_data=True).damaged


def added_up(site: Site) -> Stats:
    return stats(site.open(), SilentObserver())


@pytest.mark.usefixtures("whole_repository")
def test_the_numbers_are_those_of_the_repository(site: Site, tmp_path: Path) -> None:
    storages = [BlobStorage(tmp_path / name, seed=n) for n, name in enumerate(("one", "two"))]
    sizes = []
    for _ in range(4):
        for storage in storages:
            for _ in range(5):
                storage.step()
            back_up(
                site.repository,
                storage.path,
                name=storage.path.parent.name,
                blobs=storage.blobs,
                clock=site.clock,
            )
            blobs = sum(map(len, storage.contents().values()))
            sizes.append(len(storage.data) + blobs)
        site.clock.advance(days=1)
    for storage in storages:
        storage.close()
    found = added_up(site)
    assert [each.restored for each in found.snapshots] == sizes
    assert found.restored == sum(sizes)
    assert {each.sources for each in found.snapshots} == {("one",), ("two",)}
    packfiles = sum(size for _, size in site.store.list("data/"))
    entries = [place.entry for place in site.open().index.locations()]
    headers = packfiles - sum(entry.length for entry in entries)
    assert headers >= expected_size(entries) - sum(entry.length for entry in entries)
    assert found.stored + found.unneeded == sum(entry.length for entry in entries)
    assert sum(each.added for each in found.snapshots) == found.stored
    assert sum(each.added for each in found.days) == found.stored
    assert [each.snapshots for each in found.days] == [2] * 4
    assert found.days[-1].restored == sizes[-1] + sizes[-2]
    assert {each.name: each.restored for each in found.sources} == {
        "one": sizes[-2],
        "two": sizes[-1],
    }
    of_lists = found.stored - sum(each.stored for each in found.sources)
    assert 0 < of_lists < found.stored / 2
    # What a snapshot alone needs is needed no more when it is forgotten.
    for each in found.snapshots:
        content = site.store.get(f"snapshots/{each.id}")
        site.repository.delete_snapshot(each.id)
        without = added_up(site)
        assert found.stored - without.stored == each.alone
        assert without.unneeded - found.unneeded == each.alone
        site.store.put(f"snapshots/{each.id}", content)


@pytest.mark.usefixtures("whole_repository")
def test_snapshots_of_another_program(site: Site) -> None:
    backup(site.repository, {"file": [b"x" * 1000, b"y" * 500], "same": [b"x" * 1000]})
    backup(site.repository, {"file": [b"x" * 1000]})
    found = added_up(site)
    assert {each.restored for each in found.snapshots} == {2500, 1000}  # of the same second
    [source] = found.sources
    assert (source.name, source.snapshots) == (": /folder", 2)
    assert source.restored == found.snapshots[-1].restored
    assert source.stored == found.stored
    assert 1500 < found.content < 4000
    assert found.compression > 1


def test_an_empty_repository(site: Site) -> None:
    found = added_up(site)
    assert (found.snapshots, found.sources, found.days) == ((), (), ())
    assert (found.compression, found.deduplication) == (1.0, 1.0)


def test_a_damaged_repository(site: Site) -> None:
    backup(site.repository, {"file": [b"content"]})
    for name in site.names("index"):
        site.store.delete(name)
    with pytest.raises(RepositoryDamaged, match="is not in the index"):
        added_up(site)

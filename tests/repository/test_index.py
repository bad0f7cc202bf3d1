from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from small_repository import Site, backup

from perdure.errors import RepositoryDamaged
from perdure.formats.index import Packed
from perdure.formats.packfile import Entry
from perdure.model import ChunkId, ChunkKind
from perdure.repository import Repository
from perdure.repository.runs import Location, Run, chunk_key
from perdure.stores.wrappers import CountingStore

ENTRIES = st.builds(
    Entry,
    st.sampled_from(ChunkKind),
    st.binary(min_size=32, max_size=32).map(ChunkId),
    st.integers(0, 1 << 31),
    st.integers(32, 1 << 31),
    st.integers(0, 1 << 30),
)
PACKED = st.builds(Packed, st.binary(min_size=32, max_size=32), st.lists(ENTRIES))


def places(packed: list[Packed]) -> list[Location]:
    return [Location(part.id, entry) for part in packed for entry in part.entries]


@given(st.lists(PACKED), st.lists(PACKED))
def test_runs_find_what_was_put_in(first: list[Packed], second: list[Packed]) -> None:
    run = Run.merged([Run.of(["aa" * 32], first), Run.of(["bb" * 32], second)])

    assert run.covered == {"aa" * 32, "bb" * 32}
    assert sorted(map(repr, run.locations())) == sorted(map(repr, places(first + second)))
    for place in places(first + second):
        assert place in run.find(chunk_key(place.entry.kind, place.entry.id))
    assert run.find(chunk_key(ChunkKind.DATA, ChunkId(b"\x7f" * 32))) == []


def test_a_run_as_a_file(tmp_path: Path) -> None:
    entries = [Entry(ChunkKind.TREE, ChunkId(os.urandom(32)), 0, 40, 9) for _ in range(100)]
    run = Run.of(["ab" * 32, "cd" * 32], [Packed(b"p" * 32, entries)])
    run.write(tmp_path)
    mapped = Run.map(tmp_path / run.file_name)

    assert mapped
    assert mapped.covered == run.covered
    assert list(mapped.locations()) == list(run.locations())
    assert mapped.find(chunk_key(ChunkKind.TREE, entries[7].id)) == [
        Location(b"p" * 32, entries[7])
    ]


def cached(site: Site, cache: Path) -> tuple[Repository, CountingStore]:
    store = CountingStore(site.store)
    repository = Repository.open(store, "secret", cache=cache, clock=site.clock)
    store.calls.clear()
    assert repository.index
    return repository, store


def chunk(text: bytes) -> ChunkId:
    return ChunkId(hashlib.sha256(text).digest())


def test_only_new_index_files_are_read(site: Site, tmp_path: Path) -> None:
    for number in range(20):
        site.backup({"a": [b"%d" % number]})
        repository, store = cached(site, tmp_path)
        assert store.calls["get"] == 1
        assert all(repository.has(ChunkKind.DATA, chunk(b"%d" % old)) for old in range(number + 1))
    folder = tmp_path / repository.id / "index"

    assert cached(site, tmp_path)[1].calls["get"] == 0
    assert len(list(folder.iterdir())) <= 4
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_index_files_that_are_gone_do_not_count(site: Site, tmp_path: Path) -> None:
    site.backup({"a": [b"first"]})
    first = set(site.names("index"))
    site.backup({"a": [b"second"]})
    assert cached(site, tmp_path)[0].has(ChunkKind.DATA, chunk(b"first"))

    for name in first:
        site.store.delete(name)
    repository, _ = cached(site, tmp_path)

    assert not repository.has(ChunkKind.DATA, chunk(b"first"))
    assert repository.has(ChunkKind.DATA, chunk(b"second"))


def test_a_lock_makes_the_index_new(site: Site, tmp_path: Path) -> None:
    site.backup({"a": [b"first"]})
    repository, _ = cached(site, tmp_path)
    for name in site.names("index"):
        site.store.delete(name)

    assert repository.has(ChunkKind.DATA, chunk(b"first"))
    with repository.lock():
        assert not repository.has(ChunkKind.DATA, chunk(b"first"))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def wrong_ids(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[70] ^= 1
    path.write_bytes(raw)


@pytest.mark.parametrize(
    "damage", [cut, zero, wrong_ids, Path.unlink, lambda path: path.write_bytes(b"")]
)
def test_a_damaged_cache_is_made_again(
    site: Site, tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    site.backup({"a": [b"first"]})
    cached(site, tmp_path)
    (run,) = tmp_path.glob("*/index/*")
    damage(run)
    repository, store = cached(site, tmp_path)

    assert repository.load(ChunkKind.DATA, chunk(b"first")) == b"first"
    assert store.calls["get"] == 2
    assert cached(site, tmp_path)[1].calls["get"] == 0


def test_damaged_records_in_the_cache_do_no_harm(site: Site, tmp_path: Path) -> None:
    site.backup({"a": [b"first"]})
    cached(site, tmp_path)
    (run,) = tmp_path.glob("*/index/*")
    raw = run.read_bytes()
    start = raw.index(chunk(b"first")) - 1
    for position in range(start, start + 77):
        run.write_bytes(raw[:position] + bytes([raw[position] ^ 1]) + raw[position + 1 :])
        repository, _ = cached(site, tmp_path)
        assert repository.load(ChunkKind.DATA, chunk(b"first")) == b"first"
        assert list(repository.load_many(ChunkKind.DATA, [chunk(b"first")])) == [b"first"]
        repository.close()


def test_a_damaged_index_file_is_named(site: Site) -> None:
    site.backup({"a": [b"first"]})
    (name,) = site.names("index")
    site.store.contents[name] = site.store.contents[name][:-1]

    with pytest.raises(RepositoryDamaged, match=name) as caught:
        site.open().has(ChunkKind.DATA, chunk(b"first"))
    assert "repair index" in (caught.value.hint or "")


def test_what_was_added_is_known_at_once(site: Site) -> None:
    backup(site.repository, {"a": [b"first"]})

    assert site.repository.load(ChunkKind.DATA, chunk(b"first")) == b"first"

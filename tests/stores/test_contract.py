"""What every store must do, whatever lies under it."""

from __future__ import annotations

import subprocess
import sys
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from doubles import Clock
from object_server import CREDENTIALS

from perdure.errors import NameNotFound, StoreError, UsageError
from perdure.stores import Store, open_store
from perdure.stores.local import LocalStore
from perdure.stores.memory import MemoryStore
from perdure.stores.objectstore import ObjectStore
from perdure.stores.retrying import RetryingStore
from perdure.stores.wrappers import CountingStore, DryRunStore, LimitedStore

ID = "ab" * 32


NEAR = ["local", "memory", "counting", "dry run", "limited", "retrying"]
FAR = ["s3", "poor s3"]


@pytest.fixture(params=[*NEAR, *(pytest.param(name, marks=pytest.mark.slow) for name in FAR)])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param in FAR:
        server = request.getfixturevalue(
            "object_server" if request.param == "s3" else "poor_server"
        )
        return open_store(server.url(server.bucket(), "a/prefix"), CREDENTIALS)
    made: dict[str, Store] = {
        "local": LocalStore(tmp_path / "deep" / "store"),
        "memory": MemoryStore(),
        "counting": CountingStore(LocalStore(tmp_path / "counted")),
        "dry run": DryRunStore(LocalStore(tmp_path / "dry")),
        "limited": LimitedStore(MemoryStore(), 1e9, lambda seconds: None, lambda: 0.0),
        "retrying": RetryingStore(
            MemoryStore(),
            sleep=lambda seconds: None,
            monotonic=lambda: 0.0,
            jitter=lambda: 0.0,
            told=lambda text: None,
        ),
    }
    return made[request.param]


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 1000])
@pytest.mark.parametrize("name", ["config", f"keys/{ID}", f"data/ab/{ID}"])
def test_what_is_put_is_there(store: Store, name: str, data: bytes) -> None:
    store.put(name, data)

    assert store.get(name) == data
    assert store.size(name) == len(data)


def test_ranges(store: Store) -> None:
    store.put("config", b"0123456789")

    assert store.get("config", 3) == b"3456789"
    assert store.get("config", 3, 7) == b"3456"
    assert store.get("config", 0, 10) == b"0123456789"
    assert store.get("config", 4, 4) == b""


def test_a_short_range_is_an_error(store: Store) -> None:
    store.put("config", b"0123456789")

    with pytest.raises(StoreError, match="before byte 11"):
        store.get("config", 3, 11)


def test_list_gives_what_is_below_a_folder(store: Store) -> None:
    store.put("config", b"c")
    store.put(f"data/ab/{ID}", b"12")
    store.put(f"data/cd/{ID}", b"123")
    store.put(f"index/{ID}", b"1234")

    assert sorted(store.list("data/")) == [(f"data/ab/{ID}", 2), (f"data/cd/{ID}", 3)]
    assert list(store.list("index/")) == [(f"index/{ID}", 4)]
    assert list(store.list("snapshots/")) == []


def test_delete(store: Store) -> None:
    store.put(f"keys/{ID}", b"k")
    store.delete(f"keys/{ID}")

    assert list(store.list("keys/")) == []
    for verb in (store.get, store.size):
        with pytest.raises(NameNotFound, match=ID):
            verb(f"keys/{ID}")
    with pytest.raises(NameNotFound, match=ID) if has_told(store) else nullcontext():
        store.delete(f"keys/{ID}")


def has_told(store: Store) -> bool:
    """Whether a store knows that what it is to delete is not there; S3 does not tell."""
    return not isinstance(store, ObjectStore)


def test_put_again(store: Store) -> None:
    store.put("config", b"first")
    store.put("config", b"second")
    store.delete("config")
    store.put("config", b"third")

    assert store.get("config") == b"third"


def test_counting() -> None:
    store = CountingStore(MemoryStore("here"))
    store.put("config", b"abc")
    store.get("config", 1)

    assert store.calls == {"put": 1, "get": 1}
    assert (store.bytes_put, store.bytes_got, store.location) == (3, 2, "here")


def test_a_dry_run_changes_nothing() -> None:
    inner = MemoryStore()
    inner.put("config", b"old")
    inner.put(f"keys/{ID}", b"key")
    store = DryRunStore(inner)

    store.put("config", b"new")
    store.put(f"index/{ID}", b"index")
    store.delete(f"keys/{ID}")

    assert store.get("config") == b"new"
    assert list(store.list("keys/")) == []
    assert store.added == 8
    assert inner.contents == {"config": b"old", f"keys/{ID}": b"key"}


def test_a_limited_store_puts_so_many_bytes_a_second() -> None:
    clock = Clock()
    began = clock.now
    inner = MemoryStore("here")
    store = LimitedStore(inner, 1000, clock.sleep, lambda: clock.now.timestamp())
    passed: list[float] = []
    for size in (500, 2000, 1000, 0):
        store.put(f"data/ab/{size}", bytes(size))
        passed.append((clock.now - began).total_seconds())
    assert passed == [0, 0.5, 2.5, 3.5]
    clock.advance(seconds=60)  # what was not used is not saved up
    store.put("config", bytes(1000))
    store.put(f"index/{ID}", bytes(1000))
    assert (clock.now - began).total_seconds() == 64.5
    store.put(f"locks/{ID}", bytes(100))  # a lock does not wait
    assert (clock.now - began).total_seconds() == 64.5
    assert store.location == "here"
    assert len(inner.contents) == 7


def test_a_limited_store_has_the_leftovers_of_the_store_in_it(tmp_path: Path) -> None:
    left = tmp_path / "data" / "ab" / "x-tmp-1"
    left.parent.mkdir(parents=True)
    left.write_bytes(b"12")
    later = datetime.now(UTC) + timedelta(hours=1)
    for inner, found in ((LocalStore(tmp_path), [("data/ab/x-tmp-1", 2)]), (MemoryStore(), [])):
        store = LimitedStore(inner, 1000, lambda seconds: None, lambda: 0.0)
        assert list(store.leftovers(later)) == found


@pytest.mark.parametrize("location", ["sftp:host:/x", "rest:http://x/", "b2:bucket:/x"])
def test_what_is_not_supported(location: str) -> None:
    with pytest.raises(UsageError, match="not supported"):
        open_store(location)


def test_open_store(tmp_path: Path) -> None:
    assert open_store(str(tmp_path)).location == str(tmp_path)
    assert open_store(f"file://{tmp_path}").location == str(tmp_path)
    with pytest.raises(UsageError):
        open_store("")


def test_places_in_object_stores_are_opened_without_asking_anybody(tmp_path: Path) -> None:
    azure = {"AZURE_STORAGE_ACCOUNT_NAME": "me", "AZURE_STORAGE_ACCOUNT_KEY": "c2VjcmV0"}
    assert open_store("az://container/x", azure).location == "az://container/x"
    assert open_store("gs:bucket:/x", {}).location == "gs://bucket/x"
    assert open_store("s3://bucket/x", CREDENTIALS).location == "s3://bucket/x"
    key = tmp_path / "key.json"
    key.write_text("nonsense")
    with pytest.raises(UsageError, match="cannot be opened"):
        open_store("gs://bucket/x", {"GOOGLE_APPLICATION_CREDENTIALS": str(key)})


def test_a_folder_needs_no_object_store(tmp_path: Path) -> None:
    code = (
        "import sys; from perdure.cli.reaching import reach;"
        "from perdure.repository import Repository;"
        f"reach({str(tmp_path)!r}, {{}}, print); assert 'obstore' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

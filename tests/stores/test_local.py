from __future__ import annotations

import os
import stat
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from doubles import PowerCut

from perdure.errors import StoreError
from perdure.stores.local import LocalStore

ID = "ab" * 32


def test_modes_are_those_of_restic(tmp_path: Path) -> None:
    LocalStore(tmp_path / "store").put(f"data/ab/{ID}", b"x")

    assert stat.S_IMODE((tmp_path / "store" / "data").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "store" / "data" / "ab" / ID).stat().st_mode) == 0o400


def test_what_was_put_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    power = PowerCut(monkeypatch)
    store = LocalStore(tmp_path / "a" / "store")
    names = ["config", f"keys/{ID}", f"data/ab/{ID}", f"data/ab/{ID[::-1]}", f"data/cd/{ID}"]
    for name in names:
        store.put(name, name.encode())
    store.delete(f"data/ab/{ID}")

    power.survivors(tmp_path, tmp_path / "after")

    survived = LocalStore(tmp_path / "after" / "a" / "store")
    assert survived.get("config") == b"config"
    assert {name for name, _ in survived.list("keys/")} == {f"keys/{ID}"}
    assert {name for name, _ in survived.list("data/")} == {f"data/ab/{ID[::-1]}", f"data/cd/{ID}"}


def test_leftovers_are_not_listed(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put(f"index/{ID}", b"x")
    (tmp_path / "index" / f"{ID}-tmp-123").write_bytes(b"half")

    assert list(store.list("index/")) == [(f"index/{ID}", 1)]
    assert list(store.leftovers(datetime(2001, 1, 1, tzinfo=UTC))) == []
    ((name, size),) = store.leftovers(datetime(2201, 1, 1, tzinfo=UTC))
    assert (name, size) == (f"index/{ID}-tmp-123", 4)
    store.delete(name)
    assert [path.name for path in (tmp_path / "index").iterdir()] == [ID]


def test_a_failed_put_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreError, match=f"cannot write {tmp_path}/config: No space") as caught:
        LocalStore(tmp_path).put("config", b"x")

    assert "make room" in (caught.value.hint or "")
    assert list(tmp_path.iterdir()) == []


def test_a_file_where_a_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "keys").write_bytes(b"")

    with pytest.raises(StoreError, match=f"cannot write {tmp_path}/keys/{ID}"):
        LocalStore(tmp_path).put(f"keys/{ID}", b"x")


def test_no_permission(tmp_path: Path, unprivileged: AbstractContextManager[None]) -> None:
    store = LocalStore(tmp_path)
    store.put("config", b"x")
    tmp_path.chmod(0o500)

    with unprivileged, pytest.raises(StoreError, match="Permission denied"):
        store.put("keys/x", b"x")
    tmp_path.chmod(0o700)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a//b", "", "a/./b"])
def test_names_stay_inside(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="not the name"):
        LocalStore(tmp_path).get(name)

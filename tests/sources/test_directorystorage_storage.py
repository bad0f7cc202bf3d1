"""The read-only storage over a HOME, against what the real storage said."""

from __future__ import annotations

import fcntl
import hashlib
from pathlib import Path
from typing import Any

import pytest
from directorystorage_homes import READABLE, seen, states_of, unpack
from ZODB.FileStorage import FileStorage
from ZODB.interfaces import IStorage, IStorageIteration
from ZODB.POSException import POSKeyError, ReadOnlyError
from ZODB.utils import p64, u64
from zope.interface.verify import verifyObject

from perdure import open_directorystorage
from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats.directorystorage_names import path_of, pointer_name
from perdure.formats.directorystorage_settings import with_layout


def tids_of(told: list[dict[str, Any]]) -> list[str]:
    return [each["tid"] for each in told]


@pytest.mark.parametrize("name", READABLE)
def test_it_iterates_and_loads_as_the_real_one(tmp_path: Path, name: str) -> None:
    home, truth = unpack(name, tmp_path), seen(name)
    before = states_of(home)
    storage = open_directorystorage(home)
    told = truth.get("recovered_iter", {"transactions": []})["transactions"]
    ours = list(storage.iterator())
    by_tid = {each.tid.hex().upper(): each for each in ours}
    if name == "chunky-killed-pack":  # what the pack was about to remove is there still
        assert all(each.status == "p" for tid, each in by_tid.items() if tid not in tids_of(told))
    else:
        assert list(by_tid) == tids_of(told)
    for real in told:
        mine = by_tid[real["tid"]]
        assert mine.user.hex().upper() == real["user_hex"]
        assert mine.description.hex().upper() == real["description_hex"]
        assert mine.extension_bytes.hex().upper() == real["extension_hex"]
        records = [
            (each.oid.hex().upper(), each.data and hashlib.sha256(each.data).hexdigest())
            for each in mine
        ]
        assert records == [(each["oid"], each["sha256"]) for each in real["records"]]
    for text, known in truth.get("recovered_api", {"objects": {}})["objects"].items():
        oid = bytes.fromhex(text)
        if "sha256" not in known:
            with pytest.raises(POSKeyError):
                storage.load(oid)
            continue
        data, tid = storage.load(oid)
        assert (hashlib.sha256(data).hexdigest(), tid.hex().upper()) == (
            known["sha256"],
            known["tid"],
        )
    assert states_of(home) == before


@pytest.mark.parametrize("name", ["chunky-clean", "bushy-snapshot-live", "flat-clean-nomd5"])
def test_every_revision_can_be_loaded(tmp_path: Path, name: str) -> None:
    storage = open_directorystorage(unpack(name, tmp_path))
    versions: dict[bytes, list[tuple[bytes, bytes | None]]] = {}
    for transaction in storage.iterator():
        for record in transaction:
            versions.setdefault(record.oid, []).append((record.tid, record.data))
    for oid, revisions in versions.items():
        history = storage.history(oid, 1000)
        assert [each["tid"] for each in history] == [tid for tid, _ in reversed(revisions)]
        assert storage.loadBefore(oid, revisions[0][0]) is None
        following = [*(tid for tid, _ in revisions[1:]), None]
        for (tid, data), after in zip(revisions, following, strict=True):
            if data is None:
                with pytest.raises(POSKeyError):
                    storage.loadBefore(oid, p64(u64(tid) + 1))
                with pytest.raises(POSKeyError):
                    storage.loadSerial(oid, tid)
            else:
                assert storage.loadBefore(oid, p64(u64(tid) + 1)) == (data, tid, after)
                assert storage.loadSerial(oid, tid) == data


def test_it_iterates_over_a_part(tmp_path: Path) -> None:
    storage = open_directorystorage(unpack("chunky-clean", tmp_path))
    tids = [each.tid for each in storage.iterator()]
    assert [each.tid for each in storage.iterator(tids[7], tids[9])] == tids[7:10]
    again = open_directorystorage(tmp_path / "home")
    assert [each.tid for each in again.iterator(tids[7], tids[9])] == tids[7:10]
    assert [each.tid for each in again.iterator(tids[-1])] == tids[-1:]


def test_what_zodb_expects_of_a_storage(tmp_path: Path) -> None:
    storage = open_directorystorage(unpack("chunky-clean", tmp_path))
    verifyObject(IStorage, storage)
    verifyObject(IStorageIteration, storage)
    assert storage.isReadOnly()
    assert (
        storage.lastTransaction().hex().upper() == seen("chunky-clean")["recovered_api"]["last_tid"]
    )
    assert len(storage) == 0x13
    for refused in (
        lambda: storage.store(b"", b"", b"", "", None),
        lambda: storage.pack(0, list),
        lambda: storage.tpc_begin(None),
        storage.new_oid,
    ):
        with pytest.raises(ReadOnlyError):
            refused()
    with pytest.raises(POSKeyError):
        storage.load(p64(4711))
    with pytest.raises(POSKeyError):
        storage.history(p64(4711))
    storage.close()


def test_the_moment_stays(tmp_path: Path) -> None:
    """What is committed after it was opened is not seen: here, by looking at an older serial."""
    storage = open_directorystorage(unpack("chunky-clean", tmp_path))
    tids = [each.tid for each in storage.iterator()]
    storage._contents.serial = u64(tids[10])
    for transaction in list(storage.iterator())[5:11]:
        for record in transaction:
            found = storage._current(u64(record.oid))
            assert found is not None
            assert found.tid <= u64(tids[10])


@pytest.mark.parametrize(
    ("name", "error", "why"),
    [
        ("bushy-minimal", SourceUnusable, "class Minimal"),
        ("chunky-replica-pending", SourceUnusable, "replica.tar"),
    ],
)
def test_what_has_no_history_is_refused(
    tmp_path: Path, name: str, error: type[Exception], why: str
) -> None:
    with pytest.raises(error, match=why):
        open_directorystorage(unpack(name, tmp_path))


def test_damage_is_found(tmp_path: Path) -> None:
    storage = open_directorystorage(unpack("chunky-corrupt", tmp_path))
    with pytest.raises(SourceDamaged):
        for transaction in storage.iterator():
            list(transaction)


def test_a_pack_that_runs_is_refused(tmp_path: Path) -> None:
    """Killed in the middle it is none: its HOME can be read."""
    home = unpack("chunky-killed-pack", tmp_path)
    open_directorystorage(home)
    with open(home / "misc" / "lock", "rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(SourceUnusable, match="a pack runs"):
            open_directorystorage(home)
    open_directorystorage(home)


def test_a_pack_meanwhile_is_noticed(tmp_path: Path) -> None:
    home = unpack("chunky-packed-detailed", tmp_path)
    storage = open_directorystorage(home)
    transactions = storage.iterator()
    next(transactions)
    (home / "A" / "x" / "packed").write_bytes(b"\x04" + bytes(7))
    with pytest.raises(SourceUnusable, match="a pack runs"):
        list(transactions)


def test_a_pack_in_the_future_is_no_excuse(tmp_path: Path) -> None:
    """Else everything that is missing would pass for packed."""
    home = unpack("chunky-clean", tmp_path)
    (home / "A" / "x" / "packed").write_bytes(b"\x06" + bytes(7))
    with pytest.raises(SourceDamaged, match="tells of a pack"):
        open_directorystorage(home)


@pytest.mark.parametrize("layout", ["bushy", "lawn", "flat"])
def test_the_wrong_format_is_no_empty_storage(tmp_path: Path, layout: str) -> None:
    home = unpack("chunky-clean", tmp_path)
    settings = home / "config" / "settings"
    settings.write_bytes(with_layout(settings.read_bytes(), layout))
    with pytest.raises(SourceDamaged, match="the right format"):
        open_directorystorage(home)


def test_a_link_is_no_revision(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    path = next((home / "A").rglob("0001.04*"))
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SourceDamaged):
        for transaction in open_directorystorage(home).iterator():
            list(transaction)


def test_a_pointer_that_is_missing_is_told(tmp_path: Path) -> None:
    home = unpack("chunky-clean", tmp_path)
    (home / "A" / path_of(pointer_name(1), "chunky")).unlink()
    with pytest.raises(SourceDamaged, match="is missing"):
        for transaction in open_directorystorage(home).iterator():
            list(transaction)


def test_pointers_are_compared_with_revisions(tmp_path: Path) -> None:
    """A pointer that was rolled back, as by a careless restore; a revision that is gone."""
    home = unpack("chunky-clean", tmp_path)
    storage = open_directorystorage(home)
    [*_, first, _] = [each for each in storage.iterator() if len(each.oids) == 1]
    oid = p64(first.oids[0])
    newest = storage.history(oid)[0]["tid"]
    name = f"o{u64(oid):016X}"
    pointer = Path(storage._view.where(f"{name}.c"))
    was = pointer.read_bytes()
    pointer.write_bytes(storage.history(oid, 2)[1]["tid"])
    with pytest.raises(SourceDamaged, match="the newest revision is"):
        for transaction in open_directorystorage(home).iterator():
            list(transaction)
    pointer.write_bytes(was)
    Path(storage._view.where(f"{name}.{u64(newest):016X}")).unlink()
    with pytest.raises(SourceDamaged):
        for transaction in open_directorystorage(home).iterator():
            list(transaction)


def test_any_storage_can_copy_from_it(tmp_path: Path) -> None:
    source = open_directorystorage(unpack("chunky-clean", tmp_path))
    copy = FileStorage(str(tmp_path / "copy.fs"))
    copy.copyTransactionsFrom(source)
    copied = [(each.tid, each.user, [(r.oid, r.data) for r in each]) for each in copy.iterator()]
    copy.close()
    assert copied == [
        (each.tid, each.user, [(r.oid, r.data) for r in each]) for each in source.iterator()
    ]

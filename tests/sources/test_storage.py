"""Storages through their iterators: what comes back, what an increment costs, how packs are noticed."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from datafs import DataFs, Record, Transaction
from history_site import rebuilt_from
from hypothesis import given, settings
from hypothesis import strategies as st
from living_storage import STEPS, LivingStorage
from persistent.mapping import PersistentMapping
from storage_site import StorageSite, contents_of, copied, opened, transactions_in
from ZODB.BaseStorage import DataRecord
from ZODB.Connection import TransactionMetaData
from ZODB.utils import p64

from perdure import plan
from perdure.errors import SourceDamaged, SourceUnusable, StoreError
from perdure.history import past
from perdure.model import Tid
from perdure.sources import canonical
from perdure.sources.iterating import StorageReader
from perdure.sources.opening import translated
from perdure.sources.storage import StorageCut


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


def test_garbage_and_the_tail_are_read_again(living: LivingStorage, tmp_path: Path) -> None:
    site = StorageSite(filestorage(living.path), window=700)
    steps = (living.commit, living.large_transaction, living.commits, living.commit, living.commit)
    for step in (*steps, living.pack, living.commit):
        step()
        site.back_up()
    check(site, tmp_path)


@settings(max_examples=15)
@given(
    seed=st.integers(0, 1000),
    window=st.sampled_from([700, 5000, 1 << 20]),
    cached=st.booleans(),
    steps=st.lists(
        st.sampled_from([step for step in STEPS if step is not LivingStorage.reopen]),
        min_size=4,
        max_size=14,
    ),
)
def test_any_history(
    tmp_path_factory: pytest.TempPathFactory,
    seed: int,
    window: int,
    cached: bool,
    steps: list[Callable[[LivingStorage], None]],
) -> None:
    folder = tmp_path_factory.mktemp("any")
    living = LivingStorage(folder, seed)
    site = StorageSite(filestorage(living.path), window, folder / "cache" if cached else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(past, "SEGMENT_SIZE", window)
        for number, step in enumerate(steps):
            step(living)
            if number % 2:
                site.back_up()
        site.back_up()
    check(site, folder)
    living.close()
    site.repository.close()


class Bare:
    """A storage of other storages' transactions, that can less than they."""

    def __init__(self, transactions: list[Any], status: str = " ") -> None:
        self.transactions, self.status = transactions, status

    def lastTransaction(self) -> bytes:
        return max((t.tid for t in self.transactions), default=bytes(8))

    def iterator(self) -> Iterator[Any]:
        return iter(self.transactions)


class Plain:
    """A transaction with the least that a storage may give."""

    def __init__(self, tid: int, records: dict[int, bytes], **texts: Any) -> None:
        self.tid, self.status = p64(tid), " "
        self.user, self.description = texts.get("user", ""), texts.get("description", "")
        self.extension = texts.get("extension", {})
        self._records = records

    def __iter__(self) -> Iterator[Any]:
        for oid, data in self._records.items():
            yield DataRecord(p64(oid), self.tid, data, None)


def cut_of(storage: Any, window: int = 1 << 20) -> StorageCut:
    return StorageCut(StorageReader(storage, "bare", nullcontext), "bare", window)


def bytes_of(cut: StorageCut) -> bytes:
    return b"".join(bytes(extent.data) for extent in cut.extents(0))


class TestCanonical:
    """Storages that give less, or other things, than a FileStorage would."""

    @pytest.mark.parametrize("window", [100, 1 << 20])
    def test_an_iterator_that_begins_at_the_beginning(self, window: int) -> None:
        made = [
            Plain(1000, {0: b"root", 1: b"one"}, user="Jürgen", description="made"),
            Plain(2000, {1: b"two"}, extension={"portal": "plone"}),
            Plain(3000, {}),
            Plain(4000, {2: b"new", 1: None}),  # type: ignore[dict-item]
        ]
        cut = cut_of(Bare(made), window)
        data = bytes_of(cut)
        expected = DataFs()
        expected.add(
            Transaction(
                [Record(0, b"root"), Record(1, b"one")],
                1000,
                user="Jürgen".encode(),
                description=b"made",
            )
        )
        extension = TransactionMetaData(extension={"portal": "plone"}).extension_bytes
        expected.add(Transaction([Record(1, b"two", expected.at[1])], 2000, extension=extension))
        expected.add(Transaction([], 3000))
        expected.add(Transaction([Record(2, b"new"), Record(1, 0, expected.at[2])], 4000))
        assert data == expected.data
        assert cut.position(None).storage is not None

    def test_nothing_at_all(self) -> None:
        cut = cut_of(Bare([]))
        assert bytes_of(cut) == b"FS30"
        told = cut.position(None).storage
        assert told is not None
        assert (told.size, told.first, told.last) == (4, None, Tid(0))

    def test_tids_must_rise(self) -> None:
        cut = cut_of(Bare([Plain(1000, {0: b"a"}), Plain(3000, {}), Plain(2000, {})]))
        with pytest.raises(SourceDamaged, match="tids must rise") as error:
            bytes_of(cut)
        assert f"{Tid(2000)}" in str(error.value)

    def test_long_texts(self) -> None:
        cut = cut_of(Bare([Plain(1000, {}, description="ü" * 40_000)]))
        (header,) = transactions_in(bytes_of(cut))
        assert header.description_length == 65_534
        with pytest.raises(SourceDamaged, match="extension"):
            bytes_of(cut_of(Bare([Plain(1000, {}, extension={"x": "y" * 70_000})])))

    def test_without_an_iterator(self) -> None:
        with pytest.raises(SourceUnusable, match="no iterator"):
            cut_of(object())

    def test_what_a_driver_raises_is_translated(self, tmp_path: Path) -> None:
        class Broken(Bare):
            def iterator(self) -> Iterator[Any]:
                yield self.transactions[0]
                raise RuntimeError("the password is geheim")

        def guard() -> Any:
            return translated("<x>\n password geheim\n</x>", "cannot be read")

        reader = StorageReader(Broken([Plain(1000, {})]), "x", guard)
        with pytest.raises(SourceUnusable, match=r"RuntimeError: the password is \*\*\*"):
            bytes_of(StorageCut(reader, "x"))

    def test_one_transaction_larger_than_the_window(self) -> None:
        made = [Plain(1000 * n, {n * 10 + i: b"%d" % i * 400 for i in range(9)}) for n in (1, 2, 3)]
        assert bytes_of(cut_of(Bare(made), 700)) == bytes_of(cut_of(Bare(made)))

    def test_more_objects_than_are_kept_at_hand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        made = [Plain(1000 * n, dict.fromkeys(range(50), b"%d" % n)) for n in range(1, 9)]
        expected = bytes_of(cut_of(Bare(made)))
        monkeypatch.setattr(canonical, "_MANY", 10)
        assert bytes_of(cut_of(Bare(made))) == expected

    def test_a_full_disk(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*_: object) -> int:
            raise OSError(errno.ENOSPC, "No space left on device")

        cut = cut_of(Bare([Plain(1000, {0: b"a"})]))
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(StoreError, match=r"temporary folder .* No space left"):
            bytes_of(cut)


class TestWithoutHistory:
    """A history-free RelStorage; SQLite is a part of Python."""

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        pytest.importorskip("relstorage", reason="RelStorage is not installed")
        return tmp_path / "one"

    def zconfig(self, folder: Path) -> str:
        return (
            "%import relstorage\n<relstorage>\n keep-history false\n cache-local-mb 1\n"
            f" <sqlite3>\n  data-dir {folder}\n </sqlite3>\n</relstorage>\n"
        )

    def commit(self, folder: Path, *keys: str, size: int = 100) -> None:
        with opened(self.zconfig(folder)) as storage:
            db: Any = ZODB.DB(storage)
            manager = transaction.TransactionManager()
            root = db.open(manager).root()
            for key in keys:
                root.setdefault(key, PersistentMapping())["text"] = os.urandom(size).hex()
            manager.commit()
            db.close()

    def check(self, site: StorageSite, folder: Path, tmp_path: Path) -> None:
        contents = site.contents(tmp_path)
        newest = {oid: data[-1] for tid in sorted(contents) for oid, data in contents[tid].items()}
        with opened(self.zconfig(folder)) as storage:
            for records in contents_of(storage).values():
                assert all(newest[oid] == data[-1] for oid, data in records.items())

    def test_it_is_appended_to(self, folder: Path, tmp_path: Path) -> None:
        self.commit(folder, *map(str, range(30)))
        site = StorageSite(self.zconfig(folder))
        assert site.back_up().method == "full"
        sizes = []
        for number in range(4):
            self.commit(folder, str(number), "5")
            report = site.back_up()
            assert (report.method, report.transactions_new) == ("increment", 1)
            sizes.append(report.size)
            self.check(site, folder, tmp_path)
        assert sizes == sorted(sizes)
        assert site.back_up().method == "nothing"
        assert site.found().record.last_packed == site.found().record.cut

    def test_it_is_stored_anew_when_most_is_garbage(
        self, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(plan, "SEGMENT_SIZE", 1000)
        self.commit(folder, *map(str, range(10)))
        site = StorageSite(self.zconfig(folder))
        first = site.back_up().size
        methods = []
        for _ in range(5):
            self.commit(folder, *map(str, range(10)))
            report = site.back_up()
            methods.append(report.method)
            assert report.size < 3 * first
            self.check(site, folder, tmp_path)
        assert "full" in methods
        assert "increment" in methods

    def test_it_is_compared_when_asked(self, folder: Path, tmp_path: Path) -> None:
        self.commit(folder, *map(str, range(10)))
        site = StorageSite(self.zconfig(folder))
        first = site.back_up()
        self.commit(folder, "1")
        grown = site.back_up().size
        report = site.back_up(verify_source=True)
        assert (report.method, report.bytes_new) == ("compare", 0)
        assert first.size <= report.size < grown
        self.check(site, folder, tmp_path)
        assert site.back_up().method == "nothing"

    def test_an_older_state_is_noticed(self, folder: Path, tmp_path: Path) -> None:
        self.commit(folder, *map(str, range(10)))
        copy = tmp_path / "two"
        shutil.copytree(folder, copy)
        self.commit(folder, "1", "2")
        site = StorageSite(self.zconfig(folder))
        site.back_up()
        site.zconfig = self.zconfig(copy)
        assert site.back_up().method == "compare"
        self.check(site, copy, tmp_path)
        site.zconfig = self.zconfig(folder)
        self.commit(copy, "3")
        assert site.back_up().transactions_new
        site.zconfig = self.zconfig(copy)
        assert site.back_up().method == "compare"
        self.check(site, copy, tmp_path)


def test_another_storage_is_noticed(
    site: StorageSite, living: LivingStorage, tmp_path: Path
) -> None:
    living.commits()
    site.back_up()
    (tmp_path / "other").mkdir()
    other = LivingStorage(tmp_path / "other", 2)
    other.commits()
    other.close()
    site.zconfig = filestorage(other.path)
    assert site.back_up().method == "compare"
    check(site, tmp_path)


def test_a_storage_cut_back_is_noticed(
    site: StorageSite, living: LivingStorage, tmp_path: Path
) -> None:
    for _ in range(3):
        living.commits()
    site.back_up()
    living.truncate()
    living.commit()
    assert site.back_up().method == "compare"
    check(site, tmp_path)


def test_a_change_in_place_is_found_when_verified(
    site: StorageSite, living: LivingStorage, tmp_path: Path
) -> None:
    for _ in range(10):
        living.commits()
    site.back_up()
    living.close()
    data = living.data
    middle = data.index(b"text", len(data) // 2) + 8
    living.path.write_bytes(data[:middle] + b"?" + data[middle + 1 :])
    assert site.back_up().method == "nothing"
    assert site.back_up(verify_source=True).method == "compare"
    assert any("has changed since the last snapshot" in warning for warning in site.warnings)
    living.reopen()
    check(site, tmp_path)


def test_a_demostorage(living: LivingStorage, tmp_path: Path) -> None:
    living.commits()
    changes = tmp_path / "changes.fs"
    base = filestorage(living.path).replace("<filestorage", "<filestorage base")
    top = filestorage(changes).replace("<filestorage", "<filestorage changes")
    site = StorageSite(f"<demostorage>\n{base}{top}</demostorage>\n")
    living.close()
    site.back_up()
    with opened(site.zconfig) as storage:
        assert site.contents(tmp_path) == contents_of(storage)
    living.reopen()

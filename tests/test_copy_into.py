"""A restored FileStorage copied into another storage: whole, resumed, and refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import transaction
import ZODB
from living_storage import LivingStorage
from storage_site import contents_of, opened
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

from perdure.copy_into import copy_into
from perdure.errors import SourceUnusable, UsageError
from perdure.formats.extent import scan
from perdure.model import SilentObserver, Tid
from perdure.sources.blobs import BlobDirectory


def filestorage(path: Path, blobs: Path | None = None) -> str:
    extra = f" blob-dir {blobs}\n" if blobs else ""
    return f"<filestorage>\n path {path}\n{extra}</filestorage>\n"


@pytest.fixture
def living(tmp_path: Path) -> Iterator[LivingStorage]:
    made = LivingStorage(tmp_path, 3)
    for step in (made.commits, made.undo, made.undo_creation, made.metadata, made.commits):
        step()
    yield made
    made.close()


@pytest.fixture
def target(tmp_path: Path) -> str:
    return filestorage(tmp_path / "target.fs")


def test_all_of_it(living: LivingStorage, target: str) -> None:
    report = copy_into(living.path, None, target, SilentObserver())
    headers = scan(living.data, 0, where="").headers
    assert (report.copied, report.already_there) == (len(headers), 0)
    assert report.cut == Tid(headers[-1].tid)
    with opened(target) as storage:
        assert contents_of(storage) == contents_of(living.storage)
        for copy, original in zip(storage.iterator(), living.storage.iterator(), strict=True):
            for name in ("tid", "status", "user", "description", "extension_bytes"):
                assert getattr(copy, name) == getattr(original, name)


def test_it_goes_on_where_it_stopped(living: LivingStorage, target: str) -> None:
    headers = scan(living.data, 0, where="").headers
    middle = Tid(headers[5].tid)
    assert copy_into(living.path, None, target, SilentObserver(), until=middle).copied == 6
    report = copy_into(living.path, None, target, SilentObserver())
    assert (report.copied, report.already_there) == (len(headers) - 6, 6)
    again = copy_into(living.path, None, target, SilentObserver())
    assert (again.copied, again.already_there, again.cut) == (0, len(headers), report.cut)
    with opened(target) as storage:
        assert contents_of(storage) == contents_of(living.storage)


def test_another_storage_is_refused(living: LivingStorage, target: str, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = LivingStorage(tmp_path / "other", 4)
    other.commits()
    other.close()
    for wrong in (filestorage(other.path), target):
        if wrong is target:
            copy_into(living.path, None, target, SilentObserver())
            living.truncate()
        with opened(wrong) as storage:
            before = contents_of(storage)
        with pytest.raises(UsageError, match="is not empty") as error:
            copy_into(living.path, None, wrong, SilentObserver())
        assert error.value.hint
        with opened(wrong) as storage:
            assert contents_of(storage) == before


def test_a_storage_that_cannot_restore(living: LivingStorage) -> None:
    with pytest.raises(UsageError, match="no restore"):
        copy_into(living.path, None, "<mappingstorage>\n</mappingstorage>\n", SilentObserver())
    with pytest.raises(SourceUnusable, match="configuration"):
        copy_into(living.path, None, "<nonsense>\n</nonsense>\n", SilentObserver())


def test_blobs(tmp_path: Path) -> None:
    source, blobs = tmp_path / "blobs.fs", tmp_path / "blobs"
    db: Any = ZODB.DB(FileStorage(str(source), blob_dir=str(blobs)))
    manager = transaction.TransactionManager()
    root = db.open(manager).root()
    for number in range(3):
        root[f"blob{number}"] = Blob(b"content %d" % number)
        manager.commit()
    db.close()
    target = filestorage(tmp_path / "target.fs", tmp_path / "target-blobs")
    missing = copy_into(source, None, filestorage(tmp_path / "bare.fs"), SilentObserver())
    assert missing.blobs_missing == 3
    report = copy_into(source, BlobDirectory(blobs), target, SilentObserver())
    assert report.blobs_missing == 0
    with opened(target) as storage:
        copy: Any = ZODB.DB(storage)
        root = copy.open().root()
        for number in range(3):
            with root[f"blob{number}"].open() as file:
                assert file.read() == b"content %d" % number
        copy.close()

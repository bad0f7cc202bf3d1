"""Defects of whole sites that a review found; each test fails until its defect is gone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blob_storage import BlobStorage
from command_line import Program
from ZODB.fsIndex import fsIndex


@pytest.fixture
def site(tmp_path: Path) -> BlobStorage:
    storage = BlobStorage(tmp_path / "site")
    storage.commit("one")
    storage.commit("two")
    storage.close()
    return storage


def arguments(site: BlobStorage) -> tuple[str, ...]:
    return ("--filestorage", str(site.path), "--blobs", str(site.blobs))


def blob_files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.blob"))


def test_a_blob_that_the_snapshot_lacks_is_not_removed(
    program: Program, repository: Path, site: BlobStorage, tmp_path: Path
) -> None:
    away, place = tmp_path / "away", blob_files(site.blobs)[0]
    os.rename(place, away)
    program("backup", *arguments(site), code=3)
    os.rename(away, place)
    program("restore", "--in-place", "--yes")
    assert place.exists()


def test_blobs_are_restored_from_a_snapshot_made_without_their_directory(
    program: Program, repository: Path, site: BlobStorage, tmp_path: Path
) -> None:
    program("backup", *arguments(site))
    program("backup", "--filestorage", str(site.path))
    program("restore", "--to", str(tmp_path / "out"))
    assert len(blob_files(tmp_path / "out")) == 2


def test_a_wrong_index_is_replaced(program: Program, repository: Path, site: BlobStorage) -> None:
    program("backup", *arguments(site))
    index = site.path.with_name("Data.fs.index")
    loaded = fsIndex.load(str(index))
    right = dict(loaded["index"].items())
    first, second = list(right)[:2]
    loaded["index"][first], loaded["index"][second] = right[second], right[first]
    loaded["index"].save(loaded["pos"], str(index))
    program("restore", "--in-place", "--yes")
    assert dict(fsIndex.load(str(index))["index"].items()) == right


def test_a_database_in_a_folder_that_is_a_symbolic_link_target_is_restored_in_place(
    program: Program, repository: Path, site: BlobStorage, tmp_path: Path
) -> None:
    real = tmp_path / "disk.fs"
    os.rename(site.path, real)
    site.path.symlink_to(real)
    program("backup", *arguments(site))
    program("restore", "--in-place", "--yes")
    assert site.path.is_symlink()


def test_blobs_of_another_database_below_the_blob_directory_stay(
    program: Program, repository: Path, site: BlobStorage, tmp_path: Path
) -> None:
    other = site.blobs / "other" / "0x00" / "0x0123456789abcdef.blob"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"of another database")
    program("backup", *arguments(site))
    program("restore", "--in-place", "--yes")
    assert other.exists()


def test_encrypted_blobs_are_stored_once_their_directory_is_known(
    program: Program, repository: Path, tmp_path: Path
) -> None:
    import transaction
    from ZODB.blob import Blob
    from ZODB.DB import DB
    from ZODB.FileStorage import FileStorage

    class Encrypting(FileStorage):  # type: ignore[misc]
        def store(self, oid: bytes, serial: bytes, data: bytes, *rest: object) -> object:
            return super().store(oid, serial, b".e" + data, *rest)

        def load(self, oid: bytes, version: str = "") -> tuple[bytes, bytes]:
            data, tid = super().load(oid, version)
            return data[2:], tid

        def loadBefore(self, oid: bytes, tid: bytes) -> object:
            found = super().loadBefore(oid, tid)
            return found and (found[0][2:], *found[1:])

    path, blobs = tmp_path / "Data.fs", tmp_path / "blobs"
    database = DB(Encrypting(str(path), blob_dir=str(blobs)))
    connection = database.open()
    connection.root()["one"] = Blob(b"content")
    transaction.commit()
    connection.close()
    database.close()
    program("backup", "--filestorage", str(path))
    given = ("--filestorage", str(path), "--blobs", str(blobs))
    summary = program("backup", *given, "--json").summary
    assert summary["sources"][0]["blobs"]["count"] == 1

"""Whole sites at the edges: odd places, what is there already, what the snapshot lacks."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from blob_storage import BlobStorage
from command_line import Program, commit
from doubles import Restic
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


def let_restic_in(program: Program, folder: Path) -> None:
    """Add the password that the fixture of restic uses."""
    (folder / "password").write_text("secret")
    (folder / "password").chmod(0o600)
    program("key", "add", "--new-password-from", str(folder / "password"))


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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files to others")
def test_root_gives_what_it_restores_to_the_owner_of_the_folder(
    program: Program, repository: Path, site: BlobStorage
) -> None:
    program("backup", *arguments(site))
    for path in (site.path.parent, *site.path.parent.rglob("*")):
        os.chown(path, 65534, 65534)
    site.path.unlink()
    shutil.rmtree(site.blobs)
    program("restore", "--in-place", "--yes")
    owners = {path: path.stat().st_uid for path in site.path.parent.rglob("*")}
    assert set(owners.values()) == {65534}, owners
    assert len(blob_files(site.blobs)) == 2


def test_a_repository_shared_with_restic(
    program: Program, repository: Path, site: BlobStorage, tmp_path: Path, restic: Restic
) -> None:
    """The latest is the latest of the site, whatever restic has backed up since."""
    program("backup", *arguments(site))
    (tmp_path / "files").mkdir()
    (tmp_path / "files/a").write_text("restic's")
    let_restic_in(program, tmp_path)
    restic(repository, "backup", str(tmp_path / "files"))
    program("restore", "--to", str(tmp_path / "out"))
    assert (tmp_path / "out/Data.fs").read_bytes() == site.data
    assert "tid" in program("log").out
    program("restore", "--in-place", "--yes")


def test_what_becomes_of_one_name_for_two_databases(
    program: Program, repository: Path, site: BlobStorage, tmp_path: Path
) -> None:
    program("backup", *arguments(site), "--host", "one")
    for path in (site.path, site.path.with_name("Data.fs.index")):
        path.unlink()
    commit(site.path, 3)
    done = program("backup", "--filestorage", str(site.path), "--host", "two", "--no-blobs")
    assert "of host one" in done.err
    assert "--source" in done.err


def test_assembled_with_its_blobs(
    program: Program, repository: Path, site: BlobStorage, tmp_path: Path, restic: Restic
) -> None:
    """restic and assemble are a complete way out."""
    program("backup", *arguments(site))
    let_restic_in(program, tmp_path)
    restic(repository, "restore", "latest", "--target", str(tmp_path / "files"))
    history, blobs = tmp_path / "files/Data.fs.history", tmp_path / "files/Data.fs.blobs"
    target = tmp_path / "out"
    place = ("--blobs", str(blobs), str(target / "blobs"))
    program("assemble", str(history), str(target / "Data.fs"), *place)
    assert (target / "Data.fs").read_bytes() == site.data
    assert {path.name: path.read_bytes() for path in blob_files(target)} == {
        path.name: path.read_bytes() for path in blob_files(site.blobs)
    }
    assert (target / "blobs/.layout").read_text() == "bushy"

"""What a snapshot holds, listed and read: the same files that a restore gives."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blob_storage import BlobStorage
from datafs import DataFs, Record, Transaction, simple
from history_site import back_up, transactions_in
from small_repository import Site
from ZODB.FileStorage import FileStorage

from perdure.backup import BackupRequest, backup
from perdure.contents import FOLDER, Contents, contents_of
from perdure.dump import dump_to_file
from perdure.errors import DamageFound, StoreError, UsageError
from perdure.formats.blobs import BUSHY, LAWN
from perdure.model import SilentObserver, Tid
from perdure.repository.checking import check_repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.sources.filestorage import FileStorageSource


@pytest.fixture(autouse=True)
def whole_repository(site: Site) -> Iterator[None]:
    """Every repository that a test wrote is whole."""
    yield
    assert not check_repository(site.repository, SilentObserver(), read_data=True).damaged


def contents(site: Site, wanted: Wanted = Wanted(), *, stored: bool = False) -> Contents:  # noqa: B008
    return contents_of(site.repository, wanted, stored=stored)


def read(site: Site, path: str, wanted: Wanted = Wanted(), *, stored: bool = False) -> bytes:  # noqa: B008
    return b"".join(contents(site, wanted, stored=stored).read(path, SilentObserver()))


def files_in(folder: Path) -> dict[str, bytes]:
    """The files that a restore made, but for those that ZODB's formats say can be made anew."""
    found = {}
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place, name)
            if not name.endswith((".index", ".lock")) and name != ".layout":
                found[str(path.relative_to(folder))] = path.read_bytes()
    return found


@pytest.mark.parametrize("layout", [BUSHY, LAWN])
def test_the_files_are_those_that_a_restore_gives(site: Site, tmp_path: Path, layout: str) -> None:
    storage = BlobStorage(tmp_path / "site", layout, seed=3)
    for _ in range(20):
        storage.step()
    storage.close()
    back_up(site.repository, storage.path, blobs=storage.blobs)
    middle = Tid(transactions_in(storage.data)[-5].tid)
    for wanted in (Wanted(), Wanted(at=middle)):
        target = tmp_path / f"restored-{wanted.at}"
        request = RestoreRequest(target, wanted)
        restore(site.repository, request, SilentObserver())
        expected = files_in(target)
        listed = {e.path: e for e in contents(site, wanted).list("", recursive=True)}
        assert {path: each.size for path, each in listed.items()} == {
            path: len(data) for path, data in expected.items()
        }
        for path, data in expected.items():
            assert read(site, path, wanted) == data


def test_folders(site: Site, tmp_path: Path) -> None:
    storage = BlobStorage(tmp_path / "site")
    storage.commit("one", "two")
    storage.close()
    back_up(site.repository, storage.path, blobs=storage.blobs)
    held = contents(site)
    top = list(held.list("", recursive=False))
    assert [(each.path, each.kind) for each in top] == [("Data.fs", "file"), ("blobs", FOLDER)]
    path = "blobs"
    for _ in range(8):
        [*_, folder] = list(held.list(path, recursive=False))
        assert folder.kind == FOLDER
        path = folder.path
    [file] = held.list(path, recursive=False)
    assert list(held.list(file.path, recursive=False)) == [file]
    assert read(site, file.path) == (tmp_path / "site" / file.path).read_bytes()
    assert [each.path for each in held.list("Data.fs", recursive=False)] == ["Data.fs"]
    for wrong in ("blobs", "", "blobs/0x00"):
        with pytest.raises(UsageError, match="is a folder"):
            read(site, wrong)
    for wrong in ("nothing", "blobs/0x00/nothing", "Data.fs/x"):
        with pytest.raises(UsageError, match="there is no"):
            read(site, wrong)
        with pytest.raises(UsageError, match="there is no"):
            list(held.list(wrong, recursive=False))


def test_several_databases(site: Site, tmp_path: Path) -> None:
    sources = []
    for name in ("main", "catalog"):
        path = tmp_path / f"{name}-site" / "Data.fs"
        path.parent.mkdir()
        path.write_bytes(simple(3, size=40 if name == "main" else 80).data)
        sources.append(FileStorageSource(path, name, database=name))
    with site.repository.lock() as lock:
        request = BackupRequest("www1", "plone")
        backup(site.repository, lock, sources, request, site.clock, SilentObserver())
    paths = [each.path for each in contents(site).list("", recursive=True)]
    assert paths == ["main/Data.fs", "catalog/Data.fs"]
    assert [e.path for e in contents(site).list("", recursive=False)] == ["main", "catalog"]
    assert read(site, "main/Data.fs") == simple(3).data
    assert read(site, "Data.fs", Wanted(source="catalog")) == simple(3, size=80).data
    with pytest.raises(UsageError, match="there are 2 files"):
        read(site, "Data.fs")


def test_what_is_stored(site: Site, tmp_path: Path) -> None:
    path = tmp_path / "Data.fs"
    path.write_bytes(simple().data)
    back_up(site.repository, path)
    names = [each.path for each in contents(site, stored=True).list("", recursive=True)]
    assert {"main.history", "main.history/layouts", "perdure.json"} <= set(names) or any(
        name.endswith(".history/layouts") for name in names
    )
    assert b'"perdure":1' in read(site, "perdure.json", stored=True)
    layout = next(name for name in names if name.endswith(".layout"))
    assert read(site, layout, stored=True).startswith(b"Perdure\nlayo")
    with pytest.raises(UsageError, match="is a folder"):
        read(site, layout.partition("/")[0], stored=True)
    with pytest.raises(UsageError, match="leave --at"):
        contents(site, Wanted(source="main"), stored=True)


def test_a_snapshot_of_another_program(site: Site) -> None:
    name = site.backup({"file": [b"con", b"tent"], "other": []})
    held = contents(site, Wanted(name))
    assert [each.path for each in held.list("", recursive=True)] == [
        "folder",
        "folder/file",
        "folder/other",
    ]
    assert read(site, "folder/file", Wanted(name)) == b"content"
    assert read(site, "folder/other", Wanted(name)) == b""
    with pytest.raises(UsageError, match="there is no"):
        read(site, "folder/file/deeper", Wanted(name))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("window", [600, 4000, 1 << 20])
def test_a_stream_is_the_file_at_every_moment(
    site: Site, tmp_path: Path, seed: int, window: int
) -> None:
    """With undo, redo and packs: what is referred to lies in earlier ranges."""
    storage = BlobStorage(tmp_path / "site", seed=seed)
    storage.commit("blob1", "blob2")
    for number in range(30):
        storage.step()
        if number % 10 == 9:
            back_up(site.repository, storage.path, blobs=storage.blobs, window=window)
    storage.close()
    back_up(site.repository, storage.path, blobs=storage.blobs, window=window)
    data = storage.data
    headers = transactions_in(data)
    assert read(site, "Data.fs") == data
    for header in headers[:: max(len(headers) // 6, 1)]:
        if header.status != b"p":
            cut = read(site, "Data.fs", Wanted(at=Tid(header.tid)))
            assert cut == data[: header.end]


@pytest.mark.parametrize("window", [150, 1 << 20])
def test_a_stream_of_odd_files(site: Site, tmp_path: Path, window: int) -> None:
    """Verbatim ranges, references into them, pointers that lead to other places than they should."""
    file = DataFs()
    file.add(Transaction([Record(0, b"a" * 50), Record(1, b"b" * 20, version=b"v")], tid=5000))
    file.add(Transaction([Record(0, b"c" * 30, prev=file.at[0])], tid=4000))
    file.add(Transaction([Record(0, file.at[0], prev=file.at[2])], tid=6000))
    file.add(Transaction([Record(0, file.at[2], prev=file.at[0])], tid=7000))
    file.add(Transaction([Record(n, b"d" * 60, prev=0) for n in range(9)], tid=8000))
    file.add(Transaction([Record(n, file.at[n + 5], prev=17) for n in range(5)], tid=9000))
    path = tmp_path / "Data.fs"
    path.write_bytes(file.data)
    back_up(site.repository, path, window=window)
    assert read(site, "Data.fs") == file.data


def test_a_dump_into_a_file(tmp_path: Path) -> None:
    target = tmp_path / "out"
    assert dump_to_file([b"one", b"two"], target, force=False) == 6
    with pytest.raises(UsageError, match="exists"):
        dump_to_file([b""], target, force=False)
    with pytest.raises(UsageError, match="folder"):
        dump_to_file([b""], tmp_path, force=True)

    def damaged() -> Iterator[bytes]:
        yield b"begins"
        raise DamageFound("here")

    with pytest.raises(DamageFound):
        dump_to_file(damaged(), target, force=True)
    assert target.read_bytes() == b"onetwo"
    assert dump_to_file([b"new"], target, force=True) == 3
    assert target.read_bytes() == b"new"
    with pytest.raises(StoreError, match="cannot be written"):
        dump_to_file([b""], tmp_path / "no folder" / "out", force=False)
    assert [each.name for each in tmp_path.iterdir()] == ["out"]


def test_an_empty_database(site: Site, tmp_path: Path) -> None:
    FileStorage(str(tmp_path / "Data.fs")).close()
    back_up(site.repository, tmp_path / "Data.fs")
    assert read(site, "Data.fs") == b"FS30"

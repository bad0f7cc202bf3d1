"""A history as a directory of ordinary files, without any repository."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from datafs import simple
from history_site import HistorySite
from living_storage import LivingStorage

from perdure.assemble import assemble
from perdure.errors import DamageFound, SourceUnusable, UsageError
from perdure.history.folders import Folder
from perdure.model import ChunkKind, SilentObserver, Tid
from perdure.repository import Repository
from perdure.snapshots import root_of

MakeSite = Callable[[int], HistorySite]


def extract(repository: Repository, folder: Folder, target: Path) -> None:
    """Write a folder of a snapshot out, as restic does."""
    target.mkdir()
    for name in folder.files():
        chunks = folder.file(name).chunks
        data = b"".join(repository.load(ChunkKind.DATA, chunk) for chunk in chunks)
        (target / name).write_bytes(data)
    for inner in folder.folders():
        extract(repository, inner, target / inner.path.name)


@pytest.fixture
def history(history_site: MakeSite, tmp_path: Path) -> Path:
    """The history of ten transactions in several segments."""
    site, path = history_site(300), tmp_path / "Data.fs"
    path.write_bytes(simple(10).data)
    site.back_up(path)
    extract(site.repository, root_of(site.repository, site.newest().snapshot), tmp_path / "files")
    return tmp_path / "files/Data.fs.history"


def put_together(history: Path, at: Tid | None = None) -> bytes:
    output = history.with_name("out.fs")
    assemble(history, output, at=at, force=True, observer=SilentObserver())
    return output.read_bytes()


def test_the_whole_file(history: Path) -> None:
    assert put_together(history) == simple(10).data


def test_every_moment(history: Path) -> None:
    made = simple(10)
    for tid, end in zip(made.tids, made.ends, strict=True):
        assert put_together(history, Tid(tid)) == made.data[:end]


def test_a_real_storage_after_packs(history_site: MakeSite, tmp_path: Path) -> None:
    site, storage = history_site(4000), LivingStorage(tmp_path, 3)
    for _ in range(3):
        storage.commits()
        site.back_up(storage.path)
        storage.pack()
        storage.undo_creation()
        site.back_up(storage.path)
    storage.close()
    extract(site.repository, site.newest().history.folder, tmp_path / "Data.fs.history")
    assert put_together(tmp_path / "Data.fs.history") == storage.data


def test_not_over_a_file_that_is_there(history: Path) -> None:
    output = history.with_name("out.fs")
    output.write_bytes(b"precious")
    with pytest.raises(UsageError, match="exists"):
        assemble(history, output, at=None, force=False, observer=SilentObserver())
    assert output.read_bytes() == b"precious"


def test_no_history(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(SourceUnusable, match="is not the directory of a history"):
            put_together(path)


def files_of(history: Path) -> list[Path]:
    return sorted(path for path in history.rglob("*") if path.is_file())


def test_a_file_that_is_missing_is_named(history: Path) -> None:
    files = files_of(history)
    for path in files:
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(DamageFound, match="missing"):
            put_together(history)
        path.write_bytes(data)
    assert put_together(history) == simple(10).data


def test_damage_in_any_file_is_found(history: Path) -> None:
    for path in files_of(history):
        data = path.read_bytes()
        for place in range(0, len(data), max(1, len(data) // 8)):
            path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
            output = history.with_name("out.fs")
            output.unlink(missing_ok=True)
            try:
                assert put_together(history) == simple(10).data
            except DamageFound:
                assert not output.exists()
        for end in (0, len(data) // 2, len(data) - 1):
            path.write_bytes(data[:end])
            history.with_name("out.fs").unlink(missing_ok=True)  # what is there already is used
            with pytest.raises(DamageFound):
                put_together(history)
        path.write_bytes(data)


def test_a_name_that_leads_elsewhere(history: Path) -> None:
    layout = files_of(history)[0]
    os.rename(layout, layout.with_name("x.layout"))
    with pytest.raises(DamageFound, match="is not the name of a layout"):
        put_together(history)

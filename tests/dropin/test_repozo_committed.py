"""What is read of a source while a server writes to it."""

from __future__ import annotations

from pathlib import Path

import pytest
from datafs import DataFs, Record, Transaction

from perdure.dropin.repozo import committed as module
from perdure.dropin.repozo.committed import committed
from perdure.errors import SourceDamaged
from perdure.formats.filestorage import TransactionHeader
from perdure.formats.newest import Newest
from perdure.sources.filestorage import FileStorageCut, FileStorageSource

STATUS = 16
"""Offset of a transaction's status."""


def database() -> tuple[bytes, list[int]]:
    """A Data.fs, and where its transactions end."""
    made, ends = DataFs(), []
    for number in range(4):
        made.add(Transaction([Record(number, b"x" * 30), Record(9, b"y" * 30)]))
        ends.append(len(made.data))
    return made.data, ends


@pytest.fixture(params=[1 << 20, 101, 7])
def chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    size: int = request.param
    monkeypatch.setattr(module, "CHUNK", size)
    return size


def read(path: Path, start: int = 0, end: int | None = None) -> tuple[bytes, dict[int, int]]:
    newest = Newest()
    with FileStorageSource(path, without_blobs=True).cut() as cut:
        data = b"".join(committed(cut, start, newest, end))
    return data, dict(newest.items())


@pytest.mark.usefixtures("chunk")
class TestCommitted:
    def test_it_is_all_that_is_whole(self, tmp_path: Path) -> None:
        data, ends = database()
        path = tmp_path / "Data.fs"
        for size in (*range(4, len(data), 7), len(data)):
            path.write_bytes(data[:size])
            whole = max([4, *(end for end in ends if end <= size)])
            assert read(path)[0] == data[:whole]

    def test_it_begins_and_ends_where_it_should(self, tmp_path: Path) -> None:
        data, ends = database()
        path = tmp_path / "Data.fs"
        path.write_bytes(data)
        found, newest = read(path, ends[0], ends[2])
        assert found == data[ends[0] : ends[2]]
        assert sorted(newest) == [1, 2, 9]

    def test_a_transaction_that_is_finished_meanwhile_counts(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        data, ends = database()
        path = tmp_path / "Data.fs"
        voted = bytearray(data)
        voted[ends[1] + STATUS] = ord("c")
        path.write_bytes(voted)
        look = FileStorageCut.look

        def finish(cut: FileStorageCut, position: int) -> TransactionHeader | None:
            path.write_bytes(data)
            return look(cut, position)

        monkeypatch.setattr(FileStorageCut, "look", finish)
        found, newest = read(path)
        assert found == data
        assert sorted(newest) == [0, 1, 2, 3, 9]

    def test_a_file_that_becomes_shorter_is_damage(self, tmp_path: Path) -> None:
        data, ends = database()
        path = tmp_path / "Data.fs"
        path.write_bytes(data)
        with FileStorageSource(path, without_blobs=True).cut() as cut:
            path.write_bytes(data[: ends[1] + 40])
            with pytest.raises(SourceDamaged):
                list(committed(cut, 0, Newest()))

"""A Data.fs that is not as it should be: what is said of it, and what is read all the same."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from datafs import DataFs, Record, Transaction, simple
from doubles import Clock
from history_site import HistorySite, back_up, rebuilt_from
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.errors import SourceDamaged, SourceUnusable
from perdure.model import SilentObserver, Tid
from perdure.sources import filestorage
from perdure.sources.filestorage import FileStorageCut, FileStorageSource, detached_writers

WINDOWS = [100, 1 << 20]


def read(path: Path, window: int = 1 << 20) -> int:
    """Read a file as a backup does; gives the position behind the last committed transaction."""
    end = 0
    with FileStorageSource(path, window=window).cut() as cut:
        for extent in cut.extents(0):
            end = extent.end
    return end


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "Data.fs"


class TestUnusable:
    """Exit code 14: there is nothing to read."""

    def check(self, path: Path, match: str) -> None:
        with pytest.raises(SourceUnusable, match=match) as error:
            read(path)
        assert error.value.exit_code == 14
        assert str(path) in str(error.value)
        assert error.value.hint

    def test_missing(self, path: Path) -> None:
        self.check(path, "does not exist")

    def test_missing_folder(self, path: Path) -> None:
        self.check(path / "Data.fs", "cannot be read|does not exist")

    def test_empty(self, path: Path) -> None:
        path.touch()
        self.check(path, "is empty")

    @pytest.mark.parametrize("data", [b"F", b"FS3", b"FS20....", b"\x1f\x8b\x08" * 20, bytes(100)])
    def test_not_a_filestorage(self, path: Path, data: bytes) -> None:
        path.write_bytes(data)
        self.check(path, "is not a FileStorage: it starts with .* at byte 0")

    def test_a_folder(self, path: Path) -> None:
        path.mkdir()
        self.check(path, "is a directory")

    def test_a_pipe(self, path: Path) -> None:
        os.mkfifo(path)
        self.check(path, "is no ordinary file")

    def test_not_readable(self, path: Path) -> None:
        path.write_bytes(simple().data)
        path.chmod(0)
        program = (
            "import os, sys; from pathlib import Path\n"
            "from perdure.sources.filestorage import _open; from perdure.errors import SourceUnusable\n"
            "os.getuid() or os.setuid(65534)\n"
            "try: _open(Path(sys.argv[1]))\n"
            "except SourceUnusable as error: print(error)"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(path)],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        )
        assert done.stdout == f"{path} cannot be read: Permission denied\n"


class TestQuietEnds:
    """What is no damage: a transaction on its way, or one that a crash cut."""

    @pytest.mark.parametrize("window", WINDOWS)
    @pytest.mark.parametrize("cut", range(1, 300, 13))
    def test_torn_tail(self, path: Path, window: int, cut: int) -> None:
        made = simple().add(Transaction([Record(1, b"x" * 300)]))
        path.write_bytes(made.data[:-cut])
        assert read(path, window) == made.ends[-2]

    @pytest.mark.parametrize("window", WINDOWS)
    def test_voted_tail(self, path: Path, window: int) -> None:
        made = simple().add(Transaction([Record(1, b"x" * 300)], status=b"c"))
        path.write_bytes(made.data)
        assert read(path, window) == made.ends[-2]

    def test_voted_and_torn(self, path: Path) -> None:
        made = simple().add(Transaction([Record(1, b"x" * 300)], status=b"c"))
        path.write_bytes(made.data[:-5])
        assert read(path) == made.ends[-2]

    def test_only_the_magic(self, path: Path) -> None:
        path.write_bytes(b"FS30")
        assert read(path) == 4

    @pytest.mark.parametrize("size", range(1, 23))
    def test_torn_header(self, path: Path, size: int) -> None:
        made = simple()
        path.write_bytes(made.data + made.data[4 : 4 + size])
        assert read(path) == made.ends[-1]

    @settings(max_examples=50)
    @given(st.integers(4, len(simple(12).data)), st.sampled_from([64, 300, 1 << 20]))
    def test_any_truncation(
        self, tmp_path_factory: pytest.TempPathFactory, end: int, window: int
    ) -> None:
        made = simple(12)
        path = tmp_path_factory.mktemp("cut") / "Data.fs"
        path.write_bytes(made.data[:end])
        assert read(path, window) == max(e for e in [4, *made.ends] if e <= end)


class TestDamaged:
    """Exit code 13: at which byte, in which transaction, and what is wrong."""

    def check(self, path: Path, data: bytes, position: int, tid: int | None, why: str) -> None:
        path.write_bytes(data)
        for window in WINDOWS:
            with pytest.raises(SourceDamaged, match=why) as error:
                read(path, window)
            assert f"at byte {position}," in str(error.value)
            if tid is not None:
                assert f"in transaction {Tid(tid)}" in str(error.value)
            assert error.value.exit_code == 13
            assert error.value.hint

    def change(self, made: DataFs, position: int, new: bytes) -> bytes:
        return made.data[:position] + new + made.data[position + len(new) :]

    def test_trailing_length(self, path: Path) -> None:
        made = simple()
        data = self.change(made, made.ends[1] - 1, b"\xff")
        self.check(path, data, made.ends[0], made.tids[1], "its length|differs")

    def test_status(self, path: Path) -> None:
        made = simple()
        data = self.change(made, made.ends[1] + 16, b"x")
        self.check(path, data, made.ends[1], made.tids[2], "status b'x'")

    def test_voted_in_the_middle(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(filestorage, "_PAUSE", 0)
        made = simple()
        data = self.change(made, made.ends[1] + 16, b"c")
        self.check(path, data, made.ends[1], made.tids[2], "voted but never finished")

    def test_length_too_small(self, path: Path) -> None:
        made = simple()
        data = self.change(made, made.ends[1] + 8, (7).to_bytes(8, "big"))
        self.check(path, data, made.ends[1], made.tids[2], "length 7")

    def test_length_behind_the_end(self, path: Path) -> None:
        made = simple()
        data = self.change(made, made.ends[1] + 8, (1 << 40).to_bytes(8, "big"))
        self.check(path, data, made.ends[1], made.tids[2], "leads behind the end of the file")

    def test_record_length(self, path: Path) -> None:
        made = simple()
        data = self.change(made, made.at[3] + 34, (9999).to_bytes(8, "big"))
        self.check(path, data, made.at[3], None, "records do not end where it ends")

    def test_record_position(self, path: Path) -> None:
        made = simple()
        data = self.change(made, made.at[3] + 24, (5).to_bytes(8, "big"))
        self.check(path, data, made.at[3], None, "names 5 as its transaction's position")

    def test_zeros_in_the_middle(self, path: Path) -> None:
        made = simple()
        data = self.change(made, made.ends[1], bytes(40))
        self.check(path, data, made.ends[1], 0, "header cannot be right")

    def test_damage_writes_no_snapshot(self, path: Path) -> None:
        made = simple()
        site = HistorySite(1 << 20)
        path.write_bytes(self.change(made, made.ends[1] + 16, b"x"))
        with pytest.raises(SourceDamaged):
            site.back_up(path)
        assert not site.names("snapshots")
        assert not site.names("locks")
        site.repository.close()

    @pytest.mark.slow
    @settings(max_examples=300)
    @given(st.data())
    def test_any_flipped_bytes(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        """Either it is noticed, or the bytes as they are come back."""
        made = simple(8)
        flipped = bytearray(made.data)
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(flipped) - 1))
            flipped[place] = data.draw(st.sampled_from([0, 1, 0x20, 0x7F, 0x80, 0xFF]))
        path = tmp_path_factory.mktemp("flipped") / "Data.fs"
        path.write_bytes(flipped)
        site = HistorySite(data.draw(st.sampled_from([100, 1 << 20])))
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(filestorage, "_PAUSE", 0)
                report = site.back_up(path)
        except (SourceDamaged, SourceUnusable):
            return
        finally:
            site.repository.close()
        assert rebuilt_from(site.newest())[0] == bytes(flipped[: report.size])


class TestMeanwhile:
    """What others do to the file while it is read."""

    def test_a_pack_ends(self, path: Path) -> None:
        made = simple()
        path.write_bytes(made.data)
        site, observer = HistorySite(1 << 20), SilentObserver()
        evidence = FileStorageCut.position

        def replace_first(cut: FileStorageCut, last: object) -> object:
            path.rename(f"{path}.old")
            path.write_bytes(b"FS30")
            return evidence(cut, last)  # type: ignore[arg-type]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(FileStorageCut, "position", replace_first)
            back_up(site.repository, path, observer=observer)
        assert "is another file by now" in observer.warnings[0]
        (found,) = site.found().values()
        assert rebuilt_from(found)[0] == made.data
        site.repository.close()

    def test_no_file_between_the_renames_of_a_pack(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        old = Path(f"{path}.old")
        old.write_bytes(simple().data)
        pauses: list[float] = []

        def pause(seconds: float) -> None:
            pauses.append(seconds)
            if len(pauses) == 3:
                path.write_bytes(old.read_bytes())

        monkeypatch.setattr("time.sleep", pause)
        assert read(path) == len(simple().data)
        assert len(pauses) == 3

    def test_it_never_comes_back(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        Path(f"{path}.old").write_bytes(simple().data)
        monkeypatch.setattr(filestorage, "_PAUSE", 0)
        with pytest.raises(SourceUnusable, match="does not exist"):
            read(path)

    @pytest.mark.parametrize("window", WINDOWS)
    @pytest.mark.parametrize("left", [30, 500])
    def test_it_is_cut_while_it_is_read(self, path: Path, window: int, left: int) -> None:
        made = simple().add(Transaction([Record(n, b"x" * 90) for n in range(9)]))
        path.write_bytes(made.data)
        with FileStorageSource(path, window=window).cut() as cut:
            os.truncate(path, made.ends[-2] + left)
            with pytest.raises(SourceDamaged, match=r"ends inside|differs|behind"):
                for _ in cut.extents(0):
                    pass

    def test_the_voted_transaction_is_finished_and_others_follow(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        made = simple().add(Transaction([Record(1, b"voted")], status=b"c"))
        voted = made.ends[-2]
        made.add(Transaction([Record(2, b"next")]))
        path.write_bytes(made.data)

        def finish(_: float) -> None:
            with path.open("r+b") as file:
                file.seek(voted + 16)
                file.write(b" ")

        monkeypatch.setattr("time.sleep", finish)
        assert read(path) == len(made.data)


class TestDetachedWriters:
    """ZODB issue 38: a server goes on writing to a file that nobody will see again."""

    def test_found(self, path: Path) -> None:
        path.write_bytes(simple().data)
        with path.open("r+b"):
            assert not detached_writers(path)
            path.rename(f"{path}.old")
            path.write_bytes(simple().data)
            assert detached_writers(path) == [os.getpid()]

    def test_removed(self, path: Path) -> None:
        path.write_bytes(simple().data)
        with path.open("r+b"):
            path.unlink()
            path.write_bytes(simple().data)
            assert detached_writers(path) == [os.getpid()]

    def test_through_a_link(self, path: Path, tmp_path: Path) -> None:
        path.write_bytes(simple().data)
        link = tmp_path / "link.fs"
        link.symlink_to(path)
        with path.open("r+b"):
            path.unlink()
            path.write_bytes(simple().data)
            assert detached_writers(link) == [os.getpid()]

    def test_readers_do_not_count(self, path: Path) -> None:
        path.write_bytes(simple().data)
        with path.open("rb"):
            path.unlink()
            path.write_bytes(simple().data)
            assert not detached_writers(path)

    def test_a_backup_warns(self, path: Path) -> None:
        path.write_bytes(simple().data)
        site, observer = HistorySite(1 << 20), SilentObserver()
        with path.open("r+b"):
            path.unlink()
            path.write_bytes(simple().data)
            back_up(site.repository, path, clock=Clock(), observer=observer)
        site.repository.close()
        (warning,) = observer.warnings
        assert (
            f"process {os.getpid()} writes to a file that was {path} and is so no more" in warning
        )

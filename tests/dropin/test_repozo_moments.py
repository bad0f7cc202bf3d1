"""Recovery to a transaction or second, and onto an earlier recovered file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from repozo_pair import Site, back_up, moment, streamed
from ZODB.FileStorage import FileStorage

from perdure.dropin.repozo import (
    NoFiles,
    RecoverReport,
    RecoverRequest,
    VerificationFail,
    chains,
    last_tid,
    recover,
)
from perdure.errors import TargetInUse, UsageError
from perdure.formats.fsindex import decode
from perdure.model import SilentObserver, Tid


def transactions(data: bytes) -> Iterator[tuple[Tid, int, bytes]]:
    """Give tid, end and status of each transaction."""
    at = 4
    while at < len(data):
        end = at + int.from_bytes(data[at + 8 : at + 16], "big") + 8
        yield Tid.from_bytes(data[at : at + 8]), end, data[at + 16 : at + 17]
        at = end


@pytest.fixture(params=[False, True], ids=["plain", "gzip"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    """Two chains, with a pack between them, of three backups each."""
    made = Site(tmp_path)
    for number in range(6):
        if number == 3:
            made.pack()
        made.commit(4)
        back_up(made.repository, made.path, moment(number), gzip=request.param)
    return made


class TestMoments:
    def test_each_transaction_can_be_had(self, site: Site) -> None:
        newest = site.data
        first, second = chains(site.repository)
        old = streamed(site.repository, moment(2))
        for data in (old, newest):
            for tid, end, status in transactions(data):
                if status == b"p" and tid > last_tid(first.states[-1]):  # type: ignore[operator]
                    continue
                whole = old if tid <= last_tid(first.states[-1]) else newest  # type: ignore[operator]
                expected = next(whole[:e] for t, e, _ in transactions(whole) if t == tid)
                assert streamed(site.repository, str(tid)) == expected, (tid, end)
        assert len(second.states) == 3

    def test_between_two_transactions_it_is_the_first(self, site: Site) -> None:
        (_, end, _), (after, _, _) = list(transactions(site.data))[-2:]
        assert streamed(site.repository, str(Tid(after.value - 1))) == site.data[:end]
        assert streamed(site.repository, str(after)) == site.data

    def test_a_time_is_a_moment_or_later_than_all(self, site: Site) -> None:
        tid, end, _ = list(transactions(site.data))[-2]
        time = tid.time.isoformat()
        assert streamed(site.repository, time) in {
            site.data[: e] for _, e, _ in transactions(site.data) if e <= end
        }  # fmt: skip
        assert streamed(site.repository, "2999-01-01T00:00:00") == site.data
        with pytest.raises(NoFiles, match="no transaction at"):
            streamed(site.repository, "1999-01-01T00:00:00")

    def test_what_is_not_there_is_an_error(self, site: Site) -> None:
        with pytest.raises(NoFiles, match="the newest is"):
            streamed(site.repository, "0fffffffffffffff")
        with pytest.raises(UsageError):
            streamed(site.repository, "2026-13-45T00:00:00")

    def test_a_moment_before_a_pack_that_only_a_packed_backup_has(self, site: Site) -> None:
        for path in [
            *site.repository.glob(f"{moment(0)}*"),
            *site.repository.glob(f"{moment(1)}*"),
        ]:
            path.unlink()
        for path in site.repository.glob(f"{moment(2)}*"):
            path.unlink()
        packed = [tid for tid, _, status in transactions(site.data) if status == b"p"]
        with pytest.raises(UsageError, match="before a pack"):
            streamed(site.repository, str(packed[0]))
        assert streamed(site.repository, str(packed[-1]))

    def test_the_index_fits(self, site: Site, tmp_path: Path) -> None:
        tid, end, _ = list(transactions(site.data))[-2]
        output = tmp_path / "o.fs"
        recover(RecoverRequest(site.repository, str(tid)), output, SilentObserver())
        assert output.stat().st_size == end
        assert_index_is_right(output)


def assert_index_is_right(path: Path) -> None:
    index = decode(path.with_name(f"{path.name}.index").read_bytes())
    assert index.end == path.stat().st_size
    storage = FileStorage(str(path), read_only=True)
    found = {oid: storage._index[oid] for oid in storage._index}
    storage.close()
    assert dict(index.newest().items()) == {
        int.from_bytes(oid, "big"): position for oid, position in found.items()
    }


def recover_onto(
    site: Site, output: Path, date: str | None = None, *, quick: bool = False
) -> RecoverReport:
    request = RecoverRequest(site.repository, date, incremental=True, quick=quick)
    return recover(request, output, SilentObserver())


class TestIncremental:
    @pytest.mark.parametrize("quick", [True, False])
    def test_it_follows_the_backups(self, site: Site, tmp_path: Path, quick: bool) -> None:
        output = tmp_path / "standby.fs"
        kept = 0
        for number in range(6):
            inode = output.stat().st_ino if output.exists() else None
            report = recover_onto(site, output, moment(number), quick=quick)
            assert output.read_bytes() == streamed(site.repository, moment(number))
            assert_index_is_right(output)
            fresh = number in {0, 3}
            assert report.kept == (0 if fresh else kept)
            assert (output.stat().st_ino == inode) != fresh
            kept = report.size
        assert recover_onto(site, output, quick=quick).kept == len(site.data)

    def test_a_changed_file_is_recovered_anew(self, site: Site, tmp_path: Path) -> None:
        output = tmp_path / "standby.fs"
        recover_onto(site, output, moment(4))
        changed = bytearray(output.read_bytes())
        changed[100] ^= 1
        output.write_bytes(changed)
        report = recover_onto(site, output)
        assert report.kept == 0
        assert "not what was recovered" in report.reason
        assert output.read_bytes() == site.data

    def test_a_longer_or_other_file_is_recovered_anew(self, site: Site, tmp_path: Path) -> None:
        output = tmp_path / "standby.fs"
        recover_onto(site, output)
        assert recover_onto(site, output, moment(4)).kept == 0
        output.write_bytes(b"something else")
        assert recover_onto(site, output).kept == 0
        output.write_bytes(site.data + b"more")
        assert recover_onto(site, output).kept == 0
        assert output.read_bytes() == site.data

    def test_a_part_of_an_increment_is_gone_on_with(self, site: Site, tmp_path: Path) -> None:
        output = tmp_path / "standby.fs"
        recover_onto(site, output, moment(3))
        part = site.data[: output.stat().st_size + 50]
        output.write_bytes(part)
        assert recover_onto(site, output).kept == len(part)
        assert output.read_bytes() == site.data

    def test_nothing_is_appended_that_is_damaged(self, site: Site, tmp_path: Path) -> None:
        output = tmp_path / "standby.fs"
        recover_onto(site, output, moment(4))
        before = output.read_bytes()
        (last,) = site.repository.glob(f"{moment(5)}.delta*")
        damaged = bytearray(last.read_bytes())
        damaged[len(damaged) // 2] ^= 16
        last.write_bytes(damaged)
        with pytest.raises(VerificationFail):
            recover_onto(site, output)
        assert output.read_bytes() == before

    def test_to_a_moment(self, site: Site, tmp_path: Path) -> None:
        output = tmp_path / "standby.fs"
        recover_onto(site, output, moment(4))
        tid, end, _ = list(transactions(site.data))[-2]
        assert recover_onto(site, output, str(tid)).kept
        assert output.read_bytes() == site.data[:end]
        assert_index_is_right(output)

    def test_a_storage_in_use_is_left_alone(self, site: Site, tmp_path: Path) -> None:
        output = tmp_path / "standby.fs"
        recover_onto(site, output, moment(4))
        storage = FileStorage(str(output))
        before = output.read_bytes()
        try:
            with pytest.raises(TargetInUse):
                recover_onto(site, output)
        finally:
            storage.close()
        assert output.read_bytes() == before

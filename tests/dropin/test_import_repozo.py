"""Import of repozo's backups: each state a snapshot, proved; the stock restic reads them, too."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import Program
from doubles import Restic
from repozo_pair import Site, back_up, moment, sha256, streamed, unpack

from perdure.dropin.repozo import chains


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    for number in range(6):
        if number == 3:
            made.pack()
        made.commit(20, 2000)
        back_up(made.repository, made.path, moment(number), gzip=number % 2 == 1)
    return made


@pytest.fixture
def store(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("PERDURE_PASSWORD", "secret")
    program("init", "-r", str(tmp_path / "store"))
    return str(tmp_path / "store")


def run(
    program: Program, site: Site, store: str, *more: str, code: int = 0
) -> list[dict[str, object]]:
    where = ("-r", store, "--filestorage", str(site.path), "--json")
    done = program("import-repozo", str(site.repository), *where, *more, code=code)
    return [event for event in done.events if event["message_type"] == "imported"]


def test_each_state_is_a_snapshot(
    site: Site, store: str, program: Program, restic: Restic, tmp_path: Path
) -> None:
    imported = run(program, site, store)
    assert [each["backup"] for each in imported] == [moment(number) for number in range(6)]
    for number, each in enumerate(imported):
        target = tmp_path / f"restored{number}"
        program("restore", str(each["snapshot_id"]), "--to", str(target), "-r", store)
        restored = next(target.rglob("Data.fs"))
        assert restored.read_bytes() == streamed(site.repository, moment(number))
    listed = program("snapshots", "-r", store).out
    assert "2026-11-21 03:05:00" in listed
    # An increment adds what is new, not the whole database again.
    sizes = [int(str(each["added"])) for each in imported]
    assert max(sizes[1:3]) < sizes[0] + 10_000
    restic(Path(store), "check", "--read-data")
    program("check", "--read-data", "-r", store)


def test_it_can_be_repeated_and_continued(site: Site, store: str, program: Program) -> None:
    first = run(program, site, store)
    assert all(each["known"] for each in run(program, site, store))
    site.commit(3)
    back_up(site.repository, site.path, moment(7))
    again = run(program, site, store)
    assert [each["known"] for each in again] == [True] * 6 + [False]
    assert [each["snapshot_id"] for each in again[:6]] == [each["snapshot_id"] for each in first]
    where = ("-r", store, "--filestorage", str(site.path), "--no-blobs", "--json")
    summary = program("backup", *where).summary
    assert summary["sources"][0]["method"] != "full"
    assert summary["sources"][0]["bytes_new"] == 0
    program("check", "--read-data", "-r", store)


def test_a_dry_run_stores_nothing(site: Site, store: str, program: Program) -> None:
    assert len(run(program, site, store, "--dry-run")) == 6
    assert "2026" not in program("snapshots", "-r", store).out


def test_damage_ends_it_or_is_left_out(site: Site, store: str, program: Program) -> None:
    path = site.repository / f"{moment(2)}.deltafs"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    run(program, site, store, code=13)
    imported = run(program, site, store, "--skip-damaged", code=3)
    assert [each["known"] for each in imported] == [True, True, *[False] * 4]
    assert [bool(each["damage"]) for each in imported] == [False, False, True, *[False] * 3]
    program("check", "--read-data", "-r", store)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "gzip", "zero-delta", "empty-db", "space dir"])
def test_the_fixtures_move(name: str, store: str, program: Program, tmp_path: Path) -> None:
    folder = unpack(tmp_path / "fixtures") / name
    where = ("-r", store, "--filestorage", str(folder / "source/Data.fs"), "--json")
    done = program("import-repozo", str(folder / "repo"), *where)
    events = [each for each in done.events if each["message_type"] == "imported"]
    for event in events:
        target = tmp_path / str(event["snapshot_id"])
        program("restore", str(event["snapshot_id"]), "--to", str(target), "-r", store)
        restored = next(target.rglob("Data.fs")).read_bytes()
        assert sha256(restored) == sha256(streamed(folder / "repo", str(event["backup"])))
    assert len(events) == sum(len(chain.states) for chain in chains(folder / "repo"))
    program("check", "--read-data", "-r", store)

"""Repositories that ZODB's repozo wrote, healthy and damaged: never wrong bytes without an error."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from repozo_pair import ARCHIVE, ours, problems, recovered_or_none, sha256, unpack, zodbs

from perdure.dropin.repozo import chains, last_tid
from perdure.formats.repozo import DataName, parse_dat


@cache
def expected() -> dict[str, Any]:
    import tarfile

    with tarfile.open(ARCHIVE) as archive:
        file = archive.extractfile("repozo-fixtures/expected.json")
        assert file is not None
        found: dict[str, Any] = json.load(file)
    return found


HEALTHY = sorted(expected()["repositories"])
DAMAGED = sorted(expected()["corrupt"])


@pytest.fixture(scope="module")
def fixtures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return unpack(tmp_path_factory.mktemp("repozo"))


@pytest.fixture
def work(fixtures: Path, tmp_path: Path) -> Callable[[str], Path]:
    def copy(name: str) -> Path:
        shutil.copytree(fixtures / name, tmp_path / "work")
        return tmp_path / "work"

    return copy


@pytest.mark.parametrize("name", HEALTHY)
def test_each_date_gives_what_it_gave(
    name: str, work: Callable[[str], Path], tmp_path: Path
) -> None:
    repository, output = work(name) / "repo", tmp_path / "out.fs"
    for row in expected()["repositories"][name]["recover_at"]:
        done = ours("-R", "-r", repository, "-o", output, "-D", row["date_argument"])
        if row["exit"]:
            assert done.code == 1
            assert done.message == row["message"]
        else:
            assert done.code == 0, done
            assert sha256(output.read_bytes()) == row["sha256"]


@pytest.mark.parametrize("name", HEALTHY)
def test_a_healthy_repository_is_verified_and_listed(
    name: str, work: Callable[[str], Path]
) -> None:
    repository = work(name) / "repo"
    assert ours("-V", "-r", repository) == ours("-VQ", "-r", repository)
    assert ours("-V", "-r", repository).code == 0
    states = [state for chain in chains(repository) for state in chain.states]
    points = expected()["repositories"][name]["points"]
    for state in states:
        point = next(point for point in points if point["date"] == state.stamp)
        assert state.size == point["size"]
        tid = last_tid(state)
        assert (None if tid is None else str(tid)) == point["last_tid"]


@pytest.mark.parametrize("name", HEALTHY)
@pytest.mark.parametrize("quick", [True, False])
def test_a_healthy_repository_is_continued(
    name: str, quick: bool, work: Callable[[str], Path], tmp_path: Path
) -> None:
    folder = work(name)
    repository, source = folder / "repo", folder / "source/Data.fs"
    before = sorted(path.name for path in repository.iterdir())
    flags = "-BQ" if quick else "-B"
    assert ours(flags, "-r", repository, "-f", source).code == 0
    new = {path.name for path in repository.iterdir()} - set(before)
    # The space in the path kept ZODB's repozo from its last backup; the others are up to date.
    assert {Path(each).suffix for each in new} <= {".deltafs", ".index"}
    assert bool(new) == (name == "space dir")
    assert (
        zodbs("-R", "-r", repository, "-o", tmp_path / "o.fs", now="2030-01-01-00-00-00").code == 0
    )
    size = len((tmp_path / "o.fs").read_bytes())
    assert (tmp_path / "o.fs").read_bytes() == source.read_bytes()[:size]
    assert recovered_or_none(repository) == (tmp_path / "o.fs").read_bytes()


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("verify", [True, False])
def test_a_damaged_repository_gives_right_bytes_or_an_error(
    name: str, verify: bool, work: Callable[[str], Path], tmp_path: Path
) -> None:
    facts = expected()["corrupt"][name]
    repository, output = work(f"corrupt/{name}"), tmp_path / "out.fs"
    output.write_bytes(b"an older one")
    flags = "-Rw" if verify else "-R"
    done = ours(flags, "-r", repository, "-o", output)
    if done.code:
        assert output.read_bytes() == b"an older one"
        assert done.message
        return
    points = expected()["repositories"].get(facts["made_from"], {}).get("points")
    assert points, "what ZODB's repozo wrote wrong must be an error"
    assert sha256(output.read_bytes()) == points[-1]["sha256"]


@pytest.mark.parametrize("name", DAMAGED)
def test_verification_finds_the_damage(name: str, work: Callable[[str], Path]) -> None:
    done = ours("-V", "-r", work(f"corrupt/{name}"))
    assert done.code == (name != "leftovers"), done


# --- kinds of damage, to each file of each repository


def flipped(data: bytes) -> Iterator[bytes]:
    for place in {len(data) // 4, len(data) // 3, len(data) - 5}:
        if 0 <= place < len(data):
            yield data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


def cut(data: bytes) -> Iterator[bytes]:
    for size in {0, 11, len(data) // 2, len(data) - 5}:
        if 0 <= size < len(data):
            yield data[:size]


def grown(data: bytes) -> Iterator[bytes]:
    yield data + b"\0" * 7
    yield data + b"JUNK" * 3
    yield data + data


def without_lines(data: bytes) -> Iterator[bytes]:
    lines = data.splitlines(keepends=True)
    for number in range(len(lines)):
        yield b"".join(lines[:number] + lines[number + 1 :])
    yield b"".join(reversed(lines))
    yield data.replace(b"\n", b"\r\n")
    yield b"a line without sense\n" + data


def gone(data: bytes) -> Iterator[None]:
    yield None


@pytest.mark.parametrize("damage", [flipped, cut, grown, without_lines, gone])
@pytest.mark.parametrize("name", ["gzip", "plain", "quick", "space dir", "zero-delta"])
def test_no_damage_to_one_file_gives_wrong_bytes(
    name: str, damage: Callable[[bytes], Iterator[bytes | None]], fixtures: Path
) -> None:
    points = expected()["repositories"][name]["points"]
    dates = {point["date"]: point["sha256"] for point in points}
    newest = points[-1]["sha256"]
    for original in sorted((fixtures / name / "repo").iterdir()):
        if damage is without_lines and original.suffix != ".dat":
            continue
        content = original.read_bytes()
        for damaged in damage(content):
            if damaged == content:
                continue
            with TemporaryDirectory() as temporary:
                repository = Path(temporary) / "repo"
                shutil.copytree(fixtures / name / "repo", repository)
                path = repository / original.name
                path.unlink() if damaged is None else path.write_bytes(damaged)
                where = (original.name, damaged if damaged is None else len(damaged))
                data = recovered_or_none(repository)
                assert data is None or sha256(data) == newest, where
                for date, right in dates.items() if original.suffix != ".index" else ():
                    data = recovered_or_none(repository, date)
                    assert data is None or sha256(data) == right, (*where, date)
                harmless = damaged is None and original.suffix == ".index"
                if original.suffix == ".dat" and damaged is not None:
                    harmless |= parse_dat(damaged) == parse_dat(content)
                zeros = damage is grown and damaged == content + b"\0" * 7
                harmless |= zeros and original.suffix in {".fsz", ".deltafsz"}
                assert bool(problems(repository)) != harmless, where
                if original.suffix == ".index":
                    assert recovered_or_none(repository) is not None


def test_names_that_are_no_data_files_are_left_alone(fixtures: Path, tmp_path: Path) -> None:
    repository = tmp_path / "repo"
    shutil.copytree(fixtures / "plain/repo", repository)
    for name in ("2030-01-01-00-00-00.fs.bak", "2030-01-01-00-00-00.dat~", "notes", "2030.fs"):
        (repository / name).write_bytes(b"something else")
        assert DataName.parse(name) is None
    assert recovered_or_none(repository) is not None
    assert not problems(repository)

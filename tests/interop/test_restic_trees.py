"""The stock restic and Perdure on the same file trees: each restores what the other stored."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import odd_files
import pytest
from doubles import Restic
from tree_site import back_up_trees, later, seen

from perdure.check import check
from perdure.formats.golang import parse_time
from perdure.formats.keyfile import FOR_KEY_FILES
from perdure.model import SilentObserver, Subset
from perdure.repository import Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.sources.excluding import CACHE_TAG, Excludes
from perdure.stores import open_store

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(restic: Restic, tmp_path: Path) -> Iterator[Repository]:
    """A repository that both programs find no fault with at the end."""
    store = open_store(str(tmp_path / "repository"))
    now = datetime.now(UTC)
    Repository.create(
        store, "secret", kdf=FOR_KEY_FILES, now=now, username="plone", hostname="www1"
    ).close()
    with Repository.open(store, "secret", cache=None, clock=later) as opened:
        yield opened
        with opened.lock():
            assert not check(opened, read_data=Subset(), observer=SilentObserver()).damaged
    restic(tmp_path / "repository", "check", "--read-data")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "srv" / "www"
    odd_files.make(folder)
    with (folder / "holes").open("wb") as file:
        file.write(b"begin")
        file.seek(5 << 20)
        file.write(b"end")
    (folder / "to nowhere").symlink_to("nowhere")
    if os.geteuid() == 0:
        os.mknod(folder / "null", 0o20644, os.makedev(1, 3))
        os.chown(folder / "plain.txt", 12345, 54321)
        os.chown(folder / "link", 12345, 54321, follow_symlinks=False)
    return folder


def version_of(program: str = "restic") -> tuple[int, ...]:
    text = subprocess.run([program, "version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"restic (\d+)\.(\d+)", text)
    assert found
    return tuple(map(int, found.groups()))


def nodes(repository: Repository, number: int, folder: Path) -> list[dict[str, Any]]:
    """Give the nodes of all below a folder of a snapshot, as JSON has them."""
    _, snapshot = repository.snapshots()[number]
    found: list[dict[str, Any]] = []

    def look(identity: bytes, path: tuple[str, ...], above: tuple[str, ...]) -> None:
        text = repository.load_tree(identity).encode()  # type: ignore[arg-type]
        for node in json.loads(text)["nodes"]:
            below = (*above, node["name"])
            if below[: len(path)] == path[: len(below)]:
                if node.get("subtree"):
                    look(bytes.fromhex(node.pop("subtree")), path, below)
                if len(below) >= len(path):
                    # restic writes local times, Perdure UTC
                    times = {name: parse_time(node[name]) for name in ("mtime", "atime", "ctime")}
                    found.append(node | times | {"path": below})

    look(snapshot.root, folder.parts[1:], ())
    return found


def test_restic_restores_ours(
    restic: Restic, repository: Repository, tree: Path, tmp_path: Path
) -> None:
    back_up_trees(repository, tree)
    restic(tmp_path / "repository", "restore", "latest", "--target", str(tmp_path / "out"))
    assert seen(Path(f"{tmp_path}/out{tree}")) == seen(tree)


def test_we_restore_restics(
    restic: Restic, repository: Repository, tree: Path, tmp_path: Path
) -> None:
    restic(tmp_path / "repository", "backup", str(tree))
    request = RestoreRequest(tmp_path / "out", Wanted())
    restore(repository, request, SilentObserver())
    assert seen(Path(f"{tmp_path}/out{tree}")) == seen(tree)


def test_both_write_the_same_trees(
    restic: Restic, repository: Repository, tree: Path, tmp_path: Path
) -> None:
    """All but the chunks of large files, which each cuts in its own places, is the same."""
    restic(tmp_path / "repository", "backup", str(tree))
    back_up_trees(repository, tree)
    theirs, ours = nodes(repository, 0, tree), nodes(repository, 1, tree)
    assert [node["path"] for node in theirs] == [node["path"] for node in ours]
    for their, our in zip(theirs, ours, strict=True):
        if len(their["content"] or ()) > 1:
            their.pop("content")
            our.pop("content")
        if "device_id" not in their:  # newer ones have it for files of several names only
            our.pop("device_id")
        assert their == our
    if version_of() < (0, 17):
        assert {node["path"][-1] for node in ours} >= {"sub", "deeper", "fifo", "link"}


def test_restic_goes_on_from_ours(
    restic: Restic, repository: Repository, tree: Path, tmp_path: Path
) -> None:
    """With our snapshot as parent, restic reads no file; and what it finds changed is what changed."""
    back_up_trees(repository, tree)
    parent = repository.snapshots()[0][0]
    told = restic(
        tmp_path / "repository", "backup", "--json", "--parent", parent, str(tree)
    ).splitlines()
    summary = json.loads(told[-1])
    assert summary["files_unmodified"] == summary["total_files_processed"] > 5
    (tree / "plain.txt").write_bytes(b"other")
    back_up_trees(repository, tree)
    first, *_, last = (name for name, _ in repository.snapshots())
    told = restic(tmp_path / "repository", "diff", first, last).splitlines()
    changed = [line for line in told if line.startswith("M ") and "perdure.json" not in line]
    assert changed == [f"M    {tree}/plain.txt"]


def test_we_go_on_from_our_own_after_restic_changed_tags(
    restic: Restic, repository: Repository, tree: Path, tmp_path: Path
) -> None:
    back_up_trees(repository, tree)
    restic(tmp_path / "repository", "tag", "--add", "kept", "latest")
    report = back_up_trees(repository, tree)
    assert report.sources[0].files
    assert report.sources[0].files.new == 0


def test_the_same_is_left_out(restic: Restic, repository: Repository, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    for name in (
        *("a.log", "b.txt", "keep.log", "x/cache/data", "x/cached", "deep/a/b/tmp/c", "UP.BAK"),
        *("tagged/CACHEDIR.TAG", "tagged/data", "no/NOBACKUP-TAG", "no/data/x", "s[1].c", "s1.c"),
    ):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_bytes(b"x" * len(name))
    (tree / "tagged/CACHEDIR.TAG").write_text(CACHE_TAG.partition(":")[2])
    (tree / "large").write_bytes(bytes(5000))
    patterns = ("*.log", "!keep.log", "x/cache", f"{tree}/deep/**/tmp", "s[[]1*")
    options = [part for pattern in patterns for part in ("--exclude", pattern)]
    restic(
        tmp_path / "repository",
        *("backup", *options, "--iexclude", "*.bak", "--exclude-caches"),
        *("--exclude-if-present", "NOBACKUP-TAG", "--exclude-larger-than", "4K", str(tree)),
    )
    excludes = Excludes(patterns, ("*.bak",), ("NOBACKUP-TAG", CACHE_TAG), larger_than=4096)
    back_up_trees(repository, tree, excludes=excludes)
    theirs, ours = ([node["path"] for node in nodes(repository, number, tree)] for number in (0, 1))
    assert theirs == ours


def test_restic_prunes_what_we_stored(
    restic: Restic, repository: Repository, tree: Path, tmp_path: Path
) -> None:
    back_up_trees(repository, tree)
    shutil.rmtree(tree / "sub")
    (tree / "big").write_bytes(b"small")
    back_up_trees(repository, tree)
    restic(tmp_path / "repository", "forget", "--keep-last", "1", "--group-by", "", "--prune")
    repository.forget_index()
    restore(repository, RestoreRequest(tmp_path / "out"), SilentObserver())
    assert seen(tmp_path / "out/www") == seen(tree)

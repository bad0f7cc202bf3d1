"""Trees in a repository: what is read, what is kept, and what is said of the rest."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import odd_files
import pytest
from doubles import Clock
from tree_site import TreeSite, seen

from perdure.errors import SourceUnusable, UsageError
from perdure.model import SilentObserver
from perdure.restore_plan import Wanted
from perdure.snapshots import list_snapshots, read_manifest
from perdure.sources.excluding import CACHE_TAG, Excludes
from perdure.trees import contents, walking


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "srv" / "www"
    odd_files.make(folder)
    return folder


def written(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def test_everything_comes_back(site: TreeSite, tree: Path, tmp_path: Path) -> None:
    before = seen(tree)
    report = site.back_up(tree)
    assert report.files == report.new == len(odd_files.NAMES) + 4
    assert (report.folders, report.others, report.unread) == (3, 3, 0)
    [restored] = site.give_back(tmp_path / "out")
    assert restored.files == (tmp_path / "out/www",)
    assert seen(tmp_path / "out/www") == before


def test_unchanged_files_are_not_read(
    site: TreeSite, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.back_up(tree)
    (tree / "new").write_bytes(b"new")
    (tree / "plain.txt").write_bytes(b"changed")
    opened: list[str] = []
    really = contents._open
    monkeypatch.setattr(contents, "_open", lambda path: opened.append(path) or really(path))  # type: ignore[func-returns-value]
    report = site.back_up(tree)
    assert sorted(opened) == [str(tree / "new"), str(tree / "plain.txt")]
    assert (report.new, report.changed) == (1, 1)
    opened.clear()
    assert site.back_up(tree).new == 0
    assert not opened
    site.back_up(tree, read_all=True)
    assert len(opened) == report.files


@pytest.mark.parametrize("what", ["content", "mode", "inode", "attribute"])
def test_each_change_is_seen(site: TreeSite, tree: Path, tmp_path: Path, what: str) -> None:
    site.back_up(tree)
    file = tree / "plain.txt"
    file.write_bytes(b"first")
    os.utime(file, ns=(5, 5))
    site.back_up(tree)
    if what == "content":
        file.write_bytes(b"other")
        os.utime(file, ns=(5, 5))
    elif what == "mode":
        file.chmod(0o640)
    elif what == "inode":
        (tree / "twin").write_bytes(b"other")
        os.utime(tree / "twin", ns=(5, 5))
        (tree / "twin").replace(file)
    else:
        try:
            os.setxattr(file, "user.colour", b"green")
        except OSError:
            file.chmod(0o600)  # where there are none
    site.back_up(tree)
    site.give_back(tmp_path / "out")
    assert seen(tmp_path / "out/www") == seen(tree)


def test_a_change_in_the_tick_of_the_last_backup_is_seen(site: TreeSite, tree: Path) -> None:
    """Two changes in one tick of the clock have the same times: what is so young is read once more."""
    file = tree / "plain.txt"
    file.write_bytes(b"young")
    moment = file.stat().st_ctime_ns
    young = Clock()
    young.now = young.now.fromtimestamp(moment / 1e9, young.now.tzinfo)
    site.back_up(tree, clock=young)
    assert site.back_up(tree).changed >= 1
    assert site.back_up(tree).changed == 0


def test_large_files_share_chunks(site: TreeSite, tmp_path: Path) -> None:
    data = os.urandom(6 << 20)
    tree = written(tmp_path / "tree", {"large": data})
    site.back_up(tree)
    chunks = len(site.names("data"))
    (tree / "large").write_bytes(b"inserted" + data)
    (tree / "again").write_bytes(data)
    size = sum(size for _, size in site.store.list("data/"))
    site.back_up(tree)
    grown = sum(size for _, size in site.store.list("data/")) - size
    assert grown < 3 << 20
    assert len(site.names("data")) > chunks
    site.give_back(tmp_path / "out")
    assert seen(tmp_path / "out/tree") == seen(tree)


def test_cut_points_are_the_contents_and_the_repositorys(site: TreeSite, tmp_path: Path) -> None:
    data = os.urandom(5 << 20)
    tree = written(tmp_path / "tree", {"a": data, "b": data[1 << 20 :]})
    other = TreeSite()
    cuts = []
    for each in (site, other):
        each.back_up(tree)
        known = each.repository.snapshots()[-1][1]
        folder = each.repository.load_tree(known.root)
        while folder.nodes[-1].tree is not None:
            folder = each.repository.load_tree(folder.nodes[-1].tree)
        cuts.append([node.content or () for node in folder.nodes])
    assert cuts[0][0][-1] == cuts[0][1][-1], "after other beginnings the cuts are the same"
    assert cuts[0][0] != cuts[1][0], "another repository cuts elsewhere"
    other.end()


@pytest.mark.parametrize("size", [0, 1, contents.SMALLEST, contents.SMALLEST + 1, 3 << 20])
def test_sizes_of_files(site: TreeSite, tmp_path: Path, size: int) -> None:
    tree = written(tmp_path / "tree", {"file": os.urandom(size)})
    site.back_up(tree)
    site.give_back(tmp_path / "out")
    assert seen(tmp_path / "out/tree") == seen(tree)


def test_windows_of_a_large_file(
    site: TreeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the file is cut does not depend on how much of it is read at once."""
    tree = written(tmp_path / "tree", {"file": os.urandom(20 << 20)})
    site.back_up(tree)
    size = sum(size for _, size in site.store.list("data/"))
    monkeypatch.setattr(contents, "_WINDOW", 9 << 20)
    site.back_up(tree, read_all=True)
    assert sum(size for _, size in site.store.list("data/")) - size < 20_000
    site.give_back(tmp_path / "out")
    assert seen(tmp_path / "out/tree") == seen(tree)


@pytest.fixture
def open_tree() -> Iterator[Path]:
    """A tree in folders that every user may enter."""
    with TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield written(Path(folder, "tree"), {"readable": b"x", "sub/inside": b"y"})


def test_what_cannot_be_read_is_named(
    site: TreeSite, open_tree: Path, unprivileged: AbstractContextManager[None]
) -> None:
    tree = open_tree
    (tree / "secret").write_bytes(b"secret")
    (tree / "secret").chmod(0)
    (tree / "hidden").mkdir()
    (tree / "hidden/inside").write_bytes(b"inside")
    (tree / "hidden").chmod(0)
    observer = SilentObserver()
    with unprivileged:
        report = site.back_up(tree, observer=observer)
    assert report.unread == 2
    for name in ("secret", "hidden"):
        assert any(
            str(tree / name) in each and "Permission denied" in each for each in observer.warnings
        )
    [(_, snapshot)] = site.repository.snapshots()
    known = read_manifest(site.repository, snapshot)
    assert known is not None
    [record] = known.sources
    assert record.status == "incomplete"
    assert record.files is not None
    assert {path for path, _ in record.files.unread} == {
        str(tree / "secret"),
        str(tree / "hidden"),
    }
    (tree / "hidden").chmod(0o700)


def test_a_file_that_changes_while_it_is_read(
    site: TreeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = written(
        tmp_path / "tree", {"once": b"1" * 100, "always": b"2" * 100, "large": bytes(1 << 20)}
    )
    really, reads = contents._read, {"once": 0, "always": 0, "large": 0}

    def read(descriptor: int, most: int, first: int | None = None) -> bytes:
        data = really(descriptor, most, first)
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        reads[name] += bool(data)
        if data and (name == "always" or reads[name] == 1):
            with open(tree / name, "ab") as file:
                file.write(b"more")
        return data

    monkeypatch.setattr(contents, "_read", read)
    observer = SilentObserver()
    report = site.back_up(tree, observer=observer)
    assert report.changing == 1
    assert [each for each in observer.warnings if "changed whenever" in each] == [
        f"{tree}/always changed whenever it was read: what is in the snapshot it may never have been"
    ]
    site.give_back(tmp_path / "out")
    assert (tmp_path / "out/tree/once").read_bytes() == b"1" * 100 + b"more"
    assert (tmp_path / "out/tree/large").read_bytes() == bytes(1 << 20) + b"more"


def test_a_file_that_grows_large_or_goes_away(
    site: TreeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = written(tmp_path / "tree", {"grows": b"", "goes": b"gone", "turns": b"folder"})
    really = contents._open

    def late(path: str) -> int:
        if path.endswith("grows"):
            (tree / "grows").write_bytes(b"large" * 200_000)
        elif path.endswith("goes"):
            (tree / "goes").unlink(missing_ok=True)
        elif (tree / "turns").is_file():
            (tree / "turns").unlink()
            (tree / "turns").mkdir()
        return really(path)

    monkeypatch.setattr(contents, "_open", late)
    report = site.back_up(tree)
    assert report.unread == 1, "that one is gone is no fault"
    site.give_back(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out/tree").iterdir()) == ["grows"]
    assert (tmp_path / "out/tree/grows").stat().st_size == 1_000_000


def test_what_is_left_out(site: TreeSite, tmp_path: Path) -> None:
    tree = written(
        tmp_path / "tree",
        {
            "keep.txt": b"x",
            "drop.log": b"x",
            "cache/CACHEDIR.TAG": CACHE_TAG.partition(":")[2].encode() + b"\n",
            "cache/data": b"x",
            "no/NOBACKUP-TAG": b"",
            "no/data": b"x",
            "no/sub/data": b"x",
            "large": bytes(2000),
            "place/inside": b"x",
        },
    )
    excludes = Excludes(
        patterns=("*.log",),
        if_present=("NOBACKUP-TAG", CACHE_TAG),
        larger_than=1999,
        places=(str(tree / "place"),),
    )
    site.back_up(tree, excludes=excludes)
    site.give_back(tmp_path / "out")
    left = sorted(
        str(path.relative_to(tmp_path / "out/tree")) for path in (tmp_path / "out/tree").rglob("*")
    )
    assert left == ["cache", "cache/CACHEDIR.TAG", "keep.txt", "no", "no/NOBACKUP-TAG"]


def test_an_unchanged_tree_is_the_same_chunk(site: TreeSite, tree: Path) -> None:
    site.back_up(tree)
    before = len(site.names("data"))
    assert site.back_up(tree, skip_if_unchanged=True).files
    assert len(site.repository.snapshots()) == 1
    assert len(site.names("data")) == before
    (tree / "sub" / "new").write_bytes(b"")
    site.back_up(tree, skip_if_unchanged=True)
    assert len(site.repository.snapshots()) == 2


def test_chunks_that_the_repository_lost_are_stored_again(site: TreeSite, tree: Path) -> None:
    site.back_up(tree)
    for name, _ in [*site.store.list("data/"), *site.store.list("index/")]:
        site.store.delete(name)
    for name, _ in list(site.store.list("snapshots/"))[1:]:
        site.store.delete(name)
    site.repository.forget_index()
    observer = SilentObserver()
    assert site.back_up(tree, observer=observer).new
    assert any("is not built upon" in warning for warning in observer.warnings)
    [(first, _), _] = site.repository.snapshots()
    site.repository.delete_snapshot(first)


def test_single_files_and_links(site: TreeSite, tree: Path, tmp_path: Path) -> None:
    (tree / "to").symlink_to("sub")
    observer = SilentObserver()
    site.back_up(tree / "big", tree / "to", observer=observer)
    assert any("is a symbolic link" in warning for warning in observer.warnings)
    site.give_back(tmp_path / "out")
    assert (tmp_path / "out/big").read_bytes() == (tree / "big").read_bytes()
    assert os.readlink(tmp_path / "out/to") == "sub"


def test_the_root_of_the_file_system(site: TreeSite, tree: Path, tmp_path: Path) -> None:
    """It is the root of the snapshot, beside what is Perdure's own; most of it is left out here."""
    patterns = [
        pattern
        for above, below in pairwise((*reversed(tree.parents), tree))
        for pattern in (f"{str(above).rstrip('/')}/*", f"!{below}")
    ]
    for _ in range(2):
        report = site.back_up(Path("/"), excludes=Excludes(tuple(patterns)))
        assert report.files == len(odd_files.NAMES) + 4
    assert (report.new, report.changed) == (0, 0)
    site.give_back(tmp_path / "out")
    assert seen(Path(f"{tmp_path}/out/root{tree}")) == seen(tree)
    assert not (tmp_path / "out/root/perdure.json").exists()


def test_what_cannot_be_a_source(site: TreeSite, tree: Path) -> None:
    with pytest.raises(SourceUnusable, match="cannot be read: No such file"):
        site.back_up(tree / "nowhere")
    with pytest.raises(UsageError, match="lies in"):
        site.back_up(tree, tree / "sub")
    with pytest.raises(UsageError, match="same name"):
        site.back_up(tree, tree)
    assert not site.repository.snapshots()
    site.back_up(tree)


def test_very_deep_folders_are_named(
    site: TreeSite, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walking, "MOST_NESTED", 5)
    written(tmp_path / "tree", {"a/b/c/d/e/f/g": b"deep", "top": b"top"})
    assert site.back_up(tmp_path / "tree").unread == 1


def test_several_trees_and_moments(site: TreeSite, tmp_path: Path) -> None:
    one = written(tmp_path / "one/www", {"file": b"1"})
    two = written(tmp_path / "two/www", {"file": b"2"})
    site.back_up(one, two)
    site.give_back(tmp_path / "out")
    assert (tmp_path / "out/www/file").read_bytes() == b"1"
    assert (tmp_path / "out/www-2/file").read_bytes() == b"2"
    first = list_snapshots(site.repository)[0].sources[0].cut
    assert first is not None
    (one / "file").write_bytes(b"one")
    site.back_up(one)
    site.give_back(tmp_path / "then", Wanted(at=first.time, source=str(one)))
    assert (tmp_path / "then/www/file").read_bytes() == b"1"
    site.give_back(tmp_path / "now", Wanted(source=str(one)))
    assert (tmp_path / "now/www/file").read_bytes() == b"one"
    with pytest.raises(UsageError, match="was not backed up yet"):
        site.give_back(tmp_path / "x", Wanted(at=first.time.replace(year=2000), source=str(one)))

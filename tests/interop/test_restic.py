"""The stock restic and Perdure work on the same repositories."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import odd_files
import pytest
from doubles import Restic
from small_repository import TIME, backup, dir_node, file_node

from perdure.errors import PerdureError, RepositoryLocked
from perdure.formats.keyfile import FOR_KEY_FILES, FOR_PASSWORDS
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node, Tree
from perdure.model import ChunkId, ChunkKind, SilentObserver
from perdure.repository import Owner, Repository
from perdure.repository.checking import check_repository
from perdure.repository.repairing import repair_index
from perdure.stores import open_store

pytestmark = pytest.mark.slow

RANDOM = os.urandom(2 << 20)
TEXT = b"all work and no play makes jack a dull boy " * 30_000


def clock() -> datetime:
    return datetime.now(UTC)


def create(path: Path) -> Repository:
    return Repository.create(
        open_store(str(path)),
        "secret",
        kdf=FOR_KEY_FILES,
        now=clock(),
        username="plone",
        hostname="www1",
        clock=clock,
    )


def open_repository(path: Path) -> Repository:
    return Repository.open(open_store(str(path)), "secret", cache=None, clock=clock)


def files_below(folder: Path) -> dict[bytes, tuple[int, bytes]]:
    """Give mode and content (or link target) of everything below a folder."""
    found = {}
    for root, folders, names in os.walk(os.fsencode(folder)):
        for name in folders + names:
            path = os.path.join(root, name)
            mode = os.lstat(path).st_mode
            content = b""
            if stat.S_ISLNK(mode):
                content = os.fsencode(Path(os.fsdecode(path)).readlink())
            elif stat.S_ISREG(mode):
                content = Path(os.fsdecode(path)).read_bytes()
            found[os.path.relpath(path, os.fsencode(folder))] = (mode, content)
    return found


def trees(repository: Repository) -> Iterator[bytes]:
    for place in repository.index.locations():
        if place.entry.kind is ChunkKind.TREE:
            yield repository.load(ChunkKind.TREE, place.entry.id)


def test_restic_reads_what_perdure_wrote(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    assert json.loads(restic(path, "snapshots", "--json")) in ([], None)
    first = backup(repository, {"random": [RANDOM, b""], "text": [TEXT, TEXT], "empty": []})
    second = backup(repository, {"text": [TEXT], 'q"uo\\te<\n\udcff': [b"x"]})

    restic(path, "check", "--read-data")
    snapshots = json.loads(restic(path, "snapshots", "--json"))
    assert {snapshot["id"] for snapshot in snapshots} == {first, second}
    assert "/folder/random" in restic(path, "ls", first)
    restic(path, "restore", first, "--target", str(tmp_path / "first"))
    restic(path, "restore", second, "--target", str(tmp_path / "second"))
    assert (tmp_path / "first/folder/random").read_bytes() == RANDOM
    assert (tmp_path / "first/folder/text").read_bytes() == TEXT * 2
    assert (tmp_path / "first/folder/empty").read_bytes() == b""
    assert (tmp_path / 'second/folder/q"uo\\te<\n\udcff').read_bytes() == b"x"


def test_restic_writes_and_prunes_in_a_repository_of_perdure(
    restic: Restic, tmp_path: Path
) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    first = backup(repository, {"random": [RANDOM]})
    last = backup(repository, {"text": [TEXT]})
    odd_files.make(tmp_path / "odd")
    restic(path, "backup", "odd", cwd=tmp_path)
    restic(path, "forget", first)
    restic(path, "prune", "--max-unused", "0")
    restic(path, "check", "--read-data")
    repository = open_repository(path)

    assert not check_repository(repository, SilentObserver(), read_data=True).findings
    assert not repository.has(ChunkKind.DATA, ChunkId(hashlib.sha256(RANDOM).digest()))
    assert last in dict(repository.snapshots())
    backup(repository, {"random": [RANDOM], "more": [TEXT]})
    restic(path, "check", "--read-data")


def test_perdure_reads_what_restic_wrote(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    odd_files.make(tmp_path / "odd")
    restic(path, "init", "--repository-version", "2")
    restic(path, "backup", "odd", "--tag", "a&b", cwd=tmp_path)
    repository = open_repository(path)
    report = check_repository(repository, SilentObserver(), read_data=True)

    assert not report.findings
    assert not report.losses
    ((_, snapshot),) = repository.snapshots()
    assert snapshot.tags == ("a&b",)
    assert abs((snapshot.moment - clock()).total_seconds()) < 600
    root = repository.load_tree(snapshot.root)
    folder = root["odd"].tree
    assert folder
    nodes = repository.load_tree(folder).nodes
    assert {node.name for node in nodes} == {path.name for path in (tmp_path / "odd").iterdir()}
    for node in nodes:
        original = tmp_path / "odd" / node.name
        assert node.uid == original.lstat().st_uid
        if node.type == "file":
            content = b"".join(repository.load_many(ChunkKind.DATA, node.chunks))
            assert content == original.read_bytes()
            assert node.links == original.stat().st_nlink
        if node.type == "symlink":
            assert node.linktarget == str(original.readlink())


def test_trees_of_restic_keep_their_names(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    odd_files.make(tmp_path / "odd")
    restic(path, "init", "--repository-version", "2")
    restic(path, "backup", "odd", cwd=tmp_path)
    found = list(trees(open_repository(path)))

    assert len(found) >= 4
    for text in found:
        assert Tree.decode(text, "it").encode() == text


def test_a_snapshot_that_perdure_writes_of_trees_of_restic(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    odd_files.make(tmp_path / "odd")
    restic(path, "init", "--repository-version", "2")
    restic(path, "backup", "odd", cwd=tmp_path)
    repository = open_repository(path)
    ((_, snapshot),) = repository.snapshots()
    odd = repository.load_tree(snapshot.root)["odd"]
    with repository.lock() as lock, repository.writer(lock) as writer:
        chunk = writer.add(ChunkKind.DATA, b"new").result()
        root = writer.add_tree(Tree.of([odd, file_node("a", [chunk], 3)]))
        name = writer.commit(Snapshot(time=TIME, tree=root.hex(), paths=("/",)))
    restic(path, "check", "--read-data")
    restic(path, "restore", name, "--target", str(tmp_path / "restored"))

    assert files_below(tmp_path / "restored" / "odd") == files_below(tmp_path / "odd")


def test_restic_opens_each_kind_of_key(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    owner = Owner("zope", "www2", clock())
    repository.change_password("secret", FOR_PASSWORDS, owner)
    repository.add_key("other", FOR_KEY_FILES, owner)

    keys = json.loads(restic(path, "key", "list", "--json"))
    assert {(key["userName"], key["hostName"], key["current"]) for key in keys} == {
        ("zope", "www2", True),
        ("zope", "www2", False),
    }


@pytest.fixture
def hang_up_ignored() -> Iterator[None]:
    # To see whether the process that holds a lock lives, restic sends it this signal.
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("hang_up_ignored")
def test_restic_honours_locks_of_perdure(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    odd_files.make(tmp_path / "odd")
    with repository.lock(exclusive=True):
        assert "locked exclusively" in restic(path, "backup", "odd", cwd=tmp_path, status=1)
    with repository.lock():
        restic(path, "backup", "odd", cwd=tmp_path)
        assert "already locked" in restic(path, "check", status=1)
        assert len(restic(path, "list", "locks", "--no-lock").split()) == 1
        restic(path, "unlock")  # the lock is not stale: it stays
        assert len(restic(path, "list", "locks", "--no-lock").split()) == 1


def test_perdure_honours_locks_of_restic(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    environment = os.environ | {"RESTIC_PASSWORD": "secret"}
    holder = subprocess.Popen(
        ["restic", "-r", str(path), "--no-cache", "backup", "--stdin"],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    try:
        while not any((path / "locks").glob("*")):
            assert holder.poll() is None
        with repository.lock():
            pass
        with pytest.raises(RepositoryLocked, match="a shared lock of process"):
            repository.lock(exclusive=True)
    finally:
        holder.communicate(b"content")
    assert holder.returncode == 0
    with repository.lock(exclusive=True):
        pass


def test_restic_repairs_what_perdure_wrote_and_the_other_way_round(
    restic: Restic, tmp_path: Path
) -> None:
    path = tmp_path / "repository"
    backup(create(path), {"text": [TEXT], "random": [RANDOM]})
    for name in (path / "index").iterdir():
        name.unlink()
    restic(path, "rebuild-index")
    restic(path, "check", "--read-data")
    for name in (path / "index").iterdir():
        name.unlink()
    repository = open_repository(path)
    with repository.lock(exclusive=True) as lock:
        assert repair_index(repository, lock, SilentObserver()).packfiles_read == 2
    restic(path, "check", "--read-data")


def test_version_1_is_refused_with_a_hint(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    restic(path, "init", "--repository-version", "1")
    with pytest.raises(PerdureError, match="version 1") as caught:
        open_repository(path)
    assert "migrate" in (caught.value.hint or "")


def test_a_link_whose_target_is_not_utf8(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    link = Node(
        name="link",
        type="symlink",
        mode=1 << 27 | 0o777,
        mtime=TIME,
        atime=TIME,
        ctime=TIME,
        uid=0,
        gid=0,
        linktarget="to\udcff",
        content=None,
    )
    with repository.lock() as lock, repository.writer(lock) as writer:
        tree = writer.add_tree(Tree((link,)))
        writer.commit(
            Snapshot(time=TIME, tree=writer.add_tree(Tree((dir_node("d", tree),))).hex(), paths=())
        )
    restic(path, "check", "--read-data")

    assert repository.load_tree(tree) == Tree((link,))

"""Backups and restores of file trees that fail, or die, at any call: nothing is lost, the next one works."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from doubles import FaultyStore
from tree_site import back_up_trees, later, seen

from perdure.check import check
from perdure.errors import StoreError
from perdure.formats.keyfile import KdfParameters
from perdure.model import SilentObserver, Subset
from perdure.repository import Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.stores import Store
from perdure.stores.memory import MemoryStore

CHEAP = KdfParameters(2, 1, 1)
HANGS = 20
"""Seconds after which a child counts as hanging."""
CALLS = [
    *("open", "pwrite", "ftruncate", "fsync", "rename", "unlink", "close", "mkdir", "link"),
    *("symlink", "mknod", "fchmod", "fchown", "chown", "utime", "setxattr"),
]


def opened(store: Store) -> Repository:
    return Repository.open(store, "secret", cache=None, clock=later, workers=2)


def run(store: Store, tree: Path) -> None:
    repository = opened(store)
    try:
        back_up_trees(repository, tree)
    finally:
        repository.close()


def restored(store: Store, target: Path) -> list[dict[bytes, tuple[object, ...]]]:
    """Check a repository, and give what each of its snapshots gives back."""
    repository = opened(store)
    found = []
    with repository.lock():
        report = check(repository, read_data=Subset(), observer=SilentObserver())
        assert not report.damaged, report
        for number, (name, _) in enumerate(repository.snapshots()):
            place = target / str(number)
            restore(repository, RestoreRequest(place, Wanted(name)), SilentObserver())
            found.append(seen(place / "tree"))
    repository.close()
    shutil.rmtree(target, ignore_errors=True)
    return found


def first_state(tree: Path) -> None:
    (tree / "sub/deep").mkdir(parents=True)
    for name in ("a", "b", "sub/c", "sub/deep/d"):
        (tree / name).write_bytes(os.urandom(3000))
    (tree / "link").symlink_to("a")
    (tree / "hard").hardlink_to(tree / "b")


def second_state(tree: Path) -> None:
    (tree / "sub/c").write_bytes(os.urandom(700_000))
    (tree / "new").write_bytes(b"new")
    (tree / "a").unlink()


@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after it"])
def test_the_nth_call_of_a_backup_fails(tmp_path: Path, after: bool) -> None:
    tree = tmp_path / "tree"
    tree.mkdir()
    first_state(tree)
    original = MemoryStore()
    Repository.create(
        original, "secret", kdf=CHEAP, now=later(), username="u", hostname="h"
    ).close()
    run(original, tree)
    states = [seen(tree)]
    second_state(tree)
    states.append(seen(tree))
    for n in count(1):
        store = MemoryStore()
        store.contents = dict(original.contents)
        faulty = FaultyStore(store, n, after=after)
        with suppress(StoreError):
            run(faulty, tree)
        found = restored(store, tmp_path / "out")
        assert found in (states[:1], states)
        assert original.contents.items() <= store.contents.items()
        if not faulty.failed:
            break
        run(store, tree)
        assert restored(store, tmp_path / "out") == [*found, states[1]]
    assert n > 10


def make_deadly(n: int) -> None:
    """Have this process die at its n-th system call of some kinds."""
    calls = count(1)

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            if next(calls) == n:
                os._exit(9)
            return call(*arguments, **options)

        return run

    for name in CALLS:
        setattr(os, name, deadly(getattr(os, name)))


def restore_in_child(n: int, store: MemoryStore, target: Path) -> bool:
    """Restore in a child that dies at its n-th system call; says whether it lived."""
    for _ in range(5):
        child = os.fork()
        if not child:
            signal.alarm(HANGS)
            try:
                repository = opened(store)
                make_deadly(n)
                restore(repository, RestoreRequest(target, force=True), SilentObserver())
                os._exit(0)
            finally:
                os._exit(1)
        status = os.waitpid(child, 0)[1]
        if not (os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM):
            assert os.waitstatus_to_exitcode(status) in (0, 9)
            return status == 0
    raise AssertionError(f"five children hung, told to die at call {n}")


def parts(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".perdure-part")]


@pytest.mark.parametrize("had_old", [True, False])
def test_a_restore_is_killed_at_any_system_call(tmp_path: Path, had_old: bool) -> None:
    """What is under a name is the old file or the new one, and the next restore makes everything right."""
    tree = tmp_path / "tree"
    tree.mkdir()
    first_state(tree)
    old = {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    shutil.copytree(tree, tmp_path / "old", symlinks=True)
    second_state(tree)
    store = MemoryStore()
    Repository.create(store, "secret", kdf=CHEAP, now=later(), username="u", hostname="h").close()
    run(store, tree)
    new = {path.relative_to(tree): path.read_bytes() for path in tree.rglob("*") if path.is_file()}
    for n in count(1, 1 if had_old else 3):
        target = tmp_path / f"target{n}"
        if had_old:
            shutil.copytree(tmp_path / "old", target / "tree", symlinks=True)
        lived = restore_in_child(n, store, target)
        for path in (target / "tree").rglob("*"):
            if path.is_file() and path not in parts(target):
                name = path.relative_to(target / "tree")
                assert path.read_bytes() in (old.get(name) if had_old else None, new.get(name))
        if lived:
            break
        repository = opened(store)
        restore(repository, RestoreRequest(target, force=True), SilentObserver())
        repository.close()
        found, wanted = seen(target / "tree"), seen(tree)
        if had_old:
            found = {name: facts for name, facts in found.items() if name in wanted}
        assert found == wanted
        assert not parts(target)
        shutil.rmtree(target)
    assert n > 30

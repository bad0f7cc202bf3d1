"""Forget, tag and prune fail at their n-th call: what is listed stays whole, and the next run completes."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from datafs import simple
from doubles import Clock, FaultyStore, PowerCut
from history_site import back_up, rebuilt_from, snapshots_in
from small_repository import backup

from perdure.check import check
from perdure.errors import StoreError
from perdure.forget import ForgetRequest, forget
from perdure.formats.keyfile import KdfParameters
from perdure.model import ChunkKind, SilentObserver, Subset
from perdure.prune import PruneRequest, prune
from perdure.repository import Repository
from perdure.repository import packer as packer_module
from perdure.repository import writer as writer_module
from perdure.repository.prune_plan import Allowance, Limits
from perdure.retention import Policy
from perdure.selection import Selection
from perdure.stores import Store
from perdure.stores.local import LocalStore
from perdure.stores.memory import MemoryStore
from perdure.tag import TagChange, tag

CHEAP = KdfParameters(2, 1, 1)
NOTHING_MAY_STAY = Limits(Allowance(size=0))
NEWEST = ForgetRequest(policy=Policy(last=2))

Work = Callable[[Store], None]
Contents = dict[str, bytes]


def create(store: Store) -> None:
    clock = Clock()
    Repository.create(store, "secret", kdf=CHEAP, now=clock(), username="u", hostname="h").close()


def opened(store: Store, *, minutes: float = 0) -> Repository:
    clock = Clock()
    clock.advance(minutes=minutes)
    return Repository.open(store, "secret", cache=None, clock=clock, workers=2)


def do_forget(store: Store, minutes: float = 0) -> None:
    with opened(store, minutes=minutes) as repository, repository.lock(exclusive=True) as lock:
        forget(repository, lock, NEWEST, SilentObserver())


def do_tag(store: Store, minutes: float = 0) -> None:
    with opened(store, minutes=minutes) as repository, repository.lock(exclusive=True) as lock:
        tag(repository, lock, Selection(), TagChange(add=("new",)))


def do_prune(store: Store, minutes: float = 0) -> None:
    with opened(store, minutes=minutes) as repository, repository.lock(exclusive=True) as lock:
        prune(repository, lock, PruneRequest(NOTHING_MAY_STAY), SilentObserver())


def do_all(store: Store, minutes: float = 0) -> None:
    do_forget(store, minutes)
    do_tag(store, minutes)
    do_prune(store, minutes)


WORK = {"forget": do_forget, "tag": do_tag, "prune": do_prune, "all": do_all}


def files_in(repository: Repository, tree: str) -> Contents:
    """Give the content of all files of a snapshot, every byte of it verified."""
    found: Contents = {}
    pending = [("", bytes.fromhex(tree))]
    while pending:
        path, name = pending.pop()
        for node in repository.load_tree(name).nodes:  # type: ignore[arg-type]
            if node.tree:
                pending.append((f"{path}/{node.name}", node.tree))
            else:
                content = b"".join(repository.load_many(ChunkKind.DATA, node.chunks))
                found[f"{path}/{node.name}"] = content
    return found


def listed(store: Store) -> dict[str, Contents]:
    """Check everything, and give what each listed snapshot holds, by its tree."""
    with opened(store) as repository:
        report = check(repository, read_data=Subset(), observer=SilentObserver())
        assert not report.damaged, report
        trees = {snapshot.tree for _, snapshot in repository.snapshots()}
        return {tree: files_in(repository, tree) for tree in trees}


@pytest.fixture(scope="module")
def prepared() -> tuple[MemoryStore, dict[str, Contents]]:
    """Five snapshots in packfiles of three to four chunks; some of these are of an interrupted backup."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(packer_module, "PACKFILE_SIZE", 500)
        chance = random.Random(3)
        store = MemoryStore()
        create(store)
        chunks = [chance.randbytes(150) for _ in range(30)]
        with opened(store) as repository:
            for number in range(5):
                files = {"same": chunks[20:22], "few": chunks[:24:7]}
                files["own"] = chunks[3 * number : 3 * number + 5]
                backup(repository, files)
            with repository.lock() as lock, repository.writer(lock) as writer:
                for chunk in chunks[25:]:
                    writer.add(ChunkKind.DATA, chunk).result()
        return store, listed(store)


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several packfiles and index files are written anew."""
    monkeypatch.setattr(packer_module, "PACKFILE_SIZE", 500)
    monkeypatch.setattr(writer_module, "PACKFILES_PER_INDEX", 2)


@pytest.mark.usefixtures("small_files")
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after it"])
@pytest.mark.parametrize(
    "dead",
    [pytest.param(True, id="from then on"), pytest.param(False, id="once", marks=pytest.mark.slow)],
)
@pytest.mark.parametrize("name", ["forget", "tag", "prune", "all"])
def test_the_nth_call_fails(
    name: str, dead: bool, after: bool, prepared: tuple[MemoryStore, dict[str, Contents]]
) -> None:
    original, states = prepared
    work = WORK[name]
    if name == "prune":
        original = copy_of(original)
        do_forget(original)
    for n in count(1):
        store = copy_of(original)
        faulty = FaultyStore(store, n, after=after, dead=dead)
        with suppress(StoreError):
            work(faulty)
        found = listed(store)
        assert found.items() <= states.items()
        assert len(found) >= 2
        if not faulty.failed:
            break
        work(store, 31)  # a dead process's lock is stale by then
        left = listed(store)
        assert left.items() <= found.items()
        assert len(left) == (5 if name == "tag" else 2)
        if name in ("prune", "all"):
            assert_clean(store)
    assert n > 12


def copy_of(store: MemoryStore) -> MemoryStore:
    copy = MemoryStore()
    copy.contents = dict(store.contents)
    return copy


def assert_clean(store: Store) -> None:
    """Nothing is left that no snapshot needs, and each snapshot is there once."""
    with opened(store) as repository:
        report = check(repository, read_data=Subset(), observer=SilentObserver())
        assert not report.findings
        snapshots = repository.snapshots()
        assert len({snapshot.tree for _, snapshot in snapshots}) == len(snapshots)
        with repository.lock(exclusive=True) as lock:
            assert prune(repository, lock, PruneRequest(NOTHING_MAY_STAY), SilentObserver()).idle


@pytest.mark.usefixtures("small_files")
def test_the_power_fails_after_each_step_of_a_prune(
    prepared: tuple[MemoryStore, dict[str, Contents]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only what was synced survives, and what was deleted may come back or not."""
    original, states = prepared
    power = PowerCut(monkeypatch)
    root = tmp_path / "repository"
    for name, content in original.contents.items():
        LocalStore(root).put(name, content)
    survivors: list[Path] = []

    class Watched(LocalStore):
        def put(self, name: str, data: bytes) -> None:
            super().put(name, data)
            self._survive()

        def delete(self, name: str) -> None:
            super().delete(name)
            self._survive()

        def _survive(self) -> None:
            survivors.append(tmp_path / f"after-{len(survivors)}")
            power.survivors(tmp_path, survivors[-1])

    do_all(Watched(root))
    assert len(survivors) > 20
    for survivor in survivors:
        store = LocalStore(survivor / "repository")
        assert listed(store).items() <= states.items()
    assert_clean(LocalStore(root))


@pytest.mark.slow
@pytest.mark.parametrize("after", [False, True], ids=["before the effect", "after it"])
def test_histories(after: bool, tmp_path: Path) -> None:
    """Each listed snapshot gives the bytes of the Data.fs back, and backups go on."""
    original, path = MemoryStore(), tmp_path / "Data.fs"
    create(original)
    states = [simple(number).data for number in (6, 8, 11, 15, 20)]
    for state in states[:-1]:
        path.write_bytes(state)
        with opened(original) as repository:
            back_up(repository, path, window=400)
    for n in count(1, 4):  # the test above has every one of them
        store = copy_of(original)
        faulty = FaultyStore(store, n, after=after)
        with suppress(StoreError):
            do_all(faulty)
        done = not faulty.failed
        path.write_bytes(states[-1])
        with opened(store, minutes=31) as repository:
            assert set(restored(repository)) <= set(states[:-1])
            back_up(repository, path, window=400)
            assert restored(repository)[-1] == states[-1]
        do_all(store, 62)
        with opened(store) as repository:
            assert set(restored(repository)) == set(states[-2:])
        assert_clean(store)
        if done:
            break
    assert n > 40


def restored(repository: Repository) -> list[bytes]:
    return [rebuilt_from(found)[0] for found in snapshots_in(repository)]

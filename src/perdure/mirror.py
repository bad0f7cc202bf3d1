"""Mirror: an exact copy of a repository at another place, file by file, as they are.

What is at the other place is compared with what is here by name and size, since a name is the SHA-256 of
a content; so a mirror that was interrupted goes on where it was. The order is that of a backup: keys and
config, packfiles, index files, and at the end snapshots, so that whatever the mirror lists is whole in it
at any moment. What is to go goes in the reverse order. What was read is verified before it is written: a
packfile that is damaged here does not replace a whole one there, and where one is missing there, nothing
that might need it is listed there. One that is gone here although the index names it stays there: it is
the last one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from perdure.errors import NameNotFound, RepositoryDamaged, UsageError
from perdure.model import Observer
from perdure.pool import Pool
from perdure.repository import Lock, Repository
from perdure.repository.index import Index, load_index
from perdure.repository.locks import Locks
from perdure.repository.reading import packfile_name
from perdure.repository.repository import CONFIG
from perdure.repository.sealed import is_id
from perdure.repository.snapshots import Snapshots
from perdure.stores import Store

FOLDERS = ("keys", "data", "index", "snapshots")
"""In the order in which they are written: nothing refers to what comes behind it."""
_AT_ONCE, _IN_MEMORY = 5, 96 << 20
_NAMED = 5

Listing = Mapping[str, Mapping[str, int]]
"""The files of a repository: by folder their names, and sizes in bytes."""


@dataclass(frozen=True, slots=True)
class MirrorRequest:
    """What is wanted beyond copying what is missing; ``lock_wait`` is for locks at the other place."""

    delete: bool = False
    dry_run: bool = False
    lock_wait: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class MirrorPlan:
    """What is to be copied and deleted: names and sizes by folder, in the order of ``FOLDERS``."""

    copied: Listing
    deleted: Listing
    already_there: int

    @property
    def deletes(self) -> bool:
        """Whether anything is to be deleted."""
        return any(self.deleted.values())


@dataclass(frozen=True, slots=True)
class MirrorReport:
    """What was copied and deleted, or would be: numbers of files by folder, and bytes."""

    target: str
    copied: Mapping[str, int]
    bytes_copied: int
    deleted: Mapping[str, int]
    bytes_deleted: int
    already_there: int
    seconds: float


def plan_mirror(
    here: Listing, there: Listing, *, delete: bool, needed: AbstractSet[str] = frozenset()
) -> MirrorPlan:
    """Decide what is to be copied: what is not there with its size; and what is there in excess.

    What is ``needed`` is never in excess, even if it is not here.
    """
    copied, deleted = {}, {}
    for folder in FOLDERS:
        copied[folder] = {
            name: size for name, size in here[folder].items() if there[folder].get(name) != size
        }
        surplus = there[folder].keys() - here[folder].keys() - needed if delete else set()
        deleted[folder] = {name: there[folder][name] for name in sorted(surplus)}
    everything = sum(map(len, here.values()))
    return MirrorPlan(copied, deleted, everything - sum(map(len, copied.values())))


def mirror(
    repository: Repository,
    lock: Lock | None,
    target: Store,
    request: MirrorRequest,
    clock: Callable[[], datetime],
    observer: Observer,
) -> MirrorReport:
    """Make ``target`` an exact copy of a repository, which is locked unless ``lock`` is None.

    Raises UsageError when another repository is there, or one that has gone on by itself;
    RepositoryDamaged when something is damaged here, once all else is copied that nothing refers to
    yet; RepositoryLocked, StoreError.
    """
    started = clock()
    work = _Mirroring(repository, lock, target, request, observer)
    is_new = work.compare_config()
    if request.dry_run:
        return _report(work.plan(), target, (clock() - started).total_seconds())
    begun = work.begin() if is_new else {}
    with work.locked(exclusive=False):
        plan = work.plan()
        work.copy(plan)
    if plan.deletes:
        with work.locked(exclusive=True):
            plan = replace(plan, deleted=work.plan().deleted)
            work.delete(plan)
    plan = replace(
        plan,
        copied={**plan.copied, "keys": {**begun, **plan.copied["keys"]}},
        already_there=plan.already_there - len(begun),
    )
    return _report(plan, target, (clock() - started).total_seconds())


def _report(plan: MirrorPlan, target: Store, seconds: float) -> MirrorReport:
    return MirrorReport(
        target=target.location,
        copied={folder: len(names) for folder, names in plan.copied.items()},
        bytes_copied=sum(sum(names.values()) for names in plan.copied.values()),
        deleted={folder: len(names) for folder, names in plan.deleted.items()},
        bytes_deleted=sum(sum(names.values()) for names in plan.deleted.values()),
        already_there=plan.already_there,
        seconds=seconds,
    )


def list_files(store: Store) -> Listing:
    """List what a repository consists of: what refers to other files before what it refers to.

    So all that is referred to is in the list, even if a backup goes on meanwhile.
    """
    found: dict[str, dict[str, int]] = {}
    for folder in reversed(FOLDERS):
        files = store.list(f"{folder}/")
        found[folder] = {name: size for name, size in files if is_id(name.rpartition("/")[2])}
    return found


def _named_in(index: Index) -> set[str]:
    return set(map(packfile_name, index.packfiles()))


class _Mirroring:
    def __init__(
        self,
        repository: Repository,
        lock: Lock | None,
        target: Store,
        request: MirrorRequest,
        observer: Observer,
    ) -> None:
        self._repository, self._source, self._target = repository, repository.store, target
        self._lock, self._request, self._observer = lock, request, observer
        self._elsewhere: Lock | None = None
        self._files = repository.files.at(target)
        # Before the packfiles are listed, so that all which it names are in the list.
        self._needed = _named_in(repository.index)
        self._here = list_files(self._source)
        self._damage: list[str] = []

    def compare_config(self) -> bool:
        """Tell whether the config is to be copied. Raises UsageError where another one is."""
        if self._target.location == self._source.location:
            raise UsageError("the mirror and the repository are the same place")
        try:
            there = self._target.get(CONFIG)
        except NameNotFound:
            if any(True for folder in FOLDERS[1:] for _ in self._target.list(f"{folder}/")):
                raise UsageError(
                    f"{self._target.location} has files of a repository, but no config",
                    hint="a mirror is made in an empty place, or in one that mirror has begun",
                ) from None
            return True
        if there != self._source.get(CONFIG):
            raise UsageError(
                f"{self._target.location} is another repository, no mirror of this one",
                hint="choose another place; to bring snapshots into a repository of its own: perdure copy",
            )
        return False

    def plan(self) -> MirrorPlan:
        """Compare what is here with what is there now. Raises UsageError for what must not be deleted."""
        there = list_files(self._target)
        plan = plan_mirror(self._here, there, delete=self._request.delete, needed=self._needed)
        self._refuse_newer(plan)
        return plan

    def begin(self) -> Mapping[str, int]:
        """Make the other place a repository, so that it can be locked; gives the keys it was given."""
        keys = self.plan().copied["keys"]
        self._copy_files(keys, 0, sum(keys.values()))
        self._refuse_damage()
        self._target.put(CONFIG, self._source.get(CONFIG))
        return keys

    def copy(self, plan: MirrorPlan) -> None:
        """Copy what is missing; what refers to other files only when these are there."""
        total = sum(sum(names.values()) for names in plan.copied.values())
        done = 0
        for folder in FOLDERS:
            if plan.copied[folder]:
                self._verify_locks()
                done = self._copy_files(plan.copied[folder], done, total)
                self._refuse_damage()
            if folder == "data":
                self._refuse_lost()

    def delete(self, plan: MirrorPlan) -> None:
        """Delete what is there in excess: first what refers to other files."""
        total = sum(map(len, plan.deleted.values()))
        done = 0
        for folder in reversed(FOLDERS):
            if plan.deleted[folder]:
                self._verify_locks()
            for name in plan.deleted[folder]:
                self._keep_locks()
                with suppress(NameNotFound):
                    self._target.delete(name)
                done += 1
                self._observer.progress("deleting files", done, total)

    @contextmanager
    def locked(self, *, exclusive: bool) -> Iterator[None]:
        """Lock the other place, whose key is the same. Raises RepositoryLocked."""
        locks = Locks(self._files, self._repository.clock, None)
        with locks.take(exclusive=exclusive, wait=self._request.lock_wait) as self._elsewhere:
            yield
        self._elsewhere = None

    def _refuse_newer(self, plan: MirrorPlan) -> None:
        """Raise UsageError if a snapshot would be deleted that can never have been here."""
        if not plan.deleted["snapshots"]:
            return
        newest = max(
            (snapshot.moment for _, snapshot in self._repository.snapshots()), default=None
        )
        there = Snapshots(self._files, None)
        for file in plan.deleted["snapshots"]:
            name = file.rpartition("/")[2]
            try:
                moment = there.load(name).moment
            except NameNotFound:
                continue
            except RepositoryDamaged as error:
                raise UsageError(
                    f"{error}, so nothing tells whether it is newer than all in the repository:"
                    " nothing is deleted",
                    hint=f"drop it there: perdure -r {self._target.location} repair snapshots --forget",
                ) from error
            if newest is None or moment > newest:
                raise UsageError(
                    f"{self._target.location} has snapshot {name[:8]} of {moment:%Y-%m-%d %H:%M:%S} (UTC),"
                    " which is newer than all in the repository: nothing is deleted",
                    hint="if backups went on there, that is the repository now; else forget it there, with"
                    f" perdure forget {name[:8]}",
                )

    def _copy_files(self, files: Mapping[str, int], done: int, total: int) -> int:
        jobs = [(size, name) for name, size in files.items()]
        pool = Pool(_AT_ONCE, _IN_MEMORY)
        try:
            for (size, _), _ in zip(jobs, pool.in_order(self._copy_file, jobs), strict=True):
                done += size
                self._keep_locks()
                self._observer.progress("copying", done, total)
        finally:
            pool.close()
        return done

    def _copy_file(self, name: str) -> None:
        try:
            content = self._source.get(name)
        except NameNotFound:
            self._damage.append(f"{name} was listed and is gone")
            return
        if hashlib.sha256(content).hexdigest() != name.rpartition("/")[2]:
            self._damage.append(f"{name} is damaged: its SHA-256 is not its name")
            return
        self._target.put(name, content)

    def _refuse_lost(self) -> None:
        """Raise RepositoryDamaged if the index names packfiles that are at neither place."""
        if not self._needed - self._here["data"].keys():
            return
        there = {name for name, _ in self._target.list("data/")}
        if self._needed - self._here["data"].keys() - there:
            # The cache may be what is damaged.
            named = _named_in(load_index(self._repository.files, None))
            lost = named - {name for name, _ in self._source.list("data/")} - there
            self._damage += [f"{name} is in the index, and missing" for name in lost]
        self._refuse_damage()

    def _refuse_damage(self) -> None:
        if self._damage:
            more = len(self._damage) - _NAMED
            named = "; ".join(sorted(self._damage)[:_NAMED])
            raise RepositoryDamaged(
                f"{self._source.location} is damaged, and what is damaged is not copied: {named}"
                f"{f'; and {more} more' if more > 0 else ''}",
                hint="the mirror has no snapshot that it did not have before; perdure check --read-data says"
                " what is lost, perdure repair mends; if a prune ran meanwhile, try again",
            )

    def _locks(self) -> Iterator[Lock]:
        yield from (lock for lock in (self._lock, self._elsewhere) if lock is not None)

    def _keep_locks(self) -> None:
        for lock in self._locks():
            lock.keep()

    def _verify_locks(self) -> None:
        for lock in self._locks():
            lock.verify()

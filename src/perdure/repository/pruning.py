"""Pruning: what no snapshot needs is deleted, and what lies beside it is written anew.

First everything is read that a decision rests on - all snapshots, all index files, all trees, and never
from a cache - and where any of it is missing or damaged nothing at all is deleted. Then, each step durable
before the next: new packfiles, new index files; then old index files are deleted, then old packfiles. So
at no moment does a listed index file name a packfile that is not there, and whatever stops a prune leaves
chunks twice, or packfiles in no index, both of which the next prune clears away.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from perdure.errors import NameNotFound, PerdureError, RepositoryDamaged
from perdure.formats.index import Packed
from perdure.model import ChunkId, ChunkKind, Observer, SnapshotId
from perdure.repository.checking import Survey
from perdure.repository.index import FOLDER as INDEX
from perdure.repository.index import Index, read_index_file, save_index
from perdure.repository.locks import Lock
from perdure.repository.prune_plan import (
    Action,
    Decision,
    IndexFileUse,
    Limits,
    decide,
    index_files_to_replace,
)
from perdure.repository.reading import packfile_name
from perdure.repository.repository import Repository
from perdure.repository.runs import Location
from perdure.repository.snapshots import Snapshots
from perdure.repository.usage import ChunkTable, Usage

_NAMED = 5
"""How many findings a refusal names; check names all."""


@dataclass(frozen=True, slots=True)
class PrunePlan:
    """What a prune will do. Sizes in bytes, packfiles by id."""

    usage: Usage
    decisions: tuple[Decision, ...]
    unindexed: Mapping[bytes, int]
    index_files: Mapping[str, IndexFileUse]
    replaced: frozenset[str]
    """The index files that are written anew."""

    def packfiles(self, action: Action) -> list[bytes]:
        """Give the packfiles of which something becomes."""
        return [each.packfile.id for each in self.decisions if each.action is action]

    @property
    def idle(self) -> bool:
        """Whether there is nothing to do."""
        return not self.replaced and not self.unindexed

    @property
    def bytes_stored(self) -> int:
        """Give about how many bytes all packfiles have afterwards."""
        sizes = {Action.KEEP: "size", Action.REWRITE: "used"}
        return sum(
            getattr(each.packfile, sizes[each.action])
            for each in self.decisions
            if each.action in sizes
        )


@dataclass(frozen=True, slots=True)
class Pruned:
    """What a prune did; ``bytes_stored`` are those of all packfiles after it."""

    bytes_stored: int
    index_files_written: int = 0
    index_files_deleted: int = 0


def plan_prune(
    repository: Repository,
    lock: Lock,
    limits: Limits,
    observer: Observer,
    forgotten: Collection[SnapshotId] = (),
) -> PrunePlan:
    """Find out what is needed, and decide; snapshots that are ``forgotten`` count as gone already.

    Raises RepositoryDamaged if anything that a snapshot needs is missing, StoreError.
    """
    roots = [root for name, root in _roots(repository) if name not in set(forgotten)]
    index_files: dict[str, IndexFileUse] = {}
    table = ChunkTable(_read_index(repository, lock, observer, index_files))
    sizes = repository.reader.packfiles()
    expected = {each.id: each.size for each in table.usage().packfiles()}
    _refuse(_wrong_sizes(expected, sizes))
    _refuse(_mark_needed(repository, lock, table, roots, observer))
    usage = table.usage()
    decisions = tuple(decide(usage.packfiles(), limits))
    kept = {each.packfile.id for each in decisions if each.action is Action.KEEP}
    named = {packfile for file in index_files.values() for packfile in file.packfiles}
    return PrunePlan(
        usage=usage,
        decisions=decisions,
        unindexed={packfile: size for packfile, size in sizes.items() if packfile not in expected},
        index_files=index_files,
        replaced=frozenset(index_files_to_replace(index_files, named - kept)),
    )


def carry_out(repository: Repository, lock: Lock, plan: PrunePlan, observer: Observer) -> Pruned:
    """Do what was planned, under the exclusive lock under which it was planned.

    Raises RepositoryDamaged, with nothing deleted, if a chunk to be written anew is damaged;
    RepositoryLocked, StoreError.
    """
    if not lock.exclusive:
        raise PerdureError("to prune takes an exclusive lock")
    _write_anew(repository, lock, plan, observer)
    _write_index(repository, lock, plan)
    new = {name for name, _ in repository.files.list(INDEX)} - plan.index_files.keys()
    lock.verify()
    for name in plan.replaced:
        lock.keep()
        with suppress(NameNotFound):
            repository.files.delete(INDEX, name)
    repository.forget_index()
    _delete_packfiles(repository, lock, plan, observer)
    return Pruned(
        bytes_stored=sum(repository.reader.packfiles().values()),
        index_files_written=len(new),
        index_files_deleted=len(plan.replaced),
    )


def _roots(repository: Repository) -> list[tuple[SnapshotId, ChunkId]]:
    try:
        snapshots = Snapshots(repository.files, None).all()
    except RepositoryDamaged as error:
        error.hint = error.hint or (
            "nothing is pruned; a snapshot that cannot be read is lost: remove its file, then prune"
        )
        raise
    return [(name, snapshot.root) for name, snapshot in snapshots]


def _read_index(
    repository: Repository, lock: Lock, observer: Observer, uses: dict[str, IndexFileUse]
) -> Iterator[list[Packed]]:
    """Read all index files from the store, and note what each of them names."""
    names = [name for name, _ in repository.files.list(INDEX)]
    for done, name in enumerate(names, 1):
        lock.keep()
        packfiles = read_index_file(repository.files, name)
        chunks = sum(len(packed.entries) for packed in packfiles)
        uses[name] = IndexFileUse([packed.id for packed in packfiles], chunks)
        observer.progress("reading the index", done, len(names))
        yield packfiles


def _wrong_sizes(expected: Mapping[bytes, int], sizes: Mapping[bytes, int]) -> Iterator[str]:
    for packfile, size in expected.items():
        found = sizes.get(packfile)
        if found is None:
            yield f"{packfile_name(packfile)} is missing"
        elif found != size:
            yield f"{packfile_name(packfile)} has {found} bytes, by the index it should have {size}"


def _mark_needed(
    repository: Repository,
    lock: Lock,
    table: ChunkTable,
    roots: list[ChunkId],
    observer: Observer,
) -> list[str]:
    """Walk the trees of all snapshots, and mark what they need; gives what is wrong."""
    damage: list[str] = []

    def places(kind: ChunkKind, chunk_id: ChunkId) -> list[Location]:
        if kind is ChunkKind.TREE:
            lock.keep()
        return table.need(kind, chunk_id)

    survey = Survey(repository, places, damage.append)
    for done, root in enumerate(roots, 1):
        survey.lost(root)
        observer.progress("reading the trees of snapshots", done, len(roots))
    return damage


def _refuse(damage: Iterable[str]) -> None:
    found = list(damage)
    if found:
        more = f"; and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
        raise RepositoryDamaged(
            f"nothing is pruned, since the repository is damaged: {'; '.join(found[:_NAMED])}{more}",
            hint="perdure check --read-data names all that is lost; mend that first",
        )


def _write_anew(repository: Repository, lock: Lock, plan: PrunePlan, observer: Observer) -> None:
    """Store what is needed of packfiles that will go in new ones, with their index files."""
    packfiles = plan.packfiles(Action.REWRITE)
    stored = Index([])
    with repository.writer(lock, stored) as writer:
        for done, packfile in enumerate(packfiles, 1):
            for kind, content in _needed_content(repository, plan.usage, packfile):
                writer.add(kind, content)
            observer.progress("writing packfiles anew", done, len(packfiles))
        writer.flush()
    for packfile in packfiles:
        for entry in plan.usage.needed_in(packfile):
            if not stored.has(entry.kind, entry.id):
                raise PerdureError(f"chunk {entry.id.hex()} was to be written anew and was not")


def _needed_content(
    repository: Repository, usage: Usage, packfile: bytes
) -> Iterator[tuple[ChunkKind, bytes]]:
    def load(kind: ChunkKind, chunk_id: ChunkId) -> bytes:
        return repository.reader.read(usage.places(kind, chunk_id))

    for kind in ChunkKind:
        ids = (entry.id for entry in usage.needed_in(packfile) if entry.kind is kind)
        contents = repository.reader.read_many(usage.places, load, kind, ids, repository.pool)
        yield from ((kind, content) for content in contents)


def _write_index(repository: Repository, lock: Lock, plan: PrunePlan) -> None:
    """Write index files for the packfiles that stay and whose index files do not."""
    covered = {
        packfile
        for name, file in plan.index_files.items()
        if name not in plan.replaced
        for packfile in file.packfiles
    }

    def packed() -> Iterator[Packed]:
        for packfile in plan.packfiles(Action.KEEP):
            if packfile not in covered:
                lock.keep()
                yield plan.usage.packed(packfile)

    for _ in save_index(repository.files, packed()):
        lock.keep()


def _delete_packfiles(
    repository: Repository, lock: Lock, plan: PrunePlan, observer: Observer
) -> None:
    going = [
        *plan.unindexed,
        *plan.packfiles(Action.DELETE),
        *plan.packfiles(Action.REWRITE),
    ]
    lock.verify()
    for done, packfile in enumerate(going, 1):
        lock.keep()
        with suppress(NameNotFound):
            repository.store.delete(packfile_name(packfile))
        observer.progress("deleting packfiles", done, len(going))

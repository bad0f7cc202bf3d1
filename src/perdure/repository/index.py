"""Which chunks a repository holds, and where: its index files, and what this process has added.

The cache (a folder for each repository) keeps the content of index files as sorted runs (see
`perdure.repository.runs`), so that only index files not seen before are fetched and decoded. Runs
are merged once they are of similar size, so that there are few. Only index files that are listed
count: a run that covers any other is dropped, since a prune elsewhere may have deleted what it
names. The cache may be deleted at any time, and where it cannot be written it is done without.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from perdure.errors import NameNotFound, RepositoryDamaged
from perdure.formats import index as index_file
from perdure.formats.index import Packed
from perdure.model import ChunkId, ChunkKind
from perdure.repository.runs import Location, Run, chunk_key
from perdure.repository.sealed import SealedFiles

FOLDER = "index"
_GROWTH = 4
"""A run is merged with the next larger one until that has this many times its records."""


class Index:
    """The index of a repository, as it was listed when it was loaded."""

    def __init__(self, runs: Iterable[Run]) -> None:
        self._runs = list(runs)
        self._added: dict[bytes, Location] = {}
        self._written: set[str] = set()

    def find(self, kind: ChunkKind, chunk_id: ChunkId) -> list[Location]:
        """Give every place of a chunk; none if the repository lacks it."""
        key = chunk_key(kind, chunk_id)
        found = [location for run in self._runs for location in run.find(key)]
        if key in self._added:
            found.append(self._added[key])
        return found

    def has(self, kind: ChunkKind, chunk_id: ChunkId) -> bool:
        """Tell whether a chunk is there."""
        key = chunk_key(kind, chunk_id)
        return key in self._added or any(run.find(key) for run in self._runs)

    def add(self, packed: Packed) -> None:
        """Enter a packfile that is now in the store."""
        for entry in packed.entries:
            self._added[chunk_key(entry.kind, entry.id)] = Location(packed.id, entry)

    def note_written(self, name: str) -> None:
        """Note the id of an index file that was written for what was added."""
        self._written.add(name)

    def adopt(self, other: Index) -> None:
        """Take what another index was loaded with in place of one's own; what was added stays."""
        self._runs = other._runs

    def locations(self) -> Iterator[Location]:
        """Give every place of every chunk, in no order."""
        for run in self._runs:
            yield from run.locations()
        yield from self._added.values()

    def packfiles(self) -> set[bytes]:
        """Give the ids of all packfiles that chunks lie in."""
        added = {location.packfile for location in self._added.values()}
        return added.union(*(run.packfiles() for run in self._runs))

    @property
    def files(self) -> frozenset[str]:
        """The ids of the index files that it was made of, and of those written since."""
        return frozenset(self._written).union(*(run.covered for run in self._runs))


def load_index(files: SealedFiles, cache: Path | None) -> Index:
    """Load the index, from the cache as far as it goes. Raises RepositoryDamaged, StoreError."""
    listed = {name for name, _ in files.list(FOLDER)}
    runs = _cached_runs(cache, listed) if cache else []
    missing = listed.difference(*(run.covered for run in runs))
    if not missing:
        return Index(runs)
    new = Run.of(missing, _read(files, missing))
    kept, merged = _merge(runs, new)
    if cache:
        _keep(cache, merged, {run.file_name for run in kept})
    return Index([*kept, merged])


def save_index(files: SealedFiles, packfiles: Iterable[Packed]) -> Iterator[tuple[str, int]]:
    """Write index files for packfiles that are in the store; gives their ids and sizes."""
    part: list[Packed] = []
    count = 0
    for packed in packfiles:
        count += len(packed.entries)
        if part and count > index_file.MOST_ENTRIES:
            yield files.save(FOLDER, index_file.encode(part))
            part, count = [], len(packed.entries)
        part.append(packed)
    if part:
        yield files.save(FOLDER, index_file.encode(part))


def read_index_file(files: SealedFiles, name: str) -> list[Packed]:
    """Read one index file. Raises RepositoryDamaged."""
    where = files.where(FOLDER, name)
    try:
        return index_file.decode(files.load(FOLDER, name), where)
    except NameNotFound:
        raise RepositoryDamaged(
            f"{where} was listed and is gone",
            hint="if another program has just pruned the repository, try again",
        ) from None
    except RepositoryDamaged as error:
        error.hint = error.hint or "perdure repair index makes the index anew"
        raise


def _read(files: SealedFiles, names: Iterable[str]) -> Iterator[Packed]:
    for name in names:
        yield from read_index_file(files, name)


def _merge(runs: list[Run], new: Run) -> tuple[list[Run], Run]:
    """Give the runs that stay as they are, and the new one with what it was merged with."""
    kept = sorted(runs, key=lambda run: run.count, reverse=True)
    parts = [new]
    while kept and kept[-1].count < _GROWTH * sum(part.count for part in parts):
        parts.append(kept.pop())
    return kept, Run.merged(parts) if len(parts) > 1 else new


def _cached_runs(cache: Path, listed: set[str]) -> list[Run]:
    runs = []
    with suppress(OSError):
        for path in sorted(cache.glob("*.run")):
            run = Run.map(path)
            if run and run.covered <= listed:
                runs.append(run)
                listed = listed - run.covered
            else:
                path.unlink()
    return runs


def _keep(cache: Path, run: Run, others: set[str]) -> None:
    with suppress(OSError):
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
        run.write(cache)
        for path in cache.glob("*.run"):
            if path.name not in others and path.name != run.file_name:
                path.unlink()

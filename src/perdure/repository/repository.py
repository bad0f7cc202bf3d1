"""A repository of restic's format, version 2, over a store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Self

from perdure.errors import (
    NameNotFound,
    NoRepository,
    PerdureError,
    RepositoryDamaged,
)
from perdure.formats.config import VERSION, Config
from perdure.formats.keyfile import KdfParameters, KeyFile
from perdure.formats.sealing import NONCE_SIZE, MasterKey, SealBroken, seal, unseal
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Tree
from perdure.model import ChunkId, ChunkKind, SnapshotId
from perdure.pool import Pool
from perdure.repository import keys
from perdure.repository.index import FOLDER as INDEX_FOLDER
from perdure.repository.index import Index, load_index
from perdure.repository.keys import Owner
from perdure.repository.locks import Lock, Locks
from perdure.repository.reading import ChunkReader, packfile_name
from perdure.repository.remembering import Notes
from perdure.repository.runs import Location
from perdure.repository.sealed import SealedFiles
from perdure.repository.snapshots import Snapshots
from perdure.repository.unfinished import Unfinished
from perdure.repository.writer import Writer
from perdure.stores import LeavesBehind, Store
from perdure.stores.copies import CopyingStore, remove_abandoned

CONFIG = "config"
_STILL_WRITING = timedelta(days=1)
"""No file is written for so long: what is older and not finished is of a process that was killed."""
_AFRESH = "afresh-"
"""How folders of the cache begin that have copies for one run alone."""
_RATHER_READ = 256 << 10
"""Bytes that are read from a store that is far rather than asked around by one more request."""


class Repository:
    """Where snapshots are kept. Made by `Repository.create` and `Repository.open`."""

    def __init__(
        self,
        store: Store,
        key: keys.OpenedKey,
        config: Config,
        *,
        cache: Path | None,
        clock: Callable[[], datetime],
        workers: int | None = None,
        far: bool = False,
    ) -> None:
        self.store = store
        self.id = config.id
        self.key_id = key.name
        self.chunker_polynomial = config.chunker_polynomial
        self.clock = clock
        self._key = key.master
        self._cache = cache / config.id if cache else None
        self._workers = workers
        self.files = SealedFiles(store, self._key)
        self.locks = Locks(self.files, clock, self._cache / "locks" if self._cache else None)
        self._snapshots = Snapshots(self.files, self._cache / "snapshots" if self._cache else None)
        self.reader = ChunkReader(store, self._key, gap=_RATHER_READ if far else 0)
        self._copies: CopyingStore | None = None
        if far and self._cache:
            self._copies = CopyingStore(store, self._cache / "packfiles", clock())
            self._near = ChunkReader(self._copies, self._key)
        self._afresh: CopyingStore | None = None
        self._index: Index | None = None
        self._cache_is_trusted = cache is not None
        self._lock: Lock | None = None
        self._pool: Pool | None = None

    @classmethod
    def create(
        cls,
        store: Store,
        password: str,
        *,
        kdf: KdfParameters,
        now: datetime,
        username: str,
        hostname: str,
        cache: Path | None = None,
        clock: Callable[[], datetime] | None = None,
    ) -> Repository:
        """Make a repository in an empty place. Raises PerdureError if there is one, StoreError.

        The config is written last: without it there is no repository, and creating can begin again.
        """
        from secrets import randbits  # both are needed only here

        from perdure.formats.polynomial import random_irreducible

        _refuse_existing(store)
        master = keys.new_master_key()
        config = Config(VERSION, os.urandom(32).hex(), f"{random_irreducible(randbits):x}")
        key_id = keys.add_key(store, master, password, kdf, Owner(username, hostname, now))
        store.put(CONFIG, seal(master, config.encode(), os.urandom(NONCE_SIZE)))
        opened = keys.OpenedKey(key_id, master)
        return cls(store, opened, config, cache=cache, clock=clock or (lambda: now))

    @classmethod
    def open(
        cls,
        store: Store,
        password: str,
        *,
        cache: Path | None,
        clock: Callable[[], datetime],
        workers: int | None = None,
        far: bool = False,
    ) -> Repository:
        """Open a repository. ``cache`` is a folder for all repositories, or None to do without.

        For a store that is ``far``, the cache has copies of what is read again and again, and notes of
        what was sent.

        Raises NoRepository, WrongPassword, RepositoryDamaged, StoreError; PerdureError for another
        version of the format.
        """
        try:
            sealed = store.get(CONFIG)
        except NameNotFound:
            raise NoRepository(
                f"there is no repository at {store.location}",
                hint="perdure init makes one; if it is on a disk that is mounted, is that mounted?",
            ) from None
        key = keys.open_key(store, password)
        config = _load_config(store, key.master, sealed)
        return cls(store, key, config, cache=cache, clock=clock, workers=workers, far=far)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the threads. What was read and written stays valid."""
        if self._pool:
            self._pool.close()
            self._pool = None
        if self._copies:
            self._copies.tidy()
        if self._copies and self._cache:
            remove_abandoned(self._cache, _AFRESH, self.clock() - _STILL_WRITING)
        if self._afresh:
            self._afresh.clear()
            self._afresh = None

    def lock(self, *, exclusive: bool = False, wait: timedelta = timedelta(0)) -> Lock:
        """Lock the repository; the lock is a context manager. Raises RepositoryLocked."""
        lock = self._lock = self.locks.take(exclusive=exclusive, wait=wait)
        self.forget_index()  # what was listed before the lock may have been pruned since
        return lock

    def unlock(self, *, everything: bool = False) -> int:
        """Remove stale locks, or all; says how many."""
        return self.locks.remove(everything=everything)

    @property
    def index(self) -> Index:
        """The index, loaded when it is first needed after a lock was taken."""
        if self._index is None:
            folder = self._cache / "index" if self._cache else None
            self._index = load_index(self.files, folder)
        return self._index

    def cache_folder(self, name: str) -> Path | None:
        """Give the folder of the repository's cache for something; None where there is no cache."""
        return self._cache / name if self._cache else None

    def notes(self) -> Notes:
        """Give what was noted to be whole, for as long as no index file is taken away."""
        if self._lock and self._index:  # nobody else takes an index file away meanwhile
            return Notes(self.cache_folder("whole"), self._index.files)
        listed = {name for name, _ in self.files.list(INDEX_FOLDER)}
        return Notes(self.cache_folder("whole"), listed)

    def forget_index(self) -> None:
        """Load the index again when it is needed next."""
        self._index = None
        self._cache_is_trusted = self._cache is not None

    @property
    def pool(self) -> Pool:
        """The threads that encode and decode chunks."""
        if self._pool is None:
            self._pool = Pool(self._workers)
        return self._pool

    def has(self, kind: ChunkKind, chunk_id: ChunkId) -> bool:
        """Tell whether the index knows a chunk."""
        return self.index.has(kind, chunk_id)

    def load(self, kind: ChunkKind, chunk_id: ChunkId) -> bytes:
        """Give a chunk's content, verified. Raises RepositoryDamaged, StoreError."""
        if self._lock:
            self._lock.keep()
        return self._load(kind, chunk_id)

    def load_many(self, kind: ChunkKind, ids: Iterable[ChunkId]) -> Iterator[bytes]:
        """Give chunks' content in order, reading ahead. Raises RepositoryDamaged, StoreError."""
        reader, find = self.reader, self._find
        if self._copies and kind is ChunkKind.TREE:
            reader, find = self._near, self._find_near
        for content in reader.read_many(find, self._load, kind, ids, self.pool):
            if self._lock:
                self._lock.keep()
            yield content

    def load_tree(self, chunk_id: ChunkId) -> Tree:
        """Give a tree. Raises RepositoryDamaged, StoreError."""
        return Tree.decode(self.load(ChunkKind.TREE, chunk_id), f"tree {chunk_id.hex()}")

    def read_tree_afresh(self, places: list[Location]) -> bytes:
        """Give a tree as it is in the store now, not in any cache of another run.

        From a store that is far, whole packfiles are fetched, for this run: all trees will be read.
        Raises RepositoryDamaged, StoreError.
        """
        if self._copies and self._cache:
            if self._afresh is None:
                folder = self._cache / f"{_AFRESH}{os.urandom(8).hex()}"
                self._afresh = CopyingStore(self.store, folder, self.clock())
            with suppress(RepositoryDamaged, NameNotFound):
                self._afresh.fetch(packfile_name(places[0].packfile))
                return ChunkReader(self._afresh, self._key).read(places)
        return self.reader.read(places)

    def writer(self, lock: Lock, known: Index | None = None) -> Writer:
        """Give what adds chunks and commits a snapshot, under ``lock``; a context manager.

        What is ``known`` is not stored again; if it is not given, what the index knows.
        """
        index = self.index if known is None else known
        unfinished = None
        if self._copies and self._cache and known is None:
            unfinished = Unfinished(self._cache / "unfinished")
        return Writer(
            self._copies or self.store,
            self.files,
            self._snapshots,
            self._key,
            index,
            self.pool,
            lock,
            unfinished,
        )

    def snapshots(self) -> list[tuple[SnapshotId, Snapshot]]:
        """Give all snapshots, oldest first. Raises RepositoryDamaged, StoreError."""
        return self._snapshots.all()

    def damaged_snapshots(self) -> list[SnapshotId]:
        """Give the ids of snapshots whose own files cannot be read. Raises StoreError."""
        return self._snapshots.damaged()

    def find_snapshot(self, wanted: str) -> tuple[SnapshotId, Snapshot]:
        """Give the snapshot of a unique id prefix, or the ``latest``. Raises UsageError."""
        return self._snapshots.find(wanted)

    def save_snapshot(self, snapshot: Snapshot) -> SnapshotId:
        """Write a snapshot whose tree is in the repository already."""
        return self._snapshots.save(snapshot)[0]

    def delete_snapshot(self, snapshot_id: SnapshotId) -> None:
        """Remove a snapshot from the list. Its chunks stay until a prune."""
        self._snapshots.delete(snapshot_id)

    def leftovers(self) -> list[tuple[str, int]]:
        """Give name and size of the temporary files of killed processes: those of more than a day."""
        if not isinstance(self.store, LeavesBehind):
            return []
        return list(self.store.leftovers(self.clock() - _STILL_WRITING))

    def remove_leftovers(self) -> tuple[int, int]:
        """Remove them, under an exclusive lock of the caller's; gives their number and bytes."""
        found = self.leftovers()
        for name, _ in found:
            with suppress(NameNotFound):
                self.store.delete(name)
        return len(found), sum(size for _, size in found)

    def list_keys(self) -> list[tuple[str, KeyFile]]:
        """Give the id and content of each key file, oldest first. Raises RepositoryDamaged."""
        return keys.list_keys(self.store)

    def add_key(self, password: str, kdf: KdfParameters, owner: Owner) -> str:
        """Let one more password open the repository; gives the key's id."""
        return keys.add_key(self.store, self._key, password, kdf, owner)

    def remove_key(self, prefix: str) -> str:
        """Remove a key other than the one in use; gives its id. Raises UsageError."""
        return keys.remove_key(self.store, prefix, self.key_id)

    def change_password(self, password: str, kdf: KdfParameters, owner: Owner) -> str:
        """Replace the key in use by one with another password; gives the new key's id."""
        old, self.key_id = self.key_id, self.add_key(password, kdf, owner)
        keys.remove_key(self.store, old, self.key_id)
        return self.key_id

    def _load(self, kind: ChunkKind, chunk_id: ChunkId) -> bytes:
        places = self._find_near(kind, chunk_id)
        if self._copies:
            try:
                return self._near.read(places)
            except RepositoryDamaged:  # a copy may be what is damaged
                for place in places:
                    self._copies.forget(packfile_name(place.packfile))
        try:
            return self.reader.read(places)
        except RepositoryDamaged:
            if not self._distrust_cache():
                raise
        return self.reader.read(self._find(kind, chunk_id))

    def _find_near(self, kind: ChunkKind, chunk_id: ChunkId) -> list[Location]:
        """Find a chunk; all of a packfile of trees is fetched at once, since more of it will be read."""
        found = self._find(kind, chunk_id)
        if self._copies and kind is ChunkKind.TREE:
            with suppress(NameNotFound):  # reading says what is the matter
                self._copies.fetch(packfile_name(found[0].packfile))
        return found

    def _distrust_cache(self) -> bool:
        """Load the index from the repository alone, once: the cache may be what is damaged."""
        trusted, self._cache_is_trusted = self._cache_is_trusted, False
        if trusted:
            self.index.adopt(load_index(self.files, None))
        return trusted

    def _find(self, kind: ChunkKind, chunk_id: ChunkId) -> list[Location]:
        found = self.index.find(kind, chunk_id)
        if not found and self._distrust_cache():
            found = self.index.find(kind, chunk_id)
        if not found:
            raise RepositoryDamaged(
                f"{kind.value} chunk {chunk_id.hex()} is not in the index of {self.store.location}",
                hint="perdure repair index makes the index anew from the packfiles; what they lack"
                " the next perdure backup --verify-source stores again, if the source still has it",
            )
        return found


def _load_config(store: Store, master: MasterKey, sealed: bytes) -> Config:
    where = f"{CONFIG} in {store.location}"
    try:
        return Config.decode(unseal(master, sealed), where)
    except SealBroken as error:
        raise RepositoryDamaged(f"{where} is damaged: {error}") from None


def _refuse_existing(store: Store) -> None:
    for folder in ("", "snapshots/", "index/", "data/"):
        if not folder:
            with suppress(NameNotFound):
                store.size(CONFIG)
                raise PerdureError(f"there is a repository at {store.location} already")
        elif any(True for _ in store.list(folder)):
            raise PerdureError(
                f"{store.location} has {folder} of a repository, but no config",
                hint="a damaged repository must not be written over; choose another place",
            )
    for name, _ in list(store.list("keys/")):  # left by a creation that was interrupted
        store.delete(name)

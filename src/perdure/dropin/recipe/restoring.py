"""A restore: each Data.fs as it was backed up, with exactly the blobs that it names, or nothing at all.

Everything is looked for and made whole beside what is there before anything is touched: the database in a
folder of its own, each blob found in some backup, room for all. Then the blobs are added to those that are
there, each database takes its place by a rename, and last what does not belong to the restored state goes. At
each moment the Data.fs that stands has all its blobs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from perdure.dropin import repozo
from perdure.dropin.recipe.containers import Container, Content, containers
from perdure.dropin.recipe.locking import locked
from perdure.dropin.recipe.pairing import Located, locate
from perdure.dropin.recipe.part import Part, Place, Storage
from perdure.dropin.recipe.recovering import recovered
from perdure.dropin.recipe.referenced import referenced_by
from perdure.dropin.recipe.undoing import unfinished
from perdure.errors import DamageFound, StoreError, UsageError
from perdure.formats.blobs import CHUNK_SIZE
from perdure.model import BlobId, Observer
from perdure.sources.blob_writer import BlobTarget
from perdure.sources.durable import make_directory, owner_for, sync_directory
from perdure.sources.filestorage_writer import held_lock

_MOST_NAMED = 20
_SHOW_EVERY = 256


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a storage is to be restored from; ``stamp`` is that of the database's backup."""

    storage: Storage
    place: Place
    stamp: str
    size: int | None
    """Bytes of the database; None where nothing tells before it is read."""


@dataclass(frozen=True, slots=True)
class StorageRestored:
    """What was restored of a storage; sizes in bytes."""

    name: str
    database: str | None
    blob_storage: str | None
    stamp: str
    size: int
    blobs: int
    blob_bytes: int
    missing: tuple[BlobId, ...]
    blob_backups: tuple[str, ...]
    """The names of those that the blobs were taken from."""


def choose(part: Part, places: Sequence[Place], limit: str | None) -> list[Chosen]:
    """Say for each storage which backup is the newest up to a stamp; None: of all.

    Raises UsageError where there is none, NoRepository.
    """
    chosen = []
    marked = unfinished(Path(places[-1].files if part.databases else places[-1].blobs))
    for storage, place in zip(part.storages, places, strict=True):
        if part.databases:
            chosen.append(_choose_database(storage, place, limit, marked))
        elif storage.blobs and part.blobs:
            chosen.append(_choose_blobs(storage, place, limit, marked))
    return chosen


def _choose_database(
    storage: Storage, place: Place, limit: str | None, marked: frozenset[str]
) -> Chosen:
    folder = Path(place.files)
    chains = repozo.chains(folder) if folder.is_dir() else ()
    states = [state for chain in chains for state in chain.states if state.stamp not in marked]
    fitting = [state for state in states if limit is None or state.stamp <= limit]
    if not fitting or not fitting[-1].pieces[0].name.full:
        known = f"there are backups from {states[0].stamp} to {states[-1].stamp}" if states else ""
        date = f" at or before {limit}" if limit else ""
        raise UsageError(
            f"{folder} has no full filestorage backup{date}; nothing was touched",
            hint=known or "perdure site list shows all backups; is the disk mounted?",
        )
    state = fitting[-1]
    return Chosen(storage, place, state.stamp, state.size)


def _choose_blobs(
    storage: Storage, place: Place, limit: str | None, marked: frozenset[str]
) -> Chosen:
    stamps = [each.time for each in containers(Path(place.blobs)) if each.time not in marked]
    fitting = [stamp for stamp in stamps if limit is None or stamp <= limit]
    if not fitting:
        date = f" at or before {limit}" if limit else ""
        raise UsageError(f"{place.blobs} has no backup of the blobs{date}; nothing was touched")
    return Chosen(storage, place, fitting[-1], None)


class _Restoring:
    """One storage on its way back."""

    def __init__(self, chosen: Chosen, *, blobs: bool, observer: Observer) -> None:
        self.chosen, self._observer = chosen, observer
        storage = chosen.storage
        self.datafs = Path(os.path.realpath(storage.datafs))
        self.index = Path(f"{storage.datafs}.index")
        self.blobs = Path(storage.blobs) if blobs and storage.blobs else None
        self.new: Path | None = None
        self.located = Located()
        self._target: BlobTarget | None = None
        self.size = 0

    def recover(self, new: Path) -> None:
        """Look where the blobs are of the database that was recovered. Raises StoreError."""
        self.new, self.size = new, new.stat().st_size
        if self.blobs is not None:
            places = containers(Path(self.chosen.place.blobs))
            self.located = locate(referenced_by(new), places, self.chosen.stamp)

    def take_all(self) -> None:
        """Without a database: take one backup of the blobs as it is, increments with what they follow."""
        places = containers(Path(self.chosen.place.blobs))
        until = [each for each in places if each.time <= self.chosen.stamp]
        first = next(n for n in reversed(range(len(until))) if not until[n].entry.delta)
        found: dict[BlobId, Container] = {}
        for each in until[first:]:
            found |= dict.fromkeys(each.blobs, each)
        for each in until[first:]:
            self.located.places.append((each, {b for b, at in found.items() if at is each}))
        self.located.size = sum(at.blobs[blob] for blob, at in found.items())

    def check_room(self) -> None:
        """Raise StoreError where the blobs would not fit."""
        if self.blobs is None:
            return
        layout = next((each.layout for each, _ in self.located.places if each.layout), None)
        self._target = BlobTarget(self.blobs, layout)
        needed = sum(
            each.blobs[blob]
            for each, blobs in self.located.places
            for blob in blobs
            if not self._target.there(blob)
        )
        need_room(self.blobs, needed)

    def write_blobs(self) -> None:
        """Add the blobs to those that are there."""
        target = self._target
        if target is None:
            return
        target.begin()
        wanted = self._wanted()
        done = 0
        for place, blobs in self.located.places:
            for content in place.contents(blobs):
                if not done % _SHOW_EVERY:
                    self._observer.progress("blobs", done, len(wanted))
                done += 1
                _write(target, content)
        target.settle()

    def commit(self) -> None:
        """Put the database in its place: the old index goes first, the new one comes last."""
        if self.new is None:
            return
        self._dress(self.new)
        new_index = Path(f"{self.new}.index")
        self.index.unlink(missing_ok=True)
        sync_directory(self.index.parent)
        os.rename(self.new, self.datafs)
        sync_directory(self.datafs.parent)
        if new_index.exists():
            self._dress(new_index)
            os.rename(new_index, self.index)
            sync_directory(self.index.parent)

    def _dress(self, path: Path) -> None:
        """Give a new file mode and owner of what it replaces."""
        owner = owner_for(self.datafs.parent)
        if self.datafs.exists():
            status = self.datafs.stat()
            path.chmod(status.st_mode & 0o7777)
            owner = (status.st_uid, status.st_gid) if owner else None
        if owner:
            os.chown(path, *owner)

    def clear(self) -> StorageRestored:
        """Remove the blobs that do not belong to the restored state."""
        wanted = self._wanted()
        if self._target is not None:
            for stray in list(self._target.strays(wanted)):
                self._target.remove(stray)
        return self.report()

    def report(self) -> StorageRestored:
        """Say what is restored."""
        storage = self.chosen.storage
        return StorageRestored(
            name=storage.name,
            database=storage.datafs if self.new is not None else None,
            blob_storage=str(self.blobs) if self.blobs else None,
            stamp=self.chosen.stamp,
            size=self.size,
            blobs=len(self._wanted()),
            blob_bytes=self.located.size,
            missing=tuple(sorted(self.located.missing)),
            blob_backups=tuple(each.entry.name for each, _ in self.located.places),
        )

    def _wanted(self) -> set[BlobId]:
        return {blob for _, blobs in self.located.places for blob in blobs}


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore; ``limit`` is the last stamp that counts, None: all do."""

    part: Part
    places: Sequence[Place]
    """Where the backups of each storage are."""
    limit: str | None = None
    missing_allowed: bool = False
    """Restore even where blobs are in no backup."""
    dry_run: bool = False
    sleep: Callable[[float], None] = field(default=lambda seconds: None)


def restore(request: RestoreRequest, observer: Observer) -> list[StorageRestored]:
    """Restore all storages. Raises UsageError, TargetInUse, DamageFound, StoreError."""
    part = request.part
    first = request.places[-1]
    folder = Path(first.files if part.databases else first.blobs)
    with ExitStack() as stack:
        if folder.is_dir():
            waiting = locked(folder, part.lock_timeout, request.sleep, shared=True)
            stack.enter_context(waiting)
        chosen = choose(part, request.places, request.limit)
        made = [_Restoring(each, blobs=part.blobs, observer=observer) for each in chosen]
        with _translated():
            for each in made:
                _prepare(each, part, stack, observer)
            _refuse_missing(made, request, observer)
            for each in made:
                each.check_room()
            if request.dry_run:
                return [each.report() for each in made]
            for each in made:
                each.write_blobs()
            for each in made:
                each.commit()
            return [each.clear() for each in made]


def _prepare(each: _Restoring, part: Part, stack: ExitStack, observer: Observer) -> None:
    """Make a database whole beside the one that is there, and find its blobs."""
    folder = Path(each.chosen.storage.datafs).parent
    owner = owner_for(folder)
    make_directory(folder, owner)
    stack.enter_context(held_lock(Path(each.chosen.storage.datafs), owner))
    if not part.databases:
        each.take_all()
        return
    need_room(folder, each.chosen.size or 0)
    repository = Path(each.chosen.place.files)
    new = recovered(repository, each.chosen.stamp, each.datafs, observer)
    each.recover(stack.enter_context(new))


def _refuse_missing(
    made: Sequence[_Restoring], request: RestoreRequest, observer: Observer
) -> None:
    missing = [
        f"{each.chosen.storage.spoken}: blob {blob}"
        for each in made
        for blob in sorted(each.located.missing)
    ]
    for each in made:
        for note in each.located.notes:
            observer.warning(note)
    if not missing:
        return
    more = f" and {len(missing) - _MOST_NAMED} more" if len(missing) > _MOST_NAMED else ""
    told = f"{len(missing)} blob files of this state are in no backup"
    named = f"{'; '.join(missing[:_MOST_NAMED])}{more}"
    if not request.missing_allowed:
        raise DamageFound(
            f"{told}; nothing was touched. {named}",
            hint="restore another date, or say --allow-missing-blobs to do without them",
        )
    observer.warning(f"{told}: {named}")


def need_room(path: Path, size: int) -> None:
    """Raise StoreError where so many bytes do not fit."""
    there = next(each for each in (path, *path.parents) if each.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise StoreError(
            f"{path} needs {size} bytes, and its disk has {free}; nothing was touched",
            hint="make room, or restore to another disk",
        )


def _write(target: BlobTarget, content: Content) -> None:
    """Write a blob, unless it stands there already with the same bytes."""
    place = target.place(content.blob)
    if target.there(content.blob) and place.stat().st_size == content.size:
        with open(place, "rb") as standing:
            blocks = iter(lambda: content.file.read(CHUNK_SIZE), b"")
            if all(standing.read(len(block)) == block for block in blocks):
                target.mend(content.blob)
                return
        content.file.seek(0)
    target.write(content.blob, iter(lambda: content.file.read(CHUNK_SIZE), b""))
    os.utime(place, ns=(content.changed, content.changed))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{error.filename2 or error.filename} cannot be read or written: {error.strerror}",
            hint="what stood before still stands, unless it says otherwise above; then restore again",
        ) from error

"""A run: backups of the blobs and of the databases of a site, as files, all with one stamp.

The order, for each storage: the blobs that the Data.fs names are copied under a name that is none; the repozo
repository gets the Data.fs; the blobs of what was committed meanwhile are added; the copy gets its name. A
marker stands in the first folder while databases are written: a run that was killed between is undone by the
next one, and not seen by a restore (`undoing`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from perdure.dropin import repozo
from perdure.dropin.recipe.copying import BlobCopy, DirectoryCopy, Target, point_latest
from perdure.dropin.recipe.dates import moment_of, stamp_of
from perdure.dropin.recipe.locking import locked
from perdure.dropin.recipe.part import Kind, Manner, Part, Place, Storage, base_of
from perdure.dropin.recipe.programs import IncrementCopy, RsyncCopy, has_notes
from perdure.dropin.recipe.recovering import recovered
from perdure.dropin.recipe.referenced import Reading, Referenced, reading, referenced_by
from perdure.dropin.recipe.tars import TarCopy
from perdure.dropin.recipe.undoing import mark, sweep, undo_unfinished, unmark
from perdure.errors import BackupIncomplete, StoreError
from perdure.model import BlobId, Observer
from perdure.sources.blobs import BlobDirectory
from perdure.sources.durable import make_directory, owner_for

_ATTEMPTS = 3
_MOST_NAMED = 20


@dataclass(frozen=True, slots=True)
class StorageReport:
    """What became of a storage; sizes in bytes. ``stamp``: of its newest backup, made now or before."""

    name: str
    database: str
    reason: str
    stamp: str
    size: int
    blobs: int | None
    """How many there are; None: they were not asked for."""
    blob_backup: str | None
    """The name of their backup, if one was made."""
    missing: tuple[BlobId, ...] = ()


@dataclass(frozen=True, slots=True)
class RunReport:
    """What a run did."""

    kind: Kind
    stamp: str
    storages: tuple[StorageReport, ...]
    seconds: float


@dataclass(frozen=True, slots=True)
class StoragePlan:
    """What a run would read of a storage (bytes, blobs), and where it would write to."""

    name: str
    database: str
    size: int
    blobs: int
    unchanged: bool
    """The newest backup is as long as the database."""
    place: Place


@dataclass(slots=True)
class _Doing:
    """One storage in a run; without ``file`` its database is not backed up, without ``live`` its blobs."""

    storage: Storage
    place: Place
    file: Reading | None
    live: BlobDirectory | None
    copy: BlobCopy | None = None
    wanted: set[BlobId] = field(default_factory=set)
    """The blobs to look for."""
    certain: set[BlobId] = field(default_factory=set)
    """Those of them that have to be there."""
    missing: set[BlobId] = field(default_factory=set)

    @property
    def packed(self) -> bool:
        """Whether a pack may be why something is missing."""
        return bool(self.missing) and self.file is not None and self.file.replaced

    def abandon(self) -> None:
        """Leave nothing behind of a copy that has no name."""
        if self.copy is not None:
            self.copy.abandon()


class Run:
    """A run of one kind over the storages of a part."""

    def __init__(
        self,
        part: Part,
        kind: Kind,
        clock: Callable[[], datetime],
        sleep: Callable[[float], None],
        observer: Observer,
    ) -> None:
        self._part, self._kind = part, kind
        self._manner: Manner = part.in_manner_of(kind)
        self._clock, self._sleep, self._observer = clock, sleep, observer

    @property
    def folder(self) -> Path:
        """The folder that has the lock and the marker."""
        place = self._part.place(self._kind, self._part.storages[-1])
        return Path(place.files if self._part.databases else place.blobs)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folders, hold the lock, and undo what a killed run left. Raises RepositoryLocked."""
        with _translated():
            for storage in self._part.storages:
                place = self._part.place(self._kind, storage)
                if self._part.databases:
                    make_directory(Path(place.files), owner_for(Path(place.files)))
                if self._part.blobs and storage.blobs:
                    make_directory(Path(place.blobs), owner_for(Path(place.blobs)))
        with locked(self.folder, self._part.lock_timeout, self._sleep):
            with _translated():
                undo_unfinished(self.folder, self._places(), self._observer)
                for place in self._places():
                    sweep(place)
            yield

    def perform(self) -> RunReport:
        """Back up everything, under the lock. Raises PerdureError; then there is no backup of this run."""
        started = self._clock()
        for attempt in range(_ATTEMPTS):
            with _translated():
                stamp = self._stamp()
                done = self._attempt(stamp, last=attempt == _ATTEMPTS - 1)
            if done is not None:
                break
            self._observer.warning(
                "a pack has ended while blobs were read, and took some away: all is read once more"
            )
        assert done is not None
        seconds = max((self._clock() - started).total_seconds(), 0.0)
        return RunReport(self._kind, stamp, done, seconds)

    def survey(self) -> list[StoragePlan]:
        """Say what a run would do; nothing is written. Raises SourceUnusable, SourceDamaged."""
        plans = []
        with ExitStack() as stack:
            for storage in self._part.storages:
                each = self._begin(storage, stack)
                size = each.file.found.end if each.file is not None else 0
                made = Path(each.place.files).is_dir()
                unchanged = made and each.file is not None and self._unchanged(each)
                count = len(each.certain)
                plans.append(
                    StoragePlan(storage.name, storage.datafs, size, count, unchanged, each.place)
                )
        return plans

    def _places(self) -> list[Place]:
        return [self._part.place(self._kind, each) for each in self._part.storages]

    def _stamp(self) -> str:
        """Give the stamp of this run: now, or just behind all that are there. Raises StoreError."""
        now = self._clock()
        stamps = [stamp_of(now)]
        for storage in self._part.storages:
            place = self._part.place(self._kind, storage)
            if self._part.databases:
                stamps.append(repozo.next_stamp(Path(place.files), now))
            else:
                target = Target(Path(place.blobs), base_of(storage), self._observer)
                for each in target.earlier()[-1:]:
                    behind = moment_of(each.time).timestamp() + 1
                    stamps.append(stamp_of(datetime.fromtimestamp(behind, now.tzinfo)))
        return max(stamps)

    def _attempt(self, stamp: str, *, last: bool) -> tuple[StorageReport, ...] | None:
        """Try once; None: a pack came between, and something is missing."""
        with ExitStack() as stack:
            doing = [self._begin(storage, stack) for storage in self._part.storages]
            for each in doing:
                if not self._later(each):
                    self._copy_blobs(each)
            if not last and any(each.packed for each in doing):
                return None
            mark(self.folder, {stamp})
            try:
                done = tuple(self._finish(each, stamp) for each in doing)
            except BaseException:
                undo_unfinished(self.folder, self._places(), None)
                raise
            if not last and any(each.packed for each in doing):
                undo_unfinished(self.folder, self._places(), None)
                return None
            unmark(self.folder)
            return done

    def _begin(self, storage: Storage, stack: ExitStack) -> _Doing:
        """Open the Data.fs and see which blobs it has."""
        file = None
        if self._part.databases:
            file = stack.enter_context(reading(Path(storage.datafs)))
        live = None
        if self._part.blobs and storage.blobs:
            live = BlobDirectory(Path(storage.blobs))
        doing = _Doing(storage, self._part.place(self._kind, storage), file, live)
        stack.callback(doing.abandon)
        if file is not None and live is None:
            file.advance()
        elif file is not None:
            doing.wanted, doing.certain = _wanted(file.advance())
        elif live is not None:
            doing.wanted = doing.certain = set(live.walk())
        return doing

    def _later(self, each: _Doing) -> bool:
        """Whether its blobs are copied after its database: what is done depends on what becomes of that."""
        if each.live is None or each.file is None:
            return each.live is None
        incremental = self._manner.archive and self._manner.incremental
        return incremental or self._unchanged(each)

    def _unchanged(self, each: _Doing) -> bool:
        """Whether the newest backup of its database is as long as that is, and a full one is not wanted."""
        assert each.file is not None
        chains = repozo.chains(Path(each.place.files))
        unchanged = bool(chains) and chains[-1].states[-1].size == each.file.found.end
        return unchanged and not self._manner.full

    def _finish(self, each: _Doing, stamp: str) -> StorageReport:
        """Back up the database, and see to it that all its blobs are there."""
        storage, name, reason, size, chain = each.storage, stamp, "", 0, None
        if each.file is not None:
            report = repozo.backup(self._request(each, stamp), self._observer)
            chain = repozo.chains(Path(each.place.files))[-1]
            name, reason, size = chain.states[-1].stamp, report.reason, report.end
            if each.live is not None:
                each.wanted, each.certain = _wanted(self._referenced(each, report.end))
        made = None
        if each.live is not None:
            full = chain.stamp if chain is not None and len(chain.pieces) > 1 else None
            made = self._publish(each, name, full)
        return StorageReport(
            name=storage.name,
            database=storage.datafs,
            reason=reason,
            stamp=name,
            size=size,
            blobs=len(each.certain) if each.live is not None else None,
            blob_backup=made,
            missing=tuple(sorted(each.missing)),
        )

    def _request(self, each: _Doing, stamp: str) -> repozo.BackupRequest:
        return repozo.BackupRequest(
            repository=Path(each.place.files),
            file=Path(each.storage.datafs),
            stamp=stamp,
            full=self._manner.full,
            quick=self._manner.quick,
            gzip=self._manner.gzip,
        )

    def _referenced(self, each: _Doing, end: int) -> Referenced:
        """Say which blobs the backup has, even if a pack put another file under the name meanwhile."""
        assert each.file is not None
        if not each.file.replaced:
            return each.file.advance(end)
        repository = Path(each.place.files)
        with recovered(repository, None, repository / "Data.fs") as datafs:
            return referenced_by(datafs)

    def _publish(self, each: _Doing, stamp: str, full: str | None) -> str | None:
        """Complete the backup of the blobs and give it its name; None: there is one already."""
        assert each.live is not None
        numbered = not self._manner.stamps
        for there in self._target(each).earlier():
            fits = there.time >= stamp if numbered else there.entry.stamp == stamp
            if fits and each.certain <= there.blobs.keys():
                return None
        if each.copy is None:
            self._copy_blobs(each, full)
        assert each.copy is not None
        if more := each.wanted - each.copy.taken:
            each.copy.take(more)
        each.missing = each.certain - each.copy.taken
        path = each.copy.publish(stamp, numbered=numbered)
        each.copy = None
        incremental = self._manner.archive and self._manner.incremental
        point_latest(path.parent, None if numbered or incremental else path.name)
        return path.name

    def _copy_blobs(self, each: _Doing, full: str | None = None) -> None:
        """Copy the blobs that the database has so far, under a name that is none."""
        each.copy = self._new_copy(each, full)
        each.copy.take(each.wanted)
        each.missing = each.certain - each.copy.taken
        if each.missing and each.copy.delta:  # what it follows lacks something
            assert each.live is not None
            self._observer.warning(
                f"{each.place.blobs}: the tars of {full} lack blobs; a tar of all blobs is made"
            )
            each.copy.abandon()
            each.copy = TarCopy(each.live, self._target(each), compress=self._manner.compress)
            each.copy.take(each.wanted)
            each.missing = each.certain - each.copy.taken

    def _new_copy(self, each: _Doing, full: str | None) -> BlobCopy:
        assert each.live is not None
        manner, live, target = self._manner, each.live, self._target(each)
        if manner.archive and manner.incremental:
            if full is None or has_notes(target, full):
                return IncrementCopy(live, target, full, compress=manner.compress)
            self._observer.warning(
                f"{target.folder} has no tar with notes for {full}: a tar of all blobs is made;"
                " increments follow the next full backup"
            )
        if manner.archive:
            return TarCopy(live, target, compress=manner.compress)
        if manner.links and manner.rsync:
            return RsyncCopy(live, target, manner.rsync, link_first=manner.link_first)
        return DirectoryCopy(live, target, links=manner.links, link_first=manner.link_first)

    def _target(self, each: _Doing) -> Target:
        return Target(Path(each.place.blobs), base_of(each.storage), self._observer)


def missing_error(report: RunReport) -> BackupIncomplete | None:
    """Give the error of a run that could not find some blobs."""
    lines = [f"{each.database}: blob {blob}" for each in report.storages for blob in each.missing]
    if not lines:
        return None
    more = f" and {len(lines) - _MOST_NAMED} more" if len(lines) > _MOST_NAMED else ""
    return BackupIncomplete(
        f"the backup of {report.stamp} lacks {len(lines)} blobs, which have no file:"
        f" {'; '.join(lines[:_MOST_NAMED])}{more}",
        hint="all else is there; older backups are not removed this time",
    )


def _wanted(found: Referenced) -> tuple[set[BlobId], set[BlobId]]:
    return found.all, set(found.certain)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise StoreError(
            f"{error.filename2 or error.filename or 'the backup'} cannot be written: {error.strerror}",
            hint="make room, or see to it that this user may write there; earlier backups stand",
        ) from error

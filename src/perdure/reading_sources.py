"""Read the sources of a backup, job by job: a job that fails does not stop the others.

A job is sources that stand and fall together, such as the databases of a site. The cuts of all jobs are taken
before the first is read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from perdure.errors import DamageFound, SourceDamaged, SourceUnusable, UsageError
from perdure.formats import history, manifest, pgdump
from perdure.formats.manifest import FailedSource
from perdure.formats.snapshot import Snapshot
from perdure.history.blobs import MOST_WARNINGS
from perdure.history.deciding import Earlier
from perdure.history.updating import Updated, Updating, identity_of
from perdure.model import Observer, SnapshotId
from perdure.repository import Repository, Writer
from perdure.snapshots import sources_in, trees_in
from perdure.sources import files
from perdure.sources.files import FilesCut
from perdure.sources.protocol import Cut, Source
from perdure.trees.keeping import KeptTree, keep_tree, note_of
from perdure.trees.walking import EarlierTree

Listed = tuple[SnapshotId, Snapshot]
Kept = Updated | KeptTree
Job = Sequence[Source]
_Failure = SourceUnusable | SourceDamaged
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True)
class Reading:
    """How sources are read, and what there is of them from earlier."""

    snapshots: Sequence[Listed]
    began: datetime
    hostname: str
    verify: bool = False
    """Read everything, and compare it with what was kept before."""
    read_all: bool = False
    """Read all files of trees, those that have not changed, too."""


def read_sources(
    repository: Repository,
    writer: Writer,
    jobs: Sequence[Job],
    reading: Reading,
    observer: Observer,
) -> tuple[list[Kept], list[FailedSource]]:
    """Store what is new of all sources that can be read, and say which cannot.

    If there is none that can, raises what is the matter with the first: SourceUnusable, SourceDamaged.
    Raises UsageError, RepositoryDamaged, StoreError.
    """
    folders = folder_names([source for job in jobs for source in job])
    reader = _Reader(repository, writer, folders, reading, observer)
    kept: list[Kept] = []
    failures: list[tuple[Job, _Failure]] = []
    with ExitStack() as stack:
        cuts = [stack.enter_context(closing(_Cuts(job))) for job in jobs]
        for each in cuts:
            try:
                read = reader.read(each)
                if all(isinstance(done, KeptTree) for done in read):
                    each.close()  # dumps need their room no longer
                kept += read
            except (SourceUnusable, SourceDamaged) as error:
                each.close()
                failures.append((each.job, error))
    if failures and not kept:
        raise failures[0][1]
    return kept, [failed for job, error in failures for failed in _failed(job, error, observer)]


def folder_names(sources: Sequence[Source]) -> dict[str, str]:
    """Say where in a snapshot each source stands: a tree at its path, a history in a folder named for it.

    Raises UsageError when two would stand in one place, or have the same name.
    """
    names = [source.name for source in sources]
    if not names or len(set(names)) < len(names):
        raise UsageError(
            "no source is given"
            if not names
            else f"two sources have the same name: {', '.join(names)}",
            hint="name a Data.fs with --filestorage",
        )
    trees = {source.name: source.place for source in sources if source.kind == files.KIND}
    _refuse_nested([PurePosixPath(place) for place in trees.values()])
    folders = {name: place.strip("/") for name, place in trees.items()}
    taken = {place.partition("/")[0] for place in folders.values()} | {manifest.NAME}
    for source in sources:
        if source.name not in trees:
            suffix = pgdump.SUFFIXES.get(source.kind, history.SUFFIX)
            base, number = f"{PurePosixPath(source.place).name}{suffix}", 2
            folder = base
            while folder in taken:
                folder, number = f"{number}-{base}", number + 1
            taken.add(folder)
            folders[source.name] = folder
    return folders


def _refuse_nested(places: Sequence[PurePosixPath]) -> None:
    for place in places:
        if place.parts[1:] == (manifest.NAME,):
            raise UsageError(
                f"{place} cannot be backed up by itself: a snapshot has a file of its name"
            )
        for other in places:
            if place != other and place.is_relative_to(other):
                raise UsageError(
                    f"{place} lies in {other}, which is backed up, too",
                    hint=f"leave it out: it is in the tree of {other}",
                )


class _Cuts:
    """The cuts of a job, all taken when this is made; why they could not be is raised by whoever asks."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self._stack = ExitStack()
        self._taken: Sequence[Cut | FilesCut] | None = None
        self._failure: SourceUnusable | None = None
        try:
            self._taken = [self._stack.enter_context(source.cut()) for source in job]
        except SourceUnusable as error:
            self._failure = error
            self._stack.close()
        except BaseException:
            self._stack.close()
            raise

    def get(self) -> Sequence[Cut | FilesCut]:
        """Give the cuts: those taken first, at a later call new ones. Raises SourceUnusable."""
        if self._failure is not None:
            raise self._failure
        taken, self._taken = self._taken, None
        if taken is None:
            self._stack.close()
            taken = [self._stack.enter_context(source.cut()) for source in self.job]
        return taken

    def close(self) -> None:
        """Let go of the sources."""
        self._stack.close()


class _Reader:
    def __init__(
        self,
        repository: Repository,
        writer: Writer,
        folders: Mapping[str, str],
        reading: Reading,
        observer: Observer,
    ) -> None:
        self._repository, self._writer, self._folders = repository, writer, folders
        self._reading, self._observer = reading, observer
        self._updating = Updating(
            repository, writer, observer, reading.hostname, verify=reading.verify
        )

    def read(self, cuts: _Cuts) -> list[Kept]:
        """Read the sources of a job; once more if a pack has meanwhile taken blobs away that a cut had."""
        for attempt in range(_ATTEMPTS):
            taken = cuts.get()
            done = [self._update(source, cut) for source, cut in zip(cuts.job, taken, strict=True)]
            packed = [
                source.place
                for source, cut, each in zip(cuts.job, taken, done, strict=True)
                if _lost_blobs_to_a_pack(cut, each)
            ]
            if not packed or attempt == _ATTEMPTS - 1:
                for each in zip(cuts.job, taken, done, strict=True):
                    _warn(*each, self._observer)
                break
            self._observer.warning(
                f"{', '.join(packed)}: a pack has taken blobs away while they were read;"
                " everything is read once more"
            )
        return done

    def _update(self, source: Source, cut: Cut | FilesCut) -> Kept:
        folder = self._folders[source.name]
        if not isinstance(cut, FilesCut):
            return self._updating.update(
                source, cut, folder, lambda: self._earlier_history(source.name)
            )
        earlier = self._earlier_tree(source.name)
        done = keep_tree(
            cut,
            identity_of(source, folder),
            earlier,
            self._repository,
            self._writer,
            self._observer,
            began=self._reading.began,
            read_all=self._reading.read_all or self._reading.verify,
        )
        self._suspect(done, earlier)
        return done

    def _suspect(self, done: KeptTree, earlier: EarlierTree | None) -> None:
        """Warn where trees of two machines seem to go by one name: a policy would count them as one."""
        counts = done.counts
        if earlier is not None and earlier.hostname != self._reading.hostname and not counts.same:
            self._observer.warning(
                f"the last snapshot of {done.record.name!r} is of host {earlier.hostname}, and no file is"
                " the same: is this another machine's? Trees of several machines that have the same path"
                " need names of their own: --source"
            )

    def _earlier_history(self, name: str) -> Earlier | None:
        """Find what the newest readable snapshot of a source has of it."""
        for listed in reversed(self._reading.snapshots):
            try:
                there = sources_in(self._repository, [listed], None)
                found = next((each for each in there if each.record.name == name), None)
                if found is not None:
                    found.history.names()  # nothing can be built upon a history that cannot tell them
            except DamageFound as error:
                self._distrust(listed, error)
                continue
            if found is not None:
                return Earlier(found.record, found.history, found.blobs, found.snapshot.hostname)
        return None

    def _earlier_tree(self, name: str) -> EarlierTree | None:
        """Find what the newest readable snapshot of a file tree has of it."""
        for listed in reversed(self._reading.snapshots):
            try:
                there = trees_in(self._repository, [listed], None)
                found = next((each for each in there if each.record.name == name), None)
            except DamageFound as error:
                self._distrust(listed, error)
                continue
            if found is not None:
                whole = self._repository.notes().found_whole(note_of(name))
                hostname = found.snapshot.hostname
                return EarlierTree(found.record, found.top, whole=whole, hostname=hostname)
        return None

    def _distrust(self, listed: Listed, error: DamageFound) -> None:
        self._observer.warning(f"{error}; what snapshot {listed[0][:8]} has is not built upon")


def _lost_blobs_to_a_pack(cut: Cut | FilesCut, done: Kept) -> bool:
    return (
        isinstance(done, Updated)
        and not isinstance(cut, FilesCut)
        and cut.replaced
        and bool(done.blobs.missing)
    )


def _failed(job: Job, error: _Failure, observer: Observer) -> list[FailedSource]:
    """Say that the sources of a job are not in the snapshot, and why."""
    names = ", ".join(source.name for source in job)
    hint = f"; {error.hint}" if error.hint else ""
    observer.warning(f"{names}: not in the snapshot, since {error}{hint}")
    return [
        FailedSource(name=source.name, kind=source.kind, path=source.place, why=str(error))
        for source in job
    ]


def _warn(source: Source, cut: Cut | FilesCut, done: Kept, observer: Observer) -> None:
    if isinstance(done, KeptTree):
        _warn_of_files(source, done, observer)
    elif not isinstance(cut, FilesCut):
        _warn_of_database(source, cut, done, observer)
    for concern in source.concerns():
        observer.warning(concern)


def _warn_of_files(source: Source, done: KeptTree, observer: Observer) -> None:
    counts = done.counts
    for path, why in counts.unread[:MOST_WARNINGS]:
        observer.warning(f"{path}: {why}; it is not in the snapshot")
    if counts.unread_count > MOST_WARNINGS:
        observer.warning(
            f"{source.place}: {counts.unread_count - MOST_WARNINGS} more could not be read"
        )
    for path in counts.changing[:MOST_WARNINGS]:
        observer.warning(
            f"{path} changed whenever it was read: what is in the snapshot it may never have been"
        )


def _warn_of_database(source: Source, cut: Cut, done: Updated, observer: Observer) -> None:
    if cut.replaced:
        observer.warning(
            f"{source.place} is another file by now: a pack has ended, or it was replaced."
            " What was read is a whole state of the storage; the next run reads the new file"
        )
    facts = done.record.blobs
    if facts is not None and facts.unseen:
        observer.warning(
            f"{source.place} has blobs, and no blob directory is known: they are not in the snapshot."
            " Give it with --blobs, or say --no-blobs"
        )
    for blob, why in list(done.blobs.missing.items())[:MOST_WARNINGS]:
        observer.warning(f"{source.place}: blob {blob} {why}; it is not in the snapshot")
    if len(done.blobs.missing) > MOST_WARNINGS:
        observer.warning(
            f"{source.place}: {len(done.blobs.missing) - MOST_WARNINGS} more blobs are missing"
        )

"""Bringing btw-backup's destinations into a Perdure repository: a snapshot for each version, each verified.

What a version holds is restored as btw-backup's user would have: by rdiff-backup, whose checksums are looked
at, and by tar. A snapshot of that is made, dated as the version is; then it is restored from the repository,
and compared with what tar unpacked, file by file. Dumps are kept as the files that they are.
"""

from __future__ import annotations

import filecmp
import os
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path, PurePosixPath

from perdure.backup import BackupRequest, backup
from perdure.dropin.btw import archives
from perdure.dropin.btw.children import Children
from perdure.dropin.btw.destination import Destination
from perdure.dropin.btw.names import TBZ, time_name
from perdure.dropin.btw.restoring import ARCHIVE, Version, kept_file, read_through, versions_of
from perdure.errors import BackupIncomplete, DamageFound
from perdure.formats.golang import format_moment
from perdure.model import Observer, SnapshotId
from perdure.repository import Lock, Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.snapshots import read_manifest
from perdure.sources.files import KIND, FilesCut
from perdure.sources.scratch import scratch_folder

TAG = "btw-backup"
"""What marks a snapshot that was brought in."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What became of a version: a snapshot, or none if it was there already or nothing is stored."""

    version: str
    new: bool
    snapshot_id: SnapshotId | None = None


class _Unpacked:
    """The files of a version, as a source under the path that they had, or one that tells their origin."""

    kind = KIND
    database = ""

    def __init__(self, folder: Path, name: str, place: str, *, plain: bool) -> None:
        self.name, self.place = name, place
        self.folder, self.plain = folder, plain

    @contextmanager
    def cut(self) -> Iterator[FilesCut]:
        """Give what is walked."""
        yield FilesCut(self.place, self.folder, plain=self.plain)

    def concerns(self) -> Iterator[str]:
        """There are none."""
        yield from ()


@dataclass(frozen=True, slots=True)
class Importing:
    """With what, and under which name, versions are brought in."""

    repository: Repository
    lock: Lock
    children: Children
    request: BackupRequest
    clock: Callable[[], datetime]
    observer: Observer

    def all_of(self, destination: Destination, place: str | None) -> Iterator[Imported]:
        """Make a snapshot of each version that is not there yet, the oldest first, and verify it.

        ``place`` is the path that the files had. Raises DamageFound, PerdureError, OSError.
        """
        name = place or destination.name
        present = self._present(name)
        for version in versions_of(destination.contents()):
            called = f"{version.backup.path.name} {time_name(version.time)}"
            if format_moment(version.time) in present:
                yield Imported(called, new=False)
            elif self.request.dry_run:
                yield Imported(called, new=True)
            else:
                with scratch_folder() as scratch:
                    source = self._unpacked(version, name, place, scratch)
                    yield Imported(called, True, self._bring_in(version, source, scratch))

    def _present(self, name: str) -> frozenset[str]:
        """Give the times of the versions that are there, as snapshots write them."""
        found = set()
        for _, snapshot in self.repository.snapshots():
            if TAG in snapshot.tags:
                known = read_manifest(self.repository, snapshot)
                if known and any(record.name == name for record in known.sources):
                    found.add(snapshot.time)
        return frozenset(found)

    def _unpacked(self, version: Version, name: str, place: str | None, scratch: Path) -> _Unpacked:
        """Restore a version as btw-backup's user would have."""
        path = place or f"/{TAG}/{name}"
        folder = scratch / "unpacked" / PurePosixPath(path).name  # a top goes by its own name
        folder.mkdir(parents=True)
        file = kept_file(self.children, version, scratch)
        is_archive = file.name == ARCHIVE or file.name.endswith(TBZ)
        if is_archive:
            archives.unpack(self.children, file, folder)
        else:
            read_through(self.children, file)
            file.rename(folder / file.name)
        return _Unpacked(folder, name, path, plain=not is_archive)

    def _bring_in(self, version: Version, source: _Unpacked, scratch: Path) -> SnapshotId:
        """Make a snapshot and verify it."""
        request = replace(self.request, made=version.time, tags=(*self.request.tags, TAG))
        report = backup(self.repository, self.lock, [source], request, self.clock, self.observer)
        assert report.snapshot_id
        if report.incomplete:
            raise BackupIncomplete(
                f"snapshot {report.snapshot_id[:8]} lacks files of {source.name}"
            )
        self._verify(report.snapshot_id, source, scratch / "restored")
        return report.snapshot_id

    def _verify(self, snapshot_id: SnapshotId, source: _Unpacked, target: Path) -> None:
        """Restore a snapshot, and compare it with what it was made of. Raises DamageFound."""
        target.mkdir()
        restore(
            self.repository,
            RestoreRequest(target, Wanted(snapshot=snapshot_id)),
            self.observer,
        )
        (top,) = target.iterdir()
        different = [*differences(source.folder, top, metadata=not source.plain)]
        if different:
            names = ", ".join(different[:5])
            raise DamageFound(
                f"snapshot {snapshot_id[:8]} is not what was unpacked: {names}",
                hint=f"perdure forget {snapshot_id[:8]}; then import it again",
            )


def differences(one: Path, other: Path, *, metadata: bool) -> Iterator[str]:
    """Give the paths at which two folders differ: in names, kinds, contents; in modes, owners and times."""
    names = _below(one)
    other_names = _below(other)
    yield from sorted(names ^ other_names)
    for name in sorted(names & other_names):
        if not _equal(one / name, other / name, metadata=metadata):
            yield name


def _below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")} | {"."}


def _equal(one: Path, other: Path, *, metadata: bool) -> bool:
    here, there = one.lstat(), other.lstat()
    if stat.S_IFMT(here.st_mode) != stat.S_IFMT(there.st_mode):
        return False
    if metadata and _facts(here) != _facts(there):
        return False
    if stat.S_ISLNK(here.st_mode):
        return os.readlink(one) == os.readlink(other)
    if stat.S_ISREG(here.st_mode):
        return filecmp.cmp(one, other, shallow=False)
    return here.st_rdev == there.st_rdev


def _facts(status: os.stat_result) -> Sequence[int]:
    links = status.st_nlink if stat.S_ISREG(status.st_mode) else 0
    return (status.st_mode, status.st_uid, status.st_gid, status.st_mtime_ns, links)

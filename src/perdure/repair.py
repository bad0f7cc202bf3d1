"""Repair: make an index anew, and cut damaged snapshots back to what of them is whole."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import msgspec

from perdure.check import below, lost_paths
from perdure.errors import DamageFound
from perdure.formats import manifest
from perdure.formats.manifest import REPAIRED, Manifest, SourceRecord
from perdure.formats.snapshot import Snapshot
from perdure.history.companion import drop_companion, lost_companion
from perdure.history.folders import Folder, StoredFile
from perdure.history.losses import cut_back, lost_blobs, lost_ranges, surviving_blobs
from perdure.model import ChunkKind, Observer, SnapshotId
from perdure.repository import Lock, Repository, Writer
from perdure.repository.checking import check_repository
from perdure.repository.repairing import IndexRepair
from perdure.repository.repairing import repair_index as remake_index
from perdure.snapshots import Found, found_in, own_names, read_manifest, root_of
from perdure.trees.surviving import surviving_files

REPAIRED_TAG = "repaired"
_NAMED = 5
"""How many lost files are named; check names all."""


@dataclass(frozen=True, slots=True)
class Repaired:
    """A snapshot that was damaged, the one that stands for what is left of it, and what that is.

    ``what`` is empty if nothing is left.
    """

    damaged: SnapshotId
    snapshot: SnapshotId | None
    what: str
    forgotten: bool = False


@dataclass(frozen=True, slots=True)
class RepairReport:
    """What was repaired."""

    repaired: tuple[Repaired, ...] = ()
    messages: tuple[str, ...] = ()


def repair_index(
    repository: Repository, lock: Lock, observer: Observer, *, read_data: bool = False
) -> RepairReport:
    """Make the index anew from the packfiles that are there, under an exclusive lock.

    With ``read_data`` damaged packfiles are found and taken out: their whole chunks are stored anew,
    and what is lost the next backup stores again. Raises StoreError, RepositoryLocked.
    """
    done = remake_index(repository, lock, observer, read_data=read_data)
    counts = (
        f"{done.packfiles_kept} packfiles are in the index as they should be,"
        f" {done.packfiles_read} were read anew;"
        f" {done.index_files_written} index files were written, {done.index_files_deleted} deleted"
    )
    messages = [*done.lost, *_salvaged(done), *_tidied(repository), counts]
    return RepairReport(messages=tuple(messages))


def _salvaged(done: IndexRepair) -> Iterator[str]:
    for name in done.set_aside:
        yield f"{name} is what a damaged packfile is called now; nothing reads it"
    if done.set_aside:
        yield (
            f"of damaged packfiles {done.chunks_saved} whole chunks were stored anew,"
            f" {done.chunks_lost} are lost"
        )
    if done.lost:
        yield (
            "perdure backup --verify-source stores again what the sources still have, perdure check then"
            " says what remains lost, and perdure repair snapshots what is left of damaged snapshots"
        )


def _tidied(repository: Repository) -> Iterator[str]:
    count, size = repository.remove_leftovers()
    if count:
        yield f"{count} temporary files ({size} bytes) of processes that were killed are removed"


def repair_snapshots(
    repository: Repository,
    lock: Lock,
    *,
    forget: bool,
    dry_run: bool,
    observer: Observer,
) -> RepairReport:
    """For each damaged snapshot write one of what is left; ``forget`` drops the damaged one then.

    Of a history the transactions before the first loss are left, of other folders all files that are
    whole; of a snapshot whose own file is damaged nothing. Raises StoreError, RepositoryLocked.
    """
    forget = forget and not dry_run
    report = check_repository(repository, observer, read_data=True, subset=None)
    repaired = []
    unreadable = repository.damaged_snapshots()
    for name in unreadable:
        if forget:
            repository.delete_snapshot(name)
        repaired.append(Repaired(name, None, "", forget))
    if unreadable and not forget:
        return RepairReport(repaired=tuple(repaired))
    snapshots = dict(repository.snapshots())
    for name, paths in lost_paths(report).items():
        done = _repair(repository, lock, name, snapshots[name], paths, dry_run=dry_run)
        if forget:
            repository.delete_snapshot(name)
        repaired.append(replace(done, forgotten=forget))
    return RepairReport(repaired=tuple(repaired))


def _repair(
    repository: Repository,
    lock: Lock,
    name: SnapshotId,
    snapshot: Snapshot,
    paths: list[str],
    *,
    dry_run: bool,
) -> Repaired:
    if "/" in paths:
        return Repaired(name, None, "")
    with repository.writer(lock) as writer:
        try:
            root, what = _remains(repository, writer, snapshot, paths)
            tree = root.store(writer)
        except DamageFound:
            tree = None
        if tree is None:
            return Repaired(name, None, "")
        if dry_run:
            return Repaired(name, None, what)
        changed = msgspec.structs.replace(
            snapshot,
            tree=tree.hex(),
            original=snapshot.original or name,
            tags=tuple(dict.fromkeys((*snapshot.tags, REPAIRED_TAG))),
        )
        return Repaired(name, writer.commit(changed), what)


def _remains(
    repository: Repository, writer: Writer, snapshot: Snapshot, paths: list[str]
) -> tuple[Folder, str]:
    """Make the root folder of what is left of a snapshot, and say what that is."""
    known = read_manifest(repository, snapshot)
    if known is None:
        root = root_of(repository, snapshot)
        for path in paths:
            _remove(root, PurePosixPath(path))
        more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
        return root, f"all files but {', '.join(paths[:_NAMED])}{more}"
    root = Folder(repository, PurePosixPath("/"), None)
    records: list[SourceRecord] = []
    parts: list[str] = []
    for record in known.trees:
        inside = below(record.tree, paths) if record.tree else paths
        files = surviving_files(
            root_of(repository, snapshot), root, record, inside, own_names(known)
        )
        records += [files] if files is not None else []
        parts.append(f"{_left_in_words(inside)} of {record.name!r}")
    for record in known.histories:
        found = found_in(repository, SnapshotId(""), snapshot, record)
        left, folders, what = _left_of(repository, found, paths)
        parts.append(what)
        if left is not None:
            records.append(left)
            for folder in folders:
                root.adopt(folder.path.name, folder)
    if records:
        data = Manifest(manifest.VERSION, tuple(records), known.failed).encode()
        chunk = writer.add(ChunkKind.DATA, data).result()
        root.put(manifest.NAME, StoredFile((chunk,), len(data)))
    return root, "; ".join(parts)


def _left_in_words(lost: list[str]) -> str:
    if "" in lost:
        return "nothing"
    more = f" and {len(lost) - _NAMED} more" if len(lost) > _NAMED else ""
    return f"all but {', '.join(lost[:_NAMED])}{more}" if lost else "all"


def _left_of(
    repository: Repository, found: Found, paths: list[str]
) -> tuple[SourceRecord | None, list[Folder], str]:
    """Say what is left of a source: its record, its folders, and that in words."""
    record, until = found.record, None
    folders, what = [found.history.folder], f"all of {record.name!r}"
    inside = below(record.tree, paths)
    beside = lost_companion(inside)
    if beside:
        drop_companion(found.history.folder)
        record = msgspec.structs.replace(record, status=REPAIRED)
    lost = lost_ranges(found.history, record, inside)
    if lost:
        left = cut_back(repository, found.history, record, lost[0].start)
        if left is None:
            return None, [], f"nothing of {record.name!r}"
        record, until, folders = left[0], left[0].cut, [left[1]]
        what = f"{record.name!r} up to {until} ({until.time:%Y-%m-%d %H:%M:%S} UTC)"
    if beside:
        what += ", without what a restore to its own kind needs"
    if found.blobs is not None:
        gone = below(found.blobs.record.tree, paths)
        blobs = surviving_blobs(repository, found.blobs, gone, until)
        folders.append(blobs.folder.folder)
        status = REPAIRED if gone else record.status
        record = msgspec.structs.replace(record, blobs=blobs.record, status=status)
        if gone:
            named = list(lost_blobs(gone))
            more = f" and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
            what += f", without {', '.join(named[:_NAMED])}{more}"
    return record, folders, what


def _remove(root: Folder, path: PurePosixPath) -> None:
    folder = root
    for name in path.parts[1:-1]:
        folder = folder.folder(name)
    folder.remove(path.name)

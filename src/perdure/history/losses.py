"""What damage in a repository means for a history: which parts of the file are lost, and what is left."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import msgspec

from perdure.errors import DamageFound
from perdure.formats import blobs
from perdure.formats.history import LAYOUTS, LayoutName
from perdure.formats.manifest import REPAIRED, SourceRecord
from perdure.history.blobs import BlobFolder, SnapshotBlobs, blobs_directly_in
from perdure.history.companion import carry_companion
from perdure.history.folders import Folder, StoredFile
from perdure.history.in_repository import RepositoryHistory
from perdure.model import NO_TID, BlobId, Tid
from perdure.repository import Repository


@dataclass(frozen=True, slots=True)
class LostRange:
    """A range of a file, in bytes, and the last tids before it and in it."""

    start: int
    end: int
    before: Tid
    last: Tid

    def __str__(self) -> str:
        return (
            f"bytes {self.start} to {self.end}: the transactions after {self.before}"
            f" ({self.before.time:%Y-%m-%d %H:%M:%S})"
            f" up to {self.last} ({self.last.time:%Y-%m-%d %H:%M:%S} UTC)"
        )


def lost_ranges(
    history: RepositoryHistory, record: SourceRecord, lost: Collection[str]
) -> list[LostRange]:
    """Say which ranges of the file cannot be put together without the files ``lost``.

    ``lost`` has paths below the history's folder, of files or of whole folders ("" for everything).
    """
    try:
        names = history.names()
    except DamageFound:
        return [LostRange(0, record.size, NO_TID, record.cut)]
    ranges: list[LostRange] = []
    ends = [*(name.start for name in names[1:]), record.size]
    before = NO_TID
    for name, end in zip(names, ends, strict=True):
        last = Tid(name.last_tid)
        if not _spared(history, name, lost):
            if ranges and ranges[-1].end == name.start:
                ranges[-1] = replace(ranges[-1], end=end, last=last)
            else:
                ranges.append(LostRange(name.start, end, before, last))
        before = last
    return ranges


def _spared(history: RepositoryHistory, name: LayoutName, lost: Collection[str]) -> bool:
    if _within(f"{LAYOUTS}/{name.folder}/{name}", lost):
        return False
    try:
        facts = history.layout(name).facts
        files = history.files_of(facts.segments, verbatim=facts.verbatim)
    except DamageFound:
        return False
    return not any(_within(file, lost) for file in files)


def _within(path: str, lost: Collection[str]) -> bool:
    return any(path == place or path.startswith(f"{place}/") or not place for place in lost)


def cut_back(
    repository: Repository, history: RepositoryHistory, record: SourceRecord, end: int
) -> tuple[SourceRecord, Folder] | None:
    """Make a history of the whole transactions before byte ``end``; None if there are none.

    Raises DamageFound when what stands before ``end`` cannot be read either.
    """
    names = [name for name in history.names() if name.start < end]
    while names and history.layout(names[-1]).facts.ends_inside:
        names.pop()
    if not names:
        return None
    folder = Folder(repository, PurePosixPath("/", record.tree), None)
    carry_companion(history.folder, folder)
    left = RepositoryHistory(repository, folder)
    for name in names:
        left.put_layout(name, history.layout_file(name))
        for segment in history.segments(history.layout(name)):
            left.put_segment(segment)
    return _shortened(history, record, names), folder


def _shortened(
    history: RepositoryHistory, record: SourceRecord, names: Sequence[LayoutName]
) -> SourceRecord:
    layouts = [history.layout(name) for name in names]
    size = layouts[-1].facts.end
    packed = [
        int(t.tid[t.packed].max(initial=0)) for t in (layout.transactions for layout in layouts)
    ]
    begun = sum(len(layout.transactions) - (layout.facts.begins is not None) for layout in layouts)
    tids = [layout.transactions.tid for layout in layouts if len(layout.transactions)]
    cut = Tid(int(tids[-1][-1])) if tids else NO_TID
    return msgspec.structs.replace(
        record,
        cut=cut,
        size=size,
        last_packed=Tid(max(packed)),
        transactions=begun,
        records=sum(int(layout.transactions.records.sum()) for layout in layouts),
        status=REPAIRED,
        position=None,
        repeated=tuple(pair for pair in record.repeated if pair[1] <= cut),
        garbage=tuple(entry for entry in record.garbage if entry[0] < size),
    )


def lost_blobs(lost: Collection[str]) -> Iterator[str]:
    """Say which blobs are lost with some files, or whole folders ("" for everything), below their folder."""
    for path in sorted(lost):
        name = path.rpartition("/")[2]
        if name.endswith(blobs.FILE_SUFFIX):
            yield f"blob {blobs.parse_name(name, path)}"
        else:
            yield f"the blobs of {path.replace('/', '-')}" if path else "all blobs"


def surviving_blobs(
    repository: Repository, kept: SnapshotBlobs, lost: Collection[str], until: Tid | None
) -> SnapshotBlobs:
    """Make a folder of the blobs, of transactions up to ``until``, that are not lost."""
    if not lost and until is None:
        return kept
    folder = BlobFolder(Folder(repository, kept.folder.folder.path, None))
    missing = {BlobId(oid, tid.value) for oid, tid in kept.record.missing}
    count = size = 0
    for blob, file in _readable(kept.folder.folder, until):
        if _within(
            "/".join((*blobs.folders_in_snapshot(blob), blobs.name_in_snapshot(blob))), lost
        ):
            missing.add(blob)
        else:
            folder.put(blob, file)
            count, size = count + 1, size + file.size
    whole_folders = any(not path.endswith(blobs.FILE_SUFFIX) for path in lost)
    record = msgspec.structs.replace(
        kept.record,
        unseen=kept.record.unseen or whole_folders,  # so that the next backup looks for all
        count=count,
        size=size,
        missing=tuple(
            (blob.oid, Tid(blob.tid))
            for blob in sorted(missing)
            if until is None or blob.tid <= until.value
        ),
    )
    return SnapshotBlobs(record, folder)


def _readable(folder: Folder, until: Tid | None) -> Iterator[tuple[BlobId, StoredFile]]:
    """Give the blobs in the folders that can be read."""
    try:
        inner = list(folder.folders())
        yield from blobs_directly_in(folder, until)
    except DamageFound:
        return
    for each in inner:
        yield from _readable(each, until)

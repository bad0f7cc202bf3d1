"""Bring what is kept of a file tree up to date: what a snapshot has of it, and where in the snapshot."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import datetime

import msgspec

from perdure.errors import UsageError
from perdure.formats.manifest import COMPLETE, INCOMPLETE, FilesRecord, SourceRecord
from perdure.formats.tree import Node
from perdure.history.folders import Folder
from perdure.model import Observer, Tid
from perdure.repository import Repository, Writer
from perdure.sources.files import FilesCut
from perdure.trees.describing import attributes_or_none, describe
from perdure.trees.walking import EarlierTree, FileCounts, TreeWalk


@dataclass(frozen=True, slots=True)
class KeptTree:
    """A file tree in the repository: its record, its top, and the folders that lead to it."""

    record: SourceRecord
    top: tuple[Node, ...]
    """One node; of the root all that is in it."""
    parents: tuple[Node, ...]
    counts: FileCounts
    method: str
    reason: str
    unchanged: bool

    @property
    def bytes_read(self) -> int:
        """Bytes of the files that were read."""
        return self.counts.bytes_read

    @property
    def note(self) -> str:
        """Under which name it is noted that all of it is in the repository."""
        return note_of(self.record.name)

    def enter(self, root: Folder) -> None:
        """Enter it into the root of a snapshot."""
        folder = root
        for number, name in enumerate(self.record.tree.split("/")[:-1]):
            folder = folder.folder(name)
            if self.parents:  # it was read from the place where it stands
                folder.describe(self.parents[number])
        for node in self.top:
            if node.name in folder:
                raise UsageError(
                    f"/{node.name} cannot be backed up: a snapshot has something of its own of that name",
                    hint="leave it out with --exclude",
                )
            folder.enter(node)


def note_of(name: str) -> str:
    """Say under which name it is noted that all of a tree is in the repository."""
    return f"files of {name}"


def keep_tree(
    cut: FilesCut,
    identity: SourceRecord,
    earlier: EarlierTree | None,
    repository: Repository,
    writer: Writer,
    observer: Observer,
    *,
    began: datetime,
    read_all: bool = False,
) -> KeptTree:
    """Store what is new in a tree. What cannot be read is named, and left out.

    A file whose type, size, times and inode are those of the last snapshot is not read, unless ``read_all``.
    Raises SourceUnusable when its top cannot be read, RepositoryDamaged, StoreError.
    """
    walk = TreeWalk(cut, earlier, repository, writer, observer, read_all=read_all)
    top = walk.store()
    counts = walk.counts
    record = msgspec.structs.replace(
        identity,
        tree=cut.tree,
        cut=Tid.at(began),
        last_packed=Tid.at(began),
        size=counts.size,
        status=INCOMPLETE if counts.unread_count else COMPLETE,
        files=FilesRecord(
            files=counts.files,
            folders=counts.folders,
            others=counts.others,
            unread=tuple(counts.unread),
            unread_count=counts.unread_count,
            changing=tuple(counts.changing),
            excluding=cut.excludes.spoken(),
        ),
    )
    unchanged = earlier is not None and top == earlier.top and not counts.unread_count
    return KeptTree(
        record=record,
        top=(top,) if cut.tree else walk.in_top,
        parents=_parents(cut) if str(cut.path).strip("/") == cut.tree else (),
        counts=counts,
        method="files",
        reason=_reason(earlier, counts, read_all=read_all),
        unchanged=unchanged,
    )


def _reason(earlier: EarlierTree | None, counts: FileCounts, *, read_all: bool) -> str:
    if earlier is None:
        return "the source has no earlier snapshot in this repository"
    how = "all were read" if read_all else "only new and changed ones were read"
    return (
        f"{counts.new} files are new, {counts.changed} changed, {counts.same} as they were; {how}"
    )


def _parents(cut: FilesCut) -> tuple[Node, ...]:
    """Describe the folders above a tree, as restic has them in a snapshot."""
    above = list(reversed(cut.path.parents))[1:]
    return tuple(
        describe(path.name, str(path), os.stat(path), attributes_or_none(str(path)))
        for path in above
    )

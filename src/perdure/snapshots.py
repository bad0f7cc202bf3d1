"""Look at snapshots: which there are, and what Perdure knows of each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import PurePosixPath

from perdure.errors import RepositoryDamaged
from perdure.formats import manifest
from perdure.formats.manifest import Manifest, SourceRecord
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Node
from perdure.history.blobs import BlobFolder, SnapshotBlobs
from perdure.history.folders import Folder, folder_node
from perdure.history.in_repository import RepositoryHistory
from perdure.model import ChunkId, ChunkKind, SnapshotId, Tid
from perdure.repository import Repository
from perdure.sources import files


@dataclass(frozen=True, slots=True)
class SourceInfo:
    """A source of a snapshot, as it is listed; ``cut`` is None where it has no transactions."""

    name: str
    kind: str
    path: str
    cut: Tid | None
    size: int
    status: str
    database: str = ""
    blobs: int | None = None
    """How many there are; None: they were not asked for."""
    blob_bytes: int = 0
    files: int | None = None
    """How many there are of a file tree; None for a database."""


@dataclass(frozen=True, slots=True)
class SnapshotInfo:
    """A snapshot, as it is listed. One that another program wrote has no sources, only paths."""

    id: SnapshotId
    time: datetime
    hostname: str
    username: str
    tags: tuple[str, ...]
    program: str
    paths: tuple[str, ...]
    sources: tuple[SourceInfo, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A source in a snapshot, ready to be read."""

    id: SnapshotId
    snapshot: Snapshot
    record: SourceRecord
    history: RepositoryHistory
    blobs: SnapshotBlobs | None = None


@dataclass(frozen=True, slots=True)
class FoundTree:
    """A file tree in a snapshot: its top, and what is known of it."""

    id: SnapshotId
    snapshot: Snapshot
    record: SourceRecord
    top: Node


def list_snapshots(
    repository: Repository,
    *,
    host: str | None = None,
    tags: Sequence[str] = (),
    source: str | None = None,
) -> list[SnapshotInfo]:
    """List the snapshots, oldest first, that match all that is given. Raises RepositoryDamaged."""
    infos = [_info(repository, name, snapshot) for name, snapshot in select(repository, host, tags)]
    return [
        info
        for info in infos
        if source is None or any(source in (s.name, s.database) for s in info.sources)
    ]


def select(
    repository: Repository, host: str | None, tags: Sequence[str]
) -> Iterator[tuple[SnapshotId, Snapshot]]:
    """Give the snapshots of a host that have all of some tags, oldest first."""
    for name, snapshot in repository.snapshots():
        if host in (None, snapshot.hostname) and set(tags) <= set(snapshot.tags):
            yield name, snapshot


def read_manifest(repository: Repository, snapshot: Snapshot) -> Manifest | None:
    """Read what Perdure noted in a snapshot; None for one that another program wrote.

    Raises RepositoryDamaged.
    """
    root = root_of(repository, snapshot)
    if manifest.NAME not in root:
        return None
    file = root.file(manifest.NAME)
    if file.size > manifest.SIZE_LIMIT:
        raise RepositoryDamaged(f"{manifest.NAME} claims {file.size} bytes")
    data = b"".join(repository.load(ChunkKind.DATA, chunk) for chunk in file.chunks)
    return Manifest.decode(data, manifest.NAME)


def root_of(repository: Repository, snapshot: Snapshot) -> Folder:
    """Give the root folder of a snapshot."""
    return Folder(repository, PurePosixPath("/"), snapshot.root)


def history_of(
    repository: Repository, snapshot: Snapshot, record: SourceRecord
) -> RepositoryHistory:
    """Give the history of a source of a snapshot; an empty one for files."""
    if record.files is not None:
        return RepositoryHistory(repository, Folder(repository, PurePosixPath("/"), None))
    return RepositoryHistory(repository, root_of(repository, snapshot).folder(record.tree))


def sources_in(
    repository: Repository, snapshots: Iterable[tuple[SnapshotId, Snapshot]], name: str | None
) -> Iterator[Found]:
    """Give the FileStorages of that name (of any, if it is None) in some snapshots, in their order."""
    for identity, snapshot in snapshots:
        known = read_manifest(repository, snapshot)
        for record in known.histories if known else ():
            if name is None or is_named(record, name):
                yield found_in(repository, identity, snapshot, record)


def trees_in(
    repository: Repository, snapshots: Iterable[tuple[SnapshotId, Snapshot]], name: str | None
) -> Iterator[FoundTree]:
    """Give the file trees of that name (of any, if it is None) in some snapshots, in their order."""
    for identity, snapshot in snapshots:
        known = read_manifest(repository, snapshot)
        for record in known.trees if known else ():
            if name is None or is_named(record, name):
                yield tree_in(repository, identity, snapshot, record)


def tree_in(
    repository: Repository, identity: SnapshotId, snapshot: Snapshot, record: SourceRecord
) -> FoundTree:
    """Give a file tree of a snapshot. Raises RepositoryDamaged when it is not there."""
    top = top_of(root_of(repository, snapshot), snapshot.root, record.tree)
    return FoundTree(identity, snapshot, record, top)


def own_names(known: Manifest) -> frozenset[str]:
    """Give the names at the root of a snapshot that are Perdure's own: what is no file tree's."""
    blobs = (record.blobs.tree for record in known.histories if record.blobs)
    made = (record.tree for record in known.sources if record.kind != files.KIND)
    return frozenset((manifest.NAME, *made, *blobs))


def top_of(root: Folder, identity: ChunkId, path: str) -> Node:
    """Give what is at a path of a snapshot; for the root itself a node that says so."""
    if not path:
        return folder_node("/", identity)
    *above, name = PurePosixPath(path).parts
    folder = root
    for each in above:
        folder = folder.folder(each)
    if name not in folder.nodes:
        raise RepositoryDamaged(f"/{path} is missing from the snapshot")
    return folder.nodes[name]


def is_named(record: SourceRecord, name: str) -> bool:
    """Tell whether a source is meant by a name: its own, or what its site calls its database."""
    return name in (record.name, record.database)


def names_of(records: Iterable[SourceRecord]) -> str:
    """List the names by which sources can be chosen."""
    return ", ".join(repr(record.database or record.name) for record in records)


def found_in(
    repository: Repository, identity: SnapshotId, snapshot: Snapshot, record: SourceRecord
) -> Found:
    """Give a source of a snapshot with what is kept of it."""
    root = root_of(repository, snapshot)
    kept = None
    if record.blobs is not None:
        folder = Folder(repository, PurePosixPath("/", record.blobs.tree), None)
        if record.blobs.tree in root:
            folder = root.folder(record.blobs.tree)
        kept = SnapshotBlobs(record.blobs, BlobFolder(folder))
    return Found(identity, snapshot, record, history_of(repository, snapshot, record), kept)


def _info(repository: Repository, name: SnapshotId, snapshot: Snapshot) -> SnapshotInfo:
    known = read_manifest(repository, snapshot)
    return SnapshotInfo(
        id=name,
        time=snapshot.moment,
        hostname=snapshot.hostname,
        username=snapshot.username,
        tags=snapshot.tags,
        program=snapshot.program_version,
        paths=snapshot.paths or (),
        sources=tuple(
            SourceInfo(
                name=record.name,
                kind=record.kind,
                path=record.path,
                cut=record.cut if record.cut.value else None,
                size=record.size,
                status=record.status,
                database=record.database,
                blobs=record.blobs.count if record.blobs else None,
                blob_bytes=record.blobs.size if record.blobs else 0,
                files=record.files.files if record.files else None,
            )
            for record in (known.sources if known else ())
        ),
    )

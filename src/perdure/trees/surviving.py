"""What is left of a file tree whose snapshot is damaged: all files that are whole."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import PurePosixPath

import msgspec

from perdure.formats.manifest import REPAIRED, SourceRecord
from perdure.history.folders import Folder


def surviving_files(
    damaged: Folder,
    root: Folder,
    record: SourceRecord,
    lost: Sequence[str],
    own: Collection[str] = (),
) -> SourceRecord | None:
    """Enter into a new root what of a tree is whole in a damaged one; gives its record, None for nothing.

    ``lost`` are paths below the tree, "" for all of it; ``own`` are names at the root of a snapshot that are
    no files of the source. Raises RepositoryDamaged.
    """
    if "" in lost:
        return None
    path = PurePosixPath(record.tree)
    for each in lost:
        _remove(damaged, path / each)
    *above, top = path.parts or ("",)
    for name in above:
        node = damaged.nodes[name]
        damaged, root = damaged.folder(name), root.folder(name)
        root.describe(node)
    for name in [top] if top else [name for name in damaged.nodes if name not in own]:
        node = damaged.nodes[name]
        if node.tree is None:
            root.enter(node)
        else:
            folder = damaged.folder(name)
            folder.describe(node)
            root.adopt(name, folder)
    return msgspec.structs.replace(record, status=REPAIRED if lost else record.status)


def _remove(root: Folder, path: PurePosixPath) -> None:
    folder = root
    for name in path.parts[:-1]:
        folder = folder.folder(name)
    folder.remove(path.name)

"""Look what of a tree stands in a place already, with the right bytes; nothing is written."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from perdure.formats.tree import Node
from perdure.model import ChunkId
from perdure.sources.tree_writer import STANDING, ChunkSize, LoadTree, has_content


@dataclass(slots=True)
class TreeSurvey:
    """How many files there are, and how many of them are right already; sizes in bytes."""

    files: int = 0
    size: int = 0
    kept: int = 0
    kept_size: int = 0


def survey_files(
    load_tree: LoadTree,
    chunk_size: ChunkSize,
    top: Node,
    target: Path,
    leave_out: Collection[str] = (),
) -> TreeSurvey:
    """Compare a tree with what is in its place. Raises RepositoryDamaged."""
    survey = TreeSurvey()
    waiting: list[tuple[Node, str]] = [(top, str(target))]
    while waiting:
        node, path = waiting.pop()
        tree: ChunkId | None = node.tree
        if tree is not None:
            inside = load_tree(tree).nodes
            waiting += (
                (each, f"{path}/{each.name}")
                for each in inside
                if node is not top or each.name not in leave_out
            )
        elif node.type == "file":
            survey.files += 1
            survey.size += node.size
            if _stands(node, path, chunk_size):
                survey.kept += 1
                survey.kept_size += node.size
    return survey


def _stands(node: Node, path: str, chunk_size: ChunkSize) -> bool:
    try:
        descriptor = os.open(os.fsencode(path), STANDING)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size != node.size:
            return False
        return has_content(descriptor, node, chunk_size)
    except OSError:
        return False
    finally:
        os.close(descriptor)

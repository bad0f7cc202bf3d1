"""Which objects can be reached from where, for many millions of them: 12 bytes an object, 4 a reference."""

from __future__ import annotations

import numpy as np

from perdure.history.rows import Mask, Ordinals


class Graph:
    """The references between ``count`` objects, which are known by number."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._first = np.zeros(count, np.int64)
        self._references = np.zeros(count, np.uint32)
        self._parts: list[np.ndarray[tuple[int], np.dtype[np.uint32]]] = []
        self._end = 0

    def add(self, objects: Ordinals, references: Ordinals, targets: Ordinals) -> None:
        """Say of some objects how many references each has, and, one behind the other, where they lead."""
        self._first[objects] = self._end + np.cumsum(references) - references
        self._references[objects] = references
        self._parts.append(targets.astype(np.uint32))
        self._end += len(targets)

    def reachable(self, roots: Ordinals) -> Mask:
        """Say which objects can be reached from some of them."""
        targets = np.concatenate(self._parts) if self._parts else np.zeros(0, np.uint32)
        self._parts = [targets]
        reached = np.zeros(self._count, bool)
        ahead = np.unique(roots)
        while len(ahead):
            reached[ahead] = True
            counts = self._references[ahead].astype(np.int64)
            before = np.cumsum(counts) - counts
            places = np.repeat(self._first[ahead] - before, counts) + np.arange(counts.sum())
            found = targets[places]
            ahead = np.unique(found[~reached[found]]).astype(np.int64)
        return reached

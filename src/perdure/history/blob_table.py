"""Blobs as columns: which a source has up to a transaction, and how large they are; 24 bytes for each."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perdure.history.blobs import SnapshotBlobs
from perdure.model import BlobId, Tid

Pairs = NDArray[np.bytes_]
"""Oid and tid of a blob together, as 16 bytes, so that they can be compared as one."""


@dataclass(frozen=True)
class BlobTable:
    """Some blobs, and the bytes of each."""

    blobs: Pairs
    sizes: NDArray[np.int64]

    def lacking_in(self, other: BlobTable) -> tuple[int, int]:
        """Give number and bytes of the blobs that another table does not have."""
        only = ~np.isin(self.blobs, other.blobs)
        return int(only.sum()), int(self.sizes[only].sum())


def blob_table(kept: SnapshotBlobs | None, until: Tid | None) -> BlobTable:
    """List the blobs of a source in a snapshot, of transactions up to ``until``. Raises DamageFound."""
    numbers, sizes = array("Q"), array("q")
    for blob, file in kept.folder.files(until) if kept else ():
        numbers.extend(blob)
        sizes.append(file.size)
    return BlobTable(pairs_in(numbers), np.array(sizes, np.int64))


def pairs_of(blobs: Iterable[tuple[int, int]]) -> Pairs:
    """Put oids and tids together."""
    return pairs_in(array("Q", (number for blob in blobs for number in blob)))


def pairs_in(numbers: array[int]) -> Pairs:
    """Put oids and tids together that stand one behind the other."""
    return np.array(numbers, ">u8").view("S16")


def only_in(first: Pairs, second: Pairs) -> Iterator[BlobId]:
    """Give the blobs that are in the first, and not in the second, ascending."""
    numbers = array("Q", np.setdiff1d(first, second).tobytes())
    if sys.byteorder == "little":
        numbers.byteswap()
    yield from map(BlobId, numbers[::2], numbers[1::2])

"""Which blobs belong to a Data.fs: those that its records name, up to a position."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from perdure.formats.blob_records import RECORD_LIMIT, BlobRecords
from perdure.model import BlobId
from perdure.sources.filestorage import FileStorageCut, FileStorageSource


@dataclass(slots=True)
class Referenced:
    """The blobs of the records before ``end``; ``uncertain`` ones (encrypted records) may be none."""

    certain: set[BlobId] = field(default_factory=set)
    uncertain: set[BlobId] = field(default_factory=set)
    end: int = 0

    @property
    def all(self) -> set[BlobId]:
        """What is to be looked for."""
        return self.certain | self.uncertain


class Reading:
    """A Data.fs that is read a part at a time while a server writes to it, by one descriptor."""

    def __init__(self, cut: FileStorageCut) -> None:
        self._cut = cut
        self.found = Referenced()

    def advance(self, end: int | None = None) -> Referenced:
        """Read on, to ``end`` or the last committed transaction; gives all so far. Raises SourceDamaged."""
        records = BlobRecords(self.found.certain, self.found.uncertain)
        if end is not None:
            self._cut.limit = max(self._cut.limit, end)
        if end is None or end > self.found.end:
            for extent in self._cut.extents(self.found.end, end):
                records.add(extent, lambda position: self._cut.data_at(position, RECORD_LIMIT))
                self.found.end = extent.end
        return self.found

    @property
    def replaced(self) -> bool:
        """Whether another file has the name by now: a pack has ended."""
        return self._cut.replaced


@contextmanager
def reading(datafs: Path) -> Iterator[Reading]:
    """Open a Data.fs to look for the blobs in it. Raises SourceUnusable."""
    with FileStorageSource(datafs, without_blobs=True).cut() as cut:
        yield Reading(cut)


def referenced_by(datafs: Path) -> Referenced:
    """Say which blobs a Data.fs has. Raises SourceUnusable, SourceDamaged."""
    with reading(datafs) as file:
        return file.advance()

"""What is backed up: a source whose cut gives the bytes of a Data.fs, range by range, or files (files.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, Protocol

from perdure.formats.filestorage import TransactionHeader
from perdure.formats.manifest import Position, Proof
from perdure.model import BlobId
from perdure.sources.files import FilesCut

if TYPE_CHECKING:
    from perdure.formats.extent import Extent


@dataclass(frozen=True, slots=True)
class Evidence:
    """What still stands of the file that an earlier run read."""

    same_file: bool
    """Device and inode are the same."""
    first_stands: bool
    last_stands: bool
    """The raw bytes of its last transaction are where they were."""
    certain: bool = True
    """If it continues, every byte before the earlier end is as it was; else some were looked at."""
    whole: int | None = None
    """Where what was read cannot be read again: bytes of the file when all of the source was last read."""

    @property
    def continues(self) -> bool:
        """Whether everything before the earlier end is as it was."""
        return self.same_file and self.first_stands and self.last_stands


class Past(Protocol):
    """What earlier runs made of a source whose bytes are made, not read."""

    def last_tid(self, position: int) -> int:
        """Give the tid of the last transaction before a position; 0: there is none."""

    def newest(self, position: int) -> Callable[[int], tuple[int, int]]:
        """Give what tells position and tid of an oid's last record before a position; 0, 0 for none.

        Raises DamageFound.
        """


class Blobs(Protocol):
    """Where the files of a storage's blobs are."""

    @property
    def place(self) -> str | None:
        """What messages and snapshots call it; None: it is not known where they are."""

    @property
    def layout(self) -> str | None:
        """How they are arranged, ``bushy`` or ``lawn``; None where that does not matter."""

    @property
    def parallel(self) -> bool:
        """Whether several threads may open blobs at the same time."""

    def open(self, blob: BlobId) -> BinaryIO | None:
        """Open the file of a blob; None when there is none. Raises OSError when it cannot be read."""


class Cut(Protocol):
    """A storage at one transaction, as the bytes of the Data.fs that holds it."""

    where: str
    """What messages call it."""
    window: int
    """Bytes that are looked at together, and so the size of a segment."""
    limit: int
    """Bytes of the file; what is committed may end before."""
    bytes_read: int
    blobs: Blobs | None
    """None: blobs are not asked for."""

    def extents(
        self,
        start: int,
        end: int | None = None,
        *,
        last_tid: int | None = None,
        expected: int | None = None,
    ) -> Iterator[Extent]:
        """Give the committed transactions from a position on, a window at a time. Raises SourceDamaged."""

    def identify(self, position: int) -> tuple[int, int] | None:
        """Give oid and tid of the record at a position; None where no record is."""

    def data_at(self, position: int, limit: int) -> bytes | None:
        """Give the data of the record at a position, behind all back pointers; None for more than a limit."""

    def proof(self, position: int, size: int) -> Proof:
        """Give the SHA-256 of a range of the file, which may end before the range does."""

    def position(self, last: TransactionHeader | None) -> Position:
        """Say how a later run recognises the file, read up to behind ``last``."""

    def evidence(self, earlier: Position | None) -> Evidence:
        """Look whether the file is the one that an earlier run read, and still as it was."""

    def resume(self, past: Past) -> None:
        """Be told what earlier runs made, when it stands; afterwards ``limit`` tells whether more follows."""

    @property
    def replaced(self) -> bool:
        """Whether the source is another one by now."""


class Source(Protocol):
    """Something that has a cut."""

    kind: str
    name: str
    """What identifies it from run to run."""
    place: str
    """Where it is: for a FileStorage, the path of its Data.fs."""
    database: str
    """What the site calls it: ``main``; empty if nothing is known."""

    def cut(self) -> AbstractContextManager[Cut | FilesCut]:
        """Fix what is read. Raises SourceUnusable."""

    def concerns(self) -> Iterator[str]:
        """Say what is not right with it, though it can be read."""

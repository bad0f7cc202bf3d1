"""What a history is made of: a source whose cut gives the bytes of a Data.fs, range by range."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from perdure.formats.filestorage import TransactionHeader
from perdure.formats.manifest import Position, Proof

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

    @property
    def continues(self) -> bool:
        """Whether everything before the earlier end is as it was."""
        return self.same_file and self.first_stands and self.last_stands


class Cut(Protocol):
    """A storage at one transaction, as the bytes of the Data.fs that holds it."""

    where: str
    """What messages call it."""
    window: int
    """Bytes that are looked at together, and so the size of a segment."""
    limit: int
    """Bytes of the file; what is committed may end before."""
    bytes_read: int

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

    def proof(self, position: int, size: int) -> Proof:
        """Give the SHA-256 of a range of the file, which may end before the range does."""

    def position(self, last: TransactionHeader | None) -> Position:
        """Say how a later run recognises the file, read up to behind ``last``."""

    def evidence(self, earlier: Position | None) -> Evidence:
        """Look whether the file is the one that an earlier run read, and still as it was."""

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

    def cut(self) -> AbstractContextManager[Cut]:
        """Fix what is read. Raises SourceUnusable."""

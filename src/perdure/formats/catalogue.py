"""The catalogue of a segment: which records its payload holds.

A segment is a run of consecutive transactions' data. Its *payload* is the data of their records, ordered
by oid, then tid, then rank, and nothing between them; it is cut into chunks. Its catalogue is a file of
columns (formats/columns.py) of kind "cata", version 1, without facts:

===========  =====  =============================================================================
column       delta  one number for
===========  =====  =============================================================================
tid          yes    each transaction that has a record here, ascending
oid          yes    each record, in payload order
transaction  no     each record: the number of its tid in the first column
rank         no     each record: how many records stand before it in its transaction
length       no     each record: bytes of its data, at least 1
digest       no     each record: the 64 bits of xxh3 of its data
chunk        no     each chunk: its bytes; chunks end where records end, a record above 4 MiB is cut
===========  =====  =============================================================================

Neither a pack of the database nor anything else that moves records about changes a catalogue or a
payload: only whole chunks whose records have all died are left out of a payload later (formats/layout.py
says which). The digest guards a comparison by oid, tid and length; it identifies nothing by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import msgspec
import numpy as np
from numpy.typing import NDArray

from perdure.errors import DamageFound
from perdure.formats import columns
from perdure.formats.columns import Numbers

KIND, VERSION = b"cata", 1
CHUNK_LIMIT = 4 << 20
SEGMENT_LIMIT = 1 << 36

Ordinals = NDArray[np.int64]


class _Facts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    pass


@dataclass(frozen=True)
class Catalogue:
    """The records of a payload, in payload order, and the lengths of its chunks."""

    tids: Numbers
    oid: Numbers
    transaction: Ordinals
    rank: Ordinals
    length: Ordinals
    digest: Numbers
    chunks: Ordinals

    def __len__(self) -> int:
        return len(self.oid)

    @cached_property
    def tid(self) -> Numbers:
        """The tid of each record."""
        return self.tids[self.transaction]

    @cached_property
    def ends(self) -> Ordinals:
        """Where the data of each record ends in the whole payload."""
        return np.cumsum(self.length)

    @cached_property
    def file_order(self) -> Ordinals:
        """The numbers of the records in the order in which they stand in a Data.fs."""
        return np.lexsort((self.rank, self.transaction))

    def live_chunks(self, live: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each chunk, whether a record of ``live`` has data in it."""
        chunk_ends = np.cumsum(self.chunks)
        first = np.searchsorted(chunk_ends, self.ends - self.length, side="right")
        last = np.searchsorted(chunk_ends, self.ends - 1, side="right")
        covered = np.zeros(len(self.chunks) + 1, np.int64)
        np.add.at(covered, first[live], 1)
        np.add.at(covered, last[live] + 1, -1)
        return np.cumsum(covered)[:-1] > 0

    def encode(self) -> bytes:
        """Give the bytes of the file."""
        return columns.encode(
            KIND,
            VERSION,
            _Facts(),
            {
                "tid": (self.tids, True),
                "oid": (self.oid, True),
                "transaction": (self.transaction, False),
                "rank": (self.rank, False),
                "length": (self.length, False),
                "digest": (self.digest, False),
                "chunk": (self.chunks, False),
            },
        )

    @classmethod
    def decode(cls, data: bytes, where: str) -> Catalogue:
        """Read and check a file. Raises DamageFound."""
        _, found = columns.decode(data, KIND, VERSION, _Facts, where)
        names = ("tid", "oid", "transaction", "rank", "length", "digest", "chunk")
        if tuple(found) != names or len({len(found[name]) for name in names[1:6]}) > 1:
            raise DamageFound(f"{where}: its columns are not those of a catalogue")
        for name in ("transaction", "rank", "length", "chunk"):
            if int(found[name].max(initial=0)) > SEGMENT_LIMIT:
                raise DamageFound(f"{where}: a {name} is above {SEGMENT_LIMIT}")
        catalogue = cls(
            tids=found["tid"],
            oid=found["oid"],
            transaction=found["transaction"].astype(np.int64),
            rank=found["rank"].astype(np.int64),
            length=found["length"].astype(np.int64),
            digest=found["digest"],
            chunks=found["chunk"].astype(np.int64),
        )
        catalogue._check(where)
        return catalogue

    def _check(self, where: str) -> None:
        rises = bool((self.tids[1:] > self.tids[:-1]).all())
        known = not len(self) or int(self.transaction.max()) < len(self.tids)
        bounded = 0 <= int(self.chunks.sum()) <= SEGMENT_LIMIT and bool(
            ((self.chunks > 0) & (self.chunks <= CHUNK_LIMIT)).all()
        )
        if not (rises and known and bounded and bool((self.length > 0).all())):
            raise DamageFound(f"{where}: its numbers contradict each other")
        if len(self) and int(self.ends[-1]) != int(self.chunks.sum()):
            raise DamageFound(f"{where}: its records and its chunks differ in length")


def cut_chunks(lengths: Ordinals) -> Ordinals:
    """Cut a payload of records of these lengths into chunks: at record boundaries, a long record anywhere.

    Returns the length of each chunk, at most CHUNK_LIMIT.
    """
    ends = np.cumsum(lengths)
    chunks: list[int] = []
    total = int(ends[-1]) if len(ends) else 0
    start = 0
    while start < total:
        at = int(np.searchsorted(ends, start + CHUNK_LIMIT, side="right"))
        end = int(ends[at - 1]) if at else 0
        if end <= start:
            end = min(start + CHUNK_LIMIT, int(ends[at]))
        chunks.append(end - start)
        start = end
    return np.array(chunks, np.int64)

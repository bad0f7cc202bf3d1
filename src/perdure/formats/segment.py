"""From a range of a Data.fs to payload, catalogue and layout.

The formats of the three stand in formats/catalogue.py and formats/layout.py; the way back is
formats/assembly.py. No file is read here: what is needed from outside the range is asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xxhash
from numpy.typing import NDArray

from perdure.formats.catalogue import CHUNK_LIMIT, Catalogue, Ordinals, cut_chunks
from perdure.formats.columns import Numbers
from perdure.formats.extent import Extent
from perdure.formats.filestorage import MAGIC_SIZE, RECORD_HEADER
from perdure.formats.history import segment_name
from perdure.formats.layout import Layout, LayoutFacts, Transactions
from perdure.formats.references import References

NOTHING: Numbers = np.zeros(0, np.uint64)


@dataclass(frozen=True)
class Segment:
    """The data of some records of an extent: its name, catalogue, and the pieces of its payload."""

    name: str
    catalogue: Catalogue
    pieces: list[memoryview]
    """The data of each record, in payload order: views into the extent."""

    def chunks(self) -> Iterator[bytes]:
        """Give the payload chunk by chunk."""
        ends, behind = self.catalogue.ends, 0
        begin, rest = 0, memoryview(b"")  # the next record's number, the last one's other half
        for size in self.catalogue.chunks.tolist():
            behind += size
            stop = max(begin, int(np.searchsorted(ends, behind, side="right")))
            parts = [rest[:size], *self.pieces[begin:stop]]
            rest = rest[size:]
            inside = size - sum(map(len, parts))
            if inside:
                rest = self.pieces[stop]
                parts.append(rest[:inside])
                stop, rest = stop + 1, rest[inside:]
            begin = stop
            yield b"".join(parts)


def digest_records(extent: Extent) -> tuple[list[memoryview], Numbers]:
    """Give the data of each record of the extent (empty for a back pointer), and its xxh3."""
    data = extent.data
    begins = extent.at - extent.start + RECORD_HEADER.size
    ends = begins + extent.length.astype(np.int64)
    pieces = [data[a:b] for a, b in zip(begins.tolist(), ends.tolist(), strict=True)]
    return pieces, np.array(list(map(xxhash.xxh3_64_intdigest, pieces)), np.uint64)


def ranks(extent: Extent, before: int) -> Ordinals:
    """Count, for each record, the records before it in its transaction.

    ``before``: how many of them the first transaction had in extents before this one.
    """
    firsts = np.cumsum(extent.records_of) - extent.records_of
    rank = np.arange(len(extent.at)) - firsts[extent.transaction_of]
    if extent.begins_inside and len(rank):
        rank[extent.transaction_of == 0] += before
    return rank


def make_segment(
    extent: Extent, which: Ordinals, pieces: list[memoryview], digests: Numbers, rank: Ordinals
) -> Segment:
    """Make a segment of the records ``which`` of an extent: numbers in file order, none a back pointer."""
    chosen = np.zeros(len(extent.at), bool)
    chosen[which] = True
    order = extent.by_oid[chosen[extent.by_oid]]
    lengths = extent.length[order].astype(np.int64)
    used = np.zeros(len(extent.headers), bool)
    used[extent.transaction_of[which]] = True
    catalogue = Catalogue(
        tids=extent.transaction_tids[used],
        oid=extent.oid[order],
        transaction=(np.cumsum(used) - 1)[extent.transaction_of[order]],
        rank=rank[order],
        length=lengths,
        digest=digests[order],
        chunks=cut_chunks(lengths),
    )
    name = segment_name(int(catalogue.tids[0]), catalogue.encode())
    return Segment(name, catalogue, list(map(pieces.__getitem__, order.tolist())))


def transactions_of(extent: Extent) -> Transactions:
    """Take the transaction headers and texts of an extent."""
    begun = [not extent.begins_inside or number > 0 for number in range(len(extent.headers))]
    headers = list(zip(extent.headers, begun, strict=True))
    text = b"".join(extent.text(number) for number in range(len(extent.headers)))

    def column(values: list[int]) -> Numbers:
        return np.array(values, np.uint64)

    return Transactions(
        tid=extent.transaction_tids,
        status=column([h.status[0] for h, _ in headers]),
        length=column([h.length for h, _ in headers]),
        user=column([h.user_length if b else 0 for h, b in headers]),
        description=column([h.description_length if b else 0 for h, b in headers]),
        extension=column([h.extension_length if b else 0 for h, b in headers]),
        records=extent.records_of.astype(np.uint64),
        text=np.frombuffer(text, np.uint8),
    )


def facts_of(
    extent: Extent, sha256: str, segments: Sequence[str], *, verbatim: bool
) -> LayoutFacts:
    """Say what a layout of the extent says about its range as a whole."""
    magic = bytes(extent.data[:MAGIC_SIZE]).decode("ascii") if extent.start == 0 else ""
    return LayoutFacts(
        start=extent.start,
        end=extent.end,
        sha256=sha256,
        magic=magic,
        segments=tuple(segments),
        verbatim=verbatim,
        begins=extent.headers[0].position if extent.begins_inside else None,
        ends_inside=extent.ends_inside,
    )


def make_layout(
    extent: Extent,
    sha256: str,
    segments: Sequence[str],
    source: Numbers,
    live: Sequence[NDArray[np.bool_] | None],
    found: References,
) -> Layout:
    """Put the layout of an extent together; ``source`` and ``live`` as in formats/layout.py."""
    return Layout(
        facts=facts_of(extent, sha256, segments, verbatim=False),
        transactions=transactions_of(extent),
        source=source,
        live=tuple(live),
        back_oid=found.back_oid,
        back_tid=found.back_tid,
        prev_tid=found.prev_tid,
        odd_record=found.odd_record,
        odd_field=found.odd_field,
        odd_value=found.odd_value,
    )


def verbatim_layout(extent: Extent, sha256: str) -> Layout:
    """Make the layout of an extent that the model cannot express."""
    name = segment_name(int(extent.transaction_tids[0]), bytes.fromhex(sha256))
    return Layout(
        facts=facts_of(extent, sha256, [name], verbatim=True),
        transactions=transactions_of(extent),
        source=NOTHING,
        live=(None,),
        back_oid=NOTHING,
        back_tid=NOTHING,
        prev_tid=NOTHING,
        odd_record=NOTHING,
        odd_field=NOTHING,
        odd_value=NOTHING,
    )


def verbatim_chunks(extent: Extent) -> Iterator[bytes]:
    """Give the bytes of an extent in chunks."""
    for start in range(0, len(extent.data), CHUNK_LIMIT):
        yield bytes(extent.data[start : start + CHUNK_LIMIT])

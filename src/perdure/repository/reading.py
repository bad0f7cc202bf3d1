"""Reading chunks: each verified, many at a time, neighbours in one request."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from perdure.errors import NameNotFound, RepositoryDamaged, StoreError, StoreUnavailable
from perdure.formats.packfile import LENGTH_SIZE, Entry, decode_header, header_range
from perdure.formats.sealing import Bytes, MasterKey, SealBroken, unseal
from perdure.model import ChunkId, ChunkKind
from perdure.pool import Pool
from perdure.repository.chunks import HEALING, decode
from perdure.repository.runs import Location
from perdure.repository.sealed import is_id
from perdure.stores import Store

SPAN = 8 << 20
"""Neighbouring chunks are read together up to this many bytes, sealed or as content."""
_WINDOW = 24 << 20
"""Bytes of content that are looked ahead for neighbours in a store that is far."""


def packfile_name(packfile: bytes) -> str:
    """Give the name in the store of a packfile."""
    name = packfile.hex()
    return f"data/{name[:2]}/{name}"


def missing(chunk_id: ChunkId, why: str) -> RepositoryDamaged:
    """Give the error for a chunk that should be in a packfile and is not."""
    return RepositoryDamaged(
        f"chunk {chunk_id.hex()} cannot be read: {why}",
        hint=HEALING,
    )


class Span(msgspec.Struct, frozen=True):
    """Chunks that lie one behind the other in a packfile."""

    locations: list[Location]

    @property
    def size(self) -> int:
        """Bytes of content."""
        return sum(location.entry.size for location in self.locations)


class ChunkReader:
    """Reads chunks by their ids."""

    def __init__(self, store: Store, key: MasterKey, gap: int = 0) -> None:
        self._store = store
        self._key = key
        self._gap = gap
        """Bytes between two chunks that are rather read, too, than asked around."""

    def read(self, locations: list[Location]) -> bytes:
        """Give a chunk from the first of its places that is whole. Raises RepositoryDamaged."""
        failure: Exception | None = None
        for location in locations:
            try:
                return self.read_span(Span([location]))[0]
            except StoreUnavailable:
                raise
            except (RepositoryDamaged, StoreError) as error:
                failure = failure or error
        assert failure, "a chunk without a place was not to get here"
        raise failure

    def read_span(self, span: Span) -> list[bytes]:
        """Give the chunks of a span. Raises RepositoryDamaged, StoreError."""
        name = packfile_name(span.locations[0].packfile)
        start = span.locations[0].entry.offset
        last = span.locations[-1].entry
        sealed = memoryview(self._get(name, start, last.offset + last.length, last))
        where = f"{name} in {self._store.location}"
        return [
            decode(
                self._key,
                sealed[entry.offset - start : entry.offset - start + entry.length],
                entry,
                where,
            )
            for entry in (location.entry for location in span.locations)
        ]

    def _get(self, name: str, start: int, stop: int, entry: Entry) -> bytes:
        """Read a part of a packfile; that it is not there, or too short, is damage."""
        where = f"{name} in {self._store.location}"
        try:
            return self._store.get(name, start, stop)
        except NameNotFound:
            raise missing(entry.id, f"{where} is not there") from None
        except StoreUnavailable:
            raise
        except StoreError:
            size = self._store.size(name)
            if size >= stop:
                raise
            raise missing(entry.id, f"{where} has only {size} bytes") from None

    def decode(self, sealed: Bytes, entry: Entry, where: str) -> bytes:
        """Give a chunk of bytes that were read already. Raises RepositoryDamaged."""
        return decode(self._key, sealed, entry, where)

    def packfiles(self) -> dict[bytes, int]:
        """Give the id and size of each packfile in the store."""
        files = ((name.rpartition("/")[2], size) for name, size in self._store.list("data/"))
        return {bytes.fromhex(name): size for name, size in files if is_id(name)}

    def content(self, packfile: bytes) -> bytes:
        """Read a whole packfile; nothing of it is verified. Raises NameNotFound, StoreError."""
        return self._store.get(packfile_name(packfile))

    def header(self, packfile: bytes, size: int) -> list[Entry]:
        """Read what a packfile of ``size`` bytes holds, by its header. Raises RepositoryDamaged."""
        name = packfile_name(packfile)
        where = f"{name} in {self._store.location}"
        tail = self._store.get(name, max(0, size - LENGTH_SIZE), size)
        start, stop = header_range(tail, size, where)
        return self._decode_header(self._store.get(name, start, stop), start, where)

    def header_of(self, content: bytes, where: str) -> list[Entry]:
        """Give what a packfile that was read already holds. Raises RepositoryDamaged."""
        start, stop = header_range(content[-LENGTH_SIZE:], len(content), where)
        return self._decode_header(content[start:stop], start, where)

    def _decode_header(self, sealed: bytes, start: int, where: str) -> list[Entry]:
        try:
            return decode_header(unseal(self._key, sealed), start, where)
        except SealBroken as error:
            raise RepositoryDamaged(f"{where} has a damaged header: {error}") from None

    def read_many(
        self,
        find: Callable[[ChunkKind, ChunkId], list[Location]],
        load: Callable[[ChunkKind, ChunkId], bytes],
        kind: ChunkKind,
        ids: Iterable[ChunkId],
        pool: Pool,
    ) -> Iterator[bytes]:
        """Give chunks in order, reading ahead; ``load`` is asked for what cannot be read so."""

        def read(span: Span) -> list[bytes]:
            try:
                return self.read_span(span)
            except StoreUnavailable:
                raise
            except (RepositoryDamaged, StoreError):
                # One of them is damaged here: each by itself, from wherever it is whole.
                return [load(kind, place.entry.id) for place in span.locations]

        places = (find(kind, chunk_id)[0] for chunk_id in ids)
        if self._gap:
            yield from _rearranged(read, places, self._gap, pool)
            return
        for contents in pool.in_order(read, ((span.size, span) for span in _spans(places, 0))):
            yield from contents


def _rearranged(
    read: Callable[[Span], list[bytes]], places: Iterable[Location], gap: int, pool: Pool
) -> Iterator[bytes]:
    """Give chunks in order, but read them, a window ahead, in the order in which they lie.

    Chunks of one file lie in a packfile in the order in which they were sealed, which is about that of
    the file, no more: for a store that is far each step back would be one more request.
    """
    windows: deque[tuple[list[ChunkId], int]] = deque()

    def spans() -> Iterator[tuple[int, Span]]:
        for window in _windows(places):
            found = _spans_of(window, gap)
            windows.append(([place.entry.id for place in window], len(found)))
            yield from ((span.size, span) for span in found)

    def named(span: Span) -> Iterator[tuple[ChunkId, bytes]]:
        return zip((place.entry.id for place in span.locations), read(span), strict=True)

    contents = pool.in_order(named, spans())
    for found in contents:
        ids, count = windows.popleft()
        held, given = dict(found), 0
        for _ in range(1, count):
            while ids[given] in held:
                yield held[ids[given]]
                given += 1
            held.update(next(contents))
        yield from (held[chunk] for chunk in ids[given:])


def _windows(places: Iterable[Location]) -> Iterator[list[Location]]:
    window: list[Location] = []
    size = 0
    for place in places:
        window.append(place)
        size += max(place.entry.size, place.entry.length)
        if size >= _WINDOW:
            yield window
            window, size = [], 0
    if window:
        yield window


def _spans_of(window: Sequence[Location], gap: int) -> list[Span]:
    """Give what to read for a window, what is needed first at the beginning."""
    needed: dict[bytes, int] = {}
    for number, place in enumerate(window):
        needed.setdefault(place.entry.id, number)
    lying = {(place.packfile, place.entry.offset): place for place in window}
    found = _spans((lying[key] for key in sorted(lying)), gap)
    return sorted(found, key=lambda span: min(needed[each.entry.id] for each in span.locations))


def _spans(places: Iterable[Location], gap: int) -> Iterator[Span]:
    """Join places that follow each other with at most ``gap`` bytes between them."""
    current: list[Location] = []
    size = 0
    for location in places:
        between = _between(current[-1], location) if current else 0
        grown = size + max(between, 0) + max(location.entry.size, location.entry.length)
        if current and (not 0 <= between <= gap or grown > SPAN):
            yield Span(current)
            current, grown = [], max(location.entry.size, location.entry.length)
        current.append(location)
        size = grown
    if current:
        yield Span(current)


def _between(first: Location, second: Location) -> int:
    """Give the bytes between two chunks; less than 0 if the second does not follow the first."""
    if first.packfile != second.packfile:
        return -1
    return second.entry.offset - first.entry.offset - first.entry.length

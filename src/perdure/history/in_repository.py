"""A history in a snapshot of a repository."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.errors import DamageFound, RepositoryDamaged
from perdure.formats.history import LAYOUTS, SEGMENTS, LayoutName, segment_folder
from perdure.history.folders import Folder, StoredFile
from perdure.model import ChunkId, ChunkKind
from perdure.repository import Repository

if TYPE_CHECKING:
    from perdure.formats.catalogue import Catalogue
    from perdure.formats.layout import Layout
    from perdure.history.reading import Piece


@dataclass(frozen=True, slots=True)
class StoredSegment:
    """The files of a segment; one that is verbatim has no catalogue."""

    name: str
    payload: StoredFile
    catalogue: StoredFile | None


class RepositoryHistory:
    """The history in a folder of a snapshot; what is put in or taken out is stored with the folder."""

    def __init__(self, repository: Repository, folder: Folder) -> None:
        self._repository = repository
        self.folder = folder
        self.where = str(folder.path)
        self.unreadable = False
        """Whether a layout was dropped that could not be read."""

    def as_stored(self) -> RepositoryHistory:
        """Give the history once more, which changes of this one do not reach; it must not have any yet."""
        return RepositoryHistory(self._repository, self.folder.as_stored())

    def names(self) -> list[LayoutName]:
        """Give the names of all layouts, in the order of the file. Raises DamageFound."""
        folders = self.folder.folder(LAYOUTS).folders()
        return sorted(
            LayoutName.parse(name, str(folder.path))
            for folder in folders
            for name in folder.files()
        )

    def cache_folder(self, name: str) -> Path | None:
        """Give the folder of the repository's cache for something; None where there is no cache."""
        return self._repository.cache_folder(name)

    def layout(self, name: LayoutName) -> Layout:
        """Load a layout. Raises DamageFound."""
        from perdure.formats.layout import Layout  # columns are read by few commands

        return Layout.decode(self._load(self.layout_file(name)), self._place(name))

    def catalogue(self, segment: StoredSegment) -> Catalogue:
        """Load the catalogue of a segment. Raises DamageFound."""
        from perdure.formats.catalogue import Catalogue

        if segment.catalogue is None:
            raise RepositoryDamaged(f"{self.where}: segment {segment.name} has no catalogue")
        return Catalogue.decode(
            self._load(segment.catalogue), f"{self.where}: the catalogue of {segment.name}"
        )

    def layout_file(self, name: LayoutName) -> StoredFile:
        """Give the file of a layout."""
        return self.folder.folder(LAYOUTS).folder(name.folder).file(str(name))

    def segments(self, layout: Layout) -> list[StoredSegment]:
        """Give the files of the segments that a layout draws on. Raises DamageFound."""
        return [
            self.segment(name, verbatim=layout.facts.verbatim) for name in layout.facts.segments
        ]

    def segment(self, name: str, *, verbatim: bool) -> StoredSegment:
        """Give the files of a segment. Raises DamageFound."""
        folder = self._segment_folder(name)
        catalogue = None if verbatim else folder.file(f"{name}.catalogue")
        return StoredSegment(name, folder.file(f"{name}.payload"), catalogue)

    def pieces(self, names: Sequence[LayoutName]) -> Iterator[Piece]:
        """Load layouts with catalogues and payloads, in the given order, reading ahead.

        Raises DamageFound.
        """
        ahead: deque[tuple[LayoutName, Layout, list[StoredSegment]]] = deque()

        def wanted() -> Iterator[ChunkId]:
            for name in names:
                layout = self.layout(name)
                segments = self.segments(layout)
                ahead.append((name, layout, segments))
                for segment in segments:
                    yield from segment.catalogue.chunks if segment.catalogue else ()
                    yield from segment.payload.chunks

        stream = _Stream(self._repository.load_many(ChunkKind.DATA, wanted()))
        for _ in names:
            if not ahead:
                stream.look_ahead()
            name, layout, segments = ahead.popleft()
            yield self._piece(name, layout, segments, stream)

    def _piece(
        self, name: LayoutName, layout: Layout, segments: list[StoredSegment], stream: _Stream
    ) -> Piece:
        from perdure.formats.catalogue import Catalogue
        from perdure.history.reading import Piece

        catalogues, payloads = [], []
        for segment in segments:
            if segment.catalogue is not None:
                data = b"".join(stream.take(len(segment.catalogue.chunks)))
                catalogues.append(
                    Catalogue.decode(data, f"{self.where}: the catalogue of {segment.name}")
                )
            payloads.append(stream.take(len(segment.payload.chunks)))
        return Piece(name, layout, tuple(catalogues), tuple(payloads), self._place(name))

    def chunks(self, wanted: Iterable[ChunkId]) -> Iterator[bytes]:
        """Load chunks of files, in order, reading ahead. Raises RepositoryDamaged, StoreError."""
        return self._repository.load_many(ChunkKind.DATA, wanted)

    def has_payloads(self, segments: Sequence[StoredSegment]) -> bool:
        """Whether the repository has all chunks of the payloads of some segments."""
        return all(
            self._repository.has(ChunkKind.DATA, chunk)
            for segment in segments
            for chunk in segment.payload.chunks
        )

    def put_layout(self, name: LayoutName, file: StoredFile) -> None:
        """Enter a layout."""
        self.folder.folder(LAYOUTS).folder(name.folder).put(str(name), file)

    def put_segment(self, segment: StoredSegment) -> None:
        """Enter a segment."""
        folder = self._segment_folder(segment.name)
        folder.put(f"{segment.name}.payload", segment.payload)
        if segment.catalogue is not None:
            folder.put(f"{segment.name}.catalogue", segment.catalogue)

    def drop(self, name: LayoutName) -> None:
        """Take a layout out, and the segments that it alone draws on.

        Segments of a layout that cannot be read stay: ``sweep`` finds them.
        """
        segments: tuple[str, ...] = ()
        try:
            segments = self.layout(name).facts.segments
        except DamageFound:
            self.unreadable = True
        self.folder.folder(LAYOUTS).folder(name.folder).remove(str(name))
        for segment in segments:
            self._remove_segment(segment)

    def files_of(self, segments: Sequence[str], *, verbatim: bool) -> list[str]:
        """Give the paths, below the history's folder, of the files of some segments."""
        suffixes = ("payload",) if verbatim else ("payload", "catalogue")
        return [
            f"{SEGMENTS}/{'/'.join(segment_folder(segment, self.where))}/{segment}.{suffix}"
            for segment in segments
            for suffix in suffixes
        ]

    def sweep(self) -> None:
        """Take out all segments that no layout draws on. Raises DamageFound."""
        used = {segment for name in self.names() for segment in self.layout(name).facts.segments}
        files = [
            file for folder in _leaves(self.folder.folder(SEGMENTS)) for file in folder.files()
        ]
        for segment in {file.rpartition(".")[0] for file in files} - used:
            self._remove_segment(segment)

    def _remove_segment(self, name: str) -> None:
        folder = self._segment_folder(name)
        folder.remove(f"{name}.payload")
        folder.remove(f"{name}.catalogue")

    def lacking(self) -> set[LayoutName]:
        """Find the layouts whose range the repository can no longer put together.

        As long as every file of the history is whole, nothing but its folders is looked at.
        """
        missing = {
            name
            for folder in _leaves(self.folder)
            for name in folder.files()
            if not folder.whole(name)
        }
        if not missing:
            return set()
        return {name for name in self.names() if not self._spared(name, missing)}

    def _spared(self, name: LayoutName, missing: set[str]) -> bool:
        if str(name) in missing:
            return False
        try:
            facts = self.layout(name).facts
            files = [file for s in facts.segments for file in (f"{s}.payload", f"{s}.catalogue")]
            self.segments(self.layout(name))
        except DamageFound:
            return False
        return missing.isdisjoint(files)

    def _segment_folder(self, name: str) -> Folder:
        year, month = segment_folder(name, self.where)
        return self.folder.folder(SEGMENTS).folder(year).folder(month)

    def _place(self, name: LayoutName) -> str:
        return str(self.folder.path / LAYOUTS / name.folder / str(name))

    def _load(self, file: StoredFile) -> bytes:
        return b"".join(self._repository.load(ChunkKind.DATA, chunk) for chunk in file.chunks)


def _leaves(folder: Folder) -> Iterator[Folder]:
    yield folder
    for inner in folder.folders():
        yield from _leaves(inner)


class _Stream:
    """Chunks that arrive one after the other, taken by the file."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._first: list[bytes] = []

    def look_ahead(self) -> None:
        """Let the next chunk, if there is one, be asked for now."""
        self._first.extend(islice(self._chunks, 1))

    def take(self, count: int) -> list[bytes]:
        """Give the next chunks."""
        parts = self._first[:count]
        del self._first[:count]
        parts.extend(islice(self._chunks, count - len(parts)))
        return parts

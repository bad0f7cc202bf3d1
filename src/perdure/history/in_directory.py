"""A history in a directory of ordinary files, as stock restic restores it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from perdure.errors import DamageFound, SourceUnusable
from perdure.formats.catalogue import Catalogue
from perdure.formats.history import LAYOUTS, SEGMENTS, LayoutName, segment_folder
from perdure.formats.layout import Layout
from perdure.history.reading import Piece

_FILE_LIMIT = 1 << 30


class DirectoryHistory:
    """The history in a directory. Raises SourceUnusable when it is none."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = str(path)
        if not (path / LAYOUTS).is_dir():
            raise SourceUnusable(
                f"{path} is not the directory of a history: it has no folder {LAYOUTS!r}",
                hint="name the directory that ends with .history, as restic restored it",
            )

    def names(self) -> list[LayoutName]:
        """Give the names of all layouts, in the order of the file. Raises DamageFound."""
        files = (self._path / LAYOUTS).glob("*/*.layout")
        return sorted(LayoutName.parse(file.name, str(file)) for file in files)

    def layout(self, name: LayoutName) -> Layout:
        """Load a layout. Raises DamageFound."""
        file = self._path / LAYOUTS / name.folder / str(name)
        return Layout.decode(_read(file), str(file))

    def pieces(self, names: Sequence[LayoutName]) -> Iterator[Piece]:
        """Load layouts with catalogues and payloads, in the given order. Raises DamageFound."""
        for name in names:
            layout = self.layout(name)
            where = str(self._path / LAYOUTS / name.folder / str(name))
            catalogues, payloads = [], []
            for place, segment in enumerate(layout.facts.segments):
                base = self._path.joinpath(SEGMENTS, *segment_folder(segment, where))
                payload = base / f"{segment}.payload"
                if layout.facts.verbatim:
                    payloads.append([_read(payload)])
                    continue
                file = base / f"{segment}.catalogue"
                catalogue = Catalogue.decode(_read(file), str(file))
                catalogues.append(catalogue)
                present = catalogue.live_chunks(layout.live_records(place, len(catalogue)))
                payloads.append(_read_chunks(payload, catalogue.chunks[present].tolist()))
            yield Piece(name, layout, tuple(catalogues), tuple(payloads), where)


def _read(file: Path) -> bytes:
    return b"".join(_read_chunks(file, None))


def _read_chunks(file: Path, sizes: list[int] | None) -> list[bytes]:
    """Read a file, whole or cut into chunks of some sizes that must add up to it."""
    try:
        size = file.stat().st_size
        if size > (_FILE_LIMIT if sizes is None else sum(sizes)):
            raise DamageFound(f"{file} has {size} bytes, more than it should")
        with file.open("rb") as stream:
            return [stream.read(size) for size in ([size] if sizes is None else sizes)]
    except FileNotFoundError:
        raise DamageFound(
            f"{file} is missing", hint="restore the whole directory of the history again"
        ) from None
    except OSError as error:
        raise SourceUnusable(f"{file} cannot be read: {error.strerror}") from error

"""What earlier runs made of a source whose bytes are made, not read, as its history tells it.

Layouts and catalogues tell where each record stands; payloads are not read. Most layouts are settled:
the layouts behind them are small and will be merged, they themselves will not. What the settled ones say
is kept in the cache (formats/positions.py), in a file that is named for them; so a run reads the small ones
only. The cache may be deleted at any time, and where it cannot be written it is done without.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.errors import DamageFound, RepositoryDamaged
from perdure.formats.history import LayoutName
from perdure.history.in_repository import RepositoryHistory
from perdure.plan import SEGMENT_SIZE

if TYPE_CHECKING:
    from perdure.formats.positions import Positions
    from perdure.formats.revisions import Revisions

_CACHE = "past"
_LOOKED_BACK = 8
"""So many settled layouts may have been added since the cache's file was written."""
_OLD = 30 * 24 * 3600
"""Seconds after which a file of another state of a history is taken for useless."""


class HistoryPast:
    """Where the records before some positions of a history's file stand."""

    def __init__(self, history: RepositoryHistory) -> None:
        self._history = history.as_stored()  # a run takes layouts out before it reads them anew
        self._names = history.names()
        self._cache = history.cache_folder(_CACHE)
        self._done = 0
        self._recent: Revisions | None = None
        self._kept: Positions | None = None

    def last_tid(self, position: int) -> int:
        """Give the tid of the last transaction before a position; 0: there is none."""
        before = (name.last_tid for name in self._names if name.start < position)
        return max(before, default=0)

    def newest(self, position: int) -> Callable[[int], tuple[int, int]]:
        """Give what tells position and tid of an oid's last record before a position; 0, 0 for none.

        What was given earlier tells of this position then. Raises DamageFound.
        """
        before = sum(name.start < position for name in self._names)
        if self._recent is None or before < self._done:
            self._begin(before)
        self._note(before)
        return self._revision

    def _revision(self, oid: int) -> tuple[int, int]:
        assert self._recent is not None
        found = self._recent.revision(oid)
        if found[0] or self._kept is None:
            return found
        try:
            return self._kept.revision(oid)
        except DamageFound:
            self._do_without_cache()
            return self._recent.revision(oid)

    def _begin(self, before: int) -> None:
        """Take what the cache has of the first ``before`` layouts."""
        from perdure.formats.revisions import Revisions

        self._recent, self._kept, self._done = Revisions(), None, 0
        settled = self._settled(before)
        if self._cache is None or not settled:
            return
        files = self._files(settled)
        for count in sorted(files, reverse=True):
            self._kept = _mapped(files[count])
            if self._kept is not None:
                self._done = count
                break
        if self._done < settled:
            older = files.get(self._done)
            self._note(settled)
            self._keep(files[settled], older)

    def _settled(self, before: int) -> int:
        """Say how many layouts there are up to the last one that is not merged any more."""
        starts = [name.start for name in self._names]
        large = [n for n in range(1, len(starts)) if starts[n] - starts[n - 1] >= SEGMENT_SIZE // 2]
        return max((count for count in large if count <= before), default=0)

    def _files(self, settled: int) -> dict[int, Path]:
        """Name the cache's files of that many layouts, and of somewhat fewer."""
        assert self._cache is not None
        digest = hashlib.sha256(str(self._history.folder.path).encode())
        found: dict[int, Path] = {}
        for count, name in enumerate(self._names[:settled], 1):
            chunks = b"".join(self._history.layout_file(name).chunks)
            digest.update(f"{name} ".encode() + chunks)
            if count >= settled - _LOOKED_BACK:
                found[count] = self._cache / f"{digest.hexdigest()}.positions"
        return found

    def _note(self, before: int) -> None:
        for name in self._names[self._done : before]:
            self._note_layout(name)
        self._done = before

    def _note_layout(self, name: LayoutName) -> None:
        from perdure.formats.arrangement import Arrangement

        history = self._history
        layout = history.layout(name)
        if layout.facts.verbatim:
            raise RepositoryDamaged(f"{history.where}: {name} is verbatim, which nothing made was")
        catalogues = [history.catalogue(segment) for segment in history.segments(layout)]
        assert self._recent is not None
        Arrangement(layout, catalogues, f"{history.where}: {name}").note(self._recent)

    def _keep(self, path: Path, older: Path | None) -> None:
        """Write what is known to the cache, and read it from there."""
        import numpy as np

        from perdure.formats.positions import encode, merged
        from perdure.formats.revisions import Revisions

        assert self._recent is not None
        kept, recent = self._kept, self._recent
        firsts = np.array([first for first, *_ in recent.pages()], np.uint64)
        pages = merged(kept.pages() if kept else (), recent.pages())
        firsts = np.union1d(kept.firsts, firsts) if kept else firsts
        try:
            with suppress(OSError):
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                temporary = path.with_suffix(f".{os.getpid()}.tmp")
                with open(temporary, "wb") as file:
                    file.writelines(encode(firsts, pages))
                temporary.replace(path)
                if older is not None:
                    older.unlink(missing_ok=True)
                _sweep(path)
        except DamageFound:
            self._do_without_cache()
            return
        written = _mapped(path)
        if written is not None:
            self._kept, self._recent = written, Revisions()

    def _do_without_cache(self) -> None:
        """Read all layouts: the cache's file is damaged."""
        from perdure.formats.revisions import Revisions

        done, self._done = self._done, 0
        self._recent, self._kept, self._cache = Revisions(), None, None
        self._note(done)


def _mapped(path: Path) -> Positions | None:
    """Give what a file of the cache has; None where it is not there, or no such file."""
    from perdure.formats.positions import Positions

    with suppress(OSError, ValueError, DamageFound), open(path, "rb") as file:
        return Positions(memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)))
    return None


def _sweep(path: Path) -> None:
    """Remove the files beside a new one that nothing has used for long."""
    written = path.stat().st_mtime
    for other in path.parent.iterdir():
        if written - other.stat().st_mtime > _OLD:
            other.unlink()

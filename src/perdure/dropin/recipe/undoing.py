"""Taking backups away again: the newest of a repozo repository, as if they had not been made; whole runs.

A run that writes databases has a marker with its stamp, one that removes old backups with theirs. Where that
still stands when nobody holds the lock, the run was killed; what has such a stamp is no backup any more.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable
from pathlib import Path

from perdure.dropin import repozo
from perdure.dropin.recipe.copying import remove
from perdure.dropin.recipe.naming import PART, STAMP, Entry
from perdure.dropin.recipe.part import Place
from perdure.model import Observer
from perdure.sources.durable import sync_directory

NAME = f"{PART}run"
_STAMP = re.compile(STAMP)
_LEFT = (".old", ".new", ".recovered")
_LONGEST = 1 << 20


def mark(folder: Path, stamps: Iterable[str]) -> None:
    """Say that backups of some stamps begin to be written or removed. Raises OSError."""
    _write(folder / NAME, "".join(f"{stamp}\n" for stamp in sorted(stamps)).encode())


def unmark(folder: Path) -> None:
    """Say that it has ended well. Raises OSError."""
    (folder / NAME).unlink(missing_ok=True)
    sync_directory(folder)


def unfinished(folder: Path) -> frozenset[str]:
    """Give the stamps of what is neither whole nor gone. Raises OSError."""
    try:
        with open(folder / NAME, encoding="ascii", errors="replace") as file:
            lines = file.read(_LONGEST).splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    return frozenset(line for line in lines if _STAMP.fullmatch(line))


def undo_unfinished(folder: Path, places: Iterable[Place], observer: Observer | None) -> None:
    """Undo a run that has not ended, and remove what one began to. Raises OSError, PerdureError."""
    stamps = unfinished(folder)
    if not stamps:
        return
    if observer is not None:
        named = ", ".join(sorted(stamps))
        observer.warning(f"an earlier run was interrupted; what is left of {named} is removed")
    for place in places:
        if Path(place.files).is_dir():
            drop(Path(place.files), stamps)
        for entry in _entries(Path(place.blobs)):
            if entry.stamp in stamps:
                remove(Path(place.blobs, entry.name))
    unmark(folder)


def sweep(place: Place) -> None:
    """Remove what a killed run left under names that are none. Raises OSError."""
    for folder in (Path(place.files), Path(place.blobs)):
        for path in list(folder.iterdir()) if folder.is_dir() else []:
            if path.name.startswith(PART) and path.name.endswith(_LEFT):
                remove(path)


def drop(repository: Path, stamps: Collection[str]) -> list[str]:
    """Remove backups of a repozo repository by their stamps: whole chains, or the last ones of a chain.

    Gives the names of the files that were removed. The newest go first, so that at no time anything stands
    that needs what is gone. Raises OSError, PerdureError.
    """
    removed: list[str] = []
    for chain in reversed(repozo.chains(repository)):
        pieces = [piece for piece in chain.pieces if piece.name.stamp in stamps]
        if not pieces:
            continue
        names = [piece.path.name for piece in pieces]
        whole = len(pieces) == len(chain.pieces)
        if not whole:
            _shorten(repository / f"{chain.stamp}.dat", names)
        for piece in reversed(pieces):
            removed += _unlink(repository, (piece.path.name, f"{piece.name.stamp}.index"))
        if whole:
            removed += _unlink(repository, (f"{chain.stamp}.dat",))
    return removed


def _shorten(dat: Path, names: Collection[str]) -> None:
    """Write a .dat again without the lines of some files."""
    try:
        lines = dat.read_bytes().splitlines(keepends=True)
    except FileNotFoundError:
        return
    gone = {os.fsencode(name) for name in names}
    kept = [line for line in lines if line.rsplit(None, 3)[0].rpartition(b"/")[2] not in gone]
    _write(dat, b"".join(kept))


def _write(path: Path, data: bytes) -> None:
    """Write a file in one step, durably."""
    part = path.with_name(f"{PART}{path.name}.new")
    with open(part, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.rename(part, path)
    sync_directory(path.parent)


def _unlink(folder: Path, names: Iterable[str]) -> list[str]:
    removed = []
    for name in names:
        if (folder / name).exists():
            (folder / name).unlink()
            removed.append(name)
    sync_directory(folder)
    return removed


def _entries(folder: Path) -> list[Entry]:
    if not folder.is_dir():
        return []
    return [entry for path in folder.iterdir() if (entry := Entry.parse(path.name))]

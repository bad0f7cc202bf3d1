"""Keep what a source holds beside its history, in a folder of the history, and give it back.

Files that are kept whole are few and small. What is told of transactions grows: each run adds a file of what
is new, and when small ones have added up they become one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from perdure.errors import RepositoryDamaged
from perdure.formats.history import COMPANION, PARTICULARS
from perdure.history.folders import Folder, StoredFile
from perdure.model import ChunkId, ChunkKind
from perdure.repository import Repository, Writer
from perdure.sources.protocol import Companion

if TYPE_CHECKING:
    from perdure.formats.directorystorage_particulars import Particulars

_MOST_SMALL = 32
_SMALL = 64 << 10
"""Bytes of a file that later ones are put together with."""
_PER_FILE = 1 << 15
"""Transactions whose particulars go into one file."""
_LIMIT = 1 << 30


def keep_companion(
    companion: Companion,
    history: Folder,
    after: int | None,
    repository: Repository,
    writer: Writer,
) -> bool:
    """Bring the companion's folder up to date; gives whether anything in it is new.

    ``after``: the cut of the snapshot that it goes on from; None: of none. Raises RepositoryDamaged.
    """
    folder = history.folder(COMPANION)
    changed = _keep_whole(folder, dict(companion.files()), writer)
    new = companion.noted(after or 0)
    if not new:
        return changed
    _grow(folder.folder(PARTICULARS), new, repository, writer)
    return True


def is_whole(history: Folder) -> bool:
    """Whether there is a companion of a history, and the repository still has all of it."""
    return COMPANION in history and all(
        folder.whole(name)
        for folder in _folders(history.folder(COMPANION))
        for name in folder.files()
    )


def kept_files(history: Folder, repository: Repository) -> Iterator[tuple[str, bytes]]:
    """Give the files that were kept whole: their paths, and what they hold."""
    for path, place, name in _files(history.folder(COMPANION)):
        if not _grows(path):
            yield path, _load(repository, place.file(name))


def kept_particulars(history: Folder, repository: Repository) -> Iterator[Particulars]:
    """Give all that was noted of transactions, tids rising. Raises DamageFound."""
    from perdure.formats.directorystorage_particulars import decode

    folder = history.folder(COMPANION).folder(PARTICULARS)
    for name in folder.files():
        yield from decode(_load(repository, folder.file(name)), str(folder.path / name))


def lost_companion(lost: Collection[str]) -> list[str]:
    """Give those of some lost paths, below a history's folder, that belong to a companion."""
    return [path for path in lost if PurePosixPath(path).parts[:1] == (COMPANION,)]


def carry_companion(old: Folder, new: Folder) -> None:
    """Take a companion over into another folder of the same history."""
    if COMPANION in old:
        new.adopt(COMPANION, old.folder(COMPANION))


def drop_companion(history: Folder) -> None:
    """Take a companion out of which something is lost: what is left of it would tell half of the truth."""
    history.remove(COMPANION)


def _keep_whole(folder: Folder, wanted: dict[str, bytes], writer: Writer) -> bool:
    there = {path: (place, name) for path, place, name in _files(folder)}
    changed = False
    for path, (place, name) in there.items():
        if path not in wanted and not _grows(path):
            place.remove(name)
            changed = True
    for path, data in wanted.items():
        *folders, name = PurePosixPath(path).parts
        place = folder
        for each in folders:
            place = place.folder(each)
        stored = _store(writer, data)
        if path not in there or place.file(name) != stored:
            place.put(name, stored)
            changed = True
    return changed


def _grow(folder: Folder, new: list[Particulars], repository: Repository, writer: Writer) -> None:
    """Add what is new, together with the small files at the end when there are many."""
    from perdure.formats.directorystorage_particulars import decode, encode, file_name

    small: list[str] = []
    for name in reversed(list(folder.files())):
        if folder.file(name).size >= _SMALL:
            break
        small.insert(0, name)
    if len(small) >= _MOST_SMALL:
        old = [
            each
            for name in small
            for each in decode(_load(repository, folder.file(name)), str(folder.path / name))
        ]
        new = [*old, *new]
        for name in small:
            folder.remove(name)
    for start in range(0, len(new), _PER_FILE):
        part = new[start : start + _PER_FILE]
        folder.put(file_name(part), _store(writer, encode(part)))


def _grows(path: str) -> bool:
    return PurePosixPath(path).parts[0] == PARTICULARS


def _files(folder: Folder, path: str = "") -> Iterator[tuple[str, Folder, str]]:
    for name in list(folder.files()):
        yield f"{path}{name}", folder, name
    for inner in list(folder.folders()):
        yield from _files(inner, f"{path}{inner.path.name}/")


def _folders(folder: Folder) -> Iterator[Folder]:
    yield folder
    for inner in folder.folders():
        yield from _folders(inner)


def _store(writer: Writer, data: bytes) -> StoredFile:
    chunks: Sequence[ChunkId] = (writer.add(ChunkKind.DATA, data).result(),) if data else ()
    return StoredFile(tuple(chunks), len(data))


def _load(repository: Repository, file: StoredFile) -> bytes:
    if file.size > _LIMIT:
        raise RepositoryDamaged(f"a file of {file.size} bytes is larger than any that is written")
    return b"".join(repository.load(ChunkKind.DATA, chunk) for chunk in file.chunks)

"""Repairing the index: made anew from the packfiles, which say what they hold.

What an index file says of a packfile is kept where the packfile is there and has the size that
follows from it; of all others the header is read. If data is to be read, every byte of every
packfile is verified.

A packfile that is found damaged does not stay: its whole chunks are stored anew, and it is set
aside under a name that no program takes for a packfile's, ``data/<2 hex>/<id>.damaged``. The index
then lacks the chunks that are lost, so that the next backup stores again what the source still has.

Nothing is deleted or renamed before what takes its place is durable: whole chunks of damaged
packfiles with their index first, then the new index files; then the old index files go, and at the
end the damaged packfiles. So at no moment is less known than before, but for the damaged chunks.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from perdure.errors import NameNotFound, PerdureError, RepositoryDamaged
from perdure.formats.index import Packed
from perdure.formats.packfile import Entry, expected_size
from perdure.model import Observer
from perdure.repository.index import FOLDER as INDEX
from perdure.repository.index import Index, read_index_file, save_index
from perdure.repository.inspecting import Inspection, inspect
from perdure.repository.locks import Lock
from perdure.repository.reading import packfile_name
from perdure.repository.repository import Repository
from perdure.repository.runs import Run

SET_ASIDE = ".damaged"
"""The end of the name of a packfile that is none any more."""


Found = dict[bytes, list[Entry]]
"""What packfiles (32 bytes of id) hold, each in the order of offsets."""


_Looked = tuple[Found, list[Inspection], list[str]]
"""What the sound packfiles hold, what is in damaged ones, and which have headers that nobody can read."""


class IndexRepair(msgspec.Struct, frozen=True):
    """What a repair of the index has done; messages name what could not be read and is left out."""

    packfiles_kept: int
    packfiles_read: int
    """How many the index did not know, or not rightly, and now does."""
    index_files_written: int
    index_files_deleted: int
    lost: tuple[str, ...]
    set_aside: tuple[str, ...] = ()
    """The names that damaged packfiles have now."""
    chunks_saved: int = 0
    """How many whole chunks of damaged packfiles were stored anew."""
    chunks_lost: int = 0
    """How many chunks of damaged packfiles are whole nowhere."""


def repair_index(
    repository: Repository, lock: Lock, observer: Observer, *, read_data: bool = False
) -> IndexRepair:
    """Make the index anew, under an exclusive lock; ``read_data`` also finds damage in packfiles.

    Raises PerdureError, StoreError. Nothing is written if the index is as it should be.
    """
    if not lock.exclusive:
        raise PerdureError("to repair the index takes an exclusive lock")
    old = [name for name, _ in repository.files.list(INDEX)]
    known, lost = _known(repository, old)
    sizes = repository.reader.packfiles()
    lost += [f"{packfile_name(gone)} is missing" for gone in known.keys() - sizes.keys()]
    look = _read_packfiles if read_data else _read_headers
    found, damaged, unreadable = look(repository, lock, observer, sizes, known)
    lost += [message for each in damaged for message in each.messages]
    read = [packfile for packfile, entries in found.items() if known.get(packfile) != entries]
    if not (read or lost or damaged):
        return IndexRepair(len(found), 0, 0, 0, tuple(unreadable))
    saved, gone = _save_whole(repository, lock, found, damaged)
    new = {name for name, _ in save_index(repository.files, _packed(found))}
    deleted = _delete(repository, lock, set(old) - new)
    aside = _set_aside(repository, lock, damaged)
    return IndexRepair(
        packfiles_kept=len(found) - len(read),
        packfiles_read=len(read),
        index_files_written=len(new),
        index_files_deleted=deleted,
        lost=(*lost, *unreadable),
        set_aside=tuple(aside),
        chunks_saved=saved,
        chunks_lost=gone,
    )


def _packed(found: Found) -> Iterator[Packed]:
    return (Packed(packfile, entries) for packfile, entries in found.items())


def _known(repository: Repository, names: list[str]) -> tuple[Found, list[str]]:
    known: dict[bytes, set[Entry]] = {}
    damaged = []
    for name in names:
        try:
            for packed in read_index_file(repository.files, name):
                known.setdefault(packed.id, set()).update(packed.entries)
        except RepositoryDamaged as error:
            damaged.append(str(error))
    in_order = {p: sorted(found, key=lambda entry: entry.offset) for p, found in known.items()}
    return in_order, damaged


def _read_headers(
    repository: Repository, lock: Lock, observer: Observer, sizes: dict[bytes, int], known: Found
) -> _Looked:
    """Read the headers of the packfiles that the index does not know or has with another size.

    One whose header cannot be read is read whole, if the index says where its chunks are.
    """
    found = {p: known[p] for p in sizes if p in known and expected_size(known[p]) == sizes[p]}
    unknown = sorted(sizes.keys() - found.keys())
    damaged = []
    unreadable = []
    for done, packfile in enumerate(unknown, 1):
        lock.keep()
        try:
            found[packfile] = repository.reader.header(packfile, sizes[packfile])
        except RepositoryDamaged as error:
            if packfile in known:
                damaged.append(inspect(repository.reader, packfile, known[packfile]))
            else:
                unreadable.append(str(error))
        observer.progress("reading packfile headers", done, len(unknown))
    return found, damaged, unreadable


def _read_packfiles(
    repository: Repository, lock: Lock, observer: Observer, sizes: dict[bytes, int], known: Found
) -> _Looked:
    """Read every byte of all packfiles."""

    def look(packfile: bytes) -> Inspection:
        return inspect(repository.reader, packfile, known.get(packfile, []))

    found: Found = {}
    damaged = []
    done, total = 0, sum(sizes.values())
    jobs = [(size, packfile) for packfile, size in sorted(sizes.items())]
    for each in repository.pool.in_order(look, jobs):
        lock.keep()
        if each.sound:
            found[each.packfile] = list(each.header)
        else:
            damaged.append(each)
        done += sizes[each.packfile]
        observer.progress("reading packfiles", done, total)
    return found, damaged, []


def _save_whole(
    repository: Repository, lock: Lock, found: Found, damaged: list[Inspection]
) -> tuple[int, int]:
    """Store the whole chunks of damaged packfiles that no sound one has; says how many are lost, too."""
    if not damaged:
        return 0, 0
    index = Index([Run.of((), _packed(found))])
    with repository.writer(lock, index) as writer:
        for each in damaged:
            content = memoryview(repository.reader.content(each.packfile))
            for entry in each.whole:
                sealed = content[entry.offset : entry.offset + entry.length]
                where = packfile_name(each.packfile)
                writer.add(entry.kind, repository.reader.decode(sealed, entry, where))
        writer.flush()
        bad = {(entry.kind, entry.id) for each in damaged for entry in each.bad}
        return writer.added_chunks, sum(not index.has(kind, chunk) for kind, chunk in bad)


def _set_aside(repository: Repository, lock: Lock, damaged: list[Inspection]) -> Iterator[str]:
    """Rename damaged packfiles; a store has no such verb, so copy and delete."""
    for each in damaged:
        lock.keep()
        name = packfile_name(each.packfile)
        repository.store.put(f"{name}{SET_ASIDE}", repository.reader.content(each.packfile))
        repository.store.delete(name)
        yield f"{name}{SET_ASIDE}"


def _delete(repository: Repository, lock: Lock, names: set[str]) -> int:
    lock.verify()
    for name in names:
        try:
            repository.files.delete(INDEX, name)
        except NameNotFound:
            continue
    repository.forget_index()
    return len(names)

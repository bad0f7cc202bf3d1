"""What a storage does when it starts: bring what is committed into ``A``. For a storage that is not running.

In this order: a ``journal/replica.tar`` is applied; files in ``B`` move to ``A``, then those of the journal's
committed directories, the oldest first; directories of transactions that were not committed are removed;
``misc/snapshot`` says ``shutdown``. Journal over B over A is the value of a name, and a move never changes
that: wherever this stops, the storage itself or the next run goes on from there.
"""

from __future__ import annotations

import os
import shutil
import tarfile
from pathlib import Path

from perdure.dropin.directorystorage.states import SHUTDOWN
from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats.directorystorage import MOST_BYTES
from perdure.formats.directorystorage_names import journal_name, name_at, parse_name
from perdure.sources.directorystorage.home import (
    REPLICA,
    SNAPSHOT,
    Home,
    files_below,
    list_names,
)
from perdure.sources.durable import give, make_directory, owner_for, sync_directory, write_new

_FILE_MODE = 0o640


def roll_forward(home: Home) -> bool:
    """Make ``A`` all there is; gives whether there was anything to do. The caller holds both locks.

    Raises SourceUnusable where the storage itself would not start, SourceDamaged, OSError.
    """
    journal = home.journal()
    if journal.strange:
        raise SourceUnusable(
            f"there is something strange in {home.path / 'journal'}: {', '.join(journal.strange)}",
            hint="the storage itself would not start either; take it out of the way",
        )
    in_b = list(files_below(home.path / "B"))
    if journal.replica and (journal.committed or journal.begun or in_b):
        raise SourceUnusable(f"{home.path / 'journal' / REPLICA} is not alone in journal and B")
    settled = not (journal.committed or journal.begun or journal.replica or in_b)
    if settled and home.snapshot_code() == SHUTDOWN:
        return False
    _forget_snapshot(home)
    if journal.replica:
        _apply_replica(home)
    _move_b(home, in_b)
    for tid in journal.committed:
        _move_transaction(home, home.path / "journal" / journal_name(tid))
    for name in journal.begun:
        shutil.rmtree(home.path / "journal" / name)
    sync_directory(home.path / "journal")
    _write(home.path / SNAPSHOT, SHUTDOWN.encode(), 0o644)
    return True


def _forget_snapshot(home: Home) -> None:
    """From here on ``A`` is no snapshot."""
    (home.path / SNAPSHOT).unlink(missing_ok=True)
    sync_directory(home.path / "misc")


def _move_b(home: Home, paths: list[str]) -> None:
    for path in paths:
        _move(home.path / "B" / path, home.path / "A" / path)
    _sync_folders(home, {str(Path(path).parent) for path in paths})


def _move_transaction(home: Home, folder: Path) -> None:
    folders = set()
    for text in list_names(folder):
        if parse_name(text) is None:
            raise SourceUnusable(f"{folder / text} is no file of a storage")
        target = home.place("A", text)
        _move(folder / text, target)
        folders.add(str(target.parent.relative_to(home.path / "A")))
    _sync_folders(home, folders)
    folder.rmdir()
    sync_directory(folder.parent)


def _apply_replica(home: Home) -> None:
    archive = home.path / "journal" / REPLICA
    try:
        with tarfile.open(archive, "r:") as tar:
            for member in tar:
                _extract(home, tar, member)
    except (tarfile.TarError, EOFError) as error:
        raise SourceDamaged(f"{archive} is damaged: {error}") from error
    os.replace(archive, home.path / "misc" / "replica.previous")
    sync_directory(archive.parent)
    sync_directory(home.path / "misc")


def _extract(home: Home, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    area, _, path = member.name.removeprefix("./").partition("/")
    if not member.isfile():
        return
    if area != "A" or name_at(path, home.settings.layout) is None or member.size > MOST_BYTES:
        raise SourceDamaged(f"{tar.name!r} has a member that is no file of A: {member.name!r}")
    content = tar.extractfile(member)
    assert content is not None
    target = home.path / "A" / path
    make_directory(target.parent, owner_for(target))
    _write(target, content.read(), _FILE_MODE)


def _move(source: Path, target: Path) -> None:
    make_directory(target.parent, owner_for(target))
    os.replace(source, target)


def _sync_folders(home: Home, folders: set[str]) -> None:
    for folder in folders:
        sync_directory(home.path / "A" / folder)


def _write(path: Path, data: bytes, mode: int) -> None:
    """Put a whole file into its place, durably; it belongs to the owner of the folder."""
    half = path.with_name(f".tmp-{path.name}")
    descriptor = write_new(half, [data])
    try:
        os.fchmod(descriptor, mode)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    give(half, owner_for(path.parent))
    os.replace(half, path)
    sync_directory(path.parent)

"""Assemble: a Data.fs from the directory of its history alone, without a repository."""

from __future__ import annotations

from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from perdure.errors import DamageFound
from perdure.formats import fsindex, manifest
from perdure.history.in_directory import DirectoryHistory
from perdure.history.rebuilding import rebuild
from perdure.model import Observer, Tid
from perdure.pool import Pool
from perdure.sources.filestorage_writer import new_filestorage, writing


@dataclass(frozen=True, slots=True)
class AssembleReport:
    """What was written, and its last transaction; the size in bytes."""

    files: tuple[Path, ...]
    cut: Tid
    size: int


def assemble(
    directory: Path, output: Path, *, at: Tid | datetime | None, force: bool, observer: Observer
) -> AssembleReport:
    """Write the Data.fs of a history, up to a moment if one is given.

    Where ``perdure.json`` of the snapshot lies beside the directory, as restic restores it, the size that
    it tells is compared, so that layouts missing at the end are noticed.

    Raises SourceUnusable, DamageFound, UsageError, TargetInUse, StoreError.
    """
    until = Tid.at(at) if isinstance(at, datetime) else at
    history = DirectoryHistory(directory)
    with (
        closing(Pool()) as pool,
        new_filestorage(output.absolute(), pool, force=force) as new,
        writing(new),
    ):
        rebuilt = rebuild(history, new, until, observer)
        if until is None:
            _check_size(directory.absolute(), rebuilt.size)
        new.finish(fsindex.encode(rebuilt.revisions, rebuilt.size))
        new.commit()
    index = output.with_name(f"{output.name}.index")
    return AssembleReport((output, index), rebuilt.cut, rebuilt.size)


def _check_size(directory: Path, size: int) -> None:
    """Compare the size with what the snapshot's manifest, if it is there, says. Raises DamageFound."""
    file = directory.parent / manifest.NAME
    if not file.is_file():
        return
    known = manifest.Manifest.decode(file.read_bytes(), str(file))
    for record in known.sources:
        if record.tree == directory.name and record.size != size:
            raise DamageFound(
                f"{directory} gives {size} bytes, {file} says {record.size}: layouts are missing at the end",
                hint="restore the whole directory again; with --at you get what is there",
            )

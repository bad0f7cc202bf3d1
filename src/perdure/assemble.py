"""Assemble: a Data.fs, and its blobs, from directories of a snapshot alone, without a repository."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from perdure.errors import DamageFound, SourceUnusable
from perdure.formats import fsindex, manifest
from perdure.formats.blobs import CHUNK_SIZE, FILE_SUFFIX, parse_name
from perdure.formats.manifest import SourceRecord
from perdure.history.in_directory import DirectoryHistory
from perdure.history.rebuilding import rebuild
from perdure.model import Observer, Tid
from perdure.pool import Pool
from perdure.sources.blob_writer import BlobTarget
from perdure.sources.filestorage_writer import new_filestorage, writing


@dataclass(frozen=True, slots=True)
class AssembleReport:
    """What was written, and its last transaction; the size in bytes."""

    files: tuple[Path, ...]
    cut: Tid
    size: int
    blobs: int = 0


def assemble(
    directory: Path,
    output: Path,
    *,
    at: Tid | datetime | None,
    force: bool,
    observer: Observer,
    blobs: tuple[Path, Path] | None = None,
) -> AssembleReport:
    """Write the Data.fs of a history, up to a moment if one is given.

    ``blobs``: the directory with the blobs of the snapshot, and the blob directory to make of it.

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
        count = _lay_out(*blobs, rebuilt.cut, observer) if blobs else 0
        new.commit()
    index = output.with_name(f"{output.name}.index")
    made = (output, index, blobs[1]) if blobs else (output, index)
    return AssembleReport(made, rebuilt.cut, rebuilt.size, count)


def _lay_out(directory: Path, target: Path, cut: Tid, observer: Observer) -> int:
    """Make a blob directory of the blobs of a snapshot, up to a transaction; gives their number."""
    if not directory.is_dir():
        raise SourceUnusable(
            f"{directory} does not exist",
            hint="name the directory that ends with .blobs, as restic restored it",
        )
    directory = directory.absolute()
    layouts = [
        record.blobs.layout
        for record in _records(directory)
        if record.blobs is not None and record.blobs.tree == directory.name
    ]
    there = BlobTarget(target.absolute(), layouts[0] if layouts else None)
    there.begin()
    count = 0
    for path in sorted(directory.glob(f"*/*/*/*/*{FILE_SUFFIX}")):
        blob = parse_name(path.name, str(path))
        if blob.tid <= cut.value:
            there.write(blob, _blocks(path))
            count += 1
            observer.progress("write blobs", count, count)
    there.settle()
    return count


def _blocks(path: Path) -> Iterator[bytes]:
    with open(path, "rb") as file:
        while block := file.read(CHUNK_SIZE):
            yield block


def _check_size(directory: Path, size: int) -> None:
    """Compare the size with what the snapshot's manifest, if it is there, says. Raises DamageFound."""
    for record in _records(directory):
        if record.tree == directory.name and record.size != size:
            raise DamageFound(
                f"{directory} gives {size} bytes, {manifest.NAME} beside it says {record.size}: layouts"
                " are missing at the end",
                hint="restore the whole directory again; with --at you get what is there",
            )


def _records(directory: Path) -> tuple[SourceRecord, ...]:
    """Read the manifest that lies beside a directory, if one does. Raises DamageFound."""
    file = directory.parent / manifest.NAME
    if not file.is_file():
        return ()
    return manifest.Manifest.decode(file.read_bytes(), str(file)).sources

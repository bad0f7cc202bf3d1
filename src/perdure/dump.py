"""Dump: one file of a snapshot into a file, which appears under its name when it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from perdure.errors import StoreError, UsageError
from perdure.sources.durable import sync_directory, write_new

_PART = ".perdure-part"


def dump_to_file(parts: Iterable[bytes], path: Path, *, force: bool) -> int:
    """Write the content of a file; gives its size in bytes.

    Raises UsageError when there is a file and ``force`` is not given, StoreError when it cannot be
    written, and whatever the parts raise.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder", hint="name the file to write")
    if path.exists() and not force:
        raise UsageError(f"{path} exists", hint="name another file, or say --force to replace it")
    part = path.with_name(f".{path.name}{_PART}")
    try:
        descriptor = write_new(part, parts)
        try:
            os.fsync(descriptor)
            size = os.fstat(descriptor).st_size
        finally:
            os.close(descriptor)
        os.rename(part, path)
        sync_directory(path.parent)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise StoreError(
            f"{error.filename or path} cannot be written: {error.strerror}",
            hint="make room, or let this user write there",
        ) from error
    return size

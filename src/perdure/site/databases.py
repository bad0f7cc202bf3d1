"""From the databases of a site's configurations to the storages that hold them.

A database's section holds one storage's; some of these only wrap others. What is backed up is what they
wrap, as it lies there: a Data.fs with compressed or encrypted records is kept, and comes back, byte for
byte, without the wrapper's code or key.

=========================================  =====================================================
``filestorage``                            its Data.fs, and its ``blob-dir``
``directorystorage``                       its HOME
``blobstorage``                            what it wraps, with its ``blob-dir``
``demostorage``                            the base, and the changes as ``NAME-changes``
``zeoclient``, ``clientstorage``           the storage of that name of the site's own ZEO server, where
                                           the site has it; otherwise the client itself
``s3blobstorage``                          what it wraps; its blobs are in a bucket: left out
``temporarystorage``, ``mappingstorage``   in memory: left out
a section with any of these in it          what it wraps (zlibstorage, encryptingstorage, before, zrs ...)
any other (relstorage, pgjsonb ...)        the storage that its text describes
=========================================  =====================================================
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from perdure.site.zconfig import Section

IN_MEMORY = frozenset({"temporarystorage", "mappingstorage", "demostorage"})
"""Storages that hold their data in memory; a demostorage that has no storage in it does, too."""
CLIENTS = frozenset({"zeoclient", "clientstorage"})
_WRAPPERS = frozenset(
    {"blobstorage", "s3blobstorage", "zlibstorage", "encryptingstorage", "before", "zrs"}
)
_STORAGES = (
    IN_MEMORY | CLIENTS | _WRAPPERS | {"filestorage", "directorystorage", "relstorage", "pgjsonb"}
)
_IMPORTS = {
    "zeoclient": (),
    "clientstorage": ("ZEO",),
    "relstorage": ("relstorage",),
    "pgjsonb": ("zodb_pgjsonb",),
}
"""What must be imported for a section; of others it is not known, and whatever the site imports is."""
_OWN_CACHE = frozenset({"client", "var"})
"""Keys of a ZEO client for a cache that its process locks."""
_SERVER_SECTIONS = frozenset({"zeo", "runner", "eventlog"})


@dataclass(frozen=True, slots=True)
class Innermost:
    """A storage that wraps no other, with what its wrappers say of it."""

    section: Section
    suffix: str = ""
    """What is put behind the database's name."""
    blobs: str | None = None
    """Directory for blobs that a wrapper gives it."""
    bucket: Section | None = None
    """A wrapper that keeps the blobs elsewhere."""


def innermost(section: Section) -> Iterator[Innermost]:
    """Give the storages that a storage's section comes down to."""
    inner = [each for each in section.sections if _is_storage(each)]
    if inner and section.kind not in CLIENTS:
        for each in inner:
            is_changes = section.kind == "demostorage" and each.name == "changes"
            for found in innermost(each):
                yield _wrapped(section, found, "-changes" if is_changes else "")
    else:
        yield Innermost(section)


def storages_of_database(database: Section) -> Iterator[Innermost]:
    """Give the storages of a ``<zodb_db>``."""
    for section in database.sections:
        yield from innermost(section)


def storages_of_server(top: Section) -> Iterator[Section]:
    """Give the storages that a zeo.conf serves, by the names of their sections."""
    return (section for section in top.sections if section.kind not in _SERVER_SECTIONS)


def opening_text(found: Section, database: Section | None, top: Section) -> str:
    """Give the text that opens a storage beside the running site. Raises UsageError.

    The persistent cache of a ZEO client is left out: the site's own process holds its lock.
    """
    imports = _IMPORTS.get(found.kind)
    if imports is None:
        imports = tuple((database and _imports_in(database)) or top.imports)
    left_out = _OWN_CACHE if found.kind in CLIENTS else frozenset()
    unnamed = replace(found, name=None)
    return "".join((*(f"%import {name}\n" for name in imports), unnamed.text(left_out)))


def _wrapped(section: Section, found: Innermost, suffix: str) -> Innermost:
    blobs = section.get("blob-dir") if section.kind == "blobstorage" else None
    bucket = section if section.kind == "s3blobstorage" else None
    return replace(
        found,
        suffix=suffix + found.suffix,
        blobs=blobs or found.blobs,
        bucket=bucket or found.bucket,
    )


def _is_storage(section: Section) -> bool:
    return section.kind in _STORAGES or any(map(_is_storage, section.sections))


def _imports_in(section: Section) -> list[str]:
    return [*section.imports, *(name for each in section.sections for name in _imports_in(each))]

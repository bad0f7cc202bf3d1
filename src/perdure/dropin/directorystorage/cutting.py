"""Bring a HOME that nobody has open back to an earlier transaction.

Younger revisions and transactions are removed, each pointer leads to the newest revision that is left, and
``x.serial`` says the last transaction that is left. ``x.oid`` stays: oids are not given out twice. Before the
time of the last pack there is nothing to go back to, since packs remove what was current then.
"""

from __future__ import annotations

import os
from pathlib import Path

from perdure.errors import SourceDamaged, UsageError
from perdure.formats.directorystorage import PointerFile, damaged, encode_counter
from perdure.formats.directorystorage_names import (
    SERIAL,
    Kind,
    Name,
    pointer_name,
    revision_name,
)
from perdure.model import Tid
from perdure.sources.directorystorage.home import Home, View


def cut_back(home: Home, moment: Tid) -> Tid:
    """Cut everything off that is younger than a moment; gives the last tid that is left.

    For a HOME in the making: who stops in the middle leaves something incoherent. Raises UsageError for a
    moment that the HOME cannot tell, SourceDamaged.
    """
    view = View(home)
    if moment.value < view.packed():
        raise UsageError(
            f"{moment} is before the last pack of what the archives have ({Tid(view.packed())})",
            hint="choose an earlier full backup: --number",
        )
    last = 0
    for name in list(view.names()):
        if name.kind is Kind.POINTER:
            _turn_back(home, view, name, moment)
        if name.kind is Kind.TRANSACTION and name.tid <= moment.value:
            last = max(last, name.tid)
    for name in list(view.names()):
        if name.tid > moment.value:
            home.place("A", name.text).unlink()
    _overwrite(home.place("A", SERIAL), encode_counter(last))
    return Tid(last)


def _turn_back(home: Home, view: View, name: Name, moment: Tid) -> None:
    """Let a pointer lead to the newest revision that is left; remove it where there is none."""
    pointer = view.pointer(name.oid)
    tid = pointer.tid if pointer else 0
    if tid <= moment.value:
        return
    while tid > moment.value:
        revision = view.revision(name.oid, tid)
        if revision is None:
            raise damaged(view.where(revision_name(name.oid, tid)), "it is missing")
        tid = revision.prev
    place = home.place("A", pointer_name(name.oid))
    if tid == 0:
        place.unlink()
    elif not home.place("A", revision_name(name.oid, tid)).exists():
        raise SourceDamaged(f"{revision_name(name.oid, tid)}, which was current then, is not there")
    else:
        _overwrite(place, PointerFile(tid).encode())


def _overwrite(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.write(descriptor, data)
    finally:
        os.close(descriptor)

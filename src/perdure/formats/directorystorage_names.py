"""How DirectoryStorage calls its files, and where each of its four formats puts them.

Every file has a *logical name*; hexadecimal digits are upper case::

    oOOOOOOOOOOOOOOOO.TTTTTTTTTTTTTTTT   a revision: oid and tid, 16 digits each
    oOOOOOOOOOOOOOOOO.c                  pointer: the tid of the object's current revision
    tTTTTTT.TTTTTTTTTT                   a transaction: its tid, 6 digits, a dot, 10 digits
    x.oid  x.serial  x.packed            last oid given out; last committed tid; pack time (a tid)
    oOOOOOOOOOOOOOOOO                    class Minimal alone: the only revision that is kept

The format maps it to a path below ``A`` or ``B``; a journal directory holds logical names as they are.
With the *head* before the first dot and the *tail* behind it:

=======  ================================================================================================
bushy    the head in pieces of 2 characters, the last of 3; the tail is the file: ``t0/12/345/6789ABCDEF``
chunky   a head below 3 characters: ``head/tail``. Else a first piece of 4 characters, then pieces of 3 while
         more than 4 are left; the rest of the head keeps its tail: ``t012/345.6789ABCDEF``
lawn     ``head/tail``: ``t012345/6789ABCDEF``
flat     as it is
=======  ================================================================================================

What does not come back as the same path when it is taken apart and mapped again is no file of the
storage: ``NAME-<seconds>-deleted`` (a pack has deleted it), ``NAME.mark`` (an old pack's marks), strays.

A transaction is made in ``journal/working_<TID>_temp`` and committed by renaming that to ``…_done``.

Source: DirectoryStorage 1.1.21, and HOMEs that it wrote.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import NamedTuple

FORMATS = ("bushy", "chunky", "lawn", "flat")
SERIAL, LAST_OID, PACKED = "x.serial", "x.oid", "x.packed"
ROOT = 0
"""The oid of the object that leads to all others: no pack removes it."""
COUNTERS = (SERIAL, LAST_OID, PACKED)

_NAME = re.compile(
    r"o(?P<oid>[0-9A-F]{16})(?:\.(?:(?P<tid>[0-9A-F]{16})|(?P<pointer>c)))?"
    r"|t(?P<high>[0-9A-F]{6})\.(?P<low>[0-9A-F]{10})"
    r"|x\.(?:oid|serial|packed)"
)
_JOURNAL = re.compile(r"working_(?P<tid>[0-9A-F]{16})_(?P<state>temp|done)")


class Kind(Enum):
    """What a file holds."""

    REVISION = "revision"
    POINTER = "pointer"
    TRANSACTION = "transaction"
    COUNTER = "counter"
    ONLY = "only revision"
    """Of a storage of class Minimal."""


class Name(NamedTuple):
    """A logical name, taken apart; ``oid`` and ``tid`` are 0 where the kind has none."""

    kind: Kind
    oid: int
    tid: int
    text: str


def revision_name(oid: int, tid: int) -> str:
    """Name the file of a revision."""
    return f"o{oid:016X}.{tid:016X}"


def pointer_name(oid: int) -> str:
    """Name the file that tells an object's current revision."""
    return f"o{oid:016X}.c"


def transaction_name(tid: int) -> str:
    """Name the file of a transaction."""
    digits = f"{tid:016X}"
    return f"t{digits[:6]}.{digits[6:]}"


def parse_name(text: str) -> Name | None:
    """Take a logical name apart; None for anything else."""
    match = _NAME.fullmatch(text)
    if match is None:
        return None
    oid, tid, pointer, high, low = match.group("oid", "tid", "pointer", "high", "low")
    if tid:
        return Name(Kind.REVISION, int(oid, 16), int(tid, 16), text)
    if pointer:
        return Name(Kind.POINTER, int(oid, 16), 0, text)
    if high:
        return Name(Kind.TRANSACTION, 0, int(high + low, 16), text)
    return Name(Kind.ONLY, int(oid, 16), 0, text) if oid else Name(Kind.COUNTER, 0, 0, text)


def path_of(text: str, layout: str) -> str:
    """Give the path, below ``A`` or ``B``, of a logical name in one of the ``FORMATS``."""
    if layout == "flat":
        return text
    head, dot, tail = text.partition(".")
    if layout == "lawn":
        return f"{head}/{tail}" if dot else head
    pieces = _pieces_of_two(head) if layout == "bushy" else _pieces_of_three(head)
    if not dot:
        return "/".join(pieces)
    if layout == "bushy" or len(head) < 3:
        return "/".join((*pieces, tail))
    return f"{'/'.join(pieces)}.{tail}"


def name_at(path: str, layout: str) -> Name | None:
    """Tell which file of the storage is at a path below ``A`` or ``B``; None: none of its own."""
    if layout == "flat":
        return parse_name(path)
    *folders, last = path.split("/")
    head = "".join(folders)
    keeps_dot = not folders or (layout == "chunky" and head != "x")
    name = parse_name(head + last if keeps_dot else f"{head}.{last}")
    if name is None and layout == "bushy":
        name = parse_name(head + last)  # class Minimal: the tail is missing
    return name if name is not None and path_of(name.text, layout) == path else None


def journal_name(tid: int) -> str:
    """Name the directory in the journal that holds a committed transaction."""
    return f"working_{tid:016X}_done"


def parse_journal_name(text: str) -> tuple[int, bool] | None:
    """Give tid, and whether it is committed, of a directory in the journal; None for anything else."""
    match = _JOURNAL.match(text)
    return (int(match["tid"], 16), match["state"] == "done") if match else None


def _pieces_of_two(head: str) -> list[str]:
    pieces = []
    while len(head) > 3:
        pieces.append(head[:2])
        head = head[2:]
    return [*pieces, head]


def _pieces_of_three(head: str) -> list[str]:
    if len(head) < 3:
        return [head]
    pieces, size = [], 4 if head[0] in "ot" else 3
    while len(head) > 4:
        pieces.append(head[:size])
        head, size = head[size:], 3
    return [*pieces, head]

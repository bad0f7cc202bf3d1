"""btw-backup's state file: what is still to be copied into the bucket. Format and meaning, without I/O.

Lines of UTF-8, only ever appended, each ``<time> <+|-><push|sync> <path>`` and a newline: the UTC time to
the second without a zone, what is begun (``+``) or done (``-``), and a path below ROOT_PATH.

===========  ===============================================================================
``push``     copy this file, or this directory (its path ends with ``/``)
``sync``     make this directory in the bucket what it is here; an empty path means all of ROOT_PATH
===========  ===============================================================================

A line that a power cut tore, that is no such line, or that ends what was never begun, says nothing: what is
pending can be found without it, too, by comparing what is here with what is there.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from enum import Enum

from perdure.dropin.btw.names import time_name

_LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d ([+-])(push|sync) ([^\n\0]*)")


class Kind(Enum):
    """How something is copied."""

    PUSH = "push"
    SYNC = "sync"


@dataclass(frozen=True, slots=True)
class Item:
    """Something to be copied: a path below ROOT_PATH, of a directory with ``/`` behind it."""

    kind: Kind
    path: str

    @property
    def safe(self) -> bool:
        """Whether the path stays below ROOT_PATH."""
        return not (self.path.startswith("/") or ".." in self.path.split("/"))


@dataclass(frozen=True, slots=True)
class State:
    """What is pending, in the order in which it was begun; and which lines could not be read."""

    pending: tuple[Item, ...]
    unreadable: tuple[int, ...] = ()
    """Numbers of lines, from 1."""

    def of_kind(self, kind: Kind) -> tuple[Item, ...]:
        """The pending items of one kind."""
        return tuple(item for item in self.pending if item.kind is kind)


def replay(data: bytes) -> State:
    """Read a state file's content, of any age and in any condition."""
    pending: dict[Item, None] = {}
    unreadable = []
    for number, raw in enumerate(data.split(b"\n")[:-1], 1):
        found = _LINE.fullmatch(raw.decode("utf-8", "surrogateescape"))
        if not found:
            unreadable.append(number)
            continue
        item = Item(Kind(found[2]), found[3])
        if found[1] == "+":
            pending.setdefault(item)
        else:
            pending.pop(item, None)
    return State(tuple(pending), tuple(unreadable))


def whole_length(data: bytes) -> int:
    """Give the length without a last line that was not written to its end."""
    return data.rfind(b"\n") + 1


def begun(item: Item, now: datetime) -> bytes:
    """Give the line that says: this is to be copied."""
    return _line("+", item, now)


def done(item: Item, now: datetime) -> bytes:
    """Give the line that says: this was copied."""
    return _line("-", item, now)


def _line(sign: str, item: Item, now: datetime) -> bytes:
    text = f"{time_name(now)} {sign}{item.kind.value} {item.path}\n"
    return text.encode("utf-8", "surrogateescape")

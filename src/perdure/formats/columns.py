"""A file of columns: the container of the catalogues and layouts of a history.

Numbers of one meaning lie side by side, and of those the bytes of one significance, so that a general
compressor finds what repeats. The container itself does not compress. Integers are little-endian::

    offset  size  content
    0       8     magic: "Perdure" and a line feed
    8       4     kind of the file, ASCII: "cata" or "layo"
    12      4     version of that kind
    16      4     length H of the table of contents
    20      H     table of contents, JSON:
                  {"facts": ..., "columns": [{"name": ..., "count": ..., "width": ..., "delta": ...}, ...]}
    20 + H  ...   the columns, in the order of the table, without gaps; nothing follows

A column of ``count`` unsigned 64-bit numbers takes ``count * width`` bytes: first the least significant
byte of each number, then the next one of each, ``width`` (0 to 8) of them; higher bytes are zero. All
columns of width 0 together have at most 2**24 numbers, and no two columns have the same name. With
``delta`` each number is stored as its difference to the one before, modulo 2**64. ``facts`` is an object
whose fields the kind defines; unknown fields, kinds and versions are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from perdure.errors import DamageFound

MAGIC = b"Perdure\n"
PREAMBLE_SIZE = 20
TABLE_LIMIT = 16 << 20
COUNT_LIMIT = 1 << 28
ZEROS_LIMIT = 1 << 24
"""Numbers of width 0 that a file may claim to have: they cost it nothing, but the reader memory."""

Numbers: TypeAlias = NDArray[np.uint64]
Facts = TypeVar("Facts", bound=msgspec.Struct)
Column = tuple[NDArray[Any], bool]
"""Numbers (or bytes), and whether to store them as differences."""


class _Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    count: Annotated[int, msgspec.Meta(ge=0, le=COUNT_LIMIT)]
    width: Annotated[int, msgspec.Meta(ge=0, le=8)]
    delta: bool = False


class _Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    facts: msgspec.Raw
    columns: list[_Entry]


def encode(kind: bytes, version: int, facts: msgspec.Struct, columns: dict[str, Column]) -> bytes:
    """Put facts and columns into one file."""
    entries: list[_Entry] = []
    parts: list[bytes] = []
    for name, (values, delta) in columns.items():
        planes = _to_planes(values.astype(np.uint64, copy=False), delta=delta)
        entries.append(_Entry(name, len(values), len(planes), delta))
        parts.append(planes.tobytes())
    table = msgspec.json.encode(_Table(msgspec.Raw(msgspec.json.encode(facts)), entries))
    preamble = MAGIC + kind + version.to_bytes(4, "little") + len(table).to_bytes(4, "little")
    return b"".join([preamble, table, *parts])


def decode(
    data: bytes, kind: bytes, version: int, facts: type[Facts], where: str
) -> tuple[Facts, dict[str, Numbers]]:
    """Take a file apart again. Raises DamageFound, naming ``where``, for anything but a whole file."""
    _check_preamble(data, kind, version, where)
    table_end = PREAMBLE_SIZE + int.from_bytes(data[16:20], "little")
    if table_end > min(len(data), TABLE_LIMIT):
        raise DamageFound(
            f"{where}: its table of contents ends at {table_end}, the file at {len(data)}"
        )
    try:
        table = msgspec.json.decode(data[PREAMBLE_SIZE:table_end], type=_Table)
        values = msgspec.json.decode(table.facts, type=facts)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise DamageFound(f"{where}: its table of contents cannot be read: {error}") from None
    _check_table(table, where)
    columns: dict[str, Numbers] = {}
    offset = table_end
    for entry in table.columns:
        end = offset + entry.count * entry.width
        if end > len(data):
            raise DamageFound(
                f"{where}: column {entry.name} ends at {end}, the file at {len(data)}"
            )
        planes = np.frombuffer(data, np.uint8, end - offset, offset).reshape(
            entry.width, entry.count
        )
        columns[entry.name] = _from_planes(planes, delta=entry.delta)
        offset = end
    if offset != len(data):
        raise DamageFound(f"{where}: {len(data) - offset} bytes follow its last column")
    return values, columns


def _check_preamble(data: bytes, kind: bytes, version: int, where: str) -> None:
    if len(data) < PREAMBLE_SIZE or data[:8] != MAGIC or data[8:12] != kind:
        raise DamageFound(f"{where} is no such file: it starts with {bytes(data[:12])!r}")
    found = int.from_bytes(data[12:16], "little")
    if found != version:
        raise DamageFound(
            f"{where} has version {found} of its format, this program reads version {version}",
            hint="use a newer version of perdure",
        )


def _check_table(table: _Table, where: str) -> None:
    zeros = sum(entry.count for entry in table.columns if not entry.width)
    if zeros > ZEROS_LIMIT:
        raise DamageFound(f"{where}: it claims {zeros} zeros, more than {ZEROS_LIMIT}")
    if len({entry.name for entry in table.columns}) < len(table.columns):
        raise DamageFound(f"{where}: two columns have the same name")


def _to_planes(values: Numbers, *, delta: bool) -> NDArray[np.uint8]:
    if delta and len(values):
        values = np.diff(values, prepend=np.uint64(0))
    width = (int(values.max()).bit_length() + 7) // 8 if len(values) else 0
    planes = values.astype("<u8").view(np.uint8).reshape(len(values), 8)
    return np.ascontiguousarray(planes[:, :width].T)


def _from_planes(planes: NDArray[np.uint8], *, delta: bool) -> Numbers:
    wide = np.zeros((planes.shape[1], 8), np.uint8)
    wide[:, : planes.shape[0]] = planes.T
    values = wide.reshape(-1).view("<u8").astype(np.uint64, copy=False)
    return np.cumsum(values, dtype=np.uint64) if delta else values

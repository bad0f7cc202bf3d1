"""The names that btw-backup gives: of backups, of working directories, and which may be given to it.

* A backup is named for its UTC time, to the second and without a zone: ``2026-11-21T04:06:08``. A tar file
  has ``.tbz`` behind it; a directory is an rdiff-backup repository.
* A working directory is ``<name>.<hash>``: MurmurHash3 (x86, 32 bits, seed 0) of the source's path in UTF-8,
  as big-endian bytes without leading zeros, in URL-safe base64 without ``=``. ``/etc`` has ``FAAdkg``.
* What begins with a dot and ``btw-`` is unfinished, or of this program's own making. It is never a backup.
"""

from __future__ import annotations

import base64
import posixpath
import re
from datetime import UTC, datetime

from perdure.errors import UsageError

TBZ = ".tbz"
LOG = "log.txt"
UNFINISHED = ".btw-"
"""How the names begin of what a backup is being made under."""
SCRATCH = f"{UNFINISHED}restore-"
"""How the names begin of folders in which something is restored."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d")
_MASK = 0xFFFFFFFF


def time_name(time: datetime) -> str:
    """Give the name of a backup made at a time."""
    return f"{time.astimezone(UTC):%Y-%m-%dT%H:%M:%S}"


def time_of(name: str) -> datetime | None:
    """Give the time that a name is, the ``.tbz`` behind it aside; None if it is none."""
    stem = name.removesuffix(TBZ)
    if not _TIME.fullmatch(stem):
        return None
    try:
        return datetime.fromisoformat(stem).replace(tzinfo=UTC)
    except ValueError:
        return None


def source_hash(path: str) -> str:
    """Give the hash of a source's path, as a working directory has it behind its name."""
    number = _murmur3(path.encode("utf-8", "surrogateescape"))
    raw = number.to_bytes(4, "big").lstrip(b"\0")
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def destination_name(given: str) -> str:
    """Check a destination, and give it without needless parts. Raises UsageError."""
    if given.startswith("/"):
        raise UsageError("the dst argument cannot be an absolute path")
    name = posixpath.normpath(given) if given else ""
    if name == ".." or name.startswith("../"):
        raise UsageError(f"the dst argument leads out of ROOT_PATH: {given}")
    if name in {"", "."} or "\n" in name or "\0" in name:
        raise UsageError(f"the dst argument must name a directory below ROOT_PATH: {given!r}")
    return name


def database_name(given: str) -> str:
    """Check the name of a database, which becomes that of a file. Raises UsageError."""
    if given == "global":
        raise UsageError(
            "the name 'global' cannot be used as a database name: it means the globals (-g)"
        )
    if "/" in given or "\0" in given or "\n" in given or given.startswith(".") or not given:
        raise UsageError(f"{given!r} cannot be the name of a dump's file")
    return given


def _murmur3(data: bytes) -> int:
    """MurmurHash3 x86 32 with seed 0 (Austin Appleby, public domain algorithm)."""
    value = 0
    whole = len(data) & ~3
    for start in range(0, whole, 4):
        value ^= _scrambled(int.from_bytes(data[start : start + 4], "little"))
        value = (_rotated(value, 13) * 5 + 0xE6546B64) & _MASK
    value ^= _scrambled(int.from_bytes(data[whole:], "little"))
    value ^= len(data)
    value = ((value ^ value >> 16) * 0x85EBCA6B) & _MASK
    value = ((value ^ value >> 13) * 0xC2B2AE35) & _MASK
    return value ^ value >> 16


def _scrambled(block: int) -> int:
    return (_rotated((block * 0xCC9E2D51) & _MASK, 15) * 0x1B873593) & _MASK


def _rotated(value: int, bits: int) -> int:
    return ((value << bits) | (value >> (32 - bits))) & _MASK

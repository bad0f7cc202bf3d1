"""Dumps of PostgreSQL databases and globals, by the server's own programs.

Their arguments are lists, their status decides. A database's name is passed as ``dbname='...'``, so that
nothing in it is taken for an option or a connection string. Everything else comes from libpq's
environment.

Two dumps are the same if what they would restore is. In a database's dump (``pg_dump -Fc``) lies the
time, so the text is compared that pg_restore makes of it. In texts of PostgreSQL 15.14, 16.10, 17.6 and
later a random key stands in ``\\restrict`` and ``\\unrestrict``; it is left out of the comparison.
"""

from __future__ import annotations

import bz2
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from perdure.dropin.btw.children import Children
from perdure.errors import DamageFound

GLOBALS = "global.sql.bz2"
_BLOCK = 1 << 20
_HEAD = 1 << 12
_KEY = re.compile(rb"^\\restrict ([0-9A-Za-z]{16,256})\r?$", re.MULTILINE)
_END = b"-- PostgreSQL database cluster dump complete"
_TAIL = 1 << 12


def dump_database(children: Children, name: str, path: Path) -> None:
    """Dump a database. Raises PerdureError."""
    children.run("pg_dump", ["-Fc", f"--dbname={connection(name)}", f"--file={path}"])


def dump_globals(children: Children, path: Path) -> None:
    """Dump what belongs to no database: roles and tablespaces. Raises PerdureError, OSError."""
    with bz2.open(path, "wb") as file, children.reading("pg_dumpall", ["-g"]) as text:
        for block in _blocks(text):
            file.write(block)


def content_of(children: Children, path: Path) -> bytes:
    """Read a dump through to its end; gives the SHA-256 of what it would restore.

    Raises PerdureError for one that cannot be restored.
    """
    if path.name == GLOBALS:
        return _content_of_globals(path)
    with children.reading("pg_restore", ["-f", "-", path]) as text:
        return _digest(_without_key(_blocks(text)))


def restore_database(children: Children, path: Path, name: str) -> None:
    """Make a new database of a dump. Raises PerdureError."""
    children.run("createdb", ["--", name])
    children.run(
        "pg_restore",
        ["--exit-on-error", "--single-transaction", f"--dbname={connection(name)}", path],
    )


def connection(name: str) -> str:
    """Give the connection string that means a database of this name, whatever the name holds."""
    escaped = name.replace("\\", "\\\\").replace("'", "\\'")
    return f"dbname='{escaped}'"


def _content_of_globals(path: Path) -> bytes:
    tail = b""

    def watched(blocks: Iterator[bytes]) -> Iterator[bytes]:
        nonlocal tail
        for block in blocks:
            tail = (tail + block)[-_TAIL:]
            yield block

    try:
        with bz2.open(path, "rb") as file:
            digest = _digest(_without_key(watched(_blocks(file))))
    except (OSError, EOFError) as error:
        raise DamageFound(f"{path} is damaged: {error}") from None
    if _END not in tail:
        raise DamageFound(f"{path} is damaged: the dump in it is not complete")
    return digest


def _blocks(file: IO[bytes] | bz2.BZ2File) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _without_key(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Leave the key of ``\\restrict`` out, wherever it stands; blocks are cut anew."""
    head = b""
    for block in blocks:
        head += block
        if len(head) >= _HEAD:
            break
    found = _KEY.search(head[:_HEAD])
    if not found:
        yield head
        yield from blocks
        return
    key = found[1]
    waiting = head
    for block in blocks:
        waiting = waiting.replace(key, b"")
        ready = max(len(waiting) - len(key) + 1, 0)
        yield waiting[:ready]
        waiting = waiting[ready:] + block
    yield waiting.replace(key, b"")


def _digest(blocks: Iterator[bytes]) -> bytes:
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(block)
    return digest.digest()

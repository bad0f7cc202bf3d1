"""The table of contents of a dump in PostgreSQL's directory format, ``toc.dat``, as far as it tells its time.

The file begins with (pg_backup_archiver.c, archive versions 1.12 to 1.16)::

    offset  size
    0       5     "PGDMP"
    5       3     version of the archive: major, minor, revision
    8       1     size of an integer, i: 4
    9       1     size of an offset: 8
    10      1     format
    11      1     from version 1.15 on: how it is compressed; before: an integer
            7     integers: second, minute, hour, day, month, year and summer time of the moment it was made

An integer is a byte for its sign, and i bytes, the least first; months count from 0, years from 1900. What
follows depends on the database alone: two dumps of the same data differ in those seven integers and in
nothing else. So Perdure sets them to the beginning of 2000; a snapshot has a time of its own.
"""

from __future__ import annotations

from perdure.errors import DamageFound

NAME = "toc.dat"
DATABASE, GLOBALS = "postgresql", "postgresql-globals"
"""The kinds of sources that are a database and what is common to all of a server."""
SUFFIXES = {DATABASE: ".postgresql", GLOBALS: ".sql"}
"""What the names of the two end with in a snapshot."""
_MAGIC = b"PGDMP"
_VERSIONS = range(12, 100)
_THE_TIME = (0, 0, 0, 1, 0, 100, 0)


def timeless(data: bytes) -> bytes:
    """Give a table of contents with one and the same time in it. Raises DamageFound."""
    if len(data) < 12 or data[:5] != _MAGIC:
        raise DamageFound(f"{NAME} is not that of a dump of PostgreSQL")
    major, minor, integer = data[5], data[6], data[8]
    if major != 1 or minor not in _VERSIONS or integer != 4:
        raise DamageFound(
            f"{NAME} has version {major}.{minor} of its format, with integers of {integer} bytes;"
            " this program reads version 1.12 and later, with 4"
        )
    start = 12 if minor >= 15 else 11 + 1 + integer
    time = b"".join(b"\0" + number.to_bytes(integer, "little") for number in _THE_TIME)
    end = start + len(time)
    if len(data) < end:
        raise DamageFound(f"{NAME} is cut short: {len(data)} bytes")
    return data[:start] + time + data[end:]

"""Writing an archive: a gzipped tar file, under a temporary name until it is whole and on the disk.

The headers are ustar's. What ustar cannot express, such as the number of a user above 2,097,151, goes into an
extended header (pax), which tar programs of the last twenty years read.
"""

from __future__ import annotations

import grp
import os
import pwd
import tarfile
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import BinaryIO

from perdure.dropin.directorystorage.members import FILE_MODE, Member
from perdure.errors import SourceUnusable
from perdure.sources.durable import give, owner_for, write_new

_LEVEL = 6
_GZIP = 16
"""Added to the size of the window: zlib writes gzip's header and trailer."""


def write_archive(path: Path, members: Iterable[Member]) -> int:
    """Write an archive, durably; gives the number of its members.

    A file of that name, left over by a run that was stopped, is removed first. Raises SourceUnusable,
    OSError.
    """
    descriptor = write_new(path, [])
    try:
        with open(descriptor, "wb") as file:
            os.fchmod(descriptor, FILE_MODE)
            give(path, owner_for(path.parent))
            count = _write(file, members)
            file.flush()
            os.fsync(descriptor)
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return count


def _write(file: BinaryIO, members: Iterable[Member]) -> int:
    packing = zlib.compressobj(_LEVEL, wbits=zlib.MAX_WBITS | _GZIP)
    count = size = 0
    for member in members:
        data = member.data or b""
        parts = (_header(member), data, bytes(-len(data) % tarfile.BLOCKSIZE))
        size += sum(map(len, parts))
        file.write(packing.compress(b"".join(parts)))
        count += 1
    end = 2 * tarfile.BLOCKSIZE
    file.write(packing.compress(bytes(end + -(size + end) % tarfile.RECORDSIZE)))
    file.write(packing.flush())
    return count


def _header(member: Member) -> bytes:
    if member.path.startswith("/"):
        raise SourceUnusable(f"{member.path} does not lie in HOME")
    header = tarfile.TarInfo(member.path)
    header.type = tarfile.DIRTYPE if member.data is None else tarfile.REGTYPE
    header.size = len(member.data or b"")
    header.mode, header.mtime = member.mode, member.time
    header.uid, header.gid = member.uid, member.gid
    header.uname, header.gname = _user(member.uid), _group(member.gid)
    try:
        return header.tobuf(tarfile.USTAR_FORMAT, errors="surrogateescape")
    except ValueError:
        return header.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")


@cache
def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except (KeyError, OverflowError):
        return ""


@cache
def _group(number: int) -> str:
    try:
        return grp.getgrgid(number).gr_name
    except (KeyError, OverflowError):
        return ""

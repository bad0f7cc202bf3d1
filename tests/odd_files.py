"""A folder of files that are hard to describe: odd names, links, empty ones, attributes, modes."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path

NAMES = [
    b"plain.txt",
    b'q"uo\\te<>&',
    b"new\nline\ttab\x07",
    b"bad\xff\xfename",
    "ünï☃𝄞".encode(),
    "ls\u2028ps\u2029zw\u200bnb\u00a0soft\u00ad".encode(),
    b"del\x7f",
    b"-rf",
    b" ",
]


def make(folder: Path) -> None:
    """Fill a new folder."""
    folder.mkdir(parents=True)
    root = os.fsencode(folder)
    for number, name in enumerate(NAMES):
        path = os.path.join(root, name)
        Path(os.fsdecode(path)).write_bytes(b"%d" % number * (number * 1000))
        os.utime(path, ns=(number, 1_795_248_805_123_456_000 + number))
    (folder / "empty").write_bytes(b"")
    (folder / "big").write_bytes(bytes(range(256)) * 12_000)
    (folder / "sub" / "deeper").mkdir(parents=True)
    (folder / "sub").chmod(0o1775)
    (folder / "sub" / "setuid").write_bytes(b"x")
    (folder / "sub" / "setuid").chmod(0o4755)
    (folder / "hard").hardlink_to(folder / "big")
    (folder / "link").symlink_to("plain.txt")
    (folder / "dangling<&>").symlink_to("nowhere<&>\u2028")
    os.mkfifo(folder / "fifo")
    with suppress(OSError):  # not every file system has them
        os.setxattr(folder / "big", "user.comment", b"\x00\xffvalue")
    with suppress(OSError):  # user 1234 may read it
        entries = [(1, 6, -1), (2, 4, 1234), (4, 4, -1), (16, 4, -1), (32, 0, -1)]
        packed = b"".join(struct.pack("<HHi", *entry) for entry in entries)
        os.setxattr(folder / "plain.txt", "system.posix_acl_access", b"\x02\0\0\0" + packed)
    os.utime(folder / "big", ns=(0, 0))

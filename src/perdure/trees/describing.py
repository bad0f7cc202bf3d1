"""What a snapshot says of a file beside its content: owner, mode, times, links, extended attributes."""

from __future__ import annotations

import errno
import functools
import grp
import os
import pwd
import stat

from perdure.formats.golang import format_time
from perdure.formats.tree import ExtendedAttribute, Node, NodeType, go_mode

_EPOCH = "1970-01-01T00:00:00Z"
_NO_ATTRIBUTES = {errno.ENOTSUP, errno.ENODATA, errno.EPERM, errno.ENOSYS}
"""What a file system says that has none, or shows none to this user."""
_TYPES: dict[int, NodeType] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "dir",
    stat.S_IFLNK: "symlink",
    stat.S_IFBLK: "dev",
    stat.S_IFCHR: "chardev",
    stat.S_IFIFO: "fifo",
}


def type_of(status: os.stat_result) -> NodeType | None:
    """Give the type of a node; None for what is not kept: a socket means something to its server only."""
    return _TYPES.get(stat.S_IFMT(status.st_mode))


def describe(
    name: str,
    path: str,
    status: os.stat_result,
    attributes: tuple[ExtendedAttribute, ...],
    *,
    size: int = 0,
    content: tuple[str, ...] | None = None,
    subtree: str | None = None,
) -> Node:
    """Make the node of what is at a path, as restic makes it. Raises OSError for a link that is gone.

    The time of the last access is that of the last change: it would make every run's tree a new one.
    """
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    changed = format_time(status.st_mtime_ns)
    same = status.st_ctime_ns == status.st_mtime_ns
    device = kind in ("dev", "chardev")
    return Node(
        name=name,
        type=kind,
        mode=go_mode(status.st_mode),
        mtime=changed,
        atime=changed,
        ctime=changed if same else format_time(status.st_ctime_ns),
        uid=status.st_uid,
        gid=status.st_gid,
        user=user_name(status.st_uid),
        group=group_name(status.st_gid),
        inode=status.st_ino,
        device_id=status.st_dev,
        size=size,
        links=0 if kind in ("dir", "fifo") else status.st_nlink,
        linktarget=os.readlink(path) if kind == "symlink" else "",
        extended_attributes=attributes,
        device=status.st_rdev if device else 0,
        content=content,
        subtree=subtree,
    )


def plain(
    name: str,
    status: os.stat_result,
    *,
    size: int = 0,
    content: tuple[str, ...] | None = None,
    subtree: str | None = None,
) -> Node:
    """Make the node of a file that was made for the backup: the same at every backup."""
    kind = _TYPES[stat.S_IFMT(status.st_mode)]
    return Node(
        name=name,
        type=kind,
        mode=go_mode(stat.S_IFMT(status.st_mode) | (0o700 if kind == "dir" else 0o600)),
        mtime=_EPOCH,
        atime=_EPOCH,
        ctime=_EPOCH,
        uid=0,
        gid=0,
        size=size,
        links=0 if kind == "dir" else 1,
        content=content,
        subtree=subtree,
    )


@functools.cache
def user_name(number: int) -> str:
    """Give the name of a user of this machine; empty if it has none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return ""


@functools.cache
def group_name(number: int) -> str:
    """Give the name of a group of this machine; empty if it has none."""
    try:
        return grp.getgrgid(number).gr_name
    except KeyError:
        return ""


def attributes_or_none(path: str) -> tuple[ExtendedAttribute, ...]:
    """Give the extended attributes, none where they cannot be read: of folders that only lead to a tree."""
    try:
        return read_attributes(path)
    except OSError:
        return ()


def read_attributes(path: str) -> tuple[ExtendedAttribute, ...]:
    """Read the extended attributes; access control lists are among them. Raises OSError."""
    if not hasattr(os, "listxattr"):  # only Linux has it
        return ()
    try:
        names = os.listxattr(path, follow_symlinks=False)
        return tuple(
            ExtendedAttribute(name, os.getxattr(path, name, follow_symlinks=False))
            for name in names
        )
    except OSError as error:
        if error.errno in _NO_ATTRIBUTES:
            return ()
        raise

"""Give files, folders and links the owner, mode, extended attributes and times that a snapshot has."""

from __future__ import annotations

import errno
import os
import stat

from perdure.formats.golang import parse_time
from perdure.formats.tree import Node, unix_mode

_KEPT = ("security.", "trusted.")
"""Attributes of other owners than the file's: they are set, but never taken away."""
_UNSUPPORTED = {errno.ENOTSUP, errno.EPERM, errno.EACCES}


def give_metadata(node: Node, descriptor: int, *, new: bool) -> list[str]:
    """Give an open file or folder what its node says; what is so already is not touched.

    Owner before mode and attributes, since a change of owner takes some of them away; times last. Gives
    the names of the attributes that cannot be set here. Raises OSError.
    """
    status = os.fstat(descriptor)
    given = os.geteuid() == 0 and (status.st_uid, status.st_gid) != (node.uid, node.gid)
    if given:
        os.fchown(descriptor, node.uid, node.gid)
    lacking = _give_attributes(node, descriptor, new=new)
    mode = unix_mode(node.mode)
    if given or stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)
    changed = parse_time(node.mtime)
    if new or status.st_mtime_ns != changed:
        os.utime(descriptor, ns=(parse_time(node.atime), changed))
    return lacking


def give_metadata_by_name(node: Node, name: bytes, folder: int) -> list[str]:
    """Do the same for what cannot be opened: a link, a pipe, a device. Raises OSError."""
    if os.geteuid() == 0:
        os.chown(name, node.uid, node.gid, dir_fd=folder, follow_symlinks=False)
    if node.type != "symlink":
        os.chmod(name, unix_mode(node.mode), dir_fd=folder)
    lacking = []
    for attribute in node.extended_attributes:
        path = b"/proc/self/fd/%d/%s" % (folder, name)
        try:
            os.setxattr(path, attribute.name, attribute.value or b"", follow_symlinks=False)
        except OSError:
            lacking.append(attribute.name)
    times = (parse_time(node.atime), parse_time(node.mtime))
    os.utime(name, ns=times, dir_fd=folder, follow_symlinks=False)
    return lacking


def _give_attributes(node: Node, descriptor: int, *, new: bool) -> list[str]:
    wanted = {each.name: each.value or b"" for each in node.extended_attributes}
    if not hasattr(os, "listxattr"):  # only Linux has it
        return list(wanted)
    try:
        there = os.listxattr(descriptor)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        return list(wanted)
    lacking = []
    for name, value in wanted.items():
        try:
            if new or name not in there or os.getxattr(descriptor, name) != value:
                os.setxattr(descriptor, name, value)
        except OSError:
            lacking.append(name)
    for name in there:
        if name not in wanted and not name.startswith(_KEPT):
            os.removexattr(descriptor, name)
    return lacking

"""Trees: the chunks that describe folders.

A tree is JSON as Go writes it (see `perdure.formats.golang`), a newline at its end::

    {"nodes":[{"name":"Data.fs", ...}, ...]}

The nodes ascend strictly by the bytes of their names. A node's fields, in this order; where a
default is given, the field is left out if it has that value:

===================  ==========================================================================
``name``             file name, in Go's quoted form: it may be any bytes but ``/`` and NUL
``type``             file, dir, symlink, dev, chardev, fifo, socket (irregular)
``mode``             Go's FileMode (below), default 0
``mtime``            time in RFC 3339, to the nanosecond; ``atime`` and ``ctime`` likewise
``uid``, ``gid``     numbers, always there
``user``, ``group``  names, default empty
``inode``            default 0; ``device_id``, ``size`` (bytes), ``links`` likewise
``linktarget``       of a symlink, default empty; where it is not UTF-8, ``linktarget_raw`` has its
                     bytes in Base64 (restic 0.17)
``extended_attributes``  list of ``{"name":...,"value":Base64}``, default none
``generic_attributes``   object of anything (restic 0.17, on Windows), default none
``device``           of a device node, default 0
``content``          list of the ids of a file's chunks, in order; null for what is no file
``subtree``          id of a dir's tree; left out otherwise
``error``            why the file could not be read completely, default empty
===================  ==========================================================================

A node with any other field is refused: it could not be written again without loss.

FileMode: the lower nine bits are those of Unix, and dir is bit 31, symlink 27, device 26, fifo 25,
socket 24, setuid 23, setgid 22, character device 21 (with 26), sticky 20, irregular 19.
"""

from __future__ import annotations

import functools
import stat
from collections.abc import Iterable, Iterator
from typing import Literal, TypeAlias

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats.golang import decode_json, encode_json, quote, unquote
from perdure.model import ChunkId

NodeType: TypeAlias = Literal[
    "file", "dir", "symlink", "dev", "chardev", "fifo", "socket", "irregular"
]

_TYPE_BITS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFREG: 0,
}
_SPECIAL_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}

# Go writes a byte that is not UTF-8 as this escape; the character itself would stay as it is.
_NOT_UTF8 = b"\\ufffd"
_STAND_IN = "\x00not utf-8\x00"
_STAND_IN_WRITTEN = msgspec.json.encode(_STAND_IN)[1:-1]


class ExtendedAttribute(msgspec.Struct, frozen=True):
    """An attribute of a file, as ``getfattr`` shows them."""

    name: str
    value: bytes | None


class Node(
    msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True
):
    """One entry of a folder. Bytes of its name that are not UTF-8 are surrogate escapes."""

    name: str
    type: NodeType
    mode: int = 0
    mtime: str
    atime: str
    ctime: str
    uid: int
    gid: int
    user: str = ""
    group: str = ""
    inode: int = 0
    device_id: int = 0
    size: int = 0
    links: int = 0
    linktarget: str = ""
    linktarget_raw: bytes | None = None
    extended_attributes: tuple[ExtendedAttribute, ...] = ()
    generic_attributes: dict[str, msgspec.Raw] | None = None
    device: int = 0
    content: tuple[str, ...] | None
    subtree: str | None = None
    error: str = ""

    @property
    def chunks(self) -> Iterator[ChunkId]:
        """The ids of a file's chunks, in order."""
        return (ChunkId(bytes.fromhex(text)) for text in self.content or ())

    @property
    def tree(self) -> ChunkId | None:
        """The id of a dir's tree."""
        return ChunkId(bytes.fromhex(self.subtree)) if self.subtree else None

    @property
    def raw_name(self) -> bytes:
        """The name as bytes: what nodes are sorted by."""
        return self.name.encode("utf-8", "surrogateescape")


class Tree(msgspec.Struct, frozen=True):
    """A folder: its nodes, strictly ascending by the bytes of their names."""

    nodes: tuple[Node, ...]

    @classmethod
    def of(cls, nodes: Iterable[Node]) -> Tree:
        """Make a tree of nodes in any order. Raises ValueError for an impossible or double name."""
        return cls(_checked(tuple(sorted(nodes, key=lambda node: node.raw_name))))

    @classmethod
    def decode(cls, text: bytes, where: str) -> Tree:
        """Read a tree. Raises RepositoryDamaged, naming ``where``.

        The nodes are given as they are: that their names are safe to write to is not checked here.
        """
        wire = decode_json(text, _WireTree, where)
        try:
            return cls(tuple(map(_from_wire, wire.nodes or ())))
        except ValueError as error:
            raise RepositoryDamaged(f"{where} cannot be read: {error}") from None

    def encode(self) -> bytes:
        """Give the bytes of the tree's chunk. Raises ValueError if the nodes are not in order."""
        nodes = [_to_wire(node) for node in _checked(self.nodes)]
        text = encode_json(_WireTree(nodes)) + b"\n"
        return text.replace(_STAND_IN_WRITTEN, _NOT_UTF8)

    def check(self) -> None:
        """Raise ValueError if the nodes are not in order, or a name is one that cannot be."""
        _checked(self.nodes)

    def __getitem__(self, name: str) -> Node:
        """Give the node of a name. Raises KeyError."""
        for node in self.nodes:
            if node.name == name:
                return node
        raise KeyError(name)


class _WireTree(msgspec.Struct, frozen=True):
    nodes: list[Node] | None


@functools.cache  # files have few modes among them
def go_mode(mode: int) -> int:
    """Give the FileMode of a Unix ``st_mode``."""
    special = sum(bit for unix, bit in _SPECIAL_BITS.items() if mode & unix)
    return mode & 0o777 | special | _TYPE_BITS.get(stat.S_IFMT(mode), 1 << 19)


def unix_mode(mode: int) -> int:
    """Give the permission bits, with setuid, setgid and sticky, of a FileMode."""
    return mode & 0o777 | sum(unix for unix, bit in _SPECIAL_BITS.items() if mode & bit)


def _checked(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    previous = b""
    for node in nodes:
        name, raw = node.name, node.raw_name
        if name in ("", ".", "..") or "/" in name or "\0" in name:
            raise ValueError(f"{name!r} cannot be the name of a node")
        if raw <= previous:
            raise ValueError(f"node {name!r} must not follow {previous!r}")
        previous = raw
    return nodes


def _from_wire(node: Node) -> Node:
    changes: dict[str, object] = {}
    if "\\" in node.name:
        changes["name"] = unquote(node.name)
    if node.linktarget_raw is not None:
        changes["linktarget"] = node.linktarget_raw.decode("utf-8", "surrogateescape")
        changes["linktarget_raw"] = None
    if any(len(text) != 64 for text in node.content or ()):
        raise ValueError(f"node {node.name!r} names a chunk that can be none")
    return msgspec.structs.replace(node, **changes) if changes else node


def _to_wire(node: Node) -> Node:
    changes: dict[str, object] = {}
    name = quote(node.name)
    if name != node.name:
        changes["name"] = name
    if not node.linktarget.isascii():
        target = node.linktarget.encode("utf-8", "surrogateescape")
        readable = "".join(
            _STAND_IN if "\udc80" <= char <= "\udcff" else char for char in node.linktarget
        )
        if readable != node.linktarget:
            changes |= {"linktarget": readable, "linktarget_raw": target}
    return msgspec.structs.replace(node, **changes) if changes else node

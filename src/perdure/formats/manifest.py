"""perdure.json: what Perdure knows of a snapshot beyond what restic's own structures hold.

A file in the root folder of each snapshot that Perdure writes: JSON, UTF-8, fields in this order, unknown
fields refused, ending with a line feed.

* ``perdure``: version of this format, 1.
* ``sources``: one object for each source, in the order in which they were read:

  - ``name``: what identifies the source from run to run; ``kind``: ``filestorage``, ``tree`` and others;
    ``path``: where it was.
  - ``tree``: the folder of the snapshot that holds it (for a FileStorage its history, formats/history.py;
    for a file tree the path in the snapshot, without a slash before it; empty: the root itself).
  - ``cut``: tid of the last transaction (16 hexadecimal digits; zeros: none); ``size``: bytes at the cut.
  - ``last_packed``: the greatest tid with status "p": before it the source no longer tells every moment.
  - ``transactions``, ``records``: how many there are at the cut.
  - ``status``: ``complete``; ``incomplete`` when files of blobs are missing; ``repaired`` when ``repair``
    cut it back to what is whole.
  - ``position``: how the next run knows where it stood (null where that is of no use):
    ``device`` and ``inode`` of the file, ``first`` and ``last``: position, size and SHA-256 of the raw
    bytes of its first and last transaction. For a storage that is read through its iterator these are
    0, 0, null, null, and ``storage`` says it: ``last``: what the storage called its last transaction;
    ``keeps_history``; ``size`` of the file that the history holds; ``whole``: its size when the storage
    was last read as a whole; ``first``, ``unpacked``, ``final``: tid and SHA-256 of the first
    transaction, of the first that no pack has rewritten, of the last (null: there is none);
    ``objects``: oid and tid of some objects, of a storage without history.
  - ``repeated``: the pairs of oid and tid of which the file has several records, or may have, since its
    tids do not rise there (tids as above).
  - ``garbage``: for each layout that draws on a payload with dead records: the layout's start, bytes of
    its living data, bytes stored for it.
  - ``database``: what the site calls it, such as ``main``; empty if nothing is known.
  - ``blobs``: its blobs at the cut (null: they were not asked for): ``place``: the blob directory (null:
    none was known), ``tree``: the folder of the snapshot that holds them (formats/blobs.py), ``count`` and
    ``size`` (bytes) of all that are there, ``missing``: oid and tid of those whose file was nowhere,
    ``layout``: how the directory was arranged (``bushy`` or ``lawn``; null where that is not known),
    ``unseen``: whether there may be blobs of which nothing is known: no directory was known to look for
    their files in, or a repository lost whole folders of them.
  - ``files``: of a source that is files, not the history of a database (null for others): how many
    ``files``, ``folders`` and ``others`` (links, pipes, devices) the snapshot has of it; ``unread``: path,
    in Go's quoted form, and reason of those that could not be read, of at most 1000; ``unread_count``: of
    how many; ``changing``: paths of those that changed while they were read, at most 1000; ``excluding``:
    what was left out on request. Its ``cut`` is the tid that a commit would have had when reading began,
    ``last_packed`` likewise; ``transactions`` and ``records`` are 0.
* ``failed``: sources that are not in the snapshot, since they could not be read: ``name``, ``kind``,
  ``path``, and ``why``. Left out if there is none.
"""

from __future__ import annotations

from typing import Any

import msgspec

from perdure.errors import DamageFound
from perdure.model import Tid

NAME = "perdure.json"
VERSION = 1
SIZE_LIMIT = 256 << 20
COMPLETE, INCOMPLETE, REPAIRED = "complete", "incomplete", "repaired"


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where some bytes of a file stood, and their SHA-256."""

    position: int
    size: int
    sha256: str


class Mark(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A transaction, and the SHA-256 of its records as a storage gives them."""

    tid: Tid
    sha256: str


class StoragePosition(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a later run recognises a storage that an earlier run read through its iterator."""

    last: Tid
    keeps_history: bool
    size: int
    whole: int
    first: Mark | None = None
    unpacked: Mark | None = None
    final: Mark | None = None
    objects: tuple[tuple[int, Tid], ...] = ()


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """How a later run recognises the file that an earlier run read, and where that one stopped."""

    device: int
    inode: int
    first: Proof | None
    last: Proof | None
    storage: StoragePosition | None = None


class BlobsRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The blobs of a source."""

    place: str | None
    tree: str
    count: int = 0
    size: int = 0
    missing: tuple[tuple[int, Tid], ...] = ()
    layout: str | None = None
    unseen: bool = False


class FilesRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The files of a source that is no database."""

    files: int = 0
    folders: int = 0
    others: int = 0
    unread: tuple[tuple[str, str], ...] = ()
    unread_count: int = 0
    changing: tuple[str, ...] = ()
    excluding: tuple[str, ...] = ()


class SourceRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One source of a snapshot."""

    name: str
    kind: str
    path: str
    tree: str
    cut: Tid
    size: int
    last_packed: Tid
    transactions: int
    records: int
    status: str = COMPLETE
    position: Position | None = None
    repeated: tuple[tuple[int, Tid], ...] = ()
    garbage: tuple[tuple[int, int, int], ...] = ()
    database: str = ""
    blobs: BlobsRecord | None = None
    files: FilesRecord | None = None


class FailedSource(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A source that was to be in a snapshot, and could not be read."""

    name: str
    kind: str
    path: str
    why: str


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole file."""

    perdure: int
    sources: tuple[SourceRecord, ...]
    failed: tuple[FailedSource, ...] = ()

    @property
    def histories(self) -> tuple[SourceRecord, ...]:
        """The sources that are databases."""
        return tuple(record for record in self.sources if record.files is None)

    @property
    def trees(self) -> tuple[SourceRecord, ...]:
        """The sources that are files."""
        return tuple(record for record in self.sources if record.files is not None)

    def encode(self) -> bytes:
        """Give the bytes of the file."""
        return msgspec.json.encode(self, enc_hook=_to_text) + b"\n"

    @classmethod
    def decode(cls, data: bytes, where: str) -> Manifest:
        """Read a file. Raises DamageFound."""
        try:
            version = msgspec.json.decode(data, type=_Version).perdure
            if version != VERSION:
                raise DamageFound(
                    f"{where} has version {version} of its format, this program reads version {VERSION}",
                    hint="use a newer version of perdure",
                )
            return msgspec.json.decode(data, type=cls, dec_hook=_from_text)
        except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
            raise DamageFound(f"{where} cannot be read: {error}") from None


class _Version(msgspec.Struct):
    perdure: int


def _to_text(value: Any) -> str:
    if isinstance(value, Tid):
        return str(value)
    raise NotImplementedError(type(value))


def _from_text(kind: type, value: Any) -> Tid:
    if kind is Tid and isinstance(value, str):
        return Tid.from_text(value)
    raise ValueError(f"{value!r} is not the text of a transaction id")

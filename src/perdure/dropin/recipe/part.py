"""The settings of one part, as the scripts are given them: absolute paths, nothing left to look for."""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum
from pathlib import Path

import msgspec

from perdure.errors import UsageError


class Kind(Enum):
    """The kinds of backup; each has folders of its own, but a full one is among those of `backup`."""

    BACKUP = "backup"
    FULL = "fullbackup"
    SNAPSHOT = "snapshotbackup"
    ZIP = "zipbackup"


_RESTORED_BY = {
    "restore": Kind.BACKUP,
    "snapshotrestore": Kind.SNAPSHOT,
    "ziprestore": Kind.ZIP,
}


class Storage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A FileStorage and its blob directory; the main one has the empty name."""

    name: str
    datafs: str
    blobs: str | None = None

    @property
    def suffix(self) -> str:
        """What the names of its folders end with."""
        return f"_{self.name}" if self.name else ""

    @property
    def spoken(self) -> str:
        """What messages call it."""
        return self.name or "main"


class Place(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where backups are: of databases and of blobs; the one or the other may not be wanted."""

    files: str
    blobs: str


class Keeping(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept: so many fulls (0: all), and one of each of so many hours, days ... (-1: of all)."""

    fulls: int = 2
    blob_days: int = 14
    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0


class Hooks(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Shell scripts around a run; ``timeout`` in seconds."""

    pre: str = ""
    post: str = ""
    failed: str = ""
    last: str = ""
    timeout: float = 3600.0


class Manner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a backup is made."""

    full: bool = False
    gzip: bool = True
    quick: bool = True
    archive: bool = False
    compress: bool = False
    incremental: bool = False
    stamps: bool = True
    links: bool = True
    rsync: tuple[str, ...] = ()
    link_first: bool = False


class Part(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A part; ``storages`` in the order of backup, the main one last."""

    name: str
    base: str
    storages: tuple[Storage, ...]
    places: dict[str, Place]
    """Of the main storage, by kind; those of the others have a suffix."""
    alternative: dict[str, Place] = {}
    """What altrestore reads, by the name of the storage."""
    databases: bool = True
    blobs: bool = True
    manner: Manner = Manner()
    keeping: Keeping = Keeping()
    hooks: Hooks = Hooks()
    lock_timeout: float = 600.0
    debug: bool = False
    repository: str | None = None
    password_file: str | None = None
    files: bool = True
    """Whether backups are made as files."""
    commands: tuple[str, ...] = ()
    """Which scripts there are."""

    @classmethod
    def decode(cls, data: bytes, where: str) -> Part:
        """Read what `encode` wrote. Raises UsageError."""
        try:
            return msgspec.json.decode(data, type=cls)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise UsageError(
                f"{where} has no settings of a part: {error}", hint="run buildout again"
            ) from error

    def encode(self) -> bytes:
        """Give the part as JSON."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"

    def place(self, kind: Kind, storage: Storage) -> Place:
        """Say where the backups of a storage are."""
        main = self.places[Kind.BACKUP.value if kind is Kind.FULL else kind.value]
        return Place(main.files + storage.suffix, main.blobs + storage.suffix)

    def places_of(self, command: str) -> list[Place]:
        """Say where a restore reads of each storage; ``command`` is its name. Raises UsageError."""
        if command == "altrestore":
            return [self.alternative_place(each) for each in self.storages]
        return [self.place(_RESTORED_BY[command], each) for each in self.storages]

    def alternative_place(self, storage: Storage) -> Place:
        """Say where altrestore finds a storage. Raises UsageError."""
        if storage.name not in self.alternative:
            raise UsageError(
                "alternative_restore_source does not say where the backups of"
                f" {storage.spoken} are",
                hint="give a line for each storage: NAME BACKUPS [BLOBBACKUPS]",
            )
        return self.alternative[storage.name]

    def in_manner_of(self, kind: Kind) -> Manner:
        """Say how a backup of a kind is made."""
        manner = self.manner
        if kind is Kind.FULL:
            return msgspec.structs.replace(manner, full=True)
        if kind is Kind.SNAPSHOT:
            return msgspec.structs.replace(manner, full=True, incremental=False)
        if kind is Kind.ZIP:
            return msgspec.structs.replace(
                manner, full=True, incremental=False, archive=True, stamps=False
            )
        return manner

    def keeping_of(self, kind: Kind) -> Keeping:
        """Say what is kept of a kind."""
        return Keeping(fulls=1) if kind is Kind.ZIP else self.keeping

    def blob_storages(self) -> Iterator[Storage]:
        """Give the storages whose blobs are backed up."""
        return (each for each in self.storages if self.blobs and each.blobs)


def base_of(storage: Storage) -> str:
    """Give the name that backups of a storage's blobs begin with."""
    assert storage.blobs is not None
    return Path(storage.blobs).name

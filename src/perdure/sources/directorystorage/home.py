"""A DirectoryStorage's HOME, read without touching it, also while its process writes to it.

**Where the value of a name is.** A commit renames one directory of the journal; later its files are moved to
``A``, or to ``B`` while a snapshot is held, and from there to ``A``. So the *live* value of a name is that of
the newest committed directory in the journal that has it, else that in ``B``, else that in ``A``. ``A`` alone
is coherent only while a snapshot is held (``misc/snapshot`` is there, ``misc/sublock`` is held by who reads).

**Why no lock is needed.** Revisions and transactions never change once committed, carry their tid in their
name, and move only from the journal to ``B`` to ``A``: who looks in that order cannot miss one. The values
that do change (``.c``, ``x.*``) are read anew when the journal changed meanwhile. A pack deletes and
relinks, so no view is steady while one runs (``Home.pack_runs``), nor if ``View.packed`` changed.

No symbolic link is followed, no file of HOME is opened for writing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from perdure.errors import PerdureError, SourceUnusable
from perdure.formats.directorystorage import (
    MOST_BYTES,
    PointerFile,
    RevisionFile,
    TransactionFile,
    damaged,
    parse_counter,
)
from perdure.formats.directorystorage_names import (
    LAST_OID,
    PACKED,
    SERIAL,
    Name,
    journal_name,
    name_at,
    parse_journal_name,
    parse_name,
    path_of,
    pointer_name,
    revision_name,
    transaction_name,
)
from perdure.formats.directorystorage_settings import MOST_BYTES as MOST_SETTINGS
from perdure.formats.directorystorage_settings import Settings, parse_settings
from perdure.model import Tid

FOLDERS = ("A", "B", "config", "journal", "misc")
"""Without one of them a storage does not start."""
SETTINGS = "config/settings"
SNAPSHOT = "misc/snapshot"
LOCK, SUBLOCK = "misc/lock", "misc/sublock"
REPLICA = "replica.tar"
PACKING = "packing"
"""The snapshot code while a pack runs, or after one was killed."""
_ATTEMPTS = 10_000
_DEEPEST = 12
_LEAST_READ = 1 << 12
_PACK_WRITES, _PAUSE = 30.0, 0.01
"""Seconds: within the first a pack has written x.packed."""
_CLOCKS_DIFFER = 86_400
"""Seconds that the clock of a site may be off."""
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_ABSENT = (errno.ENOENT, errno.ENOTDIR)


@dataclass(frozen=True, slots=True)
class Journal:
    """What is in the journal."""

    committed: tuple[int, ...] = ()
    """Tids, ascending."""
    begun: tuple[str, ...] = ()
    """Names of directories whose transactions were not committed."""
    replica: bool = False
    """An archive waits to be applied by the next start."""
    strange: tuple[str, ...] = ()
    """What keeps the storage from starting."""


class Home:
    """A HOME, by its path. Raises SourceUnusable when it is none."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._text = str(self.path)
        raw = read_file(self.path / SETTINGS, MOST_SETTINGS)
        if raw is None:
            raise SourceUnusable(
                f"{path} has no {SETTINGS}: it is not the HOME of a DirectoryStorage",
                hint="give the folder that holds A, B, journal, config and misc",
            )
        self.settings: Settings = parse_settings(raw, str(self.path / SETTINGS))
        for name in ("A", "B", "journal"):
            if not (self.path / name).is_dir():
                raise SourceUnusable(
                    f"{path} has no folder {name}", hint="a DirectoryStorage has A, B and journal"
                )

    def snapshot_code(self) -> str | None:
        """Give the code in ``misc/snapshot``: ``shutdown``, ``packing``, ``user/...``; None: none is held."""
        raw = read_file(self.path / SNAPSHOT, MOST_SETTINGS)
        return None if raw is None else raw.decode("utf-8", "backslashreplace")

    def is_open(self) -> bool:
        """Whether a process has the storage open; a storage that starts this very moment is told so too."""
        return self.is_locked(LOCK)

    def is_locked(self, name: str) -> bool:
        """Whether somebody holds ``LOCK`` or ``SUBLOCK``. Asking shares it for a moment, if it is free."""
        try:
            descriptor = os.open(self.path / name, _FLAGS)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise unreadable(self.path / name, error) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        except OSError as error:
            raise SourceUnusable(
                f"{self.path / name} cannot be locked: {error.strerror}"
            ) from error
        finally:
            os.close(descriptor)
        return False

    def pack_runs(self) -> bool:
        """Whether a pack runs; one that was killed does not."""
        return self.snapshot_code() == PACKING and self.is_open()

    def journal(self) -> Journal:
        """List the journal. Raises SourceUnusable."""
        committed, begun, strange, replica = [], [], [], False
        for name in list_names(self.path / "journal"):
            parsed = parse_journal_name(name)
            if parsed is not None:
                committed.append(parsed[0]) if parsed[1] else begun.append(name)
            elif name == REPLICA:
                replica = True
            else:
                strange.append(name)
        return Journal(tuple(sorted(committed)), tuple(sorted(begun)), replica, tuple(strange))

    def place(self, folder: str, name: str) -> Path:
        """Give the path of a logical name in ``A`` or ``B``."""
        return Path(self.named(folder, name))

    def named(self, folder: str, name: str) -> str:
        """Give the same as text, which is made faster: there may be millions."""
        return f"{self._text}/{folder}/{path_of(name, self.settings.layout)}"


class View:
    """What a HOME's files say. This one looks at ``A`` alone: right while a snapshot is held."""

    def __init__(self, home: Home) -> None:
        self.home = home

    def serial(self) -> int:
        """Give the tid of the last transaction; 0: there is none."""
        return self._counter(SERIAL)

    def last_oid(self) -> int:
        """Give the last oid that was given out."""
        return self._counter(LAST_OID)

    def packed(self) -> int:
        """Give the tid up to which the last pack went; 0: there was none.

        A pack that begins writes it in place: for a moment the file is empty.
        """
        end = time.monotonic() + _PACK_WRITES
        while (raw := self.changing(PACKED)) == b"" and self.home.is_open():
            if time.monotonic() > end:
                break
            time.sleep(_PAUSE)
        return 0 if raw is None else parse_counter(raw, self.where(PACKED))

    def check_packed(self) -> None:
        """Make sure that the last pack was before ``x.packed`` was written.

        Raises SourceDamaged: every revision that is missing would pass for packed.
        """
        packed = self.packed()
        try:
            written = self.home.place("A", PACKED).stat().st_mtime
        except FileNotFoundError:
            return
        if packed and Tid(packed).time.timestamp() > written + _CLOCKS_DIFFER:
            raise damaged(
                self.where(PACKED),
                f"it tells of a pack on {Tid(packed).time:%Y-%m-%d}, and is older than that",
            )

    def counter_bytes(self, name: str) -> bytes | None:
        """Give the content of ``x.oid``, ``x.serial`` or ``x.packed``; None: it is not there."""
        return self.changing(name)

    def pointer(self, oid: int) -> PointerFile | None:
        """Say which revision of an object is current; None: it has none."""
        raw = self.changing(pointer_name(oid))
        return None if raw is None else PointerFile.parse(raw, self.where(pointer_name(oid)))

    def revision(self, oid: int, tid: int) -> RevisionFile | None:
        """Read a revision; None: there is none. Raises SourceDamaged, for a wrong MD5 as well."""
        name = revision_name(oid, tid)
        raw = self.fixed(name, tid)
        return None if raw is None else RevisionFile.read(raw, oid, tid, self.where(name))

    def transaction(self, tid: int) -> TransactionFile | None:
        """Read a transaction; None: there is no file of it. Raises SourceDamaged."""
        name = transaction_name(tid)
        raw = self.fixed(name, tid)
        return None if raw is None else TransactionFile.read(raw, tid, self.where(name))

    def chain(self, last: int, after: int) -> Iterator[TransactionFile]:
        """Give the transactions from ``last`` down to the one above ``after``, by what each calls previous.

        It ends quietly before a transaction that is missing and no younger than the pack. Raises
        SourceDamaged for others that are missing.
        """
        tid = last
        while tid > after:
            found = self.transaction(tid)
            if found is None:
                if tid <= self.packed():
                    return
                raise damaged(self.where(transaction_name(tid)), "it is missing")
            yield found
            if found.prev >= tid:
                raise damaged(self.where(transaction_name(tid)), "its previous one is younger")
            tid = found.prev

    def names(self) -> Iterator[Name]:
        """Give all names that there are, in no order; one may come twice."""
        yield from self._names_in("A")

    def fixed(self, name: str, tid: int) -> bytes | None:
        """Read a file that never changes, of a transaction; None: there is none."""
        return read_file(self.home.named("A", name), MOST_BYTES)

    def has(self, name: str, tid: int) -> bool:
        """Whether there is a file that never changes, of a transaction."""
        try:
            return stat.S_ISREG(os.lstat(self.home.named("A", name)).st_mode)
        except OSError:
            return False

    def changing(self, name: str) -> bytes | None:
        """Read a pointer or a counter; None: there is none."""
        return read_file(self.home.named("A", name), MOST_BYTES)

    def where(self, name: str) -> str:
        """Say to a person where a name belongs."""
        return self.home.named("A", name)

    def _counter(self, name: str) -> int:
        raw = self.changing(name)
        return 0 if raw is None else parse_counter(raw, self.where(name))

    def _names_in(self, folder: str) -> Iterator[Name]:
        layout = self.home.settings.layout
        for path in files_below(self.home.path / folder):
            name = name_at(path, layout)
            if name is not None:
                yield name


class LiveView(View):
    """Everything that is committed: in the journal, in ``B``, in ``A``."""

    def serial(self) -> int:
        """Give the tid of the last transaction; 0: there is none."""
        committed = self.home.journal().committed
        return committed[-1] if committed else super().serial()

    def names(self) -> Iterator[Name]:
        """Give all names that there are, in no order; one may come twice.

        Whatever was committed before the first one is asked for is among them, also if it moves meanwhile.
        """
        for tid in self.home.journal().committed:
            folder = self.home.path / "journal" / journal_name(tid)
            for text in list_names(folder):
                name = parse_name(text)
                if name is not None:
                    yield name
        yield from self._names_in("B")
        yield from self._names_in("A")

    def fixed(self, name: str, tid: int) -> bytes | None:
        """Read a file that never changes; None: there is none."""
        raw = super().fixed(name, tid)
        if raw is not None:
            return raw  # most are there; else it may move on while it is looked for
        for path in (
            self.home.path / "journal" / journal_name(tid) / name,
            self.home.named("B", name),
            self.home.named("A", name),
        ):
            raw = read_file(path, MOST_BYTES)
            if raw is not None:
                return raw
        return None

    def has(self, name: str, tid: int) -> bool:
        """Whether there is a file that never changes, of a transaction."""
        return super().has(name, tid) or self.fixed(name, tid) is not None

    def changing(self, name: str) -> bytes | None:
        """Read a pointer or a counter; None: there is none. Raises PerdureError in endless unrest."""
        for _ in range(_ATTEMPTS):
            committed = self.home.journal().committed
            for tid in reversed(committed):
                raw = read_file(self.home.path / "journal" / journal_name(tid) / name, MOST_BYTES)
                if raw is not None:
                    return raw
            raw = read_file(self.home.named("B", name), MOST_BYTES)
            if raw is None:
                raw = read_file(self.home.named("A", name), MOST_BYTES)
            if self.home.journal().committed == committed:  # else it may have been on its way
                return raw
        raise PerdureError(
            f"{self.home.path} changes faster than it can be read",
            hint="hold a snapshot meanwhile: perdure directorystorage snapshot",
        )


def read_file(path: Path | str, most: int) -> bytes | None:
    """Read an ordinary file; None: it is not there. Raises SourceDamaged, SourceUnusable."""
    try:
        descriptor = os.open(path, _FLAGS)
    except OSError as error:
        if error.errno in _ABSENT:
            return None
        if error.errno == errno.ELOOP:
            raise damaged(str(path), "it is a symbolic link, which no storage makes") from error
        raise unreadable(path, error) from error
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > most:
            raise damaged(str(path), f"it is no ordinary file of at most {most} bytes")
        data = b""
        while more := os.read(descriptor, max(status.st_size - len(data), _LEAST_READ)):
            data = data + more if data else more
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(descriptor)
    return data


def list_names(path: Path) -> list[str]:
    """Give the names in a folder; none where it has gone. Raises SourceUnusable."""
    try:
        return [each.name for each in path.iterdir()]
    except OSError as error:
        if error.errno in _ABSENT:
            return []
        raise unreadable(path, error) from error


def files_below(folder: Path, depth: int = 0) -> Iterator[str]:
    """Give the paths of all ordinary files below a folder, in no order. Raises SourceUnusable."""
    try:
        with os.scandir(folder) as found:
            entries = list(found)
    except OSError as error:
        if depth and error.errno in _ABSENT:
            return  # a pack removes folders that it found empty
        raise unreadable(folder, error) from error
    for entry in entries:
        if entry.is_file(follow_symlinks=False):
            yield entry.name
        elif depth < _DEEPEST and entry.is_dir(follow_symlinks=False):
            for path in files_below(folder / entry.name, depth + 1):
                yield f"{entry.name}/{path}"


def unreadable(path: Path | str, error: OSError) -> SourceUnusable:
    """Say that a file of a HOME cannot be read."""
    return SourceUnusable(
        f"{path} cannot be read: {error.strerror}",
        hint="read a HOME as the user whom it belongs to, or as root",
    )

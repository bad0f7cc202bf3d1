"""What goes into an archive, member by member, each looked at before it is taken.

A full backup has, in this order: every name in HOME (folders without content; ordinary files with it),
every name in ``config``, every ordinary file below ``A`` but for what a pack has deleted. An increment has
``x.serial`` and ``x.oid``, then transaction by transaction, the newest first, its file, and of each of its
objects pointer and revision.

``Still`` contents are those of a storage that is held still; ``Living`` ones are read beside a storage
that goes on: all that was committed up to the tid at which they began. A pack that comes between ends
them.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from perdure.dropin.directorystorage.file_checks import check_content
from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats.directorystorage import (
    MOST_BYTES,
    PointerFile,
    damaged,
    encode_counter,
)
from perdure.formats.directorystorage_names import (
    LAST_OID,
    PACKED,
    ROOT,
    SERIAL,
    Kind,
    Name,
    name_at,
    parse_name,
    path_of,
    pointer_name,
    revision_name,
    transaction_name,
)
from perdure.model import Tid
from perdure.sources.directorystorage.home import (
    Home,
    LiveView,
    View,
    files_below,
    read_file,
    unreadable,
)

DELETED = "-deleted"
"""How the name of a file ends that a pack has deleted."""
FILE_MODE = 0o640


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive; a folder has no content."""

    path: str
    data: bytes | None
    mode: int
    uid: int
    gid: int
    time: int
    """Seconds since 1970."""


class StillContents:
    """The contents of a storage that is held still."""

    look_at: type[View] = View

    def __init__(self, home: Home) -> None:
        self.home = home
        self.view = self.look_at(home)
        self.serial = _last_transaction(self.view)
        self.packed = self.view.packed()
        self.damage: list[str] = []
        """What is wrong with the database; a full backup is made even so."""

    def full(self) -> Iterator[Member]:
        """Give the members of a full backup. Raises SourceUnusable."""
        yield from _around(self.home)
        yield from self._database()
        self._find(self._check_counters)
        self._find(self._check_history)

    def increment(self, after: int) -> Iterator[Member]:
        """Give the members of an increment: what was committed after a tid. Raises SourceDamaged."""
        yield self._member(SERIAL)
        yield self._member(LAST_OID)
        seen: set[int] = set()
        for transaction in self.view.chain(self.serial, after):
            yield self._member(transaction_name(transaction.tid))
            for oid in transaction.oids:
                if oid not in seen:
                    seen.add(oid)
                    yield self._pointer(oid, transaction.tid)
                yield self._member(revision_name(oid, transaction.tid))

    def finish(self) -> None:
        """Make sure that all members were of the same state. Raises SourceUnusable."""

    def _database(self) -> Iterator[Member]:
        layout = self.home.settings.layout
        for path in files_below(self.home.path / "A"):
            if path.endswith(DELETED):
                continue
            member = _read(self.home.path, f"A/{path}")
            if member is None:
                raise SourceUnusable(
                    f"{self.home.path / 'A' / path} has vanished while it was copied"
                )
            name = name_at(path, layout)
            if name is not None:
                self._find(partial(self._check, name, member))
            yield member

    def _member(self, name: str) -> Member:
        """Give a file that must be there, and must be right. Raises SourceDamaged."""
        parsed = parse_name(name)
        assert parsed is not None
        member = _read(self.home.path, f"A/{path_of(name, self.home.settings.layout)}")
        if member is None:
            raise damaged(self.view.where(name), "it is missing")
        self._check(parsed, member)
        return member

    def _pointer(self, oid: int, newest: int) -> Member:
        """Give the pointer of an object whose newest revision is known. Raises SourceDamaged."""
        self._check_pointer(oid, newest)
        return self._member(pointer_name(oid))

    def _check(self, name: Name, member: Member) -> None:
        """Raises SourceDamaged."""
        where, raw = f"{self.home.path}/{member.path}", member.data or b""
        check_content(name, raw, where)
        if name.tid > self.serial:
            raise damaged(where, f"it is younger than the last transaction, {Tid(self.serial)}")
        if name.kind is Kind.POINTER:
            tid = PointerFile.parse(raw, where).tid
            if not self.view.has(revision_name(name.oid, tid), tid):
                raise damaged(
                    where, f"it leads to {revision_name(name.oid, tid)}, which is missing"
                )

    def _check_counters(self) -> None:
        """Raises SourceDamaged."""
        if self.view.counter_bytes(LAST_OID) is None:
            raise damaged(self.view.where(LAST_OID), "it is missing")
        self.view.check_packed()
        if self.serial and not self._current(ROOT):
            raise damaged(self.view.where(pointer_name(ROOT)), "it is missing")
        if self.serial and self.view.transaction(self.serial) is None:
            raise damaged(self.view.where(transaction_name(self.serial)), "it is missing")

    def _check_history(self) -> None:
        """Look for all that was committed since the last pack. Raises SourceDamaged for a missing link."""
        seen: set[int] = set()
        for transaction in self.view.chain(self.serial, max(self.packed - 1, 0)):
            for oid in transaction.oids:
                self._find(partial(self._check_revision, oid, transaction.tid))
                if oid not in seen:
                    seen.add(oid)
                    self._find(partial(self._check_pointer, oid, transaction.tid))

    def _check_revision(self, oid: int, tid: int) -> None:
        """Raises SourceDamaged."""
        if not self.view.has(revision_name(oid, tid), tid):
            raise damaged(self.view.where(revision_name(oid, tid)), "it is missing")

    def _check_pointer(self, oid: int, newest: int) -> None:
        """Raises SourceDamaged."""
        tid = self._current(oid)
        if tid != newest:
            raise damaged(
                self.view.where(pointer_name(oid)),
                "it does not lead to the newest revision" if tid else "it is missing",
            )

    def _current(self, oid: int) -> int:
        """Tell an object's newest revision, as its pointer says; 0: it has none. Raises SourceDamaged."""
        pointer = self.view.pointer(oid)
        return pointer.tid if pointer else 0

    def _find(self, check: Callable[[], None]) -> None:
        """Note the damage that a check finds."""
        try:
            check()
        except SourceDamaged as error:
            self.damage.append(str(error))


class LivingContents(StillContents):
    """The contents of a storage that goes on, up to the tid of its last transaction when this was made."""

    look_at = LiveView

    def __init__(self, home: Home) -> None:
        self._refuse_pack(home)
        super().__init__(home)
        self._last_oid = self.view.last_oid()
        status = (home.path / "A").stat()
        self._owner = status.st_uid, status.st_gid

    def finish(self) -> None:
        """Make sure that no pack came between. Raises SourceUnusable."""
        self._refuse_pack(self.home)
        if self.view.packed() != self.packed:
            raise self._packed(self.home)

    def _database(self) -> Iterator[Member]:
        seen: set[str] = set()
        for name in self.view.names():
            if name.kind is Kind.COUNTER or name.tid > self.serial or name.text in seen:
                continue
            if not self.home.place("A", name.text).exists():
                seen.add(name.text)  # it moves, and so may be met again
            yield from self._of(name)
        for counter in (SERIAL, LAST_OID, PACKED):
            yield self._member(counter)

    def _of(self, name: Name) -> Iterator[Member]:
        if name.kind is Kind.POINTER:
            tid = self._current(name.oid)
            if tid:
                pointer = self._made(name, PointerFile(tid).encode())
                self._find(partial(self._check, name, pointer))
                yield pointer
            return
        raw = self.view.fixed(name.text, name.tid)
        if raw is None:
            self.finish()
            raise SourceUnusable(f"{self.view.where(name.text)} has vanished while it was copied")
        member = self._made(name, raw)
        self._find(partial(self._check, name, member))
        yield member

    def _current(self, oid: int) -> int:
        """Tell an object's newest revision that belongs to what is copied; 0: it has none."""
        pointer = self.view.pointer(oid)
        tid = pointer.tid if pointer else 0
        while tid > self.serial:
            revision = self.view.revision(oid, tid)
            if revision is None:
                raise damaged(self.view.where(revision_name(oid, tid)), "it is missing")
            tid = revision.prev
        return tid

    def _member(self, name: str) -> Member:
        parsed = parse_name(name)
        assert parsed is not None
        if name == SERIAL:
            return self._made(parsed, encode_counter(self.serial))
        if name == LAST_OID:
            return self._made(parsed, encode_counter(self._last_oid))
        if name == PACKED:
            return self._made(parsed, encode_counter(self.packed))
        raw = self.view.fixed(name, parsed.tid)
        if raw is None:
            self.finish()
            raise damaged(self.view.where(name), "it is missing")
        member = self._made(parsed, raw)
        self._check(parsed, member)
        return member

    def _pointer(self, oid: int, newest: int) -> Member:
        parsed = parse_name(pointer_name(oid))
        assert parsed is not None
        return self._made(parsed, PointerFile(newest).encode())

    def _made(self, name: Name, data: bytes) -> Member:
        path = f"A/{path_of(name.text, self.home.settings.layout)}"
        return Member(path, data, FILE_MODE, *self._owner, time=_seconds(name.tid or self.serial))

    def _refuse_pack(self, home: Home) -> None:
        if home.pack_runs():
            raise self._packed(home)

    def _packed(self, home: Home) -> SourceUnusable:
        return SourceUnusable(
            f"{home.path} is being packed: what is read without its help would not fit together",
            hint="try again when the pack is over",
        )


def _around(home: Home) -> Iterator[Member]:
    """Give what lies directly in HOME, and in config."""
    for folder in (home.path, home.path / "config"):
        try:
            with os.scandir(folder) as entries:
                names = [each.name for each in entries if not each.is_symlink()]
        except OSError as error:
            raise unreadable(folder, error) from error
        inside = "" if folder == home.path else "config/"
        for name in names:
            member = _read(home.path, inside + name)
            if member is not None:
                yield member


def _read(home: Path, path: str) -> Member | None:
    """Read a file or a folder's attributes; None for what has vanished, or is neither."""
    where = f"{home}/{path}"
    try:
        status = os.lstat(where)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unreadable(where, error) from error
    mode = stat.S_IMODE(status.st_mode)
    data = None
    if stat.S_ISREG(status.st_mode):
        data = read_file(where, MOST_BYTES)
        if data is None:
            return None
    elif not stat.S_ISDIR(status.st_mode):
        return None
    return Member(path, data, mode, status.st_uid, status.st_gid, int(status.st_mtime))


def _last_transaction(view: View) -> int:
    """Give the tid of the last transaction. Raises SourceDamaged where x.serial is missing."""
    if view.counter_bytes(SERIAL) is None:
        raise damaged(view.where(SERIAL), "it is missing")
    return view.serial()


def _seconds(tid: int) -> int:
    return max(int(Tid(tid).time.timestamp()), 0)

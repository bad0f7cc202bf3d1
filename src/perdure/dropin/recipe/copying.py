"""Making a backup of blobs: what all ways have in common, and the one that writes a directory.

A backup is made under a name that is none (`naming.PART`), and gets its own when everything is in it and on
the disk. A blob that the newest backup has, as large and as old, is a hard link to that.
"""

from __future__ import annotations

import errno
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.recipe.containers import Container, DirectoryContainer, containers
from perdure.dropin.recipe.dates import moment_of
from perdure.dropin.recipe.naming import LATEST, PART, Entry, Form, entry_name
from perdure.formats.blobs import LAYOUT_FILE, TEMPORARY, path_in_directory
from perdure.model import BlobId, Observer
from perdure.sources.blobs import BlobDirectory
from perdure.sources.durable import give, sync_directory

_CANNOT_LINK = {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.ENOTSUP, errno.ENOSYS}
_SHOW_EVERY = 256


@dataclass(frozen=True, slots=True)
class Target:
    """Where a backup of blobs goes: a folder, and the first part of its name."""

    folder: Path
    base: str
    observer: Observer

    @property
    def part(self) -> Path:
        """The name while it is made."""
        return self.folder / f"{PART}{self.base}.new"

    def earlier(self) -> list[Container]:
        """Give the backups that there are of these blobs, the oldest first."""
        return [each for each in containers(self.folder) if each.entry.base == self.base]


class BlobCopy(ABC):
    """A backup of blobs that is being made."""

    form = Form.DIRECTORY
    delta = False

    def __init__(self, live: BlobDirectory, target: Target) -> None:
        self.live, self.target = live, target
        self.part = target.part
        self.taken: set[BlobId] = set()
        remove(self.part)

    @abstractmethod
    def take(self, wanted: Collection[BlobId]) -> None:
        """Take the files of blobs; ``taken`` has those that were found. Raises OSError, PerdureError."""

    @abstractmethod
    def finish(self) -> None:
        """Bring everything to the disk. Raises OSError."""

    def publish(self, stamp: str, *, numbered: bool) -> Path:
        """Give the backup its name: with the stamp, or the number 0. Raises OSError."""
        folder, base = self.target.folder, self.target.base
        self.finish()
        if numbered:
            # A restore goes by this time, and the backup belongs to a Data.fs of exactly this stamp.
            time = moment_of(stamp).timestamp()
            os.utime(self.part, (time, time))
            rotate(folder, base)
        place = folder / entry_name(base, 0 if numbered else stamp, self.form, delta=self.delta)
        aside = folder / f"{PART}{place.name}.old"
        if place.exists():  # one that is not complete
            os.rename(place, aside)
        os.rename(self.part, place)
        sync_directory(folder)
        remove(aside)
        return place

    def abandon(self) -> None:
        """Leave nothing behind."""
        remove(self.part)


class DirectoryCopy(BlobCopy):
    """A directory; ``links``: to the newest backup. ``link_first``: without one, to the live blobs."""

    def __init__(
        self, live: BlobDirectory, target: Target, *, links: bool, link_first: bool
    ) -> None:
        super().__init__(live, target)
        self._inner = self.part / target.base
        self._before = newest_directory(target) if links else None
        self._link_first = links and link_first and self._before is None
        self._made: set[str] = set()
        status = live.path.stat()
        self._owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
        self._begin()

    def _begin(self) -> None:
        for folder in (self.part, self._inner, self._inner / TEMPORARY):
            folder.mkdir(mode=0o700)
            give(folder, self._owner)
        for like, folder in ((self.live.path, self._inner), (self.target.folder, self.part)):
            folder.chmod(like.stat().st_mode & 0o7777 | 0o700)  # the live one may be only read
        layout = self.live.path / LAYOUT_FILE
        if layout.exists():
            copy_file(layout, self._inner / LAYOUT_FILE)

    def take(self, wanted: Collection[BlobId]) -> None:
        """Link or copy files, those together that lie together."""
        for number, blob in enumerate(sorted(wanted)):
            if not number % _SHOW_EVERY:
                self.target.observer.progress("blobs", number, len(wanted))
            if self._take(blob):
                self.taken.add(blob)

    def _take(self, blob: BlobId) -> bool:
        assert self.live.layout
        below = path_in_directory(blob, self.live.layout)
        target = f"{self._inner}/{below}"
        self._make_folders(target.rpartition("/")[0])
        source, status = self._find(blob)
        before = f"{self._before}/{below}" if self._before else None
        if before and _same(before, status) and _link(before, target):
            return True
        if source is None or status is None:
            return False
        if not (self._link_first and _link(source, target)):
            try:
                copy_file(source, target)
            except FileNotFoundError:  # a pack took it away just now
                return False
        return True

    def _find(self, blob: BlobId) -> tuple[str | None, os.stat_result | None]:
        for place in self.live.places(blob):
            try:
                return place, os.stat(place)
            except (FileNotFoundError, NotADirectoryError):
                continue
        return None, None

    def _make_folders(self, folder: str) -> None:
        if folder not in self._made:
            try:
                os.mkdir(folder, 0o700)  # noqa: PTH102 - there are very many
            except FileNotFoundError:
                self._make_folders(folder.rpartition("/")[0])
                os.mkdir(folder, 0o700)  # noqa: PTH102
            except FileExistsError:
                pass
            give(folder, self._owner)
            self._made.add(folder)

    def finish(self) -> None:
        """Bring everything to the disk."""
        os.sync()  # an fsync for each of a hundred thousand files takes hours


def copy_file(source: str | Path, target: str | Path) -> None:
    """Copy a file with its mode, its times and, for root, its owner. Raises OSError."""
    shutil.copyfile(source, target)
    shutil.copystat(source, target)
    if os.geteuid() == 0:
        status = os.stat(source)
        os.chown(target, status.st_uid, status.st_gid)


def remove(path: Path) -> None:
    """Remove a file or a directory with all that is in it; under a name that is none, if it is killed."""
    if not os.path.lexists(path):
        return
    if path.is_symlink() or not path.is_dir():
        path.unlink()
        return
    if not path.name.startswith(PART):
        hidden = path.with_name(f"{PART}{path.name}.old")
        remove(hidden)
        os.rename(path, hidden)
        sync_directory(path.parent)
        path = hidden
    shutil.rmtree(path)


def rotate(folder: Path, base: str) -> None:
    """Give each numbered backup of blobs the next number, up to the first that is free. Raises OSError."""
    numbered: dict[int, list[Entry]] = {}
    for path in folder.iterdir():
        entry = Entry.parse(path.name)
        if entry and entry.number is not None and entry.base == base:
            numbered.setdefault(entry.number, []).append(entry)
    first_free = next(number for number in range(len(numbered) + 1) if number not in numbered)
    for number in reversed(range(first_free)):
        for entry in numbered[number]:
            moved = entry_name(base, number + 1, entry.form)
            os.rename(folder / entry.name, folder / moved)


def point_latest(folder: Path, name: str | None) -> None:
    """Make ``latest`` lead to a backup, in one step; None: there is none. Raises OSError."""
    latest = folder / LATEST
    if latest.exists() and not latest.is_symlink():
        return  # not ours
    if name is None:
        latest.unlink(missing_ok=True)
        return
    if latest.is_symlink() and os.readlink(latest) == name:
        return
    new = folder / f"{PART}{LATEST}"
    new.unlink(missing_ok=True)
    new.symlink_to(name)
    os.rename(new, latest)
    sync_directory(folder)


def newest_directory(target: Target) -> Path | None:
    """Give the blob directory of the newest backup that is one."""
    for each in reversed(target.earlier()):
        if isinstance(each, DirectoryContainer) and each.inner.is_dir():
            return each.inner
    return None


def _same(path: str, live: os.stat_result | None) -> bool:
    """Tell whether a file is there, and as large and old as the live one, if that is still there."""
    try:
        status = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return live is None or (status.st_size, status.st_mtime_ns) == (live.st_size, live.st_mtime_ns)


def _link(source: str, target: str) -> bool:
    """Make a hard link; False where that cannot be. Raises OSError."""
    try:
        os.link(source, target)
    except FileExistsError:
        return Path(source).samefile(target)
    except OSError as error:
        if error.errno in _CANNOT_LINK:
            return False
        raise
    return True

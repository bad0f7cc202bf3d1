"""Bringing the copy up to date: what the state file says is pending, and what a look at both sides shows.

The state file only says where to look first. What is really pending is the difference between the backups
here and the objects there, and that is compared in every run: for its own destination after a backup, for
all by ``sync``, with every content by ``sync --full``. Nothing is deleted there because it is missing
here.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from perdure.dropin.btw import offsite
from perdure.dropin.btw.bucket import Found, Remote, has_content
from perdure.dropin.btw.destination import Destination, Repository, TarFile
from perdure.dropin.btw.journal import Journal
from perdure.dropin.btw.locking import Wait, destination_locked
from perdure.dropin.btw.names import LOG, TBZ, UNFINISHED, time_of
from perdure.dropin.btw.repository import DATA, TEMPORARY, Condition, sessions_in
from perdure.dropin.btw.state import Item, Kind
from perdure.errors import (
    BackupIncomplete,
    PerdureError,
    RepositoryLocked,
    StoreUnavailable,
)
from perdure.model import Observer

EVERYTHING = Item(Kind.SYNC, "")
"""All of ROOT_PATH, every content compared."""

_OF_READERS = {f"{DATA}/restore.log", f"{DATA}/lock.yml"}


@dataclass
class Copying:
    """One run's copying. ``folder`` is the configuration directory, where the locks are."""

    root: Path
    remote: Remote
    journal: Journal
    observer: Observer
    folder: Path
    wait: Wait
    failures: list[str] = field(default_factory=list)
    """Paths that could not be copied."""

    def after_backup(self, destination: Destination) -> None:
        """Copy what is pending, and what a destination has that is not there. Raises BackupIncomplete."""
        self._run(lambda: pending_in(destination, self.remote), own=destination.name)

    def all(self) -> None:
        """Copy what is pending, and all backups that are not there. Raises BackupIncomplete."""
        self._run(self._pending_anywhere, own=None)

    def _pending_anywhere(self) -> Iterator[Item]:
        for name in destinations_below(self.root):
            yield from pending_in(Destination(self.root, name), self.remote)

    def _run(self, derive: Callable[[], Iterable[Item]], own: str | None) -> None:
        state = self.journal.state()
        for number in state.unreadable:
            self.observer.warning(
                f"line {number} of {self.journal.path} cannot be read, and is skipped"
            )
        items = [*state.of_kind(Kind.PUSH), *state.of_kind(Kind.SYNC)]
        if self._each(items, own):
            try:
                derived = [item for item in derive() if item not in items]
            except PerdureError as error:
                self._failed("", error)
            else:
                self._each(derived, own)
        if self.failures:
            names = ", ".join(dict.fromkeys(self.failures))
            raise BackupIncomplete(
                f"not everything could be copied to {self.remote.location}: {names}",
                hint="what is missing there stays pending; the next run, or sync, copies it",
            )

    def _each(self, items: list[Item], own: str | None) -> bool:
        """Copy one after the other; False if the place cannot be reached, so that trying more is in vain."""
        for number, item in enumerate(items):
            self.observer.progress("copied", number, len(items))
            mine = own is None or posixpath.dirname(item.path.rstrip("/")) == own
            try:
                self._item(item, self.wait if mine else Wait(0))
            except RepositoryLocked as error:
                if mine:
                    self._failed(item.path, error)
            except StoreUnavailable as error:
                self._failed(item.path, error)
                self.failures += [other.path for other in items[number + 1 :]]
                return False
            except (PerdureError, OSError) as error:
                self._failed(item.path, error)
        return True

    def _failed(self, path: str, error: Exception) -> None:
        self.failures.append(path or str(self.root))
        self.observer.warning(f"Error while processing: {path}: {error}")

    def _item(self, item: Item, wait: Wait) -> None:
        if not item.safe:
            self.observer.warning(f"{item.path} is not below ROOT_PATH; it is pending no longer")
            self.journal.done(item)
            return
        destination = posixpath.dirname(item.path.rstrip("/"))
        free = not destination or item.path.endswith(TBZ)  # a tar file never changes
        with nullcontext() if free else destination_locked(self.folder, destination, wait):
            self._copy(item, wait)
            self.journal.done(item)

    def _copy(self, item: Item, wait: Wait) -> None:
        path = self.root / item.path
        if item.path and not item.path.endswith("/"):
            if path.is_file():  # else: it was announced, but never came to be
                self._file(item.path, self._found(item.path), thorough=True)
        elif (path / DATA).is_dir():
            self._repository(item.path.rstrip("/"), thorough=False)
        elif path.is_dir():
            self._tree(path, thorough=True, wait=wait)

    def _tree(self, top: Path, *, thorough: bool, wait: Wait) -> None:
        """Copy all that is below a directory, with every content compared. Raises PerdureError in the end."""
        prefix = str(top.relative_to(self.root)).removeprefix(".")
        there = {found.name: found for found in self.remote.objects(prefix)}
        first: Exception | None = None
        for name, is_repository in everything_below(self.root, prefix):
            try:
                if is_repository:
                    folder = posixpath.dirname(name)
                    with destination_locked(self.folder, folder, wait) if folder else nullcontext():
                        self._repository(name, thorough=thorough)
                else:
                    self._file(name, there.get(name), thorough=thorough)
            except StoreUnavailable:
                raise
            except (PerdureError, OSError) as error:
                self._failed(name, error)
                first = first or error
        if first:
            raise PerdureError(f"not all of it was copied: {first}")

    def _found(self, name: str) -> Found | None:
        folder = posixpath.dirname(name)
        return next((each for each in self.remote.objects(folder) if each.name == name), None)

    def _file(self, name: str, found: Found | None, *, thorough: bool) -> None:
        path = self.root / name
        there = found is not None and found.size == path.stat().st_size
        if found and there and (not thorough or has_content(path, found.tag)):
            return
        self.remote.put_file(name, path)

    def _repository(self, name: str, *, thorough: bool) -> None:
        path = self.root / name
        here = files_of(path)
        condition = sessions_in(each.removeprefix(f"{DATA}/") for each in here).condition
        if condition is Condition.UNFINISHED:
            return  # no backup, and never one
        if condition is Condition.INTERRUPTED:
            raise PerdureError(
                "its last session was interrupted",
                hint="the next backup takes it back, or: rdiff-backup regress",
            )
        offsite.complete(self.remote, name)
        there = objects_of(self.remote.objects(name), name)
        change = offsite.plan_change(
            here, there, lambda each, tag: has_content(path / each, tag), thorough=thorough
        )
        if not change.nothing:
            offsite.apply_change(self.remote, name, path, change)


def pending_in(destination: Destination, remote: Remote) -> Iterator[Item]:
    """Compare a destination's names and sizes with the objects there. Raises StoreError, OSError."""
    there = {found.name: found for found in remote.objects(destination.name)}
    staged = f"{destination.name}/{offsite.STAGED}/"
    prepared = {
        name.removeprefix(staged).split("/")[0] for name in there if name.startswith(staged)
    }
    for backup in destination.contents().backups:
        name = f"{destination.name}/{backup.path.name}"
        if isinstance(backup, TarFile):
            if name not in there or there[name].size != backup.path.stat().st_size:
                yield Item(Kind.PUSH, name)
        elif isinstance(backup, Repository):
            objects = objects_of(there.values(), name)
            if backup.path.name in prepared or not offsite.looks_same(
                files_of(backup.path), objects
            ):
                yield Item(Kind.SYNC, f"{name}/")
    log = destination.path / LOG
    name = f"{destination.name}/{LOG}"
    if log.is_file() and (name not in there or there[name].size != log.stat().st_size):
        yield Item(Kind.PUSH, name)


def destinations_below(root: Path) -> Iterator[str]:
    """Give the directories below ROOT_PATH that hold backups, in order."""
    for folder, names, files in os.walk(root):
        names[:] = sorted(name for name in names if not name.startswith(UNFINISHED))
        times = [name for name in names if time_of(name)]
        if (times or any(time_of(name) for name in files)) and Path(folder) != root:
            yield os.path.relpath(folder, root)
        names[:] = [name for name in names if name not in times]


def everything_below(root: Path, prefix: str) -> Iterator[tuple[str, bool]]:
    """Give all files below a folder, and repositories as one; links are left out, as s3cmd does."""
    for folder, names, files in os.walk(root / prefix):
        names[:] = sorted(name for name in names if not name.startswith(UNFINISHED))
        base = Path(folder)
        for name in sorted(files):
            path = base / name
            if path.is_file() and not path.is_symlink() and not name.startswith(UNFINISHED):
                yield str(path.relative_to(root)), False
        for name in list(names):
            if (base / name / DATA).is_dir():
                names.remove(name)
                yield str((base / name).relative_to(root)), True


def files_of(path: Path) -> Mapping[str, int]:
    """Give names, relative to a repository, and sizes of its files, but for those of its programs."""
    found = {}
    for folder, _, files in os.walk(path):
        for name in files:
            file = Path(folder, name)
            relative = str(file.relative_to(path))
            if relative in _OF_READERS or name.startswith(TEMPORARY):
                continue
            if file.is_file() and not file.is_symlink():
                found[relative] = file.stat().st_size
    return found


def objects_of(objects: Iterable[Found], path: str) -> Mapping[str, Found]:
    """Give the objects below a path, by their names relative to it."""
    prefix = f"{path}/"
    return {
        found.name.removeprefix(prefix): found for found in objects if found.name.startswith(prefix)
    }

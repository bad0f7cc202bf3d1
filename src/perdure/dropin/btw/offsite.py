"""The copy of an rdiff-backup repository in a bucket, which can be restored at every moment.

A session changes a repository in several files: the newest state in place, and beside it what leads back.
In a bucket, no two objects change at once; so a change is prepared beside the directory, and then carried
out:

1. what is new or changed is written to ``.btw-staged/<time>/files/...`` in the destination;
2. ``.btw-staged/<time>/redo.json`` says what has to be moved from there, and what a newer session has
   replaced. When that object is there, the copy is the new state; before, it is the old one;
3. the files are copied to their places, the replaced ones deleted, then ``redo.json``, then the rest.

Whoever reads while ``redo.json`` is there takes what it names from the staged files. A run that finds one
completes its work first; staged files without one are remains of a killed run, and are deleted. A
directory that is not there yet needs none of this: its ``current_mirror`` marker, without which it is no
repository, is written last.

``redo.json``: ``{"version": 1, "moved": [names], "removed": [names]}``, names relative to the repository.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import msgspec

from perdure.dropin.btw.bucket import Found, Remote
from perdure.dropin.btw.repository import DATA, Condition, sessions_in, time_in
from perdure.errors import RepositoryDamaged

STAGED = ".btw-staged"
"""The folder of a destination, in the bucket only, where changes are prepared."""
_REDO, _FILES = "redo.json", "files"
_VERSION = 1
_MOST = 1 << 26
_MARKER = f"{DATA}/current_mirror."
_STAMPED = re.compile(r"\d{4}-\d\d-\d\dT\d\d[:-]\d\d[:-]\d\d")


class Redo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What has to be done in a bucket to complete a change."""

    version: int
    moved: tuple[str, ...]
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """How the copy of a repository becomes what is here. Names are relative to the repository."""

    written: tuple[str, ...]
    removed: tuple[str, ...]
    staged: bool
    """Whether there is a copy already, so that the change must be prepared beside it."""

    @property
    def nothing(self) -> bool:
        """Whether the copy is what is here."""
        return not (self.written or self.removed)


Same = Callable[[str, str], bool]
"""Whether a file here, by its name, has the content of a tag."""


def plan_change(
    here: Mapping[str, int], there: Mapping[str, Found], same: Same, *, thorough: bool
) -> Change:
    """Compare a repository (names and sizes) with its copy.

    A name with a session's time in it never gets another content, so the size tells; ``thorough``
    compares the content of these, too. Deleted is only what rdiff-backup's own sessions replaced.
    """

    def differs(name: str, size: int) -> bool:
        found = there.get(name)
        if found is None or found.size != size:
            return True
        stamped = name.startswith(DATA) and bool(_STAMPED.search(name))
        return (thorough or not stamped) and not same(name, found.tag)

    written = [name for name, size in here.items() if differs(name, size)]
    written.sort(key=lambda name: (name.startswith(_MARKER), name.startswith(DATA), name))
    removed = tuple(sorted(_replaced(here, there)))
    return Change(tuple(written), removed, any(name.startswith(_MARKER) for name in there))


def looks_same(here: Mapping[str, int], there: Mapping[str, Found]) -> bool:
    """Whether a repository and its copy have the same names and sizes: a session changes names."""
    missing = any(name not in there or there[name].size != size for name, size in here.items())
    return not missing and not any(True for _ in _replaced(here, there))


def _replaced(here: Mapping[str, int], there: Iterable[str]) -> Iterable[str]:
    """Give the names there that sessions of this repository have replaced or taken back."""
    sessions = sessions_in(name.removeprefix(f"{DATA}/") for name in here)
    if sessions.condition is not Condition.SOUND:
        return
    first, last = sessions.times[0], sessions.times[-1]
    for name in there:
        if name in here or not name.startswith(f"{DATA}/"):
            continue
        time = time_in(name)
        if time is None or not first <= time <= last:
            continue
        taken_back = time not in sessions.times
        if taken_back or name.startswith(_MARKER) or name.replace(".snapshot", ".diff") in here:
            yield name


def apply_change(remote: Remote, path: str, local: Path, change: Change) -> None:
    """Make the copy of the repository at ``path`` what is at ``local``. Raises StoreError, OSError."""
    if not change.staged:
        for name in change.written:
            remote.put_file(f"{path}/{name}", local / name)
        for name in change.removed:
            remote.delete(f"{path}/{name}")
        return
    staged = _staged(path)
    for name in change.written:
        remote.put_file(f"{staged}/{_FILES}/{name}", local / name)
    redo = Redo(_VERSION, change.written, change.removed)
    remote.put(f"{staged}/{_REDO}", msgspec.json.encode(redo))
    _carry_out(remote, path, redo)


def complete(remote: Remote, path: str) -> None:
    """Complete a change that was prepared, or remove what is left of one that was not. Raises StoreError."""
    staged = _staged(path)
    names = [found.name for found in remote.objects(staged)]
    if f"{staged}/{_REDO}" in names:
        _carry_out(remote, path, _redo(remote, path))
    else:
        for name in names:
            remote.delete(name)


def sources_of(remote: Remote, path: str) -> Mapping[str, str]:
    """Give the files of a repository's copy, as it can be restored now, and which objects hold them.

    Raises StoreError, RepositoryDamaged.
    """
    staged = _staged(path)
    prepared = {found.name for found in remote.objects(staged)}
    names = {found.name.removeprefix(f"{path}/"): found.name for found in remote.objects(path)}
    if f"{staged}/{_REDO}" in prepared:
        redo = _redo(remote, path)
        names |= {name: f"{staged}/{_FILES}/{name}" for name in redo.moved}
        for name in redo.removed:
            names.pop(name, None)
    for name in names:
        if {"", ".", ".."} & set(name.split("/")):
            raise RepositoryDamaged(f"{name!r} in {remote.location} is no name of a file")
    return names


def fetch_repository(remote: Remote, path: str, target: Path) -> None:
    """Write a repository's copy, as it can be restored now, into a new folder. Raises StoreError, OSError."""
    for name, source in sorted(sources_of(remote, path).items()):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        remote.fetch(source, target / name)
    (target / DATA / "increments").mkdir(
        parents=True, exist_ok=True
    )  # buckets have no empty folders


def delete_repository(remote: Remote, path: str) -> None:
    """Delete a repository's copy, its markers first: without them it is no repository. Raises StoreError."""
    complete(remote, path)
    names = [found.name for found in remote.objects(path)]
    for name in sorted(names, key=lambda name: f"/{_MARKER}" not in name):
        remote.delete(name)


def _carry_out(remote: Remote, path: str, redo: Redo) -> None:
    staged = _staged(path)
    for name in redo.moved:
        remote.copy(f"{staged}/{_FILES}/{name}", f"{path}/{name}")
    for name in redo.removed:
        remote.delete(f"{path}/{name}")
    remote.delete(f"{staged}/{_REDO}")
    for found in list(remote.objects(staged)):
        remote.delete(found.name)


def _redo(remote: Remote, path: str) -> Redo:
    name = f"{_staged(path)}/{_REDO}"
    try:
        redo = msgspec.json.decode(remote.get(name, 0)[:_MOST], type=Redo)
    except msgspec.DecodeError as error:
        raise RepositoryDamaged(f"{name} in {remote.location} is damaged: {error}") from None
    if redo.version != _VERSION:
        raise RepositoryDamaged(f"{name} in {remote.location} has version {redo.version}")
    if any({"", ".", ".."} & set(each.split("/")) for each in (*redo.moved, *redo.removed)):
        raise RepositoryDamaged(f"{name} in {remote.location} names what is no file")
    return redo


def _staged(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/{STAGED}/{name}" if folder else f"{STAGED}/{name}"

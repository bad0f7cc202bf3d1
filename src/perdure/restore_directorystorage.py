"""Restore a DirectoryStorage to a HOME, in its format or another one, as it was at any moment."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from perdure.errors import DamageFound, UsageError
from perdure.formats.directorystorage_particulars import (
    CONFIG,
    FACTS,
    HomeFacts,
    Particulars,
)
from perdure.formats.directorystorage_settings import with_layout
from perdure.history.companion import kept_files, kept_particulars
from perdure.model import Observer, SnapshotId, Tid
from perdure.repository import Repository
from perdure.restore import RestoreRequest, restore
from perdure.restore_plan import Chosen, Wanted, choose
from perdure.snapshots import names_of
from perdure.sources.directorystorage.writer import Counters, new_home

KIND = "directorystorage"
_SETTINGS = "settings"
_BLOBS = ".blobs"


@dataclass(frozen=True, slots=True)
class HomeRestored:
    """What was restored, or would be; ``size``: bytes of the FileStorage that holds the same."""

    name: str
    snapshot_id: SnapshotId
    home: Path
    layout: str
    cut: Tid
    size: int
    reason: str
    transactions: int = 0
    revisions: int = 0
    blobs: Path | None = None
    """The blob directory, beside the HOME, of one that was wrapped into a storage with blobs."""


def survey_home(
    repository: Repository, wanted: Wanted, home: Path, layout: str | None
) -> HomeRestored:
    """Say what a restore would write; nothing is written. Raises UsageError, RepositoryDamaged."""
    chosen = _chosen(repository, wanted)
    return _report(chosen, home, layout or _facts(repository, chosen).format)


def restore_home(
    repository: Repository, wanted: Wanted, home: Path, layout: str | None, observer: Observer
) -> HomeRestored:
    """Write a new HOME; ``layout``: its format, by default the one that it had.

    The FileStorage with the same transactions is put together first, in a folder beside ``home``, so there
    must be room for both. Raises UsageError when anything is at ``home``, RepositoryDamaged, StoreError.
    """
    chosen = _chosen(repository, wanted)
    facts = _facts(repository, chosen)
    config = {
        path.removeprefix(f"{CONFIG}/"): data
        for path, data in _files(repository, chosen).items()
        if path.startswith(f"{CONFIG}/")
    }
    if _SETTINGS not in config:
        raise DamageFound(f"{chosen.found.record.name}: config/{_SETTINGS} is not in the snapshot")
    layout = layout or facts.format
    if layout != facts.format:
        config[_SETTINGS] = with_layout(config[_SETTINGS], layout)
    blobs = home.absolute().with_name(f"{home.name}{_BLOBS}")
    if chosen.found.blobs is not None and blobs.exists():
        raise UsageError(f"{blobs} is there already", hint="the blobs of the HOME go there")
    with new_home(home.absolute(), layout) as new, _scratch(home.absolute()) as scratch:
        found = chosen.found
        exactly = replace(wanted, snapshot=found.id, at=chosen.until, source=found.record.name)
        request = RestoreRequest(scratch, exactly, force=True)
        [restored] = restore(repository, request, observer)
        new.configure(config)
        counters = _counters(facts, restored.cut, chosen)
        known = _particulars(repository, chosen)
        made = new.fill(restored.files[0], known, counters, observer)
        if restored.blobs is not None:
            os.rename(restored.files[-1], blobs)
    return replace(
        _report(chosen, home, layout),
        cut=restored.cut,
        size=restored.size,
        transactions=made.transactions,
        revisions=made.revisions,
        blobs=blobs if restored.blobs is not None else None,
    )


def _chosen(repository: Repository, wanted: Wanted) -> Chosen:
    """Choose the one DirectoryStorage that is meant. Raises UsageError."""
    every = choose(repository, wanted)
    homes = [each for each in every if each.found.record.kind == KIND]
    if len(homes) != 1:
        names = names_of(each.found.record for each in homes or every)
        what = f"{len(homes)} DirectoryStorages" if homes else "no DirectoryStorage"
        raise UsageError(
            f"one DirectoryStorage is restored, and the snapshot has {what}",
            hint=f"choose one with --source; there are: {names}",
        )
    return homes[0]


def _files(repository: Repository, chosen: Chosen) -> dict[str, bytes]:
    return dict(kept_files(chosen.found.history.folder, repository))


def _facts(repository: Repository, chosen: Chosen) -> HomeFacts:
    raw = _files(repository, chosen).get(FACTS)
    if raw is None:
        raise DamageFound(f"{chosen.found.record.name}: {FACTS} is not in the snapshot")
    return HomeFacts.decode(raw, FACTS)


def _particulars(repository: Repository, chosen: Chosen) -> Iterator[Particulars]:
    return kept_particulars(chosen.found.history.folder, repository)


def _counters(facts: HomeFacts, cut: Tid, chosen: Chosen) -> Counters:
    """At an earlier moment the pack is not later than that; an oid that is not used yet does no harm."""
    packed = facts.packed
    if packed is not None and cut < chosen.found.record.cut:
        packed = min(packed, cut.value)
    return Counters(facts.last_oid, packed)


def _report(chosen: Chosen, home: Path, layout: str) -> HomeRestored:
    record = chosen.found.record
    return HomeRestored(
        name=record.name,
        snapshot_id=chosen.found.id,
        home=home,
        layout=layout,
        cut=min(chosen.until or record.cut, record.cut),
        size=record.size,
        reason=chosen.reason,
    )


@contextmanager
def _scratch(home: Path) -> Iterator[Path]:
    """Give a folder for what is put together on the way, on the disk that the HOME goes to.

    What an interrupted restore left in it goes first.
    """
    folder = home.with_name(f".{home.name}.perdure-scratch")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(0o700)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)

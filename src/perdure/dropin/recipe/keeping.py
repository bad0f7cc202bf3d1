"""Which backups are kept: decided by their names, and carried out only after a run that was complete.

``keep`` counts full backups of a database, each with its increments. Beside these, rules such as keep_daily
keep single runs: of a chain then all up to the last such run stays, since an increment needs those before
it. The blobs of a run are among those of each later run of its chain; so in a chain of which only some runs
are kept, only their backups of the blobs are. Everything else in the folders is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path

from perdure.dropin import repozo
from perdure.dropin.recipe.copying import remove
from perdure.dropin.recipe.dates import moment_of, stamp_of
from perdure.dropin.recipe.naming import Entry, Form
from perdure.dropin.recipe.part import Keeping, Kind, Part, base_of
from perdure.dropin.recipe.undoing import drop, mark, unmark
from perdure.model import SnapshotId
from perdure.retention import Candidate, Policy, apply_policy

_RULES = frozenset(field.name for field in fields(Policy))


@dataclass(frozen=True, slots=True)
class ChainKept:
    """What becomes of a full backup and its increments, of which the newest has ``last``."""

    stamps: tuple[str, ...]
    """Of all, oldest first."""
    last: str | None
    """The newest that stays; None: the chain goes."""
    wanted: frozenset[str]
    """Those for whose sake it stays; all of them where the chain stays as it is."""
    reason: str

    @property
    def dropped(self) -> set[str]:
        """The stamps of what goes."""
        return {stamp for stamp in self.stamps if self.last is None or stamp > self.last}


def plan_chains(
    chains: Sequence[tuple[str, ...]], keeping: Keeping, wanted_runs: Iterable[str]
) -> list[ChainKept]:
    """Say what becomes of the chains of a database, oldest first; ``wanted_runs`` are kept by rules."""
    first_kept = max(len(chains) - keeping.fulls, 0) if keeping.fulls else 0
    every = [stamp for chain in chains for stamp in chain]
    needed = {
        max(before) for run in wanted_runs if (before := [stamp for stamp in every if stamp <= run])
    }
    planned = []
    for number, chain in enumerate(chains):
        if number >= first_kept:
            why = f"one of the last {keeping.fulls} full ones" if keeping.fulls else "all are kept"
            planned.append(ChainKept(chain, chain[-1], frozenset(chain), why))
            continue
        wanted = frozenset(needed & set(chain))
        why = "kept for single runs" if wanted else "too old"
        planned.append(ChainKept(chain, max(wanted, default=None), wanted, why))
    return planned


def runs_kept(stamps: Iterable[str], keeping: Keeping, now: datetime) -> set[str]:
    """Say which runs the rules keep, as the native engine would keep snapshots."""
    counts = {rule: getattr(keeping, rule) for rule in _RULES if hasattr(keeping, rule)}
    policy = Policy(**counts)
    if policy.empty:
        return set()
    candidates = [Candidate(SnapshotId(stamp), moment_of(stamp)) for stamp in set(stamps)]
    return {
        str(verdict.candidate.id)
        for group in apply_policy(candidates, policy, now=now, group_by=())
        for verdict in group.verdicts
        if verdict.kept
    }


def blobs_dropped(entries: Iterable[tuple[Entry, str]], chains: Sequence[ChainKept]) -> list[Entry]:
    """Say which backups of blobs go, with the chains of their database; each entry comes with its time."""
    dropped = []
    for entry, time in entries:
        begun = [chain for chain in chains if chain.stamps[0] <= time]
        if not begun:
            gone = bool(chains)
        elif begun[-1].last is None:
            gone = True
        else:
            gone = _is_between(entry, begun[-1])
        if gone:
            dropped.append(entry)
    return dropped


def _is_between(entry: Entry, chain: ChainKept) -> bool:
    """Whether a backup of blobs belongs to a run that is not kept, of a chain that is kept in part."""
    if entry.stamp is None or entry.stamp not in chain.stamps or entry.stamp in chain.wanted:
        return False
    needed_by_others = entry.delta or entry.is_tar or entry.form is Form.NOTES
    assert chain.last is not None
    return entry.stamp > chain.last or not needed_by_others


def blobs_alone_dropped(
    entries: Sequence[tuple[Entry, str]], keeping: Keeping, now: datetime, *, by_count: bool
) -> list[Entry]:
    """Say which backups of blobs go where no database is backed up; a tar takes its increments with it."""
    groups: list[list[tuple[Entry, str]]] = []
    for entry, time in sorted(entries, key=lambda each: (each[1], -(each[0].number or 0))):
        follows = entry.delta or (
            entry.form is Form.NOTES and groups and groups[-1][0][0].stamp == entry.stamp
        )
        if follows and groups:
            groups[-1].append((entry, time))
        else:
            groups.append([(entry, time)])
    kept_runs = runs_kept((group[0][1] for group in groups), keeping, now)
    oldest = stamp_of(now - timedelta(days=keeping.blob_days))
    dropped = []
    for number, group in enumerate(groups):
        newer = len(groups) - number - 1
        if by_count:
            stays = not keeping.fulls or newer < keeping.fulls
        else:
            stays = group[-1][1] >= oldest or newer == 0
        if not stays and group[0][1] not in kept_runs:
            dropped += [entry for entry, _ in group]
    return dropped


def keep(part: Part, kind: Kind, now: datetime) -> list[str]:
    """Remove what is not to be kept of a kind; gives the paths. Raises OSError, PerdureError."""
    keeping = part.keeping_of(kind)
    if not part.databases:
        return _keep_blobs_alone(part, kind, keeping, now)
    folders = [Path(part.place(kind, each).files) for each in part.storages]
    chains = [
        [tuple(state.stamp for state in chain.states) for chain in repozo.chains(folder)]
        for folder in folders
    ]
    runs = runs_kept((s for each in chains for chain in each for s in chain), keeping, now)
    plans = [plan_chains(own, keeping, runs) for own in chains]
    gone = {stamp for plan in plans for chain in plan for stamp in chain.dropped}
    if gone:
        mark(folders[-1], gone)
    removed: list[str] = []
    for storage, folder, planned in zip(part.storages, folders, plans, strict=True):
        if part.blobs and storage.blobs:
            blobs = Path(part.place(kind, storage).blobs)
            for entry in blobs_dropped(_entries(blobs, base_of(storage)), planned):
                remove(blobs / entry.name)
                removed.append(str(blobs / entry.name))
        dropped = {stamp for chain in planned for stamp in chain.dropped}
        removed += [str(folder / name) for name in drop(folder, dropped)]
    unmark(folders[-1])
    return removed


def _keep_blobs_alone(part: Part, kind: Kind, keeping: Keeping, now: datetime) -> list[str]:
    manner = part.in_manner_of(kind)
    removed = []
    for storage in part.blob_storages():
        folder = Path(part.place(kind, storage).blobs)
        entries = _entries(folder, base_of(storage))
        by_count = manner.full or manner.archive
        for entry in blobs_alone_dropped(entries, keeping, now, by_count=by_count):
            remove(folder / entry.name)
            removed.append(str(folder / entry.name))
    return removed


def _entries(folder: Path, base: str) -> list[tuple[Entry, str]]:
    """Give the backups of blobs in a folder that have this base, with their times."""
    found = []
    for path in folder.iterdir():
        entry = Entry.parse(path.name)
        if entry is None or entry.base != base or path.is_symlink():
            continue
        changed = datetime.fromtimestamp(
            path.stat().st_mtime, moment_of("2000-01-01-00-00-00").tzinfo
        )
        found.append((entry, entry.stamp or stamp_of(changed)))
    return found

"""Forget: drop snapshots from the list, those that are named or those that a policy does not keep."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from perdure.errors import NameNotFound, PerdureError, UsageError
from perdure.formats.manifest import COMPLETE
from perdure.formats.snapshot import Snapshot
from perdure.model import Observer, SnapshotId
from perdure.repository import Lock, Repository
from perdure.retention import Candidate, Group, GroupVerdict, Policy, Verdict, apply_policy
from perdure.selection import Selection, selected
from perdure.snapshots import read_manifest


@dataclass(frozen=True, slots=True)
class ForgetRequest:
    """What to forget: the snapshots that are named, or what the policy does not keep of the others."""

    selection: Selection = field(default_factory=Selection)
    policy: Policy = field(default_factory=Policy)
    group_by: tuple[str, ...] = ("source",)
    dry_run: bool = False


@dataclass(frozen=True, slots=True)
class ForgetReport:
    """What became of the snapshots, group by group, and why."""

    groups: tuple[GroupVerdict, ...]

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts of all groups."""
        return tuple(verdict for group in self.groups for verdict in group.verdicts)

    @property
    def dropped(self) -> tuple[SnapshotId, ...]:
        """The ids of the snapshots that were dropped, or would be."""
        return tuple(verdict.candidate.id for verdict in self.verdicts if not verdict.kept)


def forget(
    repository: Repository, lock: Lock, request: ForgetRequest, observer: Observer
) -> ForgetReport:
    """Drop snapshots from the list, under an exclusive lock. What they hold stays until a prune.

    Raises UsageError, RepositoryDamaged, RepositoryLocked, StoreError.
    """
    report = ForgetReport(_named(repository, request) or _judged(repository, request))
    if not request.dry_run:
        _drop(repository, lock, report.dropped, observer)
    return report


def _named(repository: Repository, request: ForgetRequest) -> tuple[GroupVerdict, ...]:
    """Drop what is named, whatever it is: a damaged snapshot is not looked into."""
    if not request.selection.snapshots:
        return ()
    if not request.policy.empty:
        raise UsageError("snapshots are named, and a policy is given, too", hint="do only one")
    named = dict(selected(repository, request.selection))
    verdicts = (
        Verdict(_candidate(name, snapshot), kept=False, reasons=("named",))
        for name, snapshot in named.items()
    )
    return (GroupVerdict(Group(), tuple(verdicts)),)


def _judged(repository: Repository, request: ForgetRequest) -> tuple[GroupVerdict, ...]:
    if request.policy.empty:
        raise UsageError(
            "nothing says which snapshots to keep",
            hint="name the snapshots to forget, or give a policy, such as --keep-daily 14 --keep-monthly 12",
        )
    chosen = dict(selected(repository, request.selection))
    twins = _twins(repository.snapshots())
    known = [
        _known(repository, name, snapshot)
        for name, snapshot in repository.snapshots()
        if name not in twins
    ]
    groups = apply_policy(
        [candidate for candidate in known if candidate.id in chosen],
        request.policy,
        now=repository.clock(),
        group_by=request.group_by,
        others=[candidate for candidate in known if candidate.id not in chosen],
    )
    superseded = tuple(
        Verdict(_candidate(name, chosen[name]), kept=False, reasons=(f"retagged as {twin[:8]}",))
        for name, twin in twins.items()
        if name in chosen
    )
    return (*groups, GroupVerdict(Group(), superseded)) if superseded else groups


def _twins(snapshots: Sequence[tuple[SnapshotId, Snapshot]]) -> dict[SnapshotId, SnapshotId]:
    """Give the snapshots that are listed a second time with other tags, and as what.

    A change of tags that was interrupted leaves both; counted twice, one would drop another snapshot.
    """
    same: defaultdict[tuple[str, str, str], list[SnapshotId]] = defaultdict(list)
    for name, snapshot in snapshots:
        same[snapshot.original or name, snapshot.tree, snapshot.time].append(name)
    twins: dict[SnapshotId, SnapshotId] = {}
    for (original, _, _), names in same.items():
        stays = max(names, key=lambda name: (name != original, name))
        twins |= {name: stays for name in names if name != stays}
    return twins


def _drop(
    repository: Repository, lock: Lock, dropped: tuple[SnapshotId, ...], observer: Observer
) -> None:
    """Delete the oldest first, so that of an interrupted run the newer ones are left."""
    if not lock.exclusive:
        raise PerdureError("to forget snapshots takes an exclusive lock")
    lock.verify()
    for done, name in enumerate(reversed(dropped), 1):
        lock.keep()
        with suppress(NameNotFound):
            repository.delete_snapshot(name)
        observer.progress("forgetting snapshots", done, len(dropped))


def _known(repository: Repository, name: SnapshotId, snapshot: Snapshot) -> Candidate:
    known = read_manifest(repository, snapshot)
    records = known.sources if known else ()
    return _candidate(
        name,
        snapshot,
        complete=frozenset(record.name for record in records if record.status == COMPLETE),
        incomplete=frozenset(
            (
                *(record.name for record in records if record.status != COMPLETE),
                *(failed.name for failed in (known.failed if known else ())),
            )
        ),
    )


def _candidate(
    name: SnapshotId,
    snapshot: Snapshot,
    complete: frozenset[str] = frozenset(),
    incomplete: frozenset[str] = frozenset(),
) -> Candidate:
    return Candidate(
        id=name,
        time=snapshot.local_moment,
        hostname=snapshot.hostname,
        paths=snapshot.paths or (),
        tags=snapshot.tags,
        complete=complete,
        incomplete=incomplete,
    )

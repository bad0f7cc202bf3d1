"""Deleting old backups by a policy. A repository goes as a whole, once none of its versions is to be kept."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from perdure.dropin.btw import offsite
from perdure.dropin.btw.bucket import Remote
from perdure.dropin.btw.destination import Destination, Repository, TarFile
from perdure.dropin.btw.names import time_name
from perdure.dropin.btw.restoring import versions_of
from perdure.errors import UsageError
from perdure.model import SnapshotId
from perdure.retention import Candidate, Policy, apply_policy
from perdure.sources.durable import sync_directory


@dataclass(frozen=True, slots=True)
class Decision:
    """What becomes of a backup, and why."""

    backup: TarFile | Repository
    kept: bool
    reasons: tuple[str, ...]


def decide(destination: Destination, policy: Policy, now: datetime) -> Sequence[Decision]:
    """Say of each backup whether a policy keeps it, the oldest first. Raises UsageError, OSError."""
    if policy.empty:
        raise UsageError("nothing says what to keep", hint="give --keep-daily 7, for instance")
    versions = list(versions_of(destination.contents()))
    candidates = [
        Candidate(
            SnapshotId(f"{version.backup.path.name} {time_name(version.time)}"),
            version.time,
            complete=frozenset({destination.name}),
        )
        for version in versions
    ]
    groups = apply_policy(candidates, policy, now=now)
    verdicts = {each.candidate.id: each for group in groups for each in group.verdicts}
    decisions: dict[str, Decision] = {}
    for version, candidate in zip(versions, candidates, strict=True):
        verdict = verdicts[candidate.id]
        name = version.backup.path.name
        before = decisions.get(name, Decision(version.backup, False, ()))
        reasons = before.reasons + (verdict.reasons if verdict.kept else ())
        decisions[name] = Decision(
            version.backup, before.kept or verdict.kept, tuple(dict.fromkeys(reasons))
        )
    return list(decisions.values())


def delete(destination: Destination, decision: Decision, remote: Remote | None) -> None:
    """Delete a backup: its copy first, if that is to go, too. Raises StoreError, OSError."""
    path = decision.backup.path
    if remote is not None:
        name = f"{destination.name}/{path.name}"
        if isinstance(decision.backup, TarFile):
            remote.delete(name)
        else:
            offsite.delete_repository(remote, name)
    if isinstance(decision.backup, TarFile):
        path.unlink()
    else:
        gone = destination.unfinished(f"deleted-{path.name}")
        path.rename(gone)  # in one step it is no backup any more
        shutil.rmtree(gone)
    sync_directory(destination.path)

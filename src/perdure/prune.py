"""Prune: delete what no snapshot needs."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from perdure.model import Observer, SnapshotId
from perdure.repository import Lock, Repository
from perdure.repository.prune_plan import Action, Limits
from perdure.repository.pruning import Pruned, PrunePlan, carry_out, plan_prune


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """What a prune may leave; ``forgotten`` are snapshots that count as gone already, in a dry run."""

    limits: Limits = field(default_factory=Limits)
    dry_run: bool = False
    forgotten: Collection[SnapshotId] = ()


@dataclass(frozen=True, slots=True)
class Share:
    """Packfiles of which the same becomes for the same reason; their number and bytes."""

    action: Action
    reason: str
    packfiles: int
    bytes: int


@dataclass(frozen=True, slots=True)
class PruneReport:
    """What a prune did, or would do; in bytes."""

    shares: tuple[Share, ...]
    bytes_needed: int
    bytes_rewritten: int
    """What is needed of the packfiles that were written anew."""
    bytes_freed: int
    """How much less there is than before: packfiles and temporary files, without the index."""
    bytes_unused: int
    """The garbage that stays."""
    index_files_written: int
    index_files_deleted: int
    leftovers: int
    """How many temporary files of killed processes were removed."""

    @property
    def idle(self) -> bool:
        """Whether there was nothing to do."""
        kept = all(share.action is Action.KEEP for share in self.shares)
        return kept and not (self.index_files_deleted or self.leftovers)


def prune(
    repository: Repository, lock: Lock, request: PruneRequest, observer: Observer
) -> PruneReport:
    """Delete what no snapshot needs, under an exclusive lock, and write anew what lies beside it.

    Nothing is deleted where anything that a snapshot needs is missing or damaged: RepositoryDamaged is
    raised. Raises RepositoryLocked, StoreError as well.
    """
    plan = plan_prune(repository, lock, request.limits, observer, request.forgotten)
    left = repository.leftovers()
    if request.dry_run or plan.idle:
        done = Pruned(plan.bytes_stored, index_files_deleted=len(plan.replaced))
    else:
        done = carry_out(repository, lock, plan, observer)
    if not request.dry_run:
        repository.remove_leftovers()
    return _report(plan, done, left)


def _report(plan: PrunePlan, done: Pruned, leftovers: list[tuple[str, int]]) -> PruneReport:
    uses = [each.packfile for each in plan.decisions]
    before = sum(each.size for each in uses) + sum(plan.unindexed.values())
    freed = before - done.bytes_stored + sum(size for _, size in leftovers)
    return PruneReport(
        shares=tuple(_shares(plan)),
        bytes_needed=sum(each.used for each in uses),
        bytes_rewritten=sum(
            each.packfile.used for each in plan.decisions if each.action is Action.REWRITE
        ),
        bytes_freed=freed,
        bytes_unused=sum(
            each.packfile.garbage for each in plan.decisions if each.action is Action.KEEP
        ),
        index_files_written=done.index_files_written,
        index_files_deleted=done.index_files_deleted,
        leftovers=len(leftovers),
    )


def _shares(plan: PrunePlan) -> list[Share]:
    shares: dict[tuple[Action, str], Share] = {}
    found = [(each.action, each.reason, each.packfile.size) for each in plan.decisions]
    found += [(Action.DELETE, "in no index", size) for size in plan.unindexed.values()]
    for action, reason, size in found:
        share = shares.get((action, reason), Share(action, reason, 0, 0))
        more = Share(action, reason, share.packfiles + 1, share.bytes + size)
        shares[action, reason] = more
    order = list(Action)
    return sorted(shares.values(), key=lambda share: (order.index(share.action), share.reason))

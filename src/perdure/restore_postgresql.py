"""Restore a dump into a PostgreSQL server, by way of a scratch folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from perdure.errors import UsageError
from perdure.formats.pgdump import DATABASE
from perdure.model import Observer
from perdure.repository import Repository
from perdure.restore import Restored, RestoreRequest, restore
from perdure.restore_plan import Wanted, named
from perdure.restore_trees import PlannedTree, plan_trees
from perdure.snapshots import names_of, read_manifest
from perdure.sources.postgresql.address import Address
from perdure.sources.postgresql.restoring import restore_database, restore_tables


def plan_postgresql(repository: Repository, request: RestoreRequest) -> PlannedTree:
    """Say from which snapshot the one dump comes that is wanted. Raises UsageError."""
    plans = [
        plan
        for plan in plan_trees(repository, request.wanted, request.target)
        if plan.record.kind == DATABASE
    ]
    if len(plans) != 1:
        raise UsageError(
            f"one dump is restored into a server, and there are {len(plans)}",
            hint=f"choose one with --source; there are: {_names(repository, request.wanted)}",
        )
    return plans[0]


def restore_into_postgresql(
    repository: Repository,
    request: RestoreRequest,
    address: Address,
    tables: Sequence[str],
    observer: Observer,
    *,
    owners: bool = True,
) -> Restored:
    """Make a new database of that address, or some tables in one that there is.

    ``request`` has a scratch folder. Raises UsageError, SourceUnusable when a program of PostgreSQL fails,
    RepositoryDamaged, StoreError.
    """
    plan = plan_postgresql(repository, request)
    server = plan.record.server
    assert server is not None
    wanted = replace(request.wanted, source=plan.record.name)
    [restored] = restore(repository, replace(request, wanted=wanted), observer)
    if tables:
        restore_tables(plan.path, address, tables, owners=owners)
    else:
        restore_database(plan.path, address, server, owners=owners)
    return restored


def _names(repository: Repository, wanted: Wanted) -> str:
    known = read_manifest(repository, named(repository, wanted)[1])
    dumps = [record for record in known.sources if record.kind == DATABASE] if known else []
    return names_of(dumps) or "none"

"""The same backups in a Perdure repository: one snapshot for all storages of a part, and back from there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli import messages
from perdure.cli.making import backup_request
from perdure.cli.session import Session, now
from perdure.cli.site_hooks import Told
from perdure.errors import BackupIncomplete, UsageError

if TYPE_CHECKING:
    from perdure.cli.around import Run
    from perdure.dropin.recipe.listing import Verified
    from perdure.dropin.recipe.part import Kind, Part
    from perdure.model import Observer
    from perdure.repository import Repository
    from perdure.retention import Policy
    from perdure.snapshots import SnapshotInfo
    from perdure.sources.filestorage import FileStorageSource

_TAGS = {
    "backup": "backup",
    "fullbackup": "backup",
    "snapshotbackup": "snapshotbackup",
    "zipbackup": "zipbackup",
    "restore": "backup",
    "snapshotrestore": "snapshotbackup",
    "ziprestore": "zipbackup",
}
"""By which tag the snapshots of a command are known."""


def sources_of(part: Part) -> list[FileStorageSource]:
    """Give the storages of a part as the sources of a snapshot, named as `perdure backup` names them."""
    from perdure.sources.filestorage import FileStorageSource

    return [
        FileStorageSource(
            Path(each.datafs),
            blobs=Path(each.blobs) if part.blobs and each.blobs else None,
            without_blobs=not part.blobs,
            database=each.name or "main",
        )
        for each in part.storages
    ]


def in_repository(session: Session, part: Part) -> Session:
    """Give a session that works on the repository of a part."""
    password = Path(part.password_file) if part.password_file else session.settings.password_file
    return Session(replace(session.settings, repository=part.repository, password_file=password))


def back_up_to_repository(
    session: Session, part: Part, kind: Kind, told: Told, monitored: Run
) -> None:
    """Make a snapshot, and forget old ones. Raises BackupIncomplete and what a backup raises."""
    from perdure.backup import backup
    from perdure.cli.commands_backup import show_report

    inner = in_repository(session, part)
    tag = _TAGS[kind.value]
    request = backup_request(tags=(tag,))
    with (
        inner.writing() as (repository, lock),
        session.output.observer() as observer,
    ):
        report = backup(repository, lock, sources_of(part), request, now, observer)
    monitored.report(report)
    show_report(session.output, report, False)
    told.storages = [
        {"name": each.database, "database": each.path, "snapshot": report.snapshot_id}
        for each in report.sources
    ]
    if report.incomplete:
        raise BackupIncomplete(
            f"snapshot {(report.snapshot_id or '')[:8]} lacks parts of its sources",
            hint="the warnings name them; old snapshots are not forgotten",
        )
    _forget(inner, part, kind, tag)


def _forget(session: Session, part: Part, kind: Kind, tag: str) -> None:
    policy = policy_of(part, kind)
    if policy.empty:
        return
    from perdure.forget import ForgetRequest, forget
    from perdure.selection import Selection

    request = ForgetRequest(Selection(tags=(tag,), source=part.storages[-1].datafs), policy)
    with (
        session.writing(exclusive=True) as (repository, lock),
        session.output.observer() as observer,
    ):
        report = forget(repository, lock, request, observer)
    if report.dropped:
        session.output.line(f"{messages.count(len(report.dropped), 'snapshot')} forgotten")


def policy_of(part: Part, kind: Kind) -> Policy:
    """Say which snapshots are kept: what `keep_` options say; of what is always full, ``keep`` of them."""
    from perdure.dropin.recipe.part import Kind as Kinds
    from perdure.retention import Policy

    keeping = part.keeping_of(kind)
    last = keeping.last
    if kind in {Kinds.SNAPSHOT, Kinds.ZIP} and keeping.fulls and last >= 0:
        last = max(last, keeping.fulls)
    return Policy(
        last=last,
        hourly=keeping.hourly,
        daily=keeping.daily,
        weekly=keeping.weekly,
        monthly=keeping.monthly,
        yearly=keeping.yearly,
    )


def restore_from_repository(
    session: Session, part: Part, command: str, limit: str | None, *, dry_run: bool
) -> bool:
    """Restore the newest snapshot up to a stamp, unless there is a newer backup as files.

    Gives whether it did. Raises what a restore raises.
    """
    from perdure.cli.commands_restore import show_restored
    from perdure.dropin.recipe.dates import stamp_of
    from perdure.restore import RestoreRequest, restore, survey
    from perdure.restore_plan import Wanted

    started = now()
    with in_repository(session, part).reading() as repository:
        found = _newest(repository, part, command, limit)
        file = _newest_file(part, command, limit)
        if found is None or (file is not None and file > stamp_of(found.time)):
            return False
        request = RestoreRequest(None, Wanted(snapshot=found.id))
        with session.output.observer() as observer:
            perform = survey if dry_run else restore
            restored = perform(repository, request, observer)
        show_restored(session.output, restored, dry_run, (now() - started).total_seconds())
    return True


def snapshots_of(repository: Repository, part: Part, command: str) -> list[SnapshotInfo]:
    """List the snapshots that a command made of a part, oldest first. Raises RepositoryDamaged."""
    from perdure.snapshots import list_snapshots

    source = part.storages[-1].datafs
    return list_snapshots(repository, tags=(_TAGS[command],), source=source)


def verify_snapshots(
    session: Session, part: Part, commands: Sequence[str], observer: Observer
) -> Iterator[tuple[str, Verified]]:
    """Read all that the repository of a part has, and say of each date of some commands how it fares.

    Raises RepositoryDamaged where not even the list of snapshots can be read.
    """
    from perdure.check import ERROR, check
    from perdure.dropin.recipe.dates import stamp_of
    from perdure.dropin.recipe.listing import Verified
    from perdure.model import Subset

    with in_repository(session, part).reading() as repository:
        report = check(repository, read_data=Subset(), observer=observer)
        lost: dict[str, list[str]] = {}
        for finding in report.findings:
            for name in finding.snapshots if finding.severity == ERROR else ():
                lost.setdefault(name, []).extend(finding.lost)
        for command in commands:
            for info in snapshots_of(repository, part, command):
                problem = "; ".join(lost[info.id]) if info.id in lost else None
                for each in info.sources:
                    stamp = stamp_of(info.time)
                    yield command, Verified(each.database, stamp, each.blobs or 0, problem)


def _newest(
    repository: Repository, part: Part, command: str, limit: str | None
) -> SnapshotInfo | None:
    from perdure.dropin.recipe.dates import stamp_of

    found = snapshots_of(repository, part, command)
    fitting = [each for each in found if limit is None or stamp_of(each.time) <= limit]
    return fitting[-1] if fitting else None


def _newest_file(part: Part, command: str, limit: str | None) -> str | None:
    """Give the stamp of the newest backup as files up to another stamp."""
    from perdure.dropin.recipe.restoring import choose

    try:
        chosen = choose(part, part.places_of(command), limit)
    except UsageError:
        return None
    return max(each.stamp for each in chosen)

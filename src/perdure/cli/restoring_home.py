"""``perdure restore --into-directorystorage``: a DirectoryStorage made of a snapshot."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli import messages
from perdure.cli.session import Session, now

if TYPE_CHECKING:
    from perdure.restore_directorystorage import HomeRestored
    from perdure.restore_plan import Wanted


def restore_to_home(
    session: Session, wanted: Wanted, home: Path, layout: str | None, *, dry_run: bool
) -> None:
    """Make a HOME, or say what would be made. Raises UsageError, DamageFound, StoreError."""
    from perdure.restore_directorystorage import restore_home, survey_home

    started = now()
    with session.reading() as repository, session.output.observer() as observer:
        if dry_run:
            made = survey_home(repository, wanted, home, layout)
        else:
            made = restore_home(repository, wanted, home, layout, observer)
    seconds = (now() - started).total_seconds()
    session.output.line(_spoken(made, dry_run, seconds))
    (session.output.line if dry_run else session.output.detail)(f"  because {made.reason}")
    values = {
        "dry_run": dry_run,
        "name": made.name,
        "snapshot_id": made.snapshot_id,
        "home": str(made.home),
        "format": made.layout,
        "cut": str(made.cut) if made.cut.value else None,
        "cut_time": messages.iso(made.cut.time) if made.cut.value else None,
        "transactions": made.transactions,
        "revisions": made.revisions,
        "blobs": str(made.blobs) if made.blobs else None,
        "seconds": round(seconds, 3),
    }
    session.output.event("summary", values)


def _spoken(made: HomeRestored, dry_run: bool, seconds: float) -> str:
    verb = "would restore" if dry_run else "restored"
    cut = f" to {messages.cut(made.cut)} UTC (tid {made.cut})" if made.cut.value else ""
    text = (
        f"{verb} {messages.printable(str(made.home))} (DirectoryStorage, format {made.layout}){cut}"
        f" from snapshot {made.snapshot_id[:8]}"
    )
    if dry_run:
        return text
    blobs = f", blobs in {messages.printable(str(made.blobs))}" if made.blobs else ""
    return (
        f"{text}: {messages.count(made.transactions, 'transaction')},"
        f" {messages.count(made.revisions, 'revision')}{blobs}, {messages.seconds(seconds)}"
    )

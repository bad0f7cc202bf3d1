"""Commands that give data back: restore, assemble."""

from __future__ import annotations

import sys
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.options import moment, output_options, reading_options, tags
from perdure.cli.output import Output
from perdure.cli.session import Session, now, with_session
from perdure.errors import UsageError
from perdure.model import Tid

if TYPE_CHECKING:
    from perdure.restore import RestoreReport


@click.command(short_help="Give back a database as it was at any time.")
@click.argument("snapshot", default="latest")
@click.option(
    "--to", "target", required=True, type=click.Path(path_type=Path), help="Folder to restore into."
)
@moment("--at", help="Restore the state at this time (UTC unless it has an offset) or transaction.")
@click.option("--source", help="Name of the source, where there are several.")
@click.option("--host", help="Only snapshots of this host.")
@tags("Only snapshots with all these tags.")
@click.option("--force", is_flag=True, help="Restore into a folder that is not empty.")
@click.option("--dry-run", "-n", is_flag=True, help="Write nothing; say what would be restored.")
@reading_options
@with_session
def restore(
    session: Session,
    snapshot: str,
    target: Path,
    at: Tid | datetime | None,
    source: str | None,
    host: str | None,
    tags: tuple[str, ...],
    force: bool,
    dry_run: bool,
) -> None:
    """Give back a database as it was: at SNAPSHOT (the beginning of its id, or latest), or at any time.

    With --at any transaction can be given back, between backups too, as far as the snapshots reach;
    where they do not, the error says which moments can be had.
    """
    from perdure.restore import RestoreRequest
    from perdure.restore import restore as give_back

    force = force or (not dry_run and _may_fill(session.output, target))
    request = RestoreRequest(
        target=target.absolute(),
        snapshot=snapshot,
        at=at,
        source=source,
        hostname=host,
        tags=tags,
        force=force,
        dry_run=dry_run,
    )
    started = now()
    with session.reading() as repository, session.output.observer() as observer:
        report = give_back(repository, request, observer)
    _show(session.output, report, dry_run, (now() - started).total_seconds())


@click.command(short_help="Make a Data.fs from the folder of its history.")
@click.argument("history", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@moment("--at", help="Stop after this time (UTC unless it has an offset) or transaction.")
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@output_options
@with_session
def assemble(
    session: Session, history: Path, output: Path, at: Tid | datetime | None, force: bool
) -> None:
    """Make a Data.fs from the folder HISTORY alone, without a repository.

    HISTORY is the folder NAME.history that `restic restore` gives; OUTPUT is the Data.fs to write.
    """
    from perdure.assemble import assemble as put_together

    started = now()
    with session.output.observer() as observer:
        report = put_together(history, output, at=at, force=force, observer=observer)
    seconds = (now() - started).total_seconds()
    session.output.line(
        f"assembled {output} ({messages.size(report.size)}) to {messages.cut(report.cut)} UTC"
        f" (tid {report.cut}), {messages.seconds(seconds)}"
    )
    values = {
        "files": [str(path) for path in report.files],
        "cut": str(report.cut),
        "size": report.size,
        "seconds": round(seconds, 3),
    }
    session.output.event("summary", values)


def _may_fill(output: Output, target: Path) -> bool:
    """Ask whether a folder that is not empty may be written to. Raises UsageError when it may not."""
    if not target.exists():
        return False
    if not target.is_dir():
        raise UsageError(f"{target} is not a folder")
    if not any(target.iterdir()):
        return False
    if not output.json and sys.stdin.isatty() and sys.stderr.isatty():
        question = f"{target} is not empty. Restore into it, over files of the same names?"
        if click.confirm(question, err=True):
            return True
        raise click.Abort
    raise UsageError(f"{target} is not empty", hint="restore into another folder, or say --force")


def _show(output: Output, report: RestoreReport, dry_run: bool, seconds: float) -> None:
    verb = "would restore" if dry_run else "restored"
    cut = f" to {messages.cut(report.cut)} UTC (tid {report.cut})" if report.cut.value else ""
    output.line(
        f"{verb} {messages.printable(str(report.files[0]))} ({messages.size(report.size)}){cut}"
        f" from snapshot {report.snapshot_id[:8]}, {messages.seconds(seconds)}"
    )
    output.detail(f"  because {report.reason}")
    values = {
        "dry_run": dry_run,
        "snapshot_id": report.snapshot_id,
        "source": report.source,
        "files": [str(path) for path in report.files],
        "cut": str(report.cut) if report.cut.value else None,
        "cut_time": messages.iso(report.cut.time) if report.cut.value else None,
        "size": report.size,
        "reason": report.reason,
        "seconds": round(seconds, 3),
    }
    output.event("summary", values)

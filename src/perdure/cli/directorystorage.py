"""A DirectoryStorage made of a snapshot, and a FileStorage made of a DirectoryStorage."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.options import output_options
from perdure.cli.session import Session, now, with_session

if TYPE_CHECKING:
    from perdure.dropin.directorystorage.convert import ConvertReport
    from perdure.model import Observer
    from perdure.restore_directorystorage import HomeRestored
    from perdure.restore_plan import Wanted

_MOST_NAMED = 5


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


@click.command(short_help="Make a FileStorage of a HOME.")
@click.argument("home", metavar="HOME", type=click.Path(path_type=Path))
@click.argument("target", metavar="DATA.FS", type=click.Path(path_type=Path))
@click.option("--force", is_flag=True, help="Replace DATA.FS if it exists.")
@output_options
@with_session
def convert(session: Session, home: Path, target: Path, force: bool) -> None:
    """Make a FileStorage with all that a DirectoryStorage holds: revisions, users, texts, undone creations.

    HOME is only read, and may be in use. A transaction of which only revisions are left gets a description
    that says so. The file begins with FS21 where the pickles are Python 2's: Zope on Python 2 opens it, and
    zodbupdate makes of it what ZODB on Python 3 opens.
    """
    from perdure.dropin.directorystorage.convert import convert as make

    started = now()
    with session.output.observer() as observer:
        report = make(home, target, force=force, observer=observer)
        _warn_of_lost(observer, report)
    seconds = (now() - started).total_seconds()
    session.output.line(
        f"made {messages.printable(str(target))} ({messages.size(report.size)}) to"
        f" {messages.cut(report.cut)} UTC (tid {report.cut}):"
        f" {messages.count(report.transactions, 'transaction')},"
        f" {messages.count(report.records, 'record')}, {messages.seconds(seconds)}"
    )
    if report.python_2:
        session.output.line(
            "  its pickles are Python 2's; on with: zodbupdate --convert-py3 --encoding utf-8"
            f" --encoding-fallback latin1 --file {messages.printable(str(target))}"
        )
    values = {
        "file": str(report.file),
        "size": report.size,
        "cut": str(report.cut) if report.cut.value else None,
        "transactions": report.transactions,
        "records": report.records,
        "last_packed": str(report.last_packed) if report.last_packed.value else None,
        "without_file": [str(tid) for tid in report.without_file],
        "python_2": report.python_2,
        "seconds": round(seconds, 3),
    }
    session.output.event("summary", values)


def _warn_of_lost(observer: Observer, report: ConvertReport) -> None:
    """Say of which transactions only revisions are left."""
    lost = report.without_file
    if not lost:
        return
    named = ", ".join(map(str, lost[:_MOST_NAMED]))
    more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    observer.warning(
        f"of {messages.count(len(lost), 'transaction')} only revisions are left: who made them and why is"
        f" not known ({named}{more})"
    )

"""Commands that look after a repository: check, repair."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.objects import look_at_objects
from perdure.cli.options import moment, reading_options, repository_options
from perdure.cli.output import Output
from perdure.cli.session import Session, now, with_session
from perdure.errors import DamageFound, RepositoryDamaged, UsageError
from perdure.model import Subset, Tid

if TYPE_CHECKING:
    from perdure.check import CheckReport, Finding
    from perdure.repair import Repaired, RepairReport


@click.command(short_help="Check that the repository is whole.")
@click.option("--read-data", is_flag=True, help="Read all data, and verify every byte.")
@click.option(
    "--read-data-subset",
    "subset",
    type=Subset.parse,
    metavar="N%|n/t",
    help="Read a random N percent of the data, or the n-th of t parts.",
)
@click.option("--objects", is_flag=True, help="Look at every object of a snapshot's databases.")
@click.option("--snapshot", metavar="ID", help="With --objects: this snapshot, not the latest.")
@click.option("--source", help="With --objects: only this source.")
@moment("--at", help="With --objects: the databases as they were at this time or transaction.")
@reading_options
@with_session
def check(
    session: Session,
    read_data: bool,
    subset: Subset | None,
    objects: bool,
    snapshot: str | None,
    source: str | None,
    at: Tid | datetime | None,
) -> None:
    """Check that the repository is whole; where it is not, say what is lost.

    Without --read-data the structure is checked: index, snapshots, trees, and that all packfiles are
    there with their right sizes. With --objects every record of a snapshot is looked at, too: broken
    pickles, references to objects that are not there, blobs without file and files without blob are
    damage inside the database. Nothing is unpickled. Exit code 13 means that damage was found.
    """
    from perdure.check import check as look_through

    if read_data and subset:
        raise UsageError("--read-data and --read-data-subset exclude each other")
    if (snapshot or source or at) and not objects:
        raise UsageError("--snapshot, --source and --at say which --objects to look at")
    started = now()
    with session.reading() as repository, session.output.observer() as observer:
        report = look_through(
            repository, read_data=Subset() if read_data else subset, observer=observer
        )
        _show(session.output, report, (now() - started).total_seconds())
        found = []
        if objects and report.damaged:
            session.output.warning("the objects were not looked at: the repository is damaged")
        elif objects:
            found = look_at_objects(session, repository, snapshot, source, at, observer)
    if report.damaged:
        raise RepositoryDamaged(
            f"the repository at {repository.store.location} is damaged",
            hint="copy it as it is; then perdure repair index --read-data, perdure backup --verify-source"
            " (it stores again what the sources still have), perdure check --read-data, and for what is lost"
            " even so perdure repair snapshots",
        )
    if any(each.damaged for each in found):
        raise DamageFound(
            "objects in the snapshot are damaged",
            hint="the repository is whole: the database itself was so when it was backed up. Look at the same"
            " objects in earlier snapshots (--snapshot, --at), and take them from there",
        )


@click.group()
def repair() -> None:
    """Make the best of a damaged repository. Copy it first."""


@repair.command("index")
@click.option("--read-data", is_flag=True, help="Read all data; take damaged packfiles out.")
@repository_options
@with_session
def repair_index(session: Session, read_data: bool) -> None:
    """Make the index anew from the packfiles that are there.

    With --read-data damaged packfiles are found: what is whole in them is stored anew, they are
    renamed to .damaged, and the next backup stores what is lost again, if the source still has it.
    """
    from perdure.repair import repair_index as mend

    with (
        session.writing(exclusive=True) as (repository, lock),
        session.output.observer() as observer,
    ):
        report = mend(repository, lock, observer, read_data=read_data)
    _show_repair(session.output, report, dry_run=False)


@repair.command("snapshots")
@click.option("--forget", is_flag=True, help="Drop the damaged snapshots from the list.")
@click.option("--dry-run", "-n", is_flag=True, help="Change nothing; say what would be done.")
@repository_options
@with_session
def repair_snapshots(session: Session, forget: bool, dry_run: bool) -> None:
    """Make snapshots of what is left of damaged ones.

    Of a database the transactions before the first loss are left. The new snapshots are tagged
    "repaired"; the damaged ones stay beside them unless --forget is given.
    """
    from perdure.repair import repair_snapshots as mend

    with (
        session.writing(exclusive=True, dry_run=dry_run) as (repository, lock),
        session.output.observer() as observer,
    ):
        report = mend(repository, lock, forget=forget, dry_run=dry_run, observer=observer)
    _show_repair(session.output, report, dry_run=dry_run)


def _show(output: Output, report: CheckReport, seconds: float) -> None:
    for finding in report.findings:
        _show_finding(output, finding)
    read = f", {messages.size(report.bytes_read)} read" if report.bytes_read else ""
    verdict = "damage was found" if report.damaged else "no damage was found"
    output.line(
        f"{verdict}: {messages.count(report.snapshots, 'snapshot')},"
        f" {messages.count(report.packfiles, 'packfile')},"
        f" {messages.count(report.chunks, 'chunk')}{read}, {messages.seconds(seconds)}"
    )
    values = {
        "damaged": report.damaged,
        "errors": sum(finding.severity == "error" for finding in report.findings),
        "warnings": sum(finding.severity == "warning" for finding in report.findings),
        "snapshots": report.snapshots,
        "packfiles": report.packfiles,
        "chunks": report.chunks,
        "bytes_read": report.bytes_read,
        "seconds": round(seconds, 3),
    }
    output.event("summary", values)


def _show_finding(output: Output, finding: Finding) -> None:
    if output.json:
        values = {
            "message": finding.what,
            "snapshots": list(finding.snapshots),
            "lost": list(finding.lost),
        }
        output.event(finding.severity, values)
        return
    click.echo(f"{finding.severity}: {messages.printable(finding.what)}", err=True)
    for lost in finding.lost:
        click.echo(f"  {messages.printable(lost)}", err=True)


def _show_repair(output: Output, report: RepairReport, *, dry_run: bool) -> None:
    for message in report.messages:
        output.line(messages.printable(message))
    for each in report.repaired:
        output.line(messages.printable(_repaired(each, dry_run=dry_run)))
    if not (report.messages or report.repaired):
        output.line("nothing is damaged")
    repaired = [
        {
            "damaged": each.damaged,
            "snapshot_id": each.snapshot,
            "what": each.what,
            "forgotten": each.forgotten,
        }
        for each in report.repaired
    ]
    values = {"dry_run": dry_run, "repaired": repaired, "messages": list(report.messages)}
    output.event("summary", values)


def _repaired(each: Repaired, *, dry_run: bool) -> str:
    if not each.what:
        left = "nothing of it is left"
    elif dry_run:
        left = f"this would be left: {each.what}"
    else:
        left = f"{(each.snapshot or '')[:8]} stands for what is left: {each.what}"
    gone = "; the damaged one is forgotten" if each.forgotten else ""
    return f"snapshot {each.damaged[:8]} is damaged; {left}{gone}"

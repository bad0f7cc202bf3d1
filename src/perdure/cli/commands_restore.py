"""Commands that give data back: restore, assemble."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.options import moment, output_options, reading_options, tags
from perdure.cli.output import Output
from perdure.cli.postgresql import Server, server_options
from perdure.cli.restoring_home import restore_to_home
from perdure.cli.session import Session, now, with_session
from perdure.errors import UsageError
from perdure.formats.directorystorage_names import FORMATS
from perdure.model import Tid

if TYPE_CHECKING:
    from perdure.restore import Restored
    from perdure.restore_plan import Planned, Wanted
    from perdure.restore_trees import PlannedTree


@click.command(short_help="Give back a site as it was at any time.")
@click.argument("snapshot", default="latest")
@click.option("--to", "target", type=click.Path(path_type=Path), help="Folder to restore into.")
@click.option("--in-place", is_flag=True, help="Restore to where it was backed up from.")
@click.option(
    "--into",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Copy into the storage of this ZConfig file: RelStorage, a ZEO server, any other.",
)
@click.option(
    "--into-directorystorage",
    "home",
    type=click.Path(path_type=Path),
    help="Make a new HOME of a DirectoryStorage, in the format that it had.",
)
@click.option("--format", "layout", type=click.Choice(FORMATS), help="... in this format.")
@server_options
@click.option("--yes", is_flag=True, help="Replace what is in place without being asked.")
@moment("--at", help="Restore the state at this time (UTC unless it has an offset) or transaction.")
@click.option("--source", help="Only this source, by its name or its database's.")
@click.option("--host", help="Only snapshots of this host.")
@tags("Only snapshots with all these tags.")
@click.option("--force", is_flag=True, help="Restore into a folder that is not empty.")
@click.option("--dry-run", "-n", is_flag=True, help="Write nothing; say what would be written.")
@reading_options
@with_session
def restore(
    session: Session,
    snapshot: str,
    target: Path | None,
    in_place: bool,
    into: Path | None,
    server: Server,
    home: Path | None,
    layout: str | None,
    yes: bool,
    at: Tid | datetime | None,
    source: str | None,
    host: str | None,
    tags: tuple[str, ...],
    force: bool,
    dry_run: bool,
) -> None:
    """Give back a site as it was: at SNAPSHOT (the beginning of its id, or latest), or at any time.

    All its databases with their blobs, or one with --source; into a folder with --to, or to where they
    were with --in-place. With --at any transaction can be given back, between backups too, as far as the
    snapshots reach; where they do not, the error says which moments can be had. What is there already and
    right is not written again, so a restore that was interrupted goes on where it stopped.
    """
    from perdure.restore import RestoreRequest, survey
    from perdure.restore import restore as give_back
    from perdure.restore_plan import Wanted, plan_restore, settled
    from perdure.restore_trees import plan_trees

    places = (target, into, home, server.address)
    if in_place + sum(place is not None for place in places) != 1:
        raise UsageError(
            "a restore needs a place, and one only",
            hint="--to FOLDER restores into a folder, --in-place to where the site is, --into FILE into"
            " another storage; --into-directorystorage and --into-postgresql make new ones",
        )
    if layout and not home:
        raise UsageError("--format belongs to --into-directorystorage")
    wanted = Wanted(snapshot, at, source, host, tags)
    if home:
        restore_to_home(session, wanted, home, layout, dry_run=dry_run)
        return
    if into:
        _copy(session, wanted, into, dry_run)
        return
    if server.address is not None:
        started = now()
        restored = [server.restore(session, wanted, dry_run=dry_run)]
        show_restored(session.output, restored, dry_run, (now() - started).total_seconds())
        return
    if target and not dry_run:
        force = force or _may_fill(session.output, target)
    request = RestoreRequest(
        target=target.absolute() if target else None,
        wanted=wanted,
        force=force,
    )
    started = now()
    with session.reading() as repository, session.output.observer() as observer:
        if in_place and not dry_run:
            request = replace(request, wanted=settled(repository, wanted))
            plans = plan_restore(repository, request.wanted, request.target)
            trees = plan_trees(repository, request.wanted, request.target)
            spoken = [*map(_planned, plans), *map(_planned_tree, trees)]
            _ask(session.output, spoken, yes=yes)
        work = survey if dry_run else give_back
        restored = work(repository, request, observer)
    show_restored(session.output, restored, dry_run, (now() - started).total_seconds())


@click.command(short_help="Make a Data.fs from the folder of its history.")
@click.argument("history", type=click.Path(path_type=Path))
@click.argument("output", type=click.Path(path_type=Path))
@moment("--at", help="Stop after this time (UTC unless it has an offset) or transaction.")
@click.option(
    "--blobs",
    nargs=2,
    type=click.Path(path_type=Path),
    metavar="FOLDER TARGET",
    help="Make the blob directory TARGET of FOLDER, that of the blobs (NAME.blobs).",
)
@click.option("--force", is_flag=True, help="Replace OUTPUT if it exists.")
@output_options
@with_session
def assemble(
    session: Session,
    history: Path,
    output: Path,
    at: Tid | datetime | None,
    blobs: tuple[Path, Path] | None,
    force: bool,
) -> None:
    """Make a Data.fs from the folder HISTORY alone, without a repository.

    HISTORY is the folder NAME.history that `restic restore` gives; OUTPUT is the Data.fs to write.
    """
    from perdure.assemble import assemble as put_together

    started = now()
    with session.output.observer() as observer:
        report = put_together(history, output, at=at, force=force, observer=observer, blobs=blobs)
    seconds = (now() - started).total_seconds()
    with_blobs = f" with {messages.count(report.blobs, 'blob')}" if blobs else ""
    session.output.line(
        f"assembled {output} ({messages.size(report.size)}){with_blobs} to {messages.cut(report.cut)}"
        f" UTC (tid {report.cut}), {messages.seconds(seconds)}"
    )
    values = {
        "files": [str(path) for path in report.files],
        "cut": str(report.cut),
        "size": report.size,
        "blobs": report.blobs,
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


def _copy(session: Session, wanted: Wanted, into: Path, dry_run: bool) -> None:
    """Restore into a storage of any kind, by way of a temporary folder."""
    from perdure.restore import RestoreRequest, restore_into, survey
    from perdure.sources.opening import read_text
    from perdure.sources.scratch import scratch_folder

    started = now()
    zconfig = read_text(into)
    with (
        scratch_folder() as scratch,
        session.reading() as repository,
        session.output.observer() as observer,
    ):
        request = RestoreRequest(scratch, wanted, force=True)
        if dry_run:
            show_restored(session.output, survey(repository, request, observer), dry_run, 0)
            return
        restored, copied = restore_into(repository, request, zconfig, observer)
    seconds = (now() - started).total_seconds()
    session.output.line(
        f"copied {messages.printable(restored.name)} to {messages.cut(copied.cut)} UTC"
        f" (tid {copied.cut}) into the storage of {into}:"
        f" {messages.count(copied.copied, 'transaction')}, {copied.already_there} were there"
        f" already; {messages.seconds(seconds)}"
    )
    values = {
        "dry_run": False,
        "source": _values(restored),
        "copied": copied.copied,
        "already_there": copied.already_there,
        "blobs_missing": copied.blobs_missing,
        "cut": str(copied.cut),
        "seconds": round(seconds, 3),
    }
    session.output.event("summary", values)


def _planned(plan: Planned) -> str:
    found = plan.chosen.found
    blobs = f" and {plan.blobs}" if plan.blobs else ""
    return (
        f"{plan.path}{blobs} as at {messages.cut(plan.cut)} UTC (tid {plan.cut}),"
        f" from snapshot {found.id[:8]} of host {found.snapshot.hostname}"
    )


def _planned_tree(plan: PlannedTree) -> str:
    found = plan.found
    return (
        f"files of {plan.path} that differ, as at {messages.cut(found.record.cut)} UTC,"
        f" from snapshot {found.id[:8]} of host {found.snapshot.hostname}; others stay"
    )


def _ask(output: Output, plans: Sequence[str], *, yes: bool) -> None:
    """Have a person say that what is in place may be replaced. Raises UsageError, Abort."""
    if yes:
        return
    if output.json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError(
            "a restore in place replaces what is there, and there is nobody to ask",
            hint="see what it would do with --dry-run; say --yes if that is what you want",
        )
    click.echo("This will be replaced:", err=True)
    for plan in plans:
        click.echo(f"  {messages.printable(plan)}", err=True)
    if click.prompt("Type yes to go on", err=True, default="", show_default=False) != "yes":
        raise click.Abort


def show_restored(
    output: Output, restored: Sequence[Restored], dry_run: bool, seconds: float
) -> None:
    """Say what was restored."""
    for each in restored:
        output.line(_spoken(each, dry_run))
        (output.line if dry_run else output.detail)(f"  because {each.reason}")
    if len(restored) > 1:
        output.line(f"{len(restored)} sources, {messages.seconds(seconds)}")
    values = {
        "dry_run": dry_run,
        "sources": [_values(each) for each in restored],
        "seconds": round(seconds, 3),
    }
    output.event("summary", values)


def _spoken(each: Restored, dry_run: bool) -> str:
    verb = "would restore" if dry_run else "restored"
    if each.tree is not None:
        tree = each.tree
        there = f", {tree.kept} of them there already" if tree.kept else ""
        return (
            f"{verb} {messages.printable(str(each.files[0]))} ({messages.size(each.size)} in"
            f" {messages.count(tree.files, 'file')}{there}) as at {messages.cut(each.cut)} UTC"
            f" from snapshot {each.snapshot_id[:8]}"
        )
    cut = f" to {messages.cut(each.cut)} UTC (tid {each.cut})" if each.cut.value else ""
    kept = f", {messages.size(each.kept)} of it there already" if each.kept else ""
    name = f"{messages.printable(each.database)}: " if each.database else ""
    text = (
        f"{verb} {name}{messages.printable(str(each.files[0]))} ({messages.size(each.size)}{kept}){cut}"
        f" from snapshot {each.snapshot_id[:8]}"
    )
    blobs = each.blobs
    if blobs is None:
        return text
    text += f"; {messages.count(blobs.count, 'blob')} ({messages.size(blobs.size)})"
    notes = [
        f"{number} {what}"
        for number, what in (
            (blobs.kept, "there already"),
            (blobs.removed, "would be removed" if dry_run else "removed"),
            (blobs.missing, "missing from the snapshot"),
        )
        if number
    ]
    return f"{text}, {', '.join(notes)}" if notes else text


def _values(each: Restored) -> dict[str, object]:
    return {
        "name": each.name,
        "database": each.database,
        "snapshot_id": each.snapshot_id,
        "files": [str(path) for path in each.files],
        "cut": str(each.cut) if each.cut.value else None,
        "cut_time": messages.iso(each.cut.time) if each.cut.value else None,
        "size": each.size,
        "already_there": each.kept,
        "blobs": asdict(each.blobs) if each.blobs else None,
        "tree": asdict(each.tree) if each.tree else None,
        "reason": each.reason,
    }

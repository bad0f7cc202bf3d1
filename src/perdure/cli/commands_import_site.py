"""The command that brings backups as files into a repository."""

from __future__ import annotations

from pathlib import Path

import click

from perdure.cli import messages
from perdure.cli.commands_files import RESTORES
from perdure.cli.making import backup_request
from perdure.cli.options import repository_options
from perdure.cli.session import Session, with_session
from perdure.cli.site_part import load_part
from perdure.errors import BackupIncomplete, UsageError


@click.command(
    "import-site", short_help="Bring backups of collective.recipe.backup into a repository."
)
@click.argument("folder", required=False, type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--part",
    "part_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A part.json, which buildout wrote.",
)
@click.option(
    "--kind",
    type=click.Choice(list(RESTORES)),
    default="backup",
    show_default=True,
    help="Which command made them.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Only list the runs that there are.")
@repository_options
@with_session
def import_site(
    session: Session, folder: Path | None, part_file: Path | None, kind: str, dry_run: bool
) -> None:
    """Make a snapshot of every run that the backups of a site have, with the time of the run.

    FOLDER is that of the site: its perdure.toml says where the backups are, or --part, which buildout wrote.
    Databases and blobs are paired by content, all storages of a run are one snapshot, and each is
    restored again and compared before the next one. What was imported before is not imported again.
    """
    from perdure.dropin.recipe.importing import TAG, ImportRequest, import_runs, runs_of
    from perdure.sources.scratch import scratch_folder

    part = load_part(session, part_file, folder)
    if not part.databases:
        raise UsageError("there are only blobs (only_blobs), and no database to go with them")
    places = part.places_of(RESTORES[kind])
    stamps = runs_of(part, places)
    if not stamps:
        raise UsageError(
            f"{places[-1].files} has no backups", hint="perdure site list shows where they are"
        )
    if dry_run:
        for stamp in stamps:
            session.output.line(stamp)
        session.output.event("summary", {"dry_run": True, "runs": stamps})
        return
    request = backup_request(tags=(kind, TAG))
    failed, done = 0, 0
    with (
        scratch_folder() as scratch,
        session.writing() as (repository, lock),
        session.output.observer() as observer,
    ):
        wanted = ImportRequest(part, places, stamps, request, scratch)
        for each in import_runs(wanted, repository, lock, observer):
            failed += each.problem is not None
            done += each.problem is None
            made = f"snapshot {each.snapshot[:8]}" if each.snapshot else "not imported"
            told = each.problem or f"{messages.size(each.bytes_added)} added, compared"
            session.output.line(messages.printable(f"{each.stamp}: {made}, {told}"))
            session.output.event(
                "imported",
                {"stamp": each.stamp, "snapshot_id": each.snapshot, "problem": each.problem},
            )
    session.output.event("summary", {"imported": done, "failed": failed, "runs": len(stamps)})
    session.output.line(f"{done} of {len(stamps)} runs imported now")
    if failed:
        raise BackupIncomplete(
            f"{messages.count(failed, 'run')} could not be imported whole",
            hint="each is named above; all others are in the repository",
        )

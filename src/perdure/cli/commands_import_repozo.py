"""Commands that take over the backups of other programs."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.making import backup_request
from perdure.cli.options import repository_options, tags
from perdure.cli.session import Session, now, with_session
from perdure.errors import BackupIncomplete

if TYPE_CHECKING:
    from perdure.dropin.repozo.importing import Imported

_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("import-repozo", short_help="Turn the backups of repozo into snapshots.")
@click.argument("folder", metavar="DIR", type=_FOLDER)
@click.option(
    "--filestorage",
    type=click.Path(path_type=Path),
    required=True,
    help="The Data.fs that the backups are of; it need not exist.",
)
@click.option("--source", "name", help="Name of the source; by default the path of the Data.fs.")
@click.option("--host", help="Host name in the snapshots; by default this machine's.")
@tags("Tag of the snapshots; may be given several times.")
@click.option(
    "--work",
    type=_FOLDER,
    help="Folder for a working file as large as the largest state; by default the system's.",
)
@click.option(
    "--skip-damaged", is_flag=True, help="Leave out what cannot be recovered; exit code 3 then."
)
@click.option("--dry-run", "-n", is_flag=True, help="Store nothing; say what would be stored.")
@repository_options
@with_session
def import_repozo(
    session: Session,
    folder: Path,
    filestorage: Path,
    name: str | None,
    host: str | None,
    tags: tuple[str, ...],
    work: Path | None,
    skip_damaged: bool,
    dry_run: bool,
) -> None:
    """Make a snapshot of each backup in DIR, a repository of repozo, dated as the backup was.

    Each is proved twice: the files of repozo before, and the snapshot by reading it back. What is a
    snapshot already is left out, so that it can be repeated. Backups that follow go on from the newest.
    """
    from perdure.dropin.repozo.importing import ImportRequest, import_states

    done: list[Imported] = []
    with (
        session.writing(dry_run=dry_run) as (repository, lock),
        tempfile.TemporaryDirectory(prefix="perdure-import-", dir=work) as workspace,
        session.output.observer() as observer,
    ):
        request = ImportRequest(
            folder=folder,
            name=name or os.path.abspath(filestorage),
            place=Path(os.path.abspath(filestorage)),
            workspace=Path(workspace),
            snapshot=backup_request(host, tags, dry_run=dry_run),
            skip_damaged=skip_damaged,
        )
        for each in import_states(repository, lock, request, now, observer):
            done.append(each)
            session.output.line(f"{each.state.stamp}  {_spoken(each)}")
            session.output.event("imported", _values(each))
    damaged = [each for each in done if each.damage]
    if damaged:
        raise BackupIncomplete(
            f"{messages.count(len(damaged), 'backup')} of {len(done)} could not be recovered",
            hint="repozo -V says what is wrong with them",
        )


def _spoken(done: Imported) -> str:
    if done.damage:
        return f"left out: {done.damage}"
    what = f"snapshot {done.snapshot_id[:8]}" if done.snapshot_id else "would be a snapshot"
    size, tid = messages.size(done.size), messages.cut(done.tid)
    if done.known:
        return f"{what}, as before: {size} to {tid} UTC"
    return f"{what}: {size} to {tid} UTC, stored {messages.size(done.added)}"


def _values(done: Imported) -> dict[str, Any]:
    return {
        "backup": done.state.stamp,
        "snapshot_id": done.snapshot_id,
        "cut": None if done.tid is None else str(done.tid),
        "size": done.size,
        "added": done.added,
        "known": done.known,
        "damage": done.damage or None,
    }

"""The command that imports what btw-backup has backed up."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.making import backup_request
from perdure.cli.options import repository_options, tags
from perdure.cli.session import Session, now, with_session
from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure.dropin.btw.children import Children
    from perdure.dropin.btw.configuration import Configuration
    from perdure.dropin.btw.destination import Destination
    from perdure.dropin.btw.importing import Imported


@click.command(
    "import-btw-backup", short_help="Bring btw-backup's destinations into the repository."
)
@click.argument("destinations", metavar="[DST]...", nargs=-1)
@click.option(
    "--config-dir",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("~/.btw-backup"),
    show_default=True,
    help="btw-backup's configuration directory.",
)
@click.option(
    "--as",
    "place",
    metavar="PATH",
    help="The path that the files of the one DST had; backups of it with --tree PATH then go on from there.",
)
@click.option("--host", help="Host name in the snapshots; by default this machine's.")
@tags("Tag of the snapshots besides btw-backup; may be given several times.")
@click.option("--dry-run", "-n", is_flag=True, help="Store nothing; say what would be stored.")
@repository_options
@with_session
def import_btw_backup(
    session: Session,
    destinations: tuple[str, ...],
    config_dir: Path,
    place: str | None,
    host: str | None,
    tags: tuple[str, ...],
    dry_run: bool,
) -> None:
    """Bring btw-backup's destinations into the repository: a snapshot for each version of each DST.

    Each version is restored as rdiff-backup and tar restore it; the snapshot made of that is restored,
    too, and compared with it. What is in the repository already is not brought in again.
    """
    from perdure.dropin.btw.configuration import Configuration
    from perdure.dropin.btw.destination import Destination
    from perdure.dropin.btw.importing import Importing
    from perdure.dropin.btw.names import destination_name
    from perdure.dropin.btw.syncing import destinations_below

    configuration = Configuration(config_dir.expanduser())
    root = configuration.root
    names = [destination_name(name) for name in destinations] or list(destinations_below(root))
    if place is not None and (len(names) != 1 or not place.startswith("/")):
        raise UsageError("--as takes the absolute path of one DST", hint="name that DST")
    chosen = [Destination(root, name) for name in names]
    request = backup_request(host, tags, dry_run=dry_run)
    counts = {True: 0, False: 0}
    with (
        session.writing(dry_run=dry_run) as (repository, lock),
        session.output.observer() as observer,
    ):
        for destination in chosen:
            with _children(session, configuration, destination) as children:
                work = Importing(repository, lock, children, request, now, observer)
                for each in work.all_of(destination, place):
                    counts[each.new] += 1
                    session.output.detail(f"{destination.name} {each.version}: {_what(each)}")
                    session.output.event("version", _values(destination, each))
    made = "would be made" if dry_run else "made, each verified"
    session.output.line(
        f"{messages.count(counts[True], 'snapshot')} {made};"
        f" {messages.count(counts[False], 'version')} in the repository already"
    )
    values = {"dry_run": dry_run, "made": counts[True], "present": counts[False]}
    session.output.event("summary", values)


@contextmanager
def _children(
    session: Session, configuration: Configuration, destination: Destination
) -> Iterator[Children]:
    """Hold the destination's lock, and give what runs programs."""
    from perdure.dropin.btw.children import Children, our_environment
    from perdure.dropin.btw.locking import Wait, destination_locked

    environment = our_environment(session.settings.environment, Path(sys.executable).parent)
    wait = Wait(session.settings.lock_wait.total_seconds())
    with destination_locked(configuration.folder, destination.name, wait) as held:
        yield Children(environment, (held,))


def _what(imported: Imported) -> str:
    if imported.snapshot_id:
        return f"snapshot {imported.snapshot_id[:8]}, verified"
    return "would be a snapshot" if imported.new else "in the repository already"


def _values(destination: Destination, imported: Imported) -> dict[str, object]:
    return {
        "destination": destination.name,
        "version": imported.version,
        "new": imported.new,
        "snapshot_id": imported.snapshot_id,
    }

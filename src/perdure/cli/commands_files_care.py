"""Commands of perdure site about what is there, and about what runs it: list, verify, generate, crontab."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.commands_config import program_words
from perdure.cli.commands_files import RESTORES, folder_of, part_of, site, which_part
from perdure.cli.options import configuration_options
from perdure.cli.session import Session, with_session
from perdure.cli.site_part import site_options
from perdure.errors import DamageFound, UsageError

__all__ = ["site"]

if TYPE_CHECKING:
    from perdure.dropin.recipe.listing import Dated, Verified
    from perdure.dropin.recipe.part import Part
    from perdure.model import Observer

_KIND = click.option(
    "--kind",
    "kinds",
    multiple=True,
    type=click.Choice(list(RESTORES)),
    help="Only what this command made; may be given several times.",
)


@site.command("list", short_help="List the dates that can be restored.")
@_KIND
@configuration_options
@with_session
def list_dates(session: Session, kinds: tuple[str, ...]) -> None:
    """List what there is to restore, oldest first."""
    from perdure.dropin.recipe.listing import list_backups

    part = part_of(session)
    found = [
        (kind, each)
        for kind in kinds or RESTORES
        for each in [
            *list_backups(part, part.places_of(RESTORES[kind])),
            *_snapshots(session, part, RESTORES[kind]),
        ]
    ]
    session.output.table(
        ("kind", "date", "storage", "backup", "size", "blobs"),
        (
            (
                kind,
                each.stamp,
                each.storage,
                "snapshot" if each.snapshot else "full" if each.full else "increment",
                "" if each.size is None else messages.size(each.size),
                messages.printable(", ".join(each.blobs)),
            )
            for kind, each in found
        ),
        ({"kind": kind, **asdict(each)} for kind, each in found),
        right=("size",),
    )


def _snapshots(session: Session, part: Part, command: str) -> list[Dated]:
    """Give the snapshots of a part in its repository as dates, too."""
    if not part.repository:
        return []
    from perdure.cli.site_snapshots import in_repository, snapshots_of
    from perdure.dropin.recipe.dates import stamp_of
    from perdure.dropin.recipe.listing import Dated

    with in_repository(session, part).reading() as repository:
        return [
            Dated(source.database, stamp_of(info.time), True, source.size, (), info.id)
            for info in snapshots_of(repository, part, command)
            for source in info.sources
        ]


@site.command(short_help="Try whether every date can be restored.")
@_KIND
@configuration_options
@with_session
def verify(session: Session, kinds: tuple[str, ...]) -> None:
    """Recover every database to a temporary place, and look for every blob that each date has.

    Of dates in a repository all that it holds is read, as perdure check --read-data does.
    Exit code 13 if any date cannot be restored whole; each is named.
    """
    part, bad, good = part_of(session), 0, 0
    values = []
    with session.output.observer() as observer:
        for kind, each in _verified(session, part, kinds or tuple(RESTORES), observer):
            values.append({"kind": kind, **asdict(each)})
            if each.problem:
                bad += 1
                problem = f"{kind} {each.stamp} {each.storage}: {each.problem}"
                session.output.line(messages.printable(problem))
            else:
                good += 1
    session.output.event("summary", {"good": good, "bad": bad, "dates": values})
    if not good + bad:
        places = part.places_of("restore")[-1]
        raise UsageError(
            f"there are no backups in {places.files if part.databases else places.blobs}",
            hint="nothing could be restored; is the disk mounted?",
        )
    session.output.line(f"{messages.count(good, 'backup')} can be restored, {bad} cannot")
    if bad:
        raise DamageFound(
            f"{messages.count(bad, 'backup')} cannot be restored whole",
            hint="the next backup is made anew and whole; what is lost is named above",
        )


def _verified(
    session: Session, part: Part, kinds: Sequence[str], observer: Observer
) -> Iterator[tuple[str, Verified]]:
    from perdure.dropin.recipe.listing import verify_backups

    for kind in kinds:
        for each in verify_backups(part, part.places_of(RESTORES[kind]), observer):
            yield kind, each
    if part.repository:
        from perdure.cli.site_snapshots import verify_snapshots

        made_by = {RESTORES[kind]: kind for kind in kinds}
        for command, each in verify_snapshots(session, part, list(made_by), observer):
            yield made_by[command], each


@site.command(short_help="Write the scripts bin/backup, bin/restore and so on.")
@click.option("--dry-run", is_flag=True, help="Write nothing; say what would be written.")
@configuration_options
@with_session
def generate(session: Session, dry_run: bool) -> None:
    """Write a script for each command, for a site without buildout; those not wanted any more are removed."""
    from perdure.dropin.recipe.naming import script_name
    from perdure.dropin.recipe.scripts import arguments_of, import_paths, remove_unwanted
    from perdure.dropin.recipe.scripts import write_scripts as write

    part = part_of(session)
    given = site_options(session, folder_of() or Path()).bin_dir
    folder = Path(part.base, given or "bin")
    if dry_run:
        for command in part.commands:
            session.output.line(str(folder / script_name(command, part.name)))
        return
    before = arguments_of(*which_part(session))
    for path in write(part, before, folder, sys.executable, import_paths()):
        session.output.line(f"{path} written")
    for path in remove_unwanted(part, before, folder):
        session.output.line(f"{path} removed")


@site.command(short_help="Print lines for a crontab.")
@configuration_options
@with_session
def crontab(session: Session) -> None:
    """Print lines that have cron run the backups; nothing is installed."""
    part_of(session)  # what is wrong with it is said now, not by night
    config = site_options(session, folder_of() or Path())
    which = which_part(session)
    click.echo(_line(config.cron, which, "backup"))
    if config.snapshot_cron:
        click.echo(_line(config.snapshot_cron, which, "snapshotbackup"))


def _line(schedule: str, which: Sequence[str], command: str) -> str:
    words = [*program_words(), "site", *which, command, "--quiet"]
    return f"{schedule} {shlex.join(words)}".replace("%", r"\%")

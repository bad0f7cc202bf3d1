"""Commands that bring a repository, or snapshots of it, to another place: mirror, copy."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.options import reading_options, repository_options, tags
from perdure.cli.output import Output
from perdure.cli.password import given_password
from perdure.cli.session import Session, now, with_session
from perdure.errors import UsageError, WrongPassword

if TYPE_CHECKING:
    from perdure.copy import CopyReport
    from perdure.mirror import MirrorReport
    from perdure.repository import Repository

_dry_run = click.option(
    "--dry-run", "-n", is_flag=True, help="Change nothing; say what would be done."
)
_NOUNS = {"keys": "key", "data": "packfile", "index": "index file", "snapshots": "snapshot"}


@click.command(short_help="Copy the repository to another place, exactly.")
@click.argument("target", metavar="PLACE")
@click.option("--delete", is_flag=True, help="Delete there what is not in the repository any more.")
@_dry_run
@reading_options
@with_session
def mirror(session: Session, target: str, delete: bool, dry_run: bool) -> None:
    """Make PLACE an exact copy of the repository: the same files, the same passwords.

    Only what is missing there is copied, and verified on the way; a mirror that was interrupted goes on
    where it was. At any moment all that the mirror lists is whole in it.
    """
    from perdure.mirror import MirrorRequest
    from perdure.mirror import mirror as make_mirror

    request = MirrorRequest(delete, dry_run, session.settings.lock_wait)
    with (
        session.reading_locked() as (repository, lock),
        session.output.observer() as observer,
    ):
        report = make_mirror(repository, lock, session.place(target), request, now, observer)
    _show_mirrored(session.output, report, dry_run)


def _show_mirrored(output: Output, report: MirrorReport, dry_run: bool) -> None:
    copied, deleted = _spoken(report.copied), _spoken(report.deleted)
    would = "would be " if dry_run else ""
    gone = f"; {would}deleted: {deleted} ({messages.size(report.bytes_deleted)})" if deleted else ""
    output.line(
        f"mirror {report.target}: {would}copied: {copied or 'nothing'}"
        f" ({messages.size(report.bytes_copied)}){gone};"
        f" {messages.count(report.already_there, 'file')} there already,"
        f" {messages.seconds(report.seconds)}"
    )
    values = {
        "dry_run": dry_run,
        "target": report.target,
        "copied": dict(report.copied),
        "bytes_copied": report.bytes_copied,
        "deleted": dict(report.deleted),
        "bytes_deleted": report.bytes_deleted,
        "already_there": report.already_there,
        "seconds": round(report.seconds, 3),
    }
    output.event("summary", values)


def _spoken(numbers: Mapping[str, int]) -> str:
    return ", ".join(
        messages.count(number, _NOUNS[folder]) for folder, number in numbers.items() if number
    )


@click.command(short_help="Copy snapshots from another repository.")
@click.argument("snapshots", metavar="[SNAPSHOT]...", nargs=-1)
@click.option("--from", "origin", required=True, metavar="PLACE", help="The other repository.")
@click.option(
    "--from-password-file",
    type=click.Path(path_type=Path),
    help="File that holds its password. [PERDURE_FROM_PASSWORD_FILE]",
)
@click.option(
    "--from-password-command",
    metavar="COMMAND",
    help="Command that prints its password. [PERDURE_FROM_PASSWORD_COMMAND]",
)
@click.option("--host", help="Only snapshots of this host.")
@tags("Only snapshots with all these tags.")
@click.option("--source", help="Only snapshots that have this source.")
@_dry_run
@repository_options
@with_session
def copy(
    session: Session,
    snapshots: tuple[str, ...],
    origin: str,
    from_password_file: Path | None,
    from_password_command: str | None,
    host: str | None,
    tags: tuple[str, ...],
    source: str | None,
    dry_run: bool,
) -> None:
    """Copy snapshots, all or those that are named or selected, from another repository into this one.

    The two have different keys: each chunk is opened with the one and sealed with the other. What is here
    already is not copied again, and a copy that was interrupted goes on where it was.
    """
    from perdure.copy import copy_snapshots
    from perdure.selection import Selection

    selection = Selection(snapshots, host, tags, source)
    with (
        _other(session, origin, from_password_file, from_password_command) as other,
        session.writing(dry_run=dry_run) as (repository, lock),
        session.output.observer() as observer,
    ):
        if other.id == repository.id:
            raise UsageError(
                "the two are the same repository, or one is a mirror of the other",
                hint="perdure mirror copies a repository as it is",
            )
        report = copy_snapshots(other, repository, lock, selection, now, observer, dry_run=dry_run)
    _show_copied(session.output, report, dry_run)


@contextmanager
def _other(
    session: Session, place: str, password_file: Path | None, password_command: str | None
) -> Iterator[Repository]:
    """Open the repository that is copied from, with a lock that keeps prunes away."""
    settings = session.settings
    others = {
        name: value
        for name, value in settings.environment.items()
        if not re.match("(PERDURE|RESTIC)_(FROM_)?PASSWORD", name)
    }
    theirs = {
        name.replace("_FROM_", "_"): value
        for name, value in settings.environment.items()
        if re.match("(PERDURE|RESTIC)_FROM_PASSWORD", name)
    }
    beside = replace(
        settings,
        environment=others | theirs,
        read_configuration=None,  # what it says of a password is of the repository itself
        repository=place,
        password_file=password_file,
        password_command=password_command,
        retry_lock=settings.lock_wait,
        cache_dir=settings.cache,
        limit_upload=settings.upload_limit,
    )
    if given_password(beside) is None and not sys.stdin.isatty():
        raise UsageError(
            f"no password is given for {messages.printable(place)}",
            hint="name a file with --from-password-file or PERDURE_FROM_PASSWORD_FILE, or a command",
        )
    with ExitStack() as stack:
        try:
            repository = stack.enter_context(session.beside(beside).reading())
        except WrongPassword as error:
            error.hint = (
                "it is looked for in --from-password-file, --from-password-command and"
                " PERDURE_FROM_PASSWORD_FILE, _COMMAND; PERDURE_FROM_PASSWORD"
            )
            raise
        yield repository


def _show_copied(output: Output, report: CopyReport, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    for each in report.copied:
        output.detail(f"  snapshot {each.origin[:8]} {would}copied as {each.name[:8] or '-'}")
    output.line(
        f"{messages.count(len(report.copied), 'snapshot')} {would}copied,"
        f" {report.already_there} there already; {messages.count(report.chunks, 'chunk')}"
        f" ({messages.size(report.content_bytes)}), {'about ' if dry_run else ''}"
        f"{messages.size(report.stored_bytes)} stored, {messages.seconds(report.seconds)}"
    )
    values = {
        "dry_run": dry_run,
        "copied": [
            {"original": each.origin, "snapshot_id": each.name or None} for each in report.copied
        ],
        "already_there": report.already_there,
        "chunks": report.chunks,
        "bytes_content": report.content_bytes,
        "bytes_stored": report.stored_bytes,
        "seconds": round(report.seconds, 3),
    }
    output.event("summary", values)

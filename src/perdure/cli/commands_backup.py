"""The command that backs up."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.around import around
from perdure.cli.commands_retention import apply_retention
from perdure.cli.gathering import Gathering, Named
from perdure.cli.making import backup_request
from perdure.cli.options import repository_options, tags
from perdure.cli.output import Output
from perdure.cli.postgresql import Databases, postgresql_options
from perdure.cli.session import Session, now, with_session
from perdure.cli.trees import Exclusion, tree_options
from perdure.errors import BackupIncomplete, RepositoryLocked

if TYPE_CHECKING:
    from perdure.backup import BackupReport, SourceReport


_FILE = click.Path(path_type=Path, dir_okay=False)


@click.command(short_help="Make a snapshot of a site, while it is in use.")
@click.option(
    "--filestorage",
    "paths",
    multiple=True,
    type=click.Path(path_type=Path),
    help="A Data.fs to back up; may be given several times.",
)
@click.option(
    "--storage",
    "storages",
    multiple=True,
    type=_FILE,
    help="A ZConfig file with the section of any ZODB storage: RelStorage, a ZEO client.",
)
@click.option(
    "--directorystorage",
    "homes",
    multiple=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="The HOME of a DirectoryStorage; may be given several times.",
)
@click.option(
    "--zope-conf", "zope_confs", multiple=True, type=_FILE, help="The databases of this zope.conf."
)
@click.option(
    "--zeo-conf", "zeo_confs", multiple=True, type=_FILE, help="What this zeo.conf serves."
)
@click.option(
    "--buildout",
    type=click.Path(path_type=Path, file_okay=False),
    help="The databases of the buildout in this folder.",
)
@click.option(
    "--blobs",
    type=click.Path(path_type=Path),
    help="The blob directory that belongs to the --filestorage.",
)
@tree_options
@postgresql_options
@click.option("--no-blobs", is_flag=True, help="Back up the databases without their blobs.")
@click.option(
    "--source",
    "name",
    help="Name of a source that is named alone, by default its path; of a site: this database only.",
)
@click.option("--host", help="Host name in the snapshot; by default this machine's.")
@tags("Tag of the snapshot; may be given several times.")
@click.option("--verify-source", is_flag=True, help="Read the whole source again, and compare.")
@click.option(
    "--force", "read_all", is_flag=True, help="Read all files of trees, unchanged ones, too."
)
@click.option(
    "--skip-if-unchanged", is_flag=True, help="Make no snapshot when nothing has changed."
)
@click.option(
    "--forget/--no-forget",
    default=True,
    help="Forget old snapshots afterwards, as perdure.toml says; done by default.",
)
@click.option("--dry-run", "-n", is_flag=True, help="Store nothing; say what would be stored.")
@repository_options
@with_session
def backup(
    session: Session,
    paths: tuple[Path, ...],
    storages: tuple[Path, ...],
    homes: tuple[Path, ...],
    zope_confs: tuple[Path, ...],
    zeo_confs: tuple[Path, ...],
    buildout: Path | None,
    blobs: Path | None,
    trees: tuple[Path, ...],
    exclusion: Exclusion,
    databases: Databases,
    no_blobs: bool,
    name: str | None,
    host: str | None,
    tags: tuple[str, ...],
    verify_source: bool,
    read_all: bool,
    skip_if_unchanged: bool,
    forget: bool,
    dry_run: bool,
) -> None:
    """Make a snapshot of a site: all its databases with their blobs, while servers write to them.

    What to back up is named here or in perdure.toml; otherwise the site is looked for in the current
    folder (perdure sources shows what is found). Where perdure.toml says how long to keep snapshots, old
    ones are forgotten after a backup that is complete.
    """
    named = Named(
        *(paths, storages, zope_confs, zeo_confs, buildout, blobs, name),
        *(trees, exclusion, databases, homes),
    )
    with around(session, now, dry_run=dry_run) as run:
        gathering = Gathering(session, without_blobs=no_blobs)
        sources = gathering.gather(named)
        configured = session.config.backup
        request = backup_request(
            host or configured.host,
            (*configured.tags, *tags),
            verify_source=verify_source,
            skip_if_unchanged=skip_if_unchanged or configured.skip_if_unchanged,
            dry_run=dry_run,
        )
        request = replace(request, read_all=read_all, job_names=gathering.jobs)
        from perdure.backup import backup as back_up

        with (
            session.writing(dry_run=dry_run) as (repository, lock),
            session.output.observer() as observer,
        ):
            report = back_up(repository, lock, sources, request, now, observer)
        run.report(report)
        try:
            if report.incomplete:
                raise BackupIncomplete(
                    _lack(report), hint="the warnings say why; old snapshots are not forgotten"
                )
            if forget and not dry_run:
                _forget(session, report.sources[0].name)
        finally:
            show_report(session.output, report, dry_run)


def _lack(report: BackupReport) -> str:
    """Say what is missing from a snapshot."""
    snapshot = f"snapshot {report.snapshot_id[:8]}" if report.snapshot_id else "the snapshot"
    failed = [source.name for source in report.sources if source.status == "failed"]
    parts = any(source.status == "incomplete" for source in report.sources)
    what = [*(["parts of its sources"] if parts else []), *map(messages.printable, failed)]
    return f"{snapshot} lacks {', '.join(what)}"


def _forget(session: Session, source: str) -> None:
    """Apply the configured retention; that others use the repository meanwhile is no failure."""
    try:
        apply_retention(session, source)
    except RepositoryLocked as error:
        session.output.warning(f"no old snapshots are forgotten this time: {error}")


def show_report(output: Output, report: BackupReport, dry_run: bool) -> None:
    """Say what a backup did."""
    if report.snapshot_id:
        what = f"snapshot {report.snapshot_id[:8]}"
    else:
        what = "dry run, nothing stored" if dry_run else "no snapshot, nothing has changed"
    stored = "would store" if dry_run else "stored"
    output.line(
        f"{what}: {'; '.join(_spoken(source) for source in report.sources)};"
        f" read {messages.size(report.bytes_read)}, {stored} {messages.size(report.bytes_added)},"
        f" {messages.seconds(report.seconds)}"
    )
    for source in report.sources:
        output.detail(_detail(source))
    output.event("summary", _values(report, dry_run))


def _spoken(source: SourceReport) -> str:
    name = messages.printable(source.name)
    if source.status == "failed":
        return f"{name} FAILED"
    if source.files is not None:
        files = source.files
        missing = f", {files.unread} not read" if files.unread else ""
        return (
            f"{name} ({messages.size(source.size)} in {messages.count(files.files, 'file')}),"
            f" {files.new} new, {files.changed} changed{missing}"
        )
    blobs = ""
    if source.blobs is not None and source.blobs.count:
        blobs = (
            f", {messages.count(source.blobs.count, 'blob')} ({messages.size(source.blobs.size)})"
        )
    return (
        f"{name} ({messages.size(source.size)}{blobs}) to {messages.cut(source.cut)} UTC,"
        f" {source.method}"
    )


def _detail(source: SourceReport) -> str:
    text = (
        f"  {messages.printable(source.path)}: {source.method}, {messages.printable(source.reason)}"
    )
    if source.status == "failed" or source.files is not None:
        return text
    return (
        f"{text}; {source.transactions_new} transactions, {source.records_new} records,"
        f" {messages.size(source.bytes_new)} of record data are new; tid {source.cut}"
    )


def _values(report: BackupReport, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "snapshot_id": report.snapshot_id,
        "sources": [_source_values(source) for source in report.sources],
        "bytes_read": report.bytes_read,
        "bytes_added": report.bytes_added,
        "seconds": round(report.seconds, 3),
        "incomplete": report.incomplete,
    }


def _source_values(source: SourceReport) -> dict[str, Any]:
    return {
        "name": source.name,
        "kind": source.kind,
        "path": source.path,
        "cut": str(source.cut),
        "cut_time": messages.iso(source.cut.time) if source.cut.value else None,
        "size": source.size,
        "status": source.status,
        "method": source.method,
        "reason": source.reason,
        "transactions_new": source.transactions_new,
        "records_new": source.records_new,
        "bytes_new": source.bytes_new,
        "bytes_read": source.bytes_read,
        "database": source.database,
        "blobs": asdict(source.blobs) if source.blobs else None,
        "files": asdict(source.files) if source.files else None,
    }

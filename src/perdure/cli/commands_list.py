"""Commands that list: snapshots, log."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.options import moment, reading_options, tags
from perdure.cli.session import Session, with_session
from perdure.model import Tid

if TYPE_CHECKING:
    from perdure.log import TransactionInfo
    from perdure.snapshots import SnapshotInfo, SourceInfo

_HEADS = ("id", "time (UTC)", "host", "tags", "source", "cut (UTC)", "size", "blobs")
_LOG = "{:16}  {:26}  {:>7}  {:>10}  {:16}  {}"


@click.command()
@click.option("--host", help="Only snapshots of this host.")
@tags("Only snapshots with all these tags.")
@click.option("--source", help="Only snapshots that have this source.")
@reading_options
@with_session
def snapshots(
    session: Session, host: str | None, tags: tuple[str, ...], source: str | None
) -> None:
    """List the snapshots, oldest first."""
    from perdure.snapshots import list_snapshots

    with session.reading() as repository:
        found = list_snapshots(repository, host=host, tags=tags, source=source)
    rows = [row for info in found for row in _rows(info)]
    session.output.table(_HEADS, rows, map(_snapshot_values, found), right=("size", "blobs"))


@click.command(short_help="List the transactions of a database.")
@click.argument("snapshot", default="latest")
@click.option("--source", help="Name of the source, where there are several.")
@moment("--since", help="Leave out what was committed before.")
@moment("--until", help="Leave out what was committed after.")
@reading_options
@with_session
def log(
    session: Session,
    snapshot: str,
    source: str | None,
    since: Tid | datetime | None,
    until: Tid | datetime | None,
) -> None:
    """List the transactions of a database, as SNAPSHOT (the beginning of its id, or latest) has them."""
    from perdure.log import read_log

    with session.reading() as repository:
        found = read_log(repository, snapshot, source=source, since=since, until=until)
        if session.output.json:
            session.output.array(map(_transaction_values, found))
        else:
            session.output.lines(
                _LOG.format("tid", "time (UTC)", "records", "bytes", "user", "description"),
                map(_transaction_line, found),
            )


def _rows(info: SnapshotInfo) -> list[tuple[str, ...]]:
    head = (
        info.id[:8],
        messages.time(info.time),
        messages.printable(info.hostname),
        messages.printable(",".join(info.tags)),
    )
    if not info.sources:
        return [(*head, messages.printable(", ".join(info.paths)), "-", "-", "-")]
    rows: list[tuple[str, ...]] = []
    for source in info.sources:
        rows.append(
            (
                *head,
                _name(source),
                messages.cut(source.cut),
                messages.size(source.size),
                "-" if source.blobs is None else str(source.blobs),
            )
        )
        head = ("", "", "", "")
    return rows


def _name(source: SourceInfo) -> str:
    name = messages.printable(source.name)
    if source.database and source.database != source.name:
        name = f"{messages.printable(source.database)}: {name}"
    return name if source.status == "complete" else f"{name} ({source.status})"


def _snapshot_values(info: SnapshotInfo) -> dict[str, Any]:
    return {
        "id": info.id,
        "short_id": info.id[:8],
        "time": messages.iso(info.time),
        "hostname": info.hostname,
        "username": info.username,
        "tags": list(info.tags),
        "program": info.program,
        "paths": list(info.paths),
        "sources": [_source_values(source) for source in info.sources],
    }


def _source_values(source: SourceInfo) -> dict[str, Any]:
    return {
        "name": source.name,
        "kind": source.kind,
        "path": source.path,
        "cut": None if source.cut is None else str(source.cut),
        "cut_time": None if source.cut is None else messages.iso(source.cut.time),
        "size": source.size,
        "status": source.status,
        "database": source.database,
        "blobs": source.blobs,
        "blob_bytes": source.blob_bytes,
        "files": source.files,
    }


def _transaction_line(info: TransactionInfo) -> str:
    user, description = messages.printable(info.user), messages.printable(info.description)
    time = f"{info.time:%Y-%m-%d %H:%M:%S.%f}"
    return _LOG.format(str(info.tid), time, info.records, info.size, user, description).rstrip()


def _transaction_values(info: TransactionInfo) -> dict[str, Any]:
    return {
        "tid": str(info.tid),
        "time": messages.iso(info.time),
        "status": info.status,
        "user": info.user.decode("utf-8", "backslashreplace"),
        "description": info.description.decode("utf-8", "backslashreplace"),
        "records": info.records,
        "bytes": info.size,
        "position": info.position,
    }

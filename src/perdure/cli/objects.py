"""What `perdure check --objects` says."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.output import Output
from perdure.cli.session import Session, now
from perdure.model import Observer, Tid

if TYPE_CHECKING:
    from perdure.check_objects import ObjectFinding, ObjectsReport
    from perdure.repository import Repository

_SHOWN = 20
"""Findings of one kind that are shown to people; --json gives more."""


def look_at_objects(
    session: Session,
    repository: Repository,
    snapshot: str | None,
    source: str | None,
    at: Tid | datetime | None,
    observer: Observer,
) -> list[ObjectsReport]:
    """Walk through the objects of a snapshot, and say what was found."""
    from perdure.check_objects import check_objects
    from perdure.restore_plan import LATEST, Wanted

    started = now()
    reports = check_objects(repository, Wanted(snapshot or LATEST, at, source), observer)
    for report in reports:
        for finding in report.findings:
            session.output.event("error", _finding_values(report, finding))
        _show(session.output, report)
        session.output.event("objects", _values(report))
    seconds = messages.seconds((now() - started).total_seconds())
    session.output.line(f"{sum(r.records for r in reports)} records looked at, {seconds}")
    return reports


def _show(output: Output, report: ObjectsReport) -> None:
    if output.json:
        return
    shown: dict[str, int] = {}
    for finding in report.findings:
        shown[finding.kind] = shown.get(finding.kind, 0) + 1
        if shown[finding.kind] <= _SHOWN:
            click.echo(messages.printable(f"error: {_spoken(finding)}"), err=True)
    for kind, count in report.counts.items():
        if count > _SHOWN:
            more = min(_SHOWN, shown.get(kind, 0))
            click.echo(f"error: {kind}: {count - more} more; --json names them", err=True)
    blobs = "" if report.blobs is None else f", {messages.count(report.blobs, 'blob')}"
    verdict = f"{sum(report.counts.values())} damaged" if report.damaged else "no damage"
    output.line(
        messages.printable(
            f"{report.source} at {messages.cut(report.cut)} UTC: {verdict}; {report.objects} objects,"
            f" {messages.count(report.records, 'record')}{blobs}"
        )
    )
    for note in _notes(report):
        output.line(f"  {messages.printable(note)}")


def _spoken(finding: ObjectFinding) -> str:
    return (
        f"{finding.kind}: object {finding.oid:#018x} ({finding.class_name}) of transaction"
        f" {finding.tid:016x}: {finding.what}"
    )


def _notes(report: ObjectsReport) -> Iterator[str]:
    """Say what is no damage, and still good to know."""
    if report.unreachable:
        yield f"{report.unreachable} objects are not in use any more: the next pack removes them"
    if report.missing_unreachable:
        yield f"{report.missing_unreachable} references of such objects lead nowhere"
    if report.missing_old:
        yield f"{report.missing_old} references of old revisions lead nowhere"
    if report.encrypted:
        yield f"{report.encrypted} records are encrypted, and were not looked into"
    if report.blobs is None:
        yield "its blobs are not in the snapshot, and were not looked at"
    for database, count in report.outside.items():
        yield f"{count} references into database {database!r}, which was not looked at"


def _values(report: ObjectsReport) -> dict[str, object]:
    return {
        "source": report.source,
        "snapshot_id": report.snapshot,
        "cut": str(report.cut),
        "damaged": report.damaged,
        "objects": report.objects,
        "records": report.records,
        "blobs": report.blobs,
        "unreachable": report.unreachable,
        "missing_unreachable": report.missing_unreachable,
        "missing_old": report.missing_old,
        "encrypted": report.encrypted,
        "outside": report.outside,
        "counts": report.counts,
    }


def _finding_values(report: ObjectsReport, finding: ObjectFinding) -> dict[str, object]:
    return {
        "source": report.source,
        "kind": finding.kind,
        "oid": f"{finding.oid:016x}",
        "tid": f"{finding.tid:016x}",
        "class": finding.class_name,
        "message": finding.what,
    }

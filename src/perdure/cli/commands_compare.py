"""Commands that compare and add up: diff, stats."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.options import reading_options, tags
from perdure.cli.output import Output
from perdure.cli.session import Session, with_session

if TYPE_CHECKING:
    from perdure.diff import ClassChange, DatabaseChange, Side
    from perdure.history.changes import FileChange
    from perdure.model import SnapshotId
    from perdure.stats import SnapshotCost, SourceCost, Stats

_SHOWN = 20
"""Classes that are shown to people, unless they want all."""
_SIGNS = {"added": "+", "removed": "-", "changed": "M"}


@click.command(short_help="Say what differs between two snapshots.")
@click.argument("first", metavar="FIRST")
@click.argument("second", metavar="[SECOND]", default="latest")
@click.option("--source", help="Only this source, by its name or its database's.")
@click.option("--all", "everything", is_flag=True, help=f"All classes, not only {_SHOWN}.")
@reading_options
@with_session
def diff(session: Session, first: str, second: str, source: str | None, everything: bool) -> None:
    """Say what came and went from FIRST to SECOND: snapshots (beginnings of ids, or latest) or moments.

    A moment is a time (UTC unless it has an offset) or a transaction id. Of each database: its
    transactions, its objects by their classes with their bytes before and after, and its blobs. Of what
    another program backed up: the files that came (+), went (-) or changed (M).
    """
    from perdure.diff import diff as compare

    with session.reading() as repository, session.output.observer() as observer:
        found = compare(repository, first, second, source, observer)
        for database in found.databases:
            _show(session.output, database, everything=everything)
        files = 0
        for change in found.files:
            files += 1
            _show_file(session.output, change)
    if not (found.databases or files):
        session.output.line("nothing differs")
    session.output.event("summary", {"databases": len(found.databases), "files": files})


def _show(output: Output, change: DatabaseChange, *, everything: bool) -> None:
    output.event("database", _values(change))
    if output.json:
        return
    click.echo(messages.printable(_title(change)))
    for what, text in _lines(change):
        click.echo(f"  {what:13} {text}")
    shown = change.classes if everything else change.classes[:_SHOWN]
    rows = [_row(each) for each in shown]
    if rows:
        output.table(_HEADS, rows, (), right=_HEADS[:-1])
    if len(shown) < len(change.classes):
        click.echo(f"  {len(change.classes) - len(shown)} more classes: --all shows them")


_HEADS = ("added", "removed", "changed", "bytes before", "after", "class")


def _row(each: ClassChange) -> tuple[str, ...]:
    numbers = (each.added, each.removed, each.changed, each.before, each.after)
    return (*map(str, numbers), messages.printable(each.class_name))


def _title(change: DatabaseChange) -> str:
    name = f"{change.database}: {change.name}" if change.database else change.name
    if change.before is None:
        return f"{name}: only in the second snapshot"
    if change.after is None:
        return f"{name}: only in the first snapshot"
    cuts = f"{messages.cut(change.before.cut)} to {messages.cut(change.after.cut)} UTC"
    return f"{name}: {cuts}{', packed in between' if change.packed else ''}"


def _lines(change: DatabaseChange) -> list[tuple[str, str]]:
    sizes = " to ".join(
        messages.size(side.size) for side in (change.before, change.after) if side is not None
    )
    come = _blobs(change.blobs_added, change.blobs_added_bytes)
    gone = _blobs(change.blobs_removed, change.blobs_removed_bytes)
    return [
        ("size", sizes),
        ("transactions", f"+{change.transactions_added} -{change.transactions_removed}"),
        (
            "objects",
            f"+{change.objects_added} -{change.objects_removed}, {change.objects_changed} changed",
        ),
        ("blobs", f"+{come} -{gone}"),
    ]


def _blobs(count: int, size: int) -> str:
    return f"{count} ({messages.size(size)})" if count else "0"


def _show_file(output: Output, change: FileChange) -> None:
    if output.json:
        values = {
            "path": change.path,
            "change": change.change,
            "size_before": change.before,
            "size_after": change.after,
        }
        output.event("file", values)
        return
    sizes = " to ".join(messages.size(s) for s in (change.before, change.after) if s is not None)
    click.echo(f"{_SIGNS[change.change]}  {messages.printable(change.path)} ({sizes})")


def _values(change: DatabaseChange) -> dict[str, object]:
    return {
        "name": change.name,
        "database": change.database,
        "before": _side_values(change.before),
        "after": _side_values(change.after),
        "packed": change.packed,
        "transactions_added": change.transactions_added,
        "transactions_removed": change.transactions_removed,
        "objects_added": change.objects_added,
        "objects_removed": change.objects_removed,
        "objects_changed": change.objects_changed,
        "blobs_added": change.blobs_added,
        "blobs_added_bytes": change.blobs_added_bytes,
        "blobs_removed": change.blobs_removed,
        "blobs_removed_bytes": change.blobs_removed_bytes,
        "classes": [
            {
                "class": each.class_name,
                "added": each.added,
                "removed": each.removed,
                "changed": each.changed,
                "bytes_before": each.before,
                "bytes_after": each.after,
            }
            for each in change.classes
        ],
    }


def _side_values(side: Side | None) -> dict[str, object] | None:
    if side is None:
        return None
    return {
        "snapshot_id": side.snapshot,
        "cut": str(side.cut),
        "cut_time": messages.iso(side.cut.time) if side.cut.value else None,
        "size": side.size,
    }


@click.command(short_help="Say what snapshots and sources cost, and how the repository grows.")
@click.option("--host", help="List only snapshots of this host.")
@tags("List only snapshots with all these tags.")
@click.option("--source", help="List only this source, and snapshots that have it.")
@reading_options
@with_session
def stats(session: Session, host: str | None, tags: tuple[str, ...], source: str | None) -> None:
    """Say what each snapshot and each source costs, and how the repository grows day by day.

    "added" is what a snapshot brought that no earlier one had; "alone" is what only it needs, so what
    forgetting it would free. What is stored counts compressed. --host, --tag and --source choose what is
    listed; the numbers themselves take all snapshots into account.
    """
    from perdure.selection import Selection, selected
    from perdure.stats import stats as add_up

    with session.reading() as repository, session.output.observer() as observer:
        shown = {name for name, _ in selected(repository, Selection((), host, tags, source))}
        found = add_up(repository, observer)
    _show_stats(session.output, found, shown, source)


def _show_stats(output: Output, found: Stats, shown: set[SnapshotId], source: str | None) -> None:
    snapshots = [each for each in found.snapshots if each.id in shown]
    names = {name for each in snapshots for name in each.sources}
    sources = [
        each
        for each in found.sources
        if each.name in names and source in (None, each.name, each.database)
    ]
    if output.json:
        _print_stats(output, found, snapshots, sources)
        return
    rows = [
        (
            each.id[:8],
            messages.time(each.time),
            messages.printable(each.hostname),
            *map(messages.size, (each.restored, each.added, each.alone)),
        )
        for each in snapshots
    ]
    output.table(
        ("snapshot", "time (UTC)", "host", "gives back", "added", "alone"),
        rows,
        (),
        right=("gives back", "added", "alone"),
    )
    click.echo()
    output.table(
        ("source", "snapshots", "newest", "stored"),
        [
            (
                messages.printable(each.name),
                str(each.snapshots),
                messages.size(each.restored),
                messages.size(each.stored),
            )
            for each in sources
        ],
        (),
        right=("snapshots", "newest", "stored"),
    )
    click.echo()
    output.table(
        ("day (UTC)", "snapshots", "added", "gives back"),
        [
            (
                each.day.isoformat(),
                str(each.snapshots),
                messages.size(each.added),
                messages.size(each.restored),
            )
            for each in found.days
        ],
        (),
        right=("snapshots", "added", "gives back"),
    )
    click.echo()
    for line in _totals(found):
        click.echo(line)


def _totals(found: Stats) -> list[str]:
    saved = found.restored / found.stored if found.stored else 1.0
    count = messages.count(len(found.snapshots), "snapshot")
    restored, stored = messages.size(found.restored), messages.size(found.stored)
    lines = [
        f"{count} give back {restored}; {stored} are stored for that ({saved:.1f} : 1)",
        f"deduplication {found.deduplication:.1f} : 1, compression {found.compression:.1f} : 1",
    ]
    if found.unneeded:
        lines.append(f"{messages.size(found.unneeded)} are not needed: perdure prune frees them")
    return lines


def _print_stats(
    output: Output, found: Stats, snapshots: list[SnapshotCost], sources: list[SourceCost]
) -> None:
    values = {
        "snapshots": [
            {
                "id": each.id,
                "time": messages.iso(each.time),
                "hostname": each.hostname,
                "sources": list(each.sources),
                "restored": each.restored,
                "added": each.added,
                "alone": each.alone,
            }
            for each in snapshots
        ],
        "sources": [
            {
                "name": each.name,
                "database": each.database,
                "snapshots": each.snapshots,
                "restored": each.restored,
                "stored": each.stored,
            }
            for each in sources
        ],
        "days": [
            {
                "day": each.day.isoformat(),
                "snapshots": each.snapshots,
                "added": each.added,
                "restored": each.restored,
            }
            for each in found.days
        ],
        "restored": found.restored,
        "content": found.content,
        "stored": found.stored,
        "unneeded": found.unneeded,
        "compression": round(found.compression, 3),
        "deduplication": round(found.deduplication, 3),
    }
    output.event("summary", values)

"""Commands that look inside snapshots, and try them: ls, dump, drill."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.options import moment, reading_options, tags
from perdure.cli.session import Session, now, with_session
from perdure.errors import DamageFound, UsageError
from perdure.model import Tid

if TYPE_CHECKING:
    from perdure.cli.output import Output
    from perdure.contents import Entry
    from perdure.drill import Drilled, DrillReport

_LINE = "{:>15}  {:19}  {}"
_STORED = "As the repository keeps it, as restic sees it; not as a restore gives it."


@click.command(short_help="List the files of a snapshot.")
@click.argument("snapshot", default="latest")
@click.argument("path", default="")
@click.option("--recursive", "-R", is_flag=True, help="Also what is in the folders.")
@click.option("--stored", is_flag=True, help=_STORED)
@click.option("--source", help="Only this source, by its name or its database's.")
@moment("--at", help="As it was at this time (UTC unless it has an offset) or transaction.")
@click.option("--host", help="Only snapshots of this host.")
@tags("Only snapshots with all these tags.")
@reading_options
@with_session
def ls(
    session: Session,
    snapshot: str,
    path: str,
    recursive: bool,
    stored: bool,
    source: str | None,
    at: Tid | datetime | None,
    host: str | None,
    tags: tuple[str, ...],
) -> None:
    """List what SNAPSHOT (the beginning of its id, or latest) holds, all or below PATH.

    The names are those that `perdure restore --to` gives: databases, and blob directories with their
    files. What another program backed up is listed as it is.
    """
    from perdure.contents import contents_of
    from perdure.restore_plan import Wanted

    with session.reading() as repository:
        contents = contents_of(repository, Wanted(snapshot, at, source, host, tags), stored=stored)
        entries = contents.list(path.strip("/"), recursive=recursive)
        entries = chain(_first(entries), entries)  # an error comes before the head
        if session.output.json:
            session.output.array(map(_entry_values, entries))
        else:
            session.output.lines(_LINE.format("size", "time (UTC)", "path"), map(_line, entries))


@click.command(short_help="Give one file of a snapshot.")
@click.argument("snapshot")
@click.argument("path")
@click.option("--output", "-o", type=click.Path(path_type=Path), help="Write this file.")
@click.option("--force", is_flag=True, help="Replace the file if it exists.")
@click.option("--stored", is_flag=True, help=_STORED)
@click.option("--source", help="Of this source, by its name or its database's.")
@moment("--at", help="As it was at this time (UTC unless it has an offset) or transaction.")
@click.option("--host", help="Only snapshots of this host.")
@tags("Only snapshots with all these tags.")
@reading_options
@with_session
def dump(
    session: Session,
    snapshot: str,
    path: str,
    output: Path | None,
    force: bool,
    stored: bool,
    source: str | None,
    at: Tid | datetime | None,
    host: str | None,
    tags: tuple[str, ...],
) -> None:
    """Give the file PATH of SNAPSHOT (the beginning of its id, or latest), named as perdure ls names it.

    It goes to standard output, or into a file with --output. A Data.fs is put together on the way, up
    to --at if that is given. What is given is verified before; still, if something behind it turns out to
    be damaged, what was written to standard output stays without its end: look at the exit code.
    """
    from perdure.contents import contents_of
    from perdure.dump import dump_to_file
    from perdure.restore_plan import Wanted

    if output is None and (session.output.json or sys.stdout.isatty()):
        why = "not be mixed with JSON" if session.output.json else "not go to a terminal"
        raise UsageError(f"the content of a file should {why}", hint="write it to a file: --output")
    started = now()
    with session.reading() as repository, session.output.observer() as observer:
        contents = contents_of(repository, Wanted(snapshot, at, source, host, tags), stored=stored)
        parts = contents.read(path.strip("/"), observer)
        if output is None:
            _write_out(parts)
            return
        size = dump_to_file(parts, output.absolute(), force=force)
    seconds = (now() - started).total_seconds()
    session.output.line(f"wrote {output} ({messages.size(size)}), {messages.seconds(seconds)}")
    values = {"path": path, "output": str(output), "size": size, "seconds": round(seconds, 3)}
    session.output.event("summary", values)


def _write_out(parts: Iterable[bytes]) -> None:
    for part in parts:
        sys.stdout.buffer.write(part)
    sys.stdout.buffer.flush()


def _first(entries: Iterator[Entry]) -> list[Entry]:
    first = next(entries, None)
    return [] if first is None else [first]


def _line(entry: Entry) -> str:
    time = messages.time(entry.time) if entry.time else "-"
    target = f" -> {entry.target}" if entry.target else ""
    slash = "/" if entry.kind == "dir" else ""
    size = "-" if entry.kind != "file" else str(entry.size)
    return _LINE.format(size, time, messages.printable(f"{entry.path}{slash}{target}"))


def _entry_values(entry: Entry) -> dict[str, object]:
    values: dict[str, object] = {
        "path": entry.path,
        "type": entry.kind,
        "size": entry.size,
        "time": messages.iso(entry.time) if entry.time else None,
    }
    if entry.mode is not None:
        values["mode"] = f"{entry.mode:04o}"
    if entry.target:
        values["target"] = entry.target
    return values


@click.command(short_help="Rehearse a restore, and say whether it would do.")
@click.argument("snapshot", default="latest")
@click.option("--source", help="Only this source, by its name or its database's.")
@moment(
    "--at",
    help="Rehearse with the state at this time (UTC unless it has an offset) or transaction.",
)
@click.option("--host", help="Only snapshots of this host.")
@tags("Only snapshots with all these tags.")
@click.option(
    "--scratch",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Restore below this folder; without it, where temporary files are.",
)
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    default=1000,
    show_default=True,
    help="Load so many objects of each database, chosen at random.",
)
@click.option(
    "--python",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="Make the objects with the code of the site, by its Python (such as bin/zopepy).",
)
@reading_options
@with_session
def drill(
    session: Session,
    snapshot: str,
    source: str | None,
    at: Tid | datetime | None,
    host: str | None,
    tags: tuple[str, ...],
    scratch: Path | None,
    sample: int,
    python: Path | None,
) -> None:
    """Rehearse a restore of SNAPSHOT (the beginning of its id, or latest): would it do in earnest?

    Everything is restored into a scratch folder and compared with the snapshot again, then a process of
    its own opens the databases with ZODB and loads the root, a sample of the objects and their blobs.
    Nothing is unpickled, unless --python names the Python of the site: then the objects are made by the
    site's own code. It says how long that took and how old the data is, and cleans up. Exit code 0: the
    restore would do; 13: it would not.
    """
    from tempfile import gettempdir

    from perdure.drill import FAILED, DrillRequest
    from perdure.drill import drill as rehearse
    from perdure.restore_plan import Wanted

    request = DrillRequest(
        Wanted(snapshot, at, source, host, tags),
        (scratch or Path(gettempdir())).absolute(),
        sample,
        python.absolute() if python else None,
    )
    with session.reading() as repository, session.output.observer() as observer:
        report = rehearse(repository, request, now, observer)
    _show_drill(session.output, report)
    if report.verdict == FAILED:
        raise DamageFound(
            f"the drill with snapshot {report.snapshot[:8]} failed",
            hint="perdure check --read-data says whether the repository is damaged, perdure check --objects"
            " whether the database is; perdure drill with an earlier snapshot, what can be had instead",
        )


def _show_drill(output: Output, report: DrillReport) -> None:
    seconds = report.seconds
    if not output.json:
        for failure in report.failures:
            click.echo(messages.printable(f"error: {failure}"), err=True)
        for each in report.sources:
            for failure in each.failures:
                click.echo(messages.printable(f"error: {each.restored.name}: {failure}"), err=True)
    for each in report.sources:
        output.line(messages.printable(_drilled(each)))
    took = ", ".join(f"{step} {messages.seconds(value)}" for step, value in seconds.items())
    age = "no data" if report.data_age is None else f"data {_age(report.data_age)} old"
    output.line(
        f"drill {report.verdict}: snapshot {report.snapshot[:8]}, {_age(report.snapshot_age)} old,"
        f" {age}; {messages.size(report.size)}; {took}"
    )
    output.event(
        "summary",
        {
            "verdict": report.verdict,
            "snapshot_id": report.snapshot,
            "snapshot_age_seconds": round(report.snapshot_age.total_seconds(), 3),
            "data_age_seconds": None
            if report.data_age is None
            else round(report.data_age.total_seconds(), 3),
            "size": report.size,
            "seconds": {step: round(value, 3) for step, value in seconds.items()},
            "failures": report.failures,
            "sources": [_drilled_values(each) for each in report.sources],
        },
    )


def _age(age: timedelta) -> str:
    return messages.seconds(max(age.total_seconds(), 0))


def _drilled(each: Drilled) -> str:
    restored = each.restored
    if restored.tree is not None:
        files = messages.count(restored.tree.files, "file")
        size = messages.size(restored.size)
        return f"{restored.name} at {messages.cut(restored.cut)} UTC: {size} in {files}"
    blobs = ""
    if restored.blobs is not None:
        blobs = f", {messages.count(restored.blobs.count, 'blob')}"
    loaded = f"{each.loaded} of {messages.count(each.objects, 'object')} loaded"
    unknown = ""
    if each.unknown:
        unknown = f"; classes that cannot be imported: {', '.join(sorted(each.unknown)[:5])}"
    return (
        f"{restored.database or restored.name} at {messages.cut(restored.cut)} UTC:"
        f" {messages.size(restored.size)}{blobs}; root is {each.root or 'not there'}; {loaded}{unknown}"
    )


def _drilled_values(each: Drilled) -> dict[str, object]:
    restored, blobs = each.restored, each.restored.blobs
    return {
        "name": restored.name,
        "database": restored.database,
        "cut": str(restored.cut) if restored.cut.value else None,
        "cut_time": messages.iso(restored.cut.time) if restored.cut.value else None,
        "size": restored.size,
        "files": restored.tree.files if restored.tree else None,
        "blobs": blobs.count if blobs else None,
        "blob_bytes": blobs.size if blobs else 0,
        "objects": each.objects,
        "loaded": each.loaded,
        "root": each.root,
        "blobs_opened": each.blobs_opened,
        "unknown_classes": each.unknown,
        "failures": each.failures,
    }

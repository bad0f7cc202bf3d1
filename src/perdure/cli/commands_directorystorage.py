"""Commands about DirectoryStorages: those of the older tools, and what they lacked."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.options import output_options
from perdure.cli.output import Output
from perdure.cli.session import Session, now, with_session
from perdure.dropin.directorystorage.command import backup, home_at, snapshot
from perdure.errors import DamageFound
from perdure.model import Tid, parse_moment

if TYPE_CHECKING:
    from perdure.dropin.directorystorage.convert import ConvertReport
    from perdure.dropin.directorystorage.verify import Finding
    from perdure.model import Observer

_PATH = click.Path(path_type=Path)
_MOST_NAMED = 5


@click.group(short_help="Back up, restore and verify DirectoryStorages.")
def directorystorage() -> None:
    """Do what DirectoryStorage's backup and snapshot tools did, on the same files, and what they lacked."""


directorystorage.add_command(backup)
directorystorage.add_command(snapshot)


@directorystorage.command(short_help="Make a HOME from archives.")
@click.argument("folder", metavar="BACKUPS", type=_PATH)
@click.argument("target", metavar="TARGET", type=_PATH)
@click.option("--number", type=int, metavar="N", help="Restore backup N; otherwise the last one.")
@click.option(
    "--to", "moment", type=parse_moment, metavar="TIME|TID", help="Restore what there was then."
)
@click.option("--prefix", "prefixes", multiple=True, help="Use only archives of this prefix.")
@click.option("--without", multiple=True, metavar="NAME", help="Do without this archive.")
@click.option(
    "--format", "layout", type=click.Choice(["bushy", "chunky", "lawn", "flat"]),
    help="Make a HOME of this format.",
)  # fmt: skip
@click.option("--config", type=_PATH, help="The config folder, for archives that lack it.")
@click.option(
    "--new-identity", is_flag=True, help="For a copy that is to live beside the original."
)
@click.option(
    "--dry-run", "-n", is_flag=True, help="Only say which archives would be used, and why."
)
@output_options
@with_session
def restore(session: Session, /, dry_run: bool, new_identity: bool, **given: Any) -> None:
    """Make a HOME at TARGET from the archives in the folder BACKUPS.

    TARGET must be empty, or not be there. The archives are chosen so that there is no gap; each file is
    verified before it is written, and all of it together before it gets its name.
    """
    import secrets

    from perdure.dropin.directorystorage.restore import RestoreRequest, plan_restore
    from perdure.dropin.directorystorage.restore import restore as bring_back

    moment = given.pop("moment")
    request = RestoreRequest(
        **given,
        moment=moment if moment is None or isinstance(moment, Tid) else Tid.at(moment),
        identity=secrets.token_hex(16).encode() if new_identity else None,
    )
    output = session.output
    if dry_run:
        chain = plan_restore(request)
        lines = zip(chain.archives, chain.reasons, strict=True)
        for name, reason in lines:
            output.line(f"{name}: {reason}")
        output.event(
            "plan", {"archives": [str(name) for name in chain.archives], "reasons": chain.reasons}
        )
        return
    with output.observer() as observer:
        report = bring_back(request, observer)
    verdict = report.verdict
    output.line(
        f"{request.target} holds what was committed up to {messages.cut(report.serial)}"
        f" ({report.serial}), from {', '.join(map(str, report.chain.archives))}:"
        f" {messages.count(verdict.transactions, 'transaction')},"
        f" {messages.count(verdict.objects, 'object')}; verified"
    )
    values = {
        "target": str(request.target),
        "archives": [str(name) for name in report.chain.archives],
        "tid": str(report.serial),
        "transactions": verdict.transactions,
        "revisions": verdict.revisions,
        "objects": verdict.objects,
    }
    output.event("summary", values)


@directorystorage.command(short_help="Verify a HOME, or a folder of archives.")
@click.argument("path", metavar="HOME|BACKUPS", type=_PATH)
@output_options
@with_session
def verify(session: Session, path: Path) -> None:
    """Verify a storage, also while it is in use, or the archives of one; nothing is changed.

    Of a storage: every file by itself, the history from its last transaction, all references from the
    root, locks and owners, and what keeps it from starting. Of archives: every byte, the index, and which
    backups can be restored. Exit code 13 means that there are errors.
    """
    from perdure.dropin.directorystorage.verify import verify_home
    from perdure.dropin.directorystorage.verify_archives import verify_archives
    from perdure.sources.directorystorage.home import SETTINGS, Home

    output = session.output
    values: Mapping[str, object]
    with output.observer() as observer:
        if (path / SETTINGS).exists():
            seen = verify_home(Home(path), observer)
            text = (
                f"{messages.count(seen.transactions, 'transaction')},"
                f" {messages.count(seen.objects, 'object')} ({seen.reachable} of them reachable),"
                f" {messages.count(seen.revisions, 'revision')}"
            )
            values = {"transactions": seen.transactions, "objects": seen.objects, "revisions": seen.revisions,
                      "reachable": seen.reachable}  # fmt: skip
            findings, damaged = seen.findings, seen.damaged
        else:
            read = verify_archives(path, observer)
            numbers = ", ".join(map(str, read.restorable)) or "none"
            text = f"{messages.count(read.archives, 'archive')}; backups that can be restored: {numbers}"
            values = {"archives": read.archives, "restorable": read.restorable}
            findings, damaged = read.findings, read.damaged
    _show_findings(output, findings)
    output.line(f"{'there are errors' if damaged else 'no errors'}: {text}")
    output.event("summary", {"damaged": damaged, **values})
    if damaged:
        raise DamageFound(f"{path} is damaged")


@directorystorage.command(short_help="Make a FileStorage of a HOME.")
@click.argument("home", metavar="HOME", type=_PATH)
@click.argument("target", metavar="DATA.FS", type=_PATH)
@click.option("--force", is_flag=True, help="Replace DATA.FS if it exists.")
@output_options
@with_session
def convert(session: Session, home: Path, target: Path, force: bool) -> None:
    """Make a FileStorage with all that a DirectoryStorage holds: revisions, users, texts, undone creations.

    HOME is only read, and may be in use. A transaction of which only revisions are left gets a description
    that says so. The file begins with FS21 where the pickles are Python 2's: Zope on Python 2 opens it, and
    zodbupdate makes of it what ZODB on Python 3 opens.
    """
    from perdure.dropin.directorystorage.convert import convert as make

    started = now()
    with session.output.observer() as observer:
        report = make(home, target, force=force, observer=observer)
        _warn_of_lost(observer, report)
    seconds = (now() - started).total_seconds()
    session.output.line(
        f"made {messages.printable(str(target))} ({messages.size(report.size)}) to"
        f" {messages.cut(report.cut)} UTC (tid {report.cut}):"
        f" {messages.count(report.transactions, 'transaction')},"
        f" {messages.count(report.records, 'record')}, {messages.seconds(seconds)}"
    )
    if report.python_2:
        session.output.line(
            "  its pickles are Python 2's; on with: zodbupdate --convert-py3 --encoding utf-8"
            f" --encoding-fallback latin1 --file {messages.printable(shlex.quote(str(target)))}"
        )
    values = {
        "file": str(report.file),
        "size": report.size,
        "cut": str(report.cut) if report.cut.value else None,
        "transactions": report.transactions,
        "records": report.records,
        "last_packed": str(report.last_packed) if report.last_packed.value else None,
        "without_file": [str(tid) for tid in report.without_file],
        "python_2": report.python_2,
        "seconds": round(seconds, 3),
    }
    session.output.event("summary", values)


@directorystorage.command(short_help="Copy everything of a storage that crashed.")
@click.argument("home", metavar="HOME", type=_PATH)
@click.argument("archive", metavar="ARCHIVE", type=_PATH)
@output_options
@with_session
def wreckage(session: Session, home: Path, archive: Path) -> None:
    """Write everything in HOME, B and the journal included, into a new ARCHIVE (.tgz).

    For a storage that is shut down in an incoherent state; refused while somebody has it open.
    HOME/backups is left out. Unpacked into an empty folder, it is a HOME that the storage rolls forward
    when it starts.
    """
    from perdure.dropin.directorystorage.wreckage import copy_wreckage

    with session.output.observer() as observer:
        count = copy_wreckage(home_at(home), archive, observer)
    session.output.line(
        f"{archive} holds {messages.count(count, 'file or folder', 'files and folders')}"
    )
    session.output.event("summary", {"archive": str(archive), "members": count})


@directorystorage.command(short_help="Say in which state a storage is.")
@click.argument("home", metavar="HOME", type=_PATH)
@output_options
@with_session
def state(session: Session, home: Path) -> None:
    """Say in which state a storage is, and what can be done about it."""
    from perdure.dropin.directorystorage.states import look

    sight = look(home_at(home))
    session.output.line(f"{sight.state.value}: {sight.describe()}")
    if sight.advice:
        session.output.line(f"  hint: {sight.advice}")
    values = {
        "state": sight.state.value,
        "code": sight.code,
        "since": sight.since,
        "advice": sight.advice,
    }
    session.output.event("state", values)


@directorystorage.command(short_help="Leave a snapshot mode that a dead program entered.")
@click.argument("home", metavar="HOME", type=_PATH)
@click.option("--snapshot-conf", type=_PATH, help="Instead of HOME/config/snapshot.conf.")
@output_options
@with_session
def leave(session: Session, home: Path, snapshot_conf: Path | None) -> None:
    """Leave a snapshot mode that a program entered which is no more.

    Refused while that program still holds the sublock.
    """
    from perdure.dropin.directorystorage.holding import leave_foreign, methods_of, read_conf

    opened = home_at(home)
    conf, folder = read_conf(opened.path, snapshot_conf)
    code = leave_foreign(opened, methods_of(conf.methods, opened, folder))
    session.output.line(f"{home} has left the snapshot mode {code}")
    session.output.event("left", {"code": code})


def _show_findings(output: Output, findings: Sequence[Finding]) -> None:
    for finding in findings:
        if output.json:
            output.event(finding.severity, {"message": finding.what})
        elif finding.severity != "note" or not output.quiet:
            sys.stderr.write(f"{finding.severity}: {messages.printable(finding.what)}\n")


def _warn_of_lost(observer: Observer, report: ConvertReport) -> None:
    """Say of which transactions only revisions are left."""
    lost = report.without_file
    if not lost:
        return
    named = ", ".join(map(str, lost[:_MOST_NAMED]))
    more = f" and {len(lost) - _MOST_NAMED} more" if len(lost) > _MOST_NAMED else ""
    observer.warning(
        f"of {messages.count(len(lost), 'transaction')} only revisions are left: who made them and why is"
        f" not known ({named}{more})"
    )

"""The command lines of DirectoryStorage's backup and snapshot tools, which end with 0 or 1."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.options import output_options
from perdure.cli.output import Output
from perdure.cli.session import Session, with_session
from perdure.errors import PerdureError, UsageError

if TYPE_CHECKING:
    from perdure.dropin.directorystorage.backup import Report, Request
    from perdure.dropin.directorystorage.holding import Still
    from perdure.sources.directorystorage.home import Home

_PATH = click.Path(path_type=Path)
_SIGNALLED = 128


class ToolFailed(PerdureError):
    """What the older tools end with, whatever the matter is."""

    exit_code = 1


class _OldTool(click.Command):
    """A command that ends with 0 or 1, wrong usage included, and whose own words follow its options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.allow_interspersed_args = False

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        try:
            return super().make_context(*args, **kwargs)
        except click.UsageError as error:
            error.exit_code = 1  # type: ignore[misc] # 2 for other commands
            raise

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except PerdureError as error:
            raise ToolFailed(str(error), hint=error.hint) from error


_holding_options: tuple[Callable[[Any], Any], ...] = (
    click.option("-t", "--retry", "retry", type=float, default=0, metavar="SECONDS", help="Try for so long."),
    click.option(
        "-s", "--sleep", "interval", type=float, default=10, metavar="SECONDS",
        help="Wait so long between two tries; 10.",
    ),
    click.option("--snapshot-conf", type=_PATH, help="Instead of HOME/config/snapshot.conf."),
)  # fmt: skip


def _with_holding(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in reversed(_holding_options):
        command = option(command)
    return command


@click.command(cls=_OldTool, short_help="Make archives in HOME/backups.")
@click.option("--storage", type=_PATH, metavar="HOME", help="The storage; [SNAPSHOT_DIRECTORY].")
@_with_holding
@click.option("--live", is_flag=True, help="Ask nobody: read what is committed beside the storage.")
@click.option("--dry-run", "-n", is_flag=True, help="Only say what would be made.")
@output_options
@click.argument("commands", nargs=-1, metavar="[prefix P] full|inc TIME...")
@with_session
def backup(
    session: Session,
    storage: Path | None,
    retry: float,
    interval: float,
    snapshot_conf: Path | None,
    live: bool,
    dry_run: bool,
    commands: tuple[str, ...],
) -> None:
    """Make archives in HOME/backups: full ones, or increments on what there was at TIME.

    \b
    full        everything: PREFIX-N.tgz
    inc TIME    what was committed since the last backup before TIME: PREFIX-M-to-N.tgz
    prefix P    how the archives that follow are called; "backup" otherwise

    TIME is in seconds since 1970, or what GNU date understands: "36 hours ago". The storage is held still
    meanwhile as HOME/config/snapshot.conf says, unless the snapshot tool around this does it already.
    Exit code 0 means that all was done that could be, also when there was nothing new; 1 anything else.
    """
    from perdure.dropin.directorystorage.backup import backup as make

    requests = _requests(commands)
    home = home_at(storage)
    patience = (retry, interval)
    with session.output.observer() as observer, ExitStack() as stack:
        held = stack.enter_context(_held(home, snapshot_conf, patience, observer, live=live))
        timestamp = held.timestamp if held else int(time.time())
        report = make(home, requests, timestamp, observer, live=held is None, dry_run=dry_run)
    _show_backup(session.output, report, dry_run=dry_run)
    if report.damage:
        raise ToolFailed(
            f"the archives are made, and hold what the storage has; but it is damaged: {report.damage[0]}"
            f" ({messages.count(len(report.damage), 'finding')})",
            hint=f"perdure directorystorage verify {home.path} lists all of it",
        )


@click.command(cls=_OldTool, short_help="Run a command while a storage is held still.")
@click.option("--storage", type=_PATH, metavar="HOME", help="The storage.")
@_with_holding
@click.option(
    "--live", is_flag=True, help="Ask nobody: let the command work on a copy of what is committed."
)
@output_options
@click.argument("command", nargs=-1, metavar="[HOME CONF] COMMAND...", type=click.UNPROCESSED)
@with_session
def snapshot(
    session: Session,
    storage: Path | None,
    retry: float,
    interval: float,
    snapshot_conf: Path | None,
    live: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND while a storage is held still, so that it may copy HOME/A and HOME/config.

    Without --storage the first words are HOME and the snapshot.conf to use, - for
    HOME/config/snapshot.conf. COMMAND finds SNAPSHOT_DIRECTORY, SNAPSHOT_TIMESTAMP and SNAPSHOT_VERSION
    in its environment; with --live the directory is a copy, made in $TMPDIR and removed afterwards. The
    exit code is COMMAND's, or 1 when it was not run.
    """
    import tempfile

    from perdure.dropin.directorystorage.living_copy import living_copy

    if storage is None:
        if len(command) < 2:
            raise UsageError(
                "give --storage HOME, or HOME and CONF (- for its own) before the command"
            )
        storage, conf, *rest = Path(command[0]), command[1], *command[2:]
        snapshot_conf = snapshot_conf or (None if conf == "-" else Path(conf))
        command = tuple(rest)
    home = home_at(storage)
    with session.output.observer() as observer, ExitStack() as stack:
        still = stack.enter_context(
            _held(home, snapshot_conf, (retry, interval), observer, live=live)
        )
        if still is None:
            folder = Path(tempfile.gettempdir())
            still = stack.enter_context(living_copy(home, folder, int(time.time()), observer))
        session.output.detail(f"{still.home.path} is held still")
        code = _run(command, still) if command else 0
    if code:
        click.get_current_context().exit(code)


def _requests(commands: Sequence[str]) -> list[Request]:
    """Read "prefix P", "full" and "inc TIME", from left to right. Raises UsageError."""
    from perdure.dropin.directorystorage.backup import Request
    from perdure.dropin.directorystorage.dates import seconds_of
    from perdure.formats.directorystorage_archive import DEFAULT_PREFIX, check_prefix

    prefix, requests, words = DEFAULT_PREFIX, [], iter(commands)
    for word in words:
        argument = next(words, None) if word in ("prefix", "inc") else ""
        if argument is None:
            raise UsageError(f"{word} needs something behind it")
        if word == "prefix":
            prefix = check_prefix(argument)
        elif word == "full":
            requests.append(Request(prefix))
        elif word == "inc":
            requests.append(Request(prefix, seconds_of(argument)))
        else:
            raise UsageError(f"{word!r} is none of: full, inc TIME, prefix P")
    if not requests:
        raise UsageError("nothing is asked for", hint='for example: full, or inc "36 hours ago"')
    return requests


def home_at(path: Path | None) -> Home:
    """Open a HOME that is named, or that a program around this one holds still.

    Raises UsageError, SourceUnusable.
    """
    from perdure.sources.directorystorage.home import Home

    given = path or os.environ.get("SNAPSHOT_DIRECTORY")
    if given is None:
        raise UsageError("no storage is named", hint="give it with --storage HOME")
    return Home(Path(given))


@contextmanager
def _held(
    home: Home, file: Path | None, patience: tuple[float, float], observer: Any, *, live: bool
) -> Iterator[Still | None]:
    """Hold a storage still, or find it held; None: it is to be read while it lives."""
    import socket

    from perdure.dropin.directorystorage.holding import (
        Patience,
        held_outside,
        hold,
        methods_of,
        read_conf,
    )
    from perdure.formats.snapshot_conf import Live

    with ExitStack() as stack:
        still = None
        if not live:
            still = held_outside(home, os.environ, time.time)
        if not live and still is None:
            conf, folder = read_conf(home.path, file)
            for complaint in conf.complaints:
                observer.warning(complaint)
            before = tuple(takewhile(lambda method: method != Live(), conf.methods))
            methods = methods_of(before, home, folder)
            code = f"{socket.gethostname()}-{os.getpid()}"
            holding = hold(home, methods, code, time.time, Patience(*patience), observer)
            try:
                still = stack.enter_context(holding)
            except PerdureError as error:
                if Live() not in conf.methods:
                    raise
                observer.warning(f"{error}; so it is read while it lives")
        yield still


def _run(command: Sequence[str], still: Still) -> int:
    """Run a command; gives its exit code. It ends before the storage is let go."""
    process: subprocess.Popen[bytes] | None = None
    try:
        with _signals_wait():
            process = subprocess.Popen(command, env=os.environ | still.environment)
        code = process.wait()
    except OSError as error:
        raise ToolFailed(f"{command[0]} cannot be run: {error.strerror}") from error
    except KeyboardInterrupt:
        if process:
            process.terminate()
            process.wait()
        raise
    return code if code >= 0 else _SIGNALLED - code


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Let signals wait while a process is started: one that nobody knows of would go on by itself."""
    caught: list[int] = []
    usual = {
        number: signal.signal(number, lambda number, _: caught.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in usual.items():
            signal.signal(number, handler)
    for caught_one in caught:
        signal.raise_signal(caught_one)


def _show_backup(output: Output, report: Report, *, dry_run: bool) -> None:
    would = "would be made" if dry_run else "made"
    for each in report.planned:
        text = (
            f"{each.name} {would}: {each.reason}" if each.name else f"nothing to do: {each.reason}"
        )
        if not (output.json or output.quiet):
            click.echo(text, err=True)
    values = {
        "dry_run": dry_run,
        "archives": [str(each.name) for each in report.planned if each.name],
        "number": report.row.number if report.row else None,
        "timestamp": report.row.time if report.row else None,
        "tid": f"{report.row.tid:016x}" if report.row else None,
        "bytes": report.size,
        "damage": report.damage,
    }
    output.event("summary", values)

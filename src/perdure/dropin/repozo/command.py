"""repozo's command line: options, output and exit codes as ZODB's script has them."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from perdure.dropin.repozo.arguments import HELP, Arguments, HelpWanted, WrongUsage, parse
from perdure.errors import PerdureError, UsageError

if TYPE_CHECKING:
    from perdure.dropin.repozo import BackupReport, RecoverReport

_EVERY = 0.2


def main(argv: Sequence[str]) -> int:
    """Do what a command line of repozo's says; gives the exit code, 0 or 1."""
    try:
        arguments = parse(argv)
    except HelpWanted:
        sys.stdout.write(HELP)
        return 0
    except WrongUsage as error:
        sys.stderr.write(f"{HELP}\n{error}\n")
        return 1
    talk = _Talk(verbose=arguments.verbose)
    for name in arguments.ignored:
        talk.log(f"--{name} option is ignored in {arguments.mode} mode")
    try:
        done = _MODES[arguments.mode](arguments, talk)
    except PerdureError as error:
        talk.fail(str(error), error.hint)
        return 1
    except BrokenPipeError:
        raise
    except OSError as error:
        talk.fail(str(error), None)
        return 1
    finally:
        talk.end()
    if arguments.json and not (arguments.mode == "recover" and arguments.output is None):
        sys.stdout.write(json.dumps(done) + "\n")
    return 1 if done.get("problems") else 0


class _Talk:
    """Standard error: what -v asks for, warnings, and on a terminal how far a long work is."""

    def __init__(self, *, verbose: bool) -> None:
        self._verbose = verbose
        self._terminal = sys.stderr.isatty()
        self._shown, self._open = monotonic(), False

    def log(self, message: str) -> None:
        """Say something to who wants to know."""
        if self._verbose:
            self._line(message)

    def warning(self, message: str) -> None:
        """Say something that everybody should know."""
        self._line(f"warning: {message}")

    def fail(self, message: str, hint: str | None) -> None:
        """Say why it ends, in one line, as repozo does."""
        self._line(f"{message} ({hint})" if hint else message)

    def progress(self, phase: str, done: int, total: int) -> None:
        """Show how far it is, on a terminal."""
        if self._terminal and monotonic() - self._shown >= _EVERY:
            self._shown, self._open = monotonic(), True
            sys.stderr.write(f"\r{phase} {100 * done // (total or 1):3} %")
            sys.stderr.flush()

    def end(self) -> None:
        """Take the progress away."""
        if self._open:
            self._open = False
            sys.stderr.write("\r\033[K")

    def _line(self, text: str) -> None:
        self.end()
        sys.stderr.write(f"{text}\n")


def _backup(arguments: Arguments, talk: _Talk) -> Mapping[str, object]:
    from perdure.dropin.repozo import BackupKind, BackupRequest, backup, next_stamp

    repository = Path(arguments.repository)
    assert arguments.file is not None
    report = backup(
        BackupRequest(
            repository=repository,
            file=Path(arguments.file),
            stamp=next_stamp(repository, datetime.now(UTC)),
            full=arguments.full,
            quick=arguments.quick,
            gzip=arguments.gzip,
            kill_old_on_full=arguments.kill_old_on_full,
            name=arguments.repository,
            wait=arguments.lock_wait,
        ),
        talk,
    )
    if report.kind is BackupKind.NOTHING:
        talk.log("No changes, nothing to do")
    elif report.kind is BackupKind.FULL:
        talk.log(f"doing a full backup: {report.reason}")
        talk.log(f"wrote full backup: {report.end} bytes to {report.path}")
    else:
        talk.log(f"doing incremental, starting at: {report.start}")
        talk.log(f"wrote incremental: {report.end - report.start} bytes to {report.path}")
    for name in report.removed:
        talk.log(f"removed old backup file {name} (and .dat / .index)")
    return _backup_values(report)


def _backup_values(report: BackupReport) -> dict[str, object]:
    return {
        "kind": report.kind.value,
        "reason": report.reason,
        "stamp": report.stamp,
        "path": report.path and str(report.path),
        "start": report.start,
        "end": report.end,
        "md5": report.md5,
        "stored": report.stored,
        "source_replaced": report.replaced,
        "removed": report.removed,
    }


def _recover(arguments: Arguments, talk: _Talk) -> Mapping[str, object]:
    from perdure.dropin.repozo import RecoverRequest, recover, recover_to_stream

    request = RecoverRequest(
        repository=Path(arguments.repository),
        date=arguments.date,
        with_verify=arguments.with_verify,
        incremental=arguments.incremental,
        quick=arguments.quick,
    )
    if arguments.output is None:
        if (
            getattr(sys.stdout, "name", None) == os.devnull
        ):  # it was closed: the edge has put this in its place
            raise UsageError("standard output is closed", hint="-o FILE writes to a file")
        talk.log("Recovering file to stdout")
        report = recover_to_stream(request, sys.stdout.buffer, talk)
    else:
        talk.log(f"Recovering file to {arguments.output}")
        report = recover(request, Path(arguments.output), talk)
    if report.reason:
        talk.log(f"nothing was kept of an earlier file: {report.reason}")
    for proof in report.proofs:
        size = proof.end - proof.placed.start
        talk.log(f"Recovered chunk {proof.placed.piece.path} : {size} bytes, md5: {proof.md5}")
    talk.log(f"Recovered a total of {report.size} bytes")
    return _recover_values(report)


def _recover_values(report: RecoverReport) -> dict[str, object]:
    return {
        "size": report.size,
        "kept": report.kept,
        "transaction": report.tid and str(report.tid),
        "backup": report.state.stamp,
        "files": [str(path) for path in report.files],
    }


def _verify(arguments: Arguments, talk: _Talk) -> Mapping[str, object]:
    from perdure.dropin.repozo import VerifyRequest, verify

    report = verify(VerifyRequest(Path(arguments.repository), arguments.quick), talk)
    for note in report.notes:
        talk.log(note)
    for problem in report.problems:
        talk.fail(problem, None)
    talk.log(f"Verified {report.files} files of {report.chains} full backups: {report.size} bytes")
    return {
        "chains": report.chains,
        "files": report.files,
        "size": report.size,
        "problems": report.problems,
        "notes": report.notes,
    }


_MODES = {"backup": _backup, "recover": _recover, "verify": _verify}

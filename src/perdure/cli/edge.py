"""The outermost edge: signals, errors into messages, exit codes."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from types import FrameType
from typing import TYPE_CHECKING

from perdure.cli import messages
from perdure.cli.dropins import run_dropin
from perdure.cli.reaching import STOPPING
from perdure.dropin.names import COMMANDS
from perdure.errors import INTERRUPTED, PerdureError

if TYPE_CHECKING:
    import click

_COMPLETE = "_PERDURE_COMPLETE"
_BROKEN_PIPE = 128 + signal.SIGPIPE


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the program; gives its exit code. Every error ends here, as a message on standard error."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if _COMPLETE in os.environ:
        from click.shell_completion import shell_complete

        from perdure.cli.program import NAME, program

        return shell_complete(program, {}, NAME, _COMPLETE, os.environ[_COMPLETE])
    _prepare()
    code = 0
    try:
        code = _invoke(given)
        sys.stdout.flush()
    except BrokenPipeError:  # whoever read our output has gone
        _silence()
        return _BROKEN_PIPE
    except OSError as error:
        _silence()
        return code or _fail(given, 1, f"standard output: {error.strerror}")
    return code


def _silence() -> None:
    """Lead standard output nowhere: the interpreter flushes it once more, and must not complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _invoke(given: list[str]) -> int:
    try:
        if given and given[0] in COMMANDS:
            return run_dropin(given[0], given[1:])
        return _run_command(given)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        return _fail(given, INTERRUPTED, "interrupted")
    except PerdureError as error:
        _explain(given, error)
        return _fail(given, error.exit_code, str(error), error.hint)
    except OSError as error:
        _explain(given, error)
        where = f"{error.filename}: " if error.filename else ""
        return _fail(given, 1, f"{where}{error.strerror or error}")
    except Exception as error:  # noqa: BLE001 - the one place where everything must end in a message
        _explain(given, error)
        return _fail(
            given,
            1,
            f"this should not have happened: {type(error).__name__}: {error}",
            "please report it, with what you did and what --verbose prints;"
            " snapshots that were there before are not touched by it",
        )


def _run_command(given: list[str]) -> int:
    """Run a command of our own, which needs what a drop-in is spared."""
    import click

    from perdure.cli.program import NAME, program

    try:
        with program.make_context(NAME, given) as context:
            program.invoke(context)
    except click.exceptions.Exit as done:
        return done.exit_code
    except click.Abort:
        raise KeyboardInterrupt from None
    except click.ClickException as error:
        return _fail(given, error.exit_code, error.format_message(), _usage_hint(error))
    return 0


def _fail(given: list[str], code: int, message: str, hint: str | None = None) -> int:
    sys.stderr.write(messages.failure(code, message, hint, as_json="--json" in given))
    return code


def _usage_hint(error: click.ClickException) -> str | None:
    context = getattr(error, "ctx", None)
    return f"{context.command_path} --help says what it takes" if context else None


def _explain(given: list[str], error: BaseException) -> None:
    """Print the traceback for who wants it."""
    if {"-v", "--verbose"} & set(given) or os.environ.get("PERDURE_DEBUG"):
        traceback.print_exception(error)


def _prepare() -> None:
    if sys.stdout is None or sys.stderr is None:  # closed, as some daemons start their children
        nowhere = open(os.devnull, "w")  # noqa: SIM115 - it stays open to the end
        sys.stdout, sys.stderr = sys.stdout or nowhere, sys.stderr or nowhere
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:  # file names and descriptions may hold anything
            reconfigure(errors="backslashreplace")
    # numpy's linear algebra starts a thread for each processor when it is imported; nothing here uses it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    STOPPING.clear()
    signal.signal(signal.SIGTERM, _interrupt)
    if (
        signal.getsignal(signal.SIGINT) is not signal.SIG_IGN
    ):  # as a shell's background jobs have it
        signal.signal(signal.SIGINT, _interrupt)
    # restic asks whether the owner of a lock lives by sending it SIGHUP; that must not end it.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End so that locks are removed; a second signal ends the process at once."""
    signal.signal(number, signal.SIG_DFL)
    STOPPING.set()
    raise KeyboardInterrupt

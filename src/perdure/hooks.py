"""Commands around a backup: each a program with arguments, no shell between, ended when it takes too long."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from perdure.config.declaration import Command
from perdure.config.environment import OF_HOOKS
from perdure.errors import PerdureError
from perdure.outcome import Outcome

GRACE = 5.0
"""Seconds between the request to end and the end."""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """In what a command runs."""

    environment: Mapping[str, str]
    folder: Path | None
    timeout: float
    """Seconds."""
    output: int
    """The descriptor that gets what it prints."""
    grace: float = GRACE
    told: Mapping[str, str] = field(default_factory=dict)
    """What more it is told, in variables that begin with PERDURE_."""
    called: str | None = None
    """What messages call it; None: by its program."""


def run_hook(event: str, command: Command, around: Surroundings, outcome: Outcome | None) -> None:
    """Run one command to its end. Raises PerdureError when it fails, cannot be run or takes too long."""
    what = around.called or f"the command {shlex.quote(command[0])} of [hooks] {event}"
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=around.output,
            stderr=around.output,
            env=_environment(event, around, outcome),
            cwd=around.folder,
            start_new_session=True,  # so that what it started can be ended with it
        )
    except OSError as error:
        raise PerdureError(f"{what} cannot be run: {error.strerror}") from error
    try:
        code = process.wait(around.timeout)
    except subprocess.TimeoutExpired:
        _end(process, around.grace)
        raise PerdureError(
            f"{what} was ended: it ran for {around.timeout:g} seconds",
            hint="give it more with timeout in [hooks], or command_timeout in a buildout",
        ) from None
    except BaseException:
        _end(process, around.grace)
        raise
    if code:
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        raise PerdureError(f"{what} {ended}")


def _environment(event: str, around: Surroundings, outcome: Outcome | None) -> dict[str, str]:
    """Give the environment of a command: ours, and what is to be told."""
    names = {f"PERDURE_{name}" for name in OF_HOOKS}
    told = {"EVENT": event, **around.told}
    if outcome:
        told |= {
            "STATUS": outcome.status,
            "EXIT_CODE": str(outcome.exit_code),
            "SECONDS": f"{outcome.seconds:.3f}",
            "ERROR": outcome.message,
        }
    made = outcome.made if outcome else None
    if made:
        told |= {
            "SNAPSHOT": made.snapshot or "",
            "BYTES_ADDED": str(made.bytes_added),
            "SOURCES": "\n".join(name for name, _ in made.cuts),
        }
    kept = {name: value for name, value in around.environment.items() if name not in names}
    return kept | {f"PERDURE_{name}": text.replace("\0", "") for name, text in told.items()}


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End a process and all that it started."""
    _signal(process, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(grace)
    _signal(process, signal.SIGKILL)
    process.wait()


def _signal(process: subprocess.Popen[bytes], number: int) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)

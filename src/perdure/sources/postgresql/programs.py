"""Run the programs of PostgreSQL: lists of arguments, no shell, no prompt."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from perdure.errors import SourceUnusable
from perdure.sources.postgresql.address import Address

SAID_LIMIT = 2000
"""Bytes of what a program said that a message repeats."""


def target(address: Address) -> str:
    """Give the option that names a database to a program of PostgreSQL, whatever is in its name."""
    return f"--dbname={address.conninfo()}"


def run_program(command: Sequence[str], what: str) -> bytes:
    """Run a program to its end, and give what it printed. Raises SourceUnusable."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise missing(command[0], error) from error
    if done.returncode:
        said = done.stderr[-SAID_LIMIT:].decode(errors="replace").strip()
        raise SourceUnusable(
            f"{what}: {command[0]} ended with {done.returncode}: {said}", hint=access_hint()
        )
    return done.stdout


def missing(program: str, error: OSError) -> SourceUnusable:
    """Say that a program cannot be run, and what brings it."""
    return SourceUnusable(
        f"{program} cannot be run: {error.strerror}",
        hint="install the client programs of PostgreSQL (Debian: apt-get install postgresql-client)",
    )


def access_hint() -> str:
    """Say how a server is found, and how it is entered."""
    return "host, user and password are found as libpq does: PGHOST, PGUSER, ~/.pgpass"

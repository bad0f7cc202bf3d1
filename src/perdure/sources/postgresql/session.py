"""A database held at one point by a session of psql, and dumped as it was there; what a server has."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats import pgdump
from perdure.sources.postgresql.address import MAINTENANCE, Address
from perdure.sources.postgresql.programs import (
    SAID_LIMIT,
    access_hint,
    missing,
    run_program,
    target,
)

_CLUSTER_END = b"PostgreSQL database cluster dump complete"
_TAIL = 4096
_DONE = "\x1e"


@dataclass(frozen=True, slots=True)
class Facts:
    """What a server says of a database at the point that is fixed."""

    moment: datetime
    """When it was fixed, by the server's clock; UTC."""
    version: str
    encoding: str
    collate: str
    ctype: str
    exported: str | None
    """The name of the snapshot; None: the server gives none."""
    superuser: bool


_WITHOUT_LIMITS = (
    "select set_config(name, '0', false) from pg_settings where name in"
    " ('statement_timeout', 'transaction_timeout', 'idle_in_transaction_session_timeout');"
)
"""Not every version has all of them."""
_FACTS = (
    "select to_char(now() at time zone 'utc', 'YYYY-MM-DD HH24:MI:SS.US'),"
    " current_setting('server_version'), pg_encoding_to_char(encoding), datcollate, datctype,"
    " (select rolsuper from pg_roles where rolname = current_user)"
    " from pg_database where datname = current_database();"
)


class Session:
    """A database held at one point, from `open_session`."""

    def __init__(self, address: Address, facts: Facts) -> None:
        self.address, self.facts = address, facts

    def dump(self, folder: Path, jobs: int = 2) -> None:
        """Write the dump into a new folder, and read all of it again. Its time is left out.

        Raises SourceUnusable when ``pg_dump`` fails, SourceDamaged when ``pg_restore`` cannot read the dump.
        """
        options = ["--format=directory", "--compress=0", "--no-sync", f"--jobs={jobs}"]
        if self.facts.exported:
            options.append(f"--snapshot={self.facts.exported}")
        run_program(
            ["pg_dump", "--no-password", *options, f"--file={folder}", target(self.address)],
            f"the database {self.address}",
        )
        contents = folder / pgdump.NAME
        contents.write_bytes(pgdump.timeless(contents.read_bytes()))
        verify_dump(folder)


@contextmanager
def open_session(address: Address) -> Iterator[Session]:
    """Fix the point at which a database is read, and hold it. Raises SourceUnusable."""
    what = f"the database {address}"
    with tempfile.TemporaryFile() as said, _psql(address, said) as process:
        _ask(process, _WITHOUT_LIMITS)
        _ask(process, "begin transaction isolation level repeatable read, read only;")
        fields = _ask(process, _FACTS).split("\x1f")
        if len(fields) != 6:
            raise SourceUnusable(
                f"{what} cannot be read: {_what_was_said(said)}", hint=access_hint()
            )
        exported = _ask(process, "select pg_export_snapshot();") or None  # a standby may refuse
        moment = datetime.strptime(fields[0], "%Y-%m-%d %H:%M:%S.%f").replace(tzinfo=UTC)
        version, encoding, collate, ctype, superuser = fields[1:]
        facts = Facts(moment, version, encoding, collate, ctype, exported, superuser == "t")
        yield Session(address, facts)


def _ask(process: subprocess.Popen[str], statement: str) -> str:
    """Have psql carry out a statement, and give the last line of its answer; empty: there is none."""
    assert process.stdin is not None
    assert process.stdout is not None
    answer = ""
    with suppress(BrokenPipeError):  # it has ended: so does what it prints
        process.stdin.write(f"{statement}\n\\echo {_DONE}\n")
        process.stdin.flush()
        for line in process.stdout:
            if line == f"{_DONE}\n":
                break
            answer = line.removesuffix("\n")
    return answer


@contextmanager
def _psql(address: Address, said: IO[bytes]) -> Iterator[subprocess.Popen[str]]:
    command = ["psql", "--no-psqlrc", "--no-align", "--tuples-only", "--quiet", "--no-password"]
    command += ["--field-separator=\x1f", target(address)]
    process = _start(command, said)
    try:
        yield process
    finally:
        for stream in (process.stdin, process.stdout):
            with suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def databases(server: Address) -> list[str]:
    """Give the names of all databases of a server that can be connected to. Raises SourceUnusable."""
    address = server if server.database else server.of(MAINTENANCE)
    statement = (
        "select datname from pg_database where datallowconn and not datistemplate order by 1"
    )
    command = ["psql", "--no-psqlrc", "--no-align", "--tuples-only", "--no-password"]
    command += ["--record-separator-zero", "--command", statement, target(address)]
    said = run_program(command, f"the server of {address}")
    try:
        return [name.decode() for name in said.rstrip(b"\n").split(b"\0") if name]
    except UnicodeDecodeError:
        raise SourceUnusable(
            f"the server of {address} has a database whose name is not UTF-8",
            hint="name the others, each with --postgresql",
        ) from None


def dump_globals(server: Address, file: Path, restrict_key: str, *, superuser: bool) -> None:
    """Write the roles and tablespaces of a server as a script, which only its owner may read.

    ``restrict_key``: letters and digits; the script gives it to psql, so that nothing in the script can leave
    SQL. It must be secret and the same each time. Without ``superuser`` there are no passwords in the script.
    Raises SourceUnusable, SourceDamaged.
    """
    address = server if server.database else server.of(MAINTENANCE)
    what = f"the globals of the server of {address}"
    options = [] if superuser else ["--no-role-passwords"]
    if b"--restrict-key" in run_program(["pg_dumpall", "--help"], what):
        options.append(f"--restrict-key={restrict_key}")
    file.touch(mode=0o600, exist_ok=False)
    run_program(
        [
            *("pg_dumpall", "--globals-only", "--no-password", *options),
            *(f"--file={file}", target(address)),
        ],
        what,
    )
    with file.open("rb") as script:
        script.seek(max(0, file.stat().st_size - _TAIL))
        if _CLUSTER_END not in script.read():
            raise SourceDamaged(f"{what}: the script of pg_dumpall is not complete")


def verify_dump(folder: Path) -> None:
    """Read all of a dump as a restore would. Raises SourceDamaged."""
    try:
        run_program(["pg_restore", f"--file={os.devnull}", str(folder)], f"the dump in {folder}")
    except SourceUnusable as error:
        raise SourceDamaged(str(error)) from None


def _start(command: Sequence[str], said: IO[bytes]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            encoding="utf-8",
            errors="replace",
        )
    except OSError as error:
        raise missing(command[0], error) from error


def _what_was_said(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - SAID_LIMIT))
    return file.read().decode(errors="replace").strip() or "psql gave no answer"

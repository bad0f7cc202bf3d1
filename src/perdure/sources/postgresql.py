"""PostgreSQL through its own programs: a database at one point, as a dump that is the same when the data is.

A database is dumped in the directory format without compression: a file for each table, which differs only
where the table does, so that what did not change is stored once; the repository compresses. A session of
``psql`` fixes the point by an exported snapshot, and holds it while ``pg_dump`` reads. What belongs to no
database, roles and tablespaces, is a script of ``pg_dumpall``, with a restrict key that is always the same.

No program ever asks for a password, and none stands on a command line: they are the business of libpq
(~/.pgpass, PGPASSFILE, a service file).
"""

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
from urllib.parse import parse_qsl, unquote, urlsplit

from perdure.errors import SourceDamaged, SourceUnusable, UsageError

GLOBALS = "globals.sql"
_SCHEMES = ("postgresql://", "postgres://")
_MAINTENANCE = "postgres"
_CLUSTER_END = b"PostgreSQL database cluster dump complete"
_TAIL = 4096
_SAID_LIMIT = 2000
_DONE = "\x1e"


@dataclass(frozen=True, slots=True)
class Address:
    """Where a database is, as libpq's keywords; without a password."""

    keywords: tuple[tuple[str, str], ...]

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read the name of a database, or ``postgresql://user@host:port/name?key=value``.

        Raises UsageError.
        """
        if not text or "\0" in text:
            raise UsageError(f"{text!r} is not the name of a database")
        if not text.startswith(_SCHEMES):
            return cls((("dbname", text),))
        parts = urlsplit(text)
        user, colon, rest = _userinfo(parts.netloc)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        if colon or "password" in options:
            raise UsageError(
                "the address of a database holds a password, where others can see it",
                hint="put it into ~/.pgpass, or into a file that PGPASSFILE names",
            )
        hosts = [_host_and_port(each) for each in rest.split(",")] if rest else []
        found = {
            "user": unquote(user),
            "host": ",".join(host for host, _ in hosts),
            "port": ",".join(port for _, port in hosts) if any(p for _, p in hosts) else "",
            "dbname": unquote(parts.path.removeprefix("/")),
            **options,
        }
        return cls(tuple((key, value) for key, value in found.items() if value))

    @property
    def database(self) -> str:
        """Name of the database; empty where libpq decides."""
        return dict(self.keywords).get("dbname", "")

    def of(self, database: str) -> Address:
        """Give the address of another database of the same server."""
        rest = tuple(pair for pair in self.keywords if pair[0] != "dbname")
        return Address((*rest, ("dbname", database)))

    def conninfo(self) -> str:
        """Give the connection string, with every value quoted."""
        return " ".join(f"{key}={_quoted(value)}" for key, value in self.keywords)

    def __str__(self) -> str:
        """Give what messages call it, and what names a source: the database, and the host if there is one."""
        values = dict(self.keywords)
        port = f":{values['port']}" if "port" in values else ""
        host = f"{values['host']}{port}/" if "host" in values else ""
        return f"{host}{self.database}"


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
        """Write the dump into a new folder, and read all of it again.

        Raises SourceUnusable when ``pg_dump`` fails, SourceDamaged when ``pg_restore`` cannot read the dump.
        """
        options = ["--format=directory", "--compress=0", "--no-sync", f"--jobs={jobs}"]
        if self.facts.exported:
            options.append(f"--snapshot={self.facts.exported}")
        run_program(
            ["pg_dump", "--no-password", *options, f"--file={folder}", target(self.address)],
            f"the database {self.address}",
        )
        verify_dump(folder)


@contextmanager
def open_session(address: Address) -> Iterator[Session]:
    """Fix the point at which a database is read, and hold it. Raises SourceUnusable."""
    what = f"the database {address}"
    with tempfile.TemporaryFile() as said, _psql(address, said) as process:
        _ask(process, "set idle_in_transaction_session_timeout = 0; set statement_timeout = 0;")
        _ask(process, "begin transaction isolation level repeatable read, read only;")
        fields = _ask(process, _FACTS).split("\x1f")
        if len(fields) != 6:
            raise SourceUnusable(
                f"{what} cannot be read: {_what_was_said(said)}", hint=_access_hint()
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
    address = server if server.database else server.of(_MAINTENANCE)
    statement = (
        "select datname from pg_database where datallowconn and not datistemplate order by 1"
    )
    command = ["psql", "--no-psqlrc", "--no-align", "--tuples-only", "--no-password"]
    command += ["--record-separator-zero", "--command", statement, target(address)]
    said = run_program(command, f"the server of {address}")
    return [name.decode() for name in said.rstrip(b"\n").split(b"\0") if name]


def dump_globals(server: Address, file: Path, restrict_key: str, *, superuser: bool) -> None:
    """Write the roles and tablespaces of a server as a script, which only its owner may read.

    ``restrict_key``: letters and digits; the script gives it to psql, so that nothing in the script can leave
    SQL. It must be secret and the same each time. Without ``superuser`` there are no passwords in the script.
    Raises SourceUnusable, SourceDamaged.
    """
    address = server if server.database else server.of(_MAINTENANCE)
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


def target(address: Address) -> str:
    """Give the option that names a database to a program of PostgreSQL, whatever is in its name."""
    return f"--dbname={address.conninfo()}"


def _start(command: Sequence[str], said: IO[bytes]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, text=True
        )
    except OSError as error:
        raise _missing(command[0], error) from error


def run_program(command: Sequence[str], what: str) -> bytes:
    """Run a program to its end, and give what it printed. Raises SourceUnusable."""
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    except OSError as error:
        raise _missing(command[0], error) from error
    if done.returncode:
        said = done.stderr[-_SAID_LIMIT:].decode(errors="replace").strip()
        raise SourceUnusable(
            f"{what}: {command[0]} ended with {done.returncode}: {said}", hint=_access_hint()
        )
    return done.stdout


def _what_was_said(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - _SAID_LIMIT))
    return file.read().decode(errors="replace").strip() or "psql gave no answer"


def _missing(program: str, error: OSError) -> SourceUnusable:
    return SourceUnusable(
        f"{program} cannot be run: {error.strerror}",
        hint="install the client programs of PostgreSQL (Debian: apt-get install postgresql-client)",
    )


def _access_hint() -> str:
    return "host, user and password are found as libpq does: PGHOST, PGUSER, ~/.pgpass"


def _userinfo(netloc: str) -> tuple[str, str, str]:
    """Split the user, the colon before a password, and the hosts."""
    info, at, hosts = netloc.rpartition("@")
    user, colon, _ = info.partition(":")
    return (user, colon, hosts) if at else ("", "", netloc)


def _host_and_port(text: str) -> tuple[str, str]:
    """Split ``host:port``; ``[::1]:5432``; a percent-encoded folder of a socket."""
    if text.startswith("["):
        host, _, rest = text[1:].partition("]")
        return host, rest.removeprefix(":")
    host, _, port = text.partition(":")
    return unquote(host), port


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"

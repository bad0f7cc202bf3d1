"""A real PostgreSQL server for tests, in a temporary folder, started once a session.

It listens on a Unix socket only. PostgreSQL refuses to run as root: then it runs as the user ``postgres``,
or as nobody. Import the fixture ``postgresql`` from here, and ask it for empty databases.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_SETTINGS = {
    "fsync": "off",
    "synchronous_commit": "off",
    "full_page_writes": "off",
    "listen_addresses": "''",
    "shared_buffers": "32MB",
    "max_connections": "50",
}


@dataclass
class PostgreSQL:
    """A running server; ``host`` is the folder of its socket."""

    host: Path
    user: str
    made: list[str] = field(default_factory=list)

    def database(self) -> str:
        """Make an empty database, and give the dsn that leads to it."""
        import psycopg2

        name = f"zodb{len(self.made)}"
        connection = psycopg2.connect(self._dsn("postgres"))
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(f"create database {name}")
        connection.close()
        self.made.append(name)
        return self._dsn(name)

    def _dsn(self, name: str) -> str:
        return f"dbname='{name}' host='{self.host}' user='{self.user}'"


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A PostgreSQL server."""
    pytest.importorskip(
        "psycopg2", reason="psycopg2 is not installed (pip install psycopg2-binary)"
    )
    programs = _programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    user = _user()
    folder = Path(tempfile.mkdtemp(prefix="perdure-pg-", dir="/tmp"))  # a socket's path is short
    try:
        os.chown(folder, user.pw_uid, user.pw_gid)
        _run([programs / "initdb", "-D", folder / "data", "-A", "trust", "-N"], user, folder)
        options = " ".join(f"-c {key}={value}" for key, value in _SETTINGS.items())
        start: list[str | Path] = [
            "-D",
            folder / "data",
            "-o",
            f"{options} -k {folder}",
            "-l",
            folder / "log",
        ]
        _run([programs / "pg_ctl", "-w", "-t", "120", "start", *start], user, folder)
        try:
            yield PostgreSQL(folder, user.pw_name)
        finally:
            _run(
                [programs / "pg_ctl", "-D", folder / "data", "-m", "immediate", "stop"],
                user,
                folder,
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path | None:
    """Find the folder of the newest server's programs, which Debian keeps out of the PATH."""
    found = shutil.which("pg_ctl")
    if found and shutil.which("initdb"):
        return Path(found).parent
    folders = sorted(
        (path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/pg_ctl")),
        key=lambda path: float(path.parent.name),
    )
    return folders[-1] if folders else None


def _user() -> pwd.struct_passwd:
    if os.geteuid():
        return pwd.getpwuid(os.geteuid())
    names = {entry.pw_name for entry in pwd.getpwall()}
    return pwd.getpwnam("postgres" if "postgres" in names else "nobody")


def _run(command: list[str | Path], user: pwd.struct_passwd, folder: Path) -> None:
    root = os.geteuid() == 0
    with (folder / "output").open("ab") as output:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=os.environ | {"LC_ALL": "C", "PGUSER": user.pw_name},
            check=False,
            user=user.pw_uid if root else None,
            group=user.pw_gid if root else None,
            extra_groups=[] if root else None,
        )
    log = folder / "log"
    said = (folder / "output").read_text() + (log.read_text() if log.exists() else "")
    assert done.returncode == 0, f"{command} gave {done.returncode}:\n{said}"

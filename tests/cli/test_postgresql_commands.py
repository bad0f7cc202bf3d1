"""The commands on databases of a real PostgreSQL server."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from command_line import Program, bare_environment, program, repository
from postgresql import PostgreSQL, postgresql

__all__ = ["bare_environment", "postgresql", "program", "repository"]
pytestmark = pytest.mark.slow


@pytest.fixture
def shop(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a database with two tables; libpq is told where the server is."""
    monkeypatch.setenv("PGHOST", str(postgresql.host))
    monkeypatch.setenv("PGUSER", postgresql.user)
    name = postgresql.database().split("'")[1]
    sql(
        name,
        "create table goods as select n, md5(n::text) as text from generate_series(1, 20000) n;"
        "create table orders (n int primary key); insert into orders values (1), (2)",
    )
    return name


def sql(database: str, statement: str) -> str:
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", statement]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def test_databases_and_globals(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
    restic: object,
) -> None:
    everything = ["--postgresql", shop, "--postgresql-globals", "postgresql://"]
    first = program("backup", "--json", *everything).summary
    assert [source["kind"] for source in first["sources"]] == ["postgresql", "postgresql-globals"]
    again = program("backup", "--json", "--skip-if-unchanged", *everything).summary
    assert again["snapshot_id"] is None

    sql(shop, "insert into orders values (3)")
    changed = program("backup", "--json", *everything).summary
    assert changed["bytes_added"] < 20_000
    assert [source["files"]["changed"] for source in changed["sources"]] == [1, 0]

    program("restore", "--to", str(tmp_path / "files"), first["snapshot_id"])
    script = (tmp_path / "files" / "globals.sql").read_text()
    assert "CREATE ROLE" in script
    new = f"{shop} before"
    program("restore", first["snapshot_id"], "--source", shop, "--into-postgresql", new)
    assert sql(new, "select count(*) from goods") == "20000"
    assert sql(new, "select string_agg(n::text, ' ') from orders") == "1 2"
    sql(new, "drop table orders")
    program("restore", "--source", shop, "--into-postgresql", new, "--table", "orders")
    assert sql(new, "select string_agg(n::text, ' ') from orders") == "1 2 3"
    again_there = program("restore", "--source", shop, "--into-postgresql", new, code=2)
    assert "already" in again_there.err
    program("restore", "--source", shop, "--in-place", "--yes", code=2)
    program("check", "--read-data")


def test_one_that_fails_does_not_stop_the_others(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
) -> None:
    done = program(
        *("backup", "--json", "--postgresql", "gone", "--postgresql", shop, "--postgresql-all"),
        code=2,
    )
    assert "same name" in done.err
    done = program("backup", "-v", "--json", "--postgresql", "gone", "--postgresql", shop, code=3)
    assert [source["status"] for source in done.summary["sources"]] == ["complete", "failed"]
    program("backup", "--postgresql", "gone", code=14)
    assert len(program("snapshots", "--json").events[0]) == 1
    program("check", "--read-data")


def test_a_program_that_fails_makes_no_backup(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each program that has a part in it, in place of which one stands that does its work and then fails."""
    for name in ("pg_dump", "pg_restore", "pg_dumpall"):
        folder = tmp_path / name
        folder.mkdir()
        found = subprocess.run(["which", name], capture_output=True, text=True, check=True)
        (folder / name).write_text(
            f'#!/bin/sh\n{found.stdout.strip()} "$@"\n'
            '[ "$1" = --help ] || { echo "the disk is full" >&2; exit 1; }\n'
        )
        (folder / name).chmod(0o755)
        with monkeypatch.context() as patched:
            patched.setenv("PATH", f"{folder}:/usr/bin:/bin")
            which = "--postgresql-globals" if name == "pg_dumpall" else "--postgresql"
            failed = program("backup", which, shop, code=13 if name == "pg_restore" else 14)
        assert "the disk is full" in failed.err
    assert not program("snapshots", "--json").events[0]


def test_in_a_configuration_beside_relstorage(
    program: Program,
    repository: Path,
    shop: str,
    postgresql: PostgreSQL,
    tmp_path: Path,
) -> None:
    pytest.importorskip("relstorage", reason="RelStorage is not installed (pip install RelStorage)")
    dsn = f"dbname='{shop}' host='{postgresql.host}' user='{postgresql.user}' password='x'"
    zconfig = (
        "%import relstorage\n<relstorage>\n keep-history false\n cache-local-mb 1\n"
        f" <postgresql>\n  dsn {dsn}\n </postgresql>\n</relstorage>"
    )
    make = (
        "import sys, ZODB, transaction; from ZODB.config import storageFromString;"
        "db = ZODB.DB(storageFromString(sys.argv[1])); c = db.open(); c.root()['n'] = 7;"
        "transaction.commit(); c.close(); db.close()"
    )
    subprocess.run([sys.executable, "-c", make, zconfig], check=True)
    (tmp_path / "perdure.toml").write_text(
        f"[[source]]\nname = 'site'\nzconfig = '''\n{zconfig}\n'''\n"
        f"[[source]]\nname = 'neighbours'\npostgresql = '{shop}'\n"
        "[[source]]\nname = 'globals'\npostgresql-globals = 'postgresql://'\n"
    )
    done = program("backup", "--json").summary
    assert [source["name"] for source in done["sources"]] == ["site", "neighbours", "globals"]
    program("restore", "--to", str(tmp_path / "out"))
    restored = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"Data.fs", f"{shop}.postgresql", "globals.sql"} <= restored
    program("check", "--read-data")

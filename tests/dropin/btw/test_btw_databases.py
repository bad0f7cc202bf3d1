"""Databases and globals, dumped from a real PostgreSQL server."""

from __future__ import annotations

import bz2
import os
import re
import shutil
import sys
from pathlib import Path

import psycopg2
import pytest
from btw_site import BtwSite, names_below, write
from postgresql import PostgreSQL

from perdure.dropin.btw.command import main
from perdure.dropin.btw.dumps import connection

pytestmark = pytest.mark.slow
UNCHANGED = "no change in the data to be backed up: skipping creation of new"


@pytest.fixture
def database(postgresql: PostgreSQL, monkeypatch: pytest.MonkeyPatch) -> str:
    """An empty database, and a way to it in the environment."""
    if shutil.which("rdiff-backup", path=f"{Path(sys.executable).parent}:/usr/bin") is None:
        pytest.skip("rdiff-backup is not installed (Debian: apt-get install rdiff-backup)")
    monkeypatch.setenv("PGHOST", str(postgresql.host))
    monkeypatch.setenv("PGUSER", postgresql.user)
    name = re.search(r"dbname='(\w+)'", postgresql.database())
    assert name
    return name[1]


def sql(name: str, *statements: str) -> list[tuple[object, ...]]:
    link = psycopg2.connect(dbname=name)
    link.autocommit = True
    try:
        with link.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        link.close()


def run(site: BtwSite, *arguments: str | Path, code: int = 3) -> None:
    """Run a command; 3 is what a backup ends with whose bucket cannot be reached."""
    assert main(["--config-dir", str(site.config), *map(str, arguments)]) == code


def listing(site: BtwSite, capsys: pytest.CaptureFixture[str]) -> list[str]:
    capsys.readouterr()
    run(site, "list", "dst", code=0)
    return capsys.readouterr().out.splitlines()


def test_a_database(site: BtwSite, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    """btw-backup took every change for none with PostgreSQL 12 and later."""
    site.destination("dst")
    sql(database, "create table t (n int, words text)", "insert into t values (1, 'one')")
    run(site, "db", database, "dst")
    run(site, "db", database, "dst")
    first = listing(site, capsys)
    assert len(first) == 1
    assert UNCHANGED in (site.root / "dst/log.txt").read_text()
    sql(database, "insert into t values (2, 'two')")
    run(site, "db", database, "dst")
    sql(database, "update t set words = 'uno' where n = 1")  # the dump has the same length
    run(site, "db", database, "dst")
    versions = [line.strip() for line in listing(site, capsys)]
    assert len(versions) == 3
    assert names_below(site.root / "dst") == [first[0], "log.txt"]
    run(site, "verify", "dst", code=0)
    for number, rows in enumerate(
        [[(1, "one")], [(1, "one"), (2, "two")], [(1, "uno"), (2, "two")]]
    ):
        new = f"{database}_{number}"
        run(site, "restore", "--at", versions[number], "dst", "--into-database", new, code=0)
        assert sql(new, "select n, words from t order by n") == rows
    run(site, "restore", "dst", site.folder / "x.dump", code=0)
    assert (site.folder / "x.dump").read_bytes().startswith(b"PGDMP")
    run(site, "restore", "dst", "--into-database", f"{database}_0", code=1)  # it is there


def test_settings_of_a_database(
    site: BtwSite, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write(site.config / f"{database}.py", "MAX_INCREMENTAL_COUNT = 0\n")
    site.destination("dst")
    for number in range(2):
        sql(database, f"create table t{number} ()")
        run(site, "db", database, "dst")
    assert [line[0] for line in listing(site, capsys)] == ["2", "2"]


def test_globals(
    site: BtwSite, database: str, postgresql: PostgreSQL, capsys: pytest.CaptureFixture[str]
) -> None:
    """The restrict key of newer servers made btw-backup take them for changed each time."""
    site.destination("dst")
    run(site, "db", "-g", "dst")
    run(site, "db", "-g", "dst")
    assert len(listing(site, capsys)) == 1
    assert UNCHANGED in (site.root / "dst/log.txt").read_text()
    role = f"somebody_{database}"
    sql(database, f"create role {role}")
    run(site, "db", "-g", "dst")
    assert len(listing(site, capsys)) == 2
    run(site, "restore", "dst", site.folder / "globals", code=0)
    assert role.encode() in bz2.decompress((site.folder / "globals").read_bytes())
    run(site, "verify", "dst", code=0)
    run(site, "restore", "dst", "--into-database", "x", code=2)
    assert not sql(database, "select 1 from pg_database where datname = 'x'")


def test_a_failed_dump_is_an_error_and_leaves_nothing(
    site: BtwSite, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.destination("dst")
    run(site, "db", f"{database}_none", "dst", code=1)
    assert "pg_dump exited with code: 1: " in capsys.readouterr().err
    run(site, "db", "dbname=postgres", "dst", code=1)  # a name, not a connection string
    assert 'database "dbname=postgres" does not exist' in capsys.readouterr().err
    run(site, "db", "--", "--help", "dst", code=1)
    assert listing(site, capsys) == []
    run(site, "db", database, "dst")
    assert names_below(site.root / "dst") == listing(site, capsys)


def test_a_pg_restore_that_fails_says_nothing_about_change(
    site: BtwSite,
    database: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As with PostgreSQL 12 and btw-backup: two failures, both without output, are no two equal dumps."""
    site.destination("dst")
    run(site, "db", database, "dst")
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "pg_restore").write_text(
        "#!/bin/sh\necho 'one of -d and -f must be specified' >&2\nexit 1\n"
    )
    (fake / "pg_restore").chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake}:{os.environ['PATH']}")
    sql(database, "create table t ()")
    capsys.readouterr()
    run(site, "db", database, "dst", code=1)
    assert "pg_restore exited with code: 1: one of -d and -f" in capsys.readouterr().err
    assert len(listing(site, capsys)) == 1
    assert not (site.root / "dst/log.txt").exists()


def test_a_last_dump_that_cannot_be_read_counts_as_changed(
    site: BtwSite, database: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.destination("dst")
    run(site, "db", database, "dst")
    (first,) = listing(site, capsys)
    dump = site.root / "dst" / first / f"{database}.dump"
    dump.write_bytes(dump.read_bytes()[:50])
    run(site, "db", database, "dst")
    assert "the last dump cannot be read" in capsys.readouterr().err
    assert len(listing(site, capsys)) == 2


def test_names_are_quoted() -> None:
    assert connection("it's a \\ name") == "dbname='it\\'s a \\\\ name'"


def test_an_odd_name(site: BtwSite, database: str, capsys: pytest.CaptureFixture[str]) -> None:
    name = f"an 'odd' -{database}= \\name"
    sql(database, f'create database "{name}"')
    sql(name, "create table t ()")
    site.destination("dst")
    run(site, "db", name, "dst")
    (first,) = listing(site, capsys)
    assert (site.root / "dst" / first / f"{name}.dump").exists()

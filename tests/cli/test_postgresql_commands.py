"""The commands on databases of a real PostgreSQL server."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from command_line import Program, bare_environment, program, repository
from postgresql import PostgreSQL, postgresql

from perdure.sources.postgresql.address import Address

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
    where = Address.parse(database).conninfo()
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", "-d", where, "-c", statement]
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
    given = ["restore", first["snapshot_id"], "--source", shop, "--into-postgresql", new]
    assert new in program(*given, "--dry-run").out
    assert new in program(*given).out
    assert sql(new, "select count(*) from goods") == "20000"
    assert sql(new, "select string_agg(n::text, ' ') from orders") == "1 2"
    sql(new, "drop table orders")
    program("restore", "--source", shop, "--into-postgresql", new, "--table", "orders")
    assert sql(new, "select string_agg(n::text, ' ') from orders") == "1 2 3"
    again_there = program("restore", "--source", shop, "--into-postgresql", new, code=2)
    assert "already" in again_there.err
    there = program(
        *("restore", "--source", shop, "--into-postgresql", new, "--table", "orders"), code=14
    )
    assert "rename or drop" in there.err
    program("restore", "--source", shop, "--in-place", "--yes", code=2)
    assert program("diff", first["snapshot_id"], "latest").out.count("orders") == 0
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


SCRATCH = "perdure-scratch-*"


def stand_in(folder: Path, name: str, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put a shell script first in the PATH, which may call the program as ``$real``."""
    found = shutil.which(name)
    assert found is not None
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\nreal={found}\n{script}\n")
    (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)


def test_what_a_killed_run_left_is_removed(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    dumped = tmp_path / "dumped"
    os.mkfifo(dumped)
    with monkeypatch.context() as patched:
        script = f'$real "$@"; echo dumped >{dumped}; exec sleep 600'
        stand_in(tmp_path / "bin", "pg_dump", script, patched)
        command = [sys.executable, "-m", "perdure", "backup", "--postgresql", shop]
        killed = subprocess.Popen(command, process_group=0)
        assert dumped.read_text() == "dumped\n"
        os.killpg(killed.pid, signal.SIGKILL)
        killed.wait()
    assert list(scratch.glob(f"{SCRATCH}/scratch/postgresql/toc.dat"))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    program("backup", "--postgresql", shop)
    assert not list(scratch.glob(SCRATCH))

    with monkeypatch.context() as patched:
        new = f"{shop}_half"
        script = 'echo "$@" | grep -q perdure-restoring && kill -9 $PPID; exec $real "$@"'
        stand_in(tmp_path / "bin", "pg_restore", script, patched)
        command = [sys.executable, "-m", "perdure", "restore", "--into-postgresql", new]
        assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    names = sql("postgres", "select datname from pg_database").splitlines()
    assert sum(name.startswith("perdure-restoring-") for name in names) == 1
    assert new not in names
    program("restore", "--into-postgresql", new)
    assert sql(new, "select count(*) from goods") == "20000"
    assert not list(scratch.glob(SCRATCH))
    assert len(program("snapshots", "--json").events[0]) == 1
    program("check", "--read-data")


def test_a_server_that_goes_away(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The session that holds the point is ended before the dump begins: it would be of another point."""
    (tmp_path / "tree").mkdir()
    end = (
        'psql -XAtq -d postgres -c "select pg_terminate_backend(pid, 60000) from pg_stat_activity'
        f' where datname = \'{shop}\'" >/dev/null\nexec $real "$@"'
    )
    stand_in(tmp_path / "bin", "pg_dump", end, monkeypatch)
    failed = program("backup", "--postgresql", shop, code=14)
    assert "snapshot" in failed.err
    done = program("backup", "--json", "--postgresql", shop, "--tree", "tree", code=3)
    assert [source["status"] for source in done.summary["sources"]] == ["complete", "failed"]
    program("check", "--read-data")


def test_a_role_without_rights(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sql(shop, f"create role {shop}_reader login password 'unseen'")
    monkeypatch.setenv("PGUSER", f"{shop}_reader")
    assert "permission denied" in program("backup", "--postgresql", shop, code=14).err
    done = program("backup", "--postgresql-globals")
    assert "passwords" in done.err
    program("restore", "--to", str(tmp_path / "out"))
    script = (tmp_path / "out" / "globals.sql").read_text()
    assert f"CREATE ROLE {shop}_reader" in script
    assert "PASSWORD" not in script


def test_all_databases_whatever_they_are_called(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    odd = ["a/b", "größe 'x'", "-x", "..", "line\nend", f"{shop}.postgresql", "CASE=1"]
    for name in odd:
        subprocess.run(["createdb", "--", name], check=True)
        sql(name, "create table t as select 7 as n")
    script = f'ls -d "$TMPDIR"/{SCRATCH}/scratch/postgresql >>{tmp_path}/dumps; exec $real "$@"'
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    stand_in(tmp_path / "bin", "pg_dump", script, monkeypatch)
    try:
        done = program("backup", "--json", "--postgresql-all").summary
        assert (tmp_path / "dumps").read_text() == "", "one dump at a time"
        names = {source["name"] for source in done["sources"]}
        assert names >= {f"postgresql:{name}" for name in (shop, "postgres", *odd)}
        for name in odd[:2]:
            only = ["--source", f"postgresql:{name}", "--into-postgresql", f"{name} again"]
            program("restore", *only)
            assert sql(f"{name} again", "select n from t") == "7"
    finally:
        for name in (*odd, *(f"{name} again" for name in odd[:2])):
            subprocess.run(["dropdb", "--if-exists", "--", name], check=True)
    program("check", "--read-data")


def test_a_server_that_is_down(program: Program, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    nowhere = f"postgresql://%2F{str(tmp_path).strip('/').replace('/', '%2F')}"
    done = program("backup", "--json", "--postgresql-all", nowhere, "--tree", "tree", code=3)
    assert sorted(source["status"] for source in done.summary["sources"]) == [
        *("complete", "failed", "failed")
    ]
    program("backup", "--postgresql-all", nowhere, code=14)
    (tmp_path / "perdure.toml").write_text(
        f"[[source]]\npostgresql-all = '{nowhere}'\n[[source]]\ntree = 'tree'\n"
        "[[source]]\npostgresql = 'postgresql://me:secret@host/x'\n"
    )
    done = program("backup", "--json", code=3)
    assert [source["kind"] for source in done.summary["sources"]][:1] == ["tree"]
    assert "secret" not in done.out + done.err
    assert "names none" in program("backup", "--postgresql", "postgresql://host", code=2).err
    program("check", "--read-data")


def test_what_the_page_says(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
) -> None:
    """The commands and the configuration of docs/postgresql.md, with the databases that are here."""
    page = (Path(__file__).parents[2] / "docs" / "postgresql.md").read_text()
    here = page.replace("db.example/", "/").replace("me@", "").replace("/tmp/files", "files")
    for old, new in (("shop_restored", f"{shop}_new"), ("shop", shop)):
        here = re.sub(rf"\b{old}\b", new, here)
    commands = re.findall(r"^perdure (.*?)(?:\s+#.*)?$", here, re.MULTILINE)
    assert len(commands) == 6
    for command in commands[:3]:
        program(*shlex.split(command))
    [toml] = re.findall(r"```toml\n(.*?)```", here, re.DOTALL)
    (tmp_path / "perdure.toml").write_text(toml)
    assert len(program("backup", "--json").summary["sources"]) == 2
    sql(shop, "drop table orders")
    for command in commands[3:]:
        program(*shlex.split(command))
    assert sql(f"{shop}_new", "select count(*) from goods") == "20000"
    assert sql(shop, "select count(*) from orders") == "2"
    files = {path.name for path in (tmp_path / "files").iterdir()}
    assert files >= {f"{shop}.postgresql", "globals.sql"}
    program("check", "--read-data")


def test_beside_the_root_of_the_file_system(
    program: Program,
    repository: Path,
    shop: str,
    tmp_path: Path,
) -> None:
    """The dump stands among the names of the root, and is not restored as one of its files."""
    (tmp_path / "tree").mkdir()
    (tmp_path / "tree/file").write_text("x")
    way = [*reversed(tmp_path.parents), tmp_path, tmp_path / "tree"]
    options = ["--tree", "/", "--postgresql", shop]
    for folder, inner in pairwise(way):
        options += ["--exclude", f"{folder}/*", "--exclude", f"!{inner}"]
    program("backup", *options)
    program("restore", "--source", "/", "--to", "out")
    [root] = (tmp_path / "out").iterdir()
    assert [path.name for path in root.iterdir()] == [way[1].name]
    assert (root / str(tmp_path).strip("/") / "tree/file").read_text() == "x"
    program("check", "--read-data")

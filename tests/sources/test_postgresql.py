"""Dumps of a real PostgreSQL server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from postgresql import PostgreSQL, postgresql  # noqa: F401

from perdure.errors import SourceDamaged, SourceUnusable, UsageError
from perdure.formats.manifest import ServerRecord
from perdure.sources.postgresql.address import Address
from perdure.sources.postgresql.restoring import restore_database, restore_tables
from perdure.sources.postgresql.session import (
    databases,
    dump_globals,
    open_session,
    verify_dump,
)

KEY = "a" * 40


@pytest.mark.parametrize(
    ("text", "conninfo", "shown"),
    [
        ("shop", "dbname='shop'", "shop"),
        ("a=b c", "dbname='a=b c'", "a=b c"),
        ("it's\\", "dbname='it\\'s\\\\'", "it's\\"),
        ("postgresql://", "", ""),
        ("postgres:///shop", "dbname='shop'", "shop"),
        (
            "postgresql://me@db.example:5433/sh%20op?sslmode=require",
            "user='me' host='db.example' port='5433' dbname='sh op' sslmode='require'",
            "db.example:5433/sh op",
        ),
        (
            "postgresql://one:1,two/x",
            "host='one,two' port='1,' dbname='x'",
            "one,two:1,/x",
        ),
        ("postgresql://[::1]:5432/x", "host='::1' port='5432' dbname='x'", "::1:5432/x"),
        (
            "postgresql://%2Frun%2Fpg/x?user=me",
            "user='me' host='/run/pg' dbname='x'",
            "/run/pg/x",
        ),
    ],
)
def test_addresses(text: str, conninfo: str, shown: str) -> None:
    address = Address.parse(text)
    assert address.conninfo() == conninfo
    assert str(address) == shown


@pytest.mark.parametrize(
    "text", ["postgresql://me:secret@host/x", "postgresql:///x?password=secret", ""]
)
def test_a_password_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        Address.parse(text)
    assert "secret" not in str(caught.value)


def address_of(server: PostgreSQL, name: str = "") -> Address:
    found = Address(
        (("host", str(server.host)), ("user", server.user), ("dbname", name or "postgres"))
    )
    return found if name else found.of(server.database().split("'")[1])


def sql(address: Address, statement: str) -> str:
    command = ["psql", "-XAtq", "-v", "ON_ERROR_STOP=1", f"--dbname={address.conninfo()}"]
    done = subprocess.run([*command, "-c", statement], capture_output=True, text=True, check=True)
    return done.stdout.strip()


@pytest.mark.slow
def test_a_dump_is_of_the_point_that_was_fixed(postgresql: PostgreSQL, tmp_path: Path) -> None:  # noqa: F811
    one, two = address_of(postgresql), address_of(postgresql)
    for each in (one, two):
        sql(
            each, "create table t (n int primary key); insert into t select generate_series(1, 500)"
        )
    with open_session(one) as first, open_session(two) as second:
        for each in (one, two):
            sql(each, "delete from t where n > 7; create table later (n int)")
        first.dump(tmp_path / "one")
        second.dump(tmp_path / "two")
        assert first.facts.encoding
        assert first.facts.exported
        assert first.facts.superuser
    for name in ("one", "two"):
        script = subprocess.run(
            ["pg_restore", "-f", "-", str(tmp_path / name)], capture_output=True, check=True
        ).stdout.decode()
        assert "\n500\n" in script
        assert "later" not in script


@pytest.mark.slow
def test_the_same_data_gives_the_same_dump(postgresql: PostgreSQL, tmp_path: Path) -> None:  # noqa: F811
    address = address_of(postgresql)
    sql(address, "create table a as select generate_series(1, 99); select lo_create(77)")
    dumps = []
    for number in range(2):
        folder = tmp_path / str(number)
        with open_session(address) as session:
            session.dump(folder)
        dump_globals(address, folder / "globals.sql", KEY, superuser=session.facts.superuser)
        files = {path.name: path.read_bytes() for path in folder.iterdir()}
        dumps.append(files)
        assert (folder / "globals.sql").stat().st_mode & 0o777 == 0o600
    assert dumps[0] == dumps[1]
    assert KEY.encode() in dumps[0]["globals.sql"]


@pytest.mark.slow
def test_what_is_cut_off_is_found(postgresql: PostgreSQL, tmp_path: Path) -> None:  # noqa: F811
    address = address_of(postgresql)
    sql(address, "create table a as select generate_series(1, 99)")
    with open_session(address) as session:
        session.dump(tmp_path / "dump")
    (tmp_path / "dump" / "toc.dat").write_bytes((tmp_path / "dump" / "toc.dat").read_bytes()[:-300])
    with pytest.raises(SourceDamaged):
        verify_dump(tmp_path / "dump")


@pytest.mark.slow
def test_databases_and_what_is_not_there(postgresql: PostgreSQL, tmp_path: Path) -> None:  # noqa: F811
    address = address_of(postgresql)
    odd = "odd = 'name'\n"
    subprocess.run(["createdb", "-h", postgresql.host, "-U", postgresql.user, odd], check=True)
    found = databases(address)
    assert {address.database, odd, "postgres"} <= set(found)
    with open_session(address.of(odd)) as session:
        session.dump(tmp_path / "odd")
    with pytest.raises(SourceUnusable, match="nowhere"), open_session(address.of("nowhere")):
        pass
    with pytest.raises(SourceUnusable):
        databases(Address((("host", str(tmp_path)), ("dbname", "x"))))


@pytest.mark.slow
def test_what_is_restored(postgresql: PostgreSQL, tmp_path: Path) -> None:  # noqa: F811
    address = address_of(postgresql)
    sql(
        address,
        "create table a (n int primary key, t text);"
        " insert into a select n, repeat('ö', n) from generate_series(1, 300) n;"
        ' create table "odd Table" (x bytea); insert into "odd Table" values (\'\\x00ff\');'
        " select lo_from_bytea(4711, '\\x010203')",
    )
    with open_session(address) as session:
        session.dump(tmp_path / "dump")
        facts = session.facts
    server = ServerRecord(
        version=facts.version, encoding=facts.encoding, collate=facts.collate, ctype=facts.ctype
    )
    new = address.of(f"{address.database} of 'yesterday'")
    restore_database(tmp_path / "dump", new, server)
    for question in (
        "select md5(string_agg(t, ',' order by n)) from a",
        'select x from "odd Table"',
        "select lo_get(4711)",
        "select pg_encoding_to_char(encoding) from pg_database where datname=current_database()",
    ):
        assert sql(new, question) == sql(address, question)
    with pytest.raises(UsageError, match="already"):
        restore_database(tmp_path / "dump", new, server)

    sql(new, 'drop table "odd Table"; drop table a')
    restore_tables(tmp_path / "dump", new, ["odd Table"])
    assert sql(new, 'select x from "odd Table"') == "\\x00ff"
    for name in ("Table", "odd", "public", "DATA", "a_pkey", "*", "public.odd"):
        with pytest.raises(UsageError, match="no table"):
            restore_tables(tmp_path / "dump", new, [name])


@pytest.mark.slow
def test_tables_of_one_name(postgresql: PostgreSQL, tmp_path: Path) -> None:  # noqa: F811
    address = address_of(postgresql)
    sql(
        address,
        "create schema other; create table t as select 1 n; create table other.t as select 2 n;"
        ' create table "a.b" as select 3 n; create view v as select 4 n;'
        " create table parts (n int) partition by list (n)",
    )
    with open_session(address) as session:
        session.dump(tmp_path / "dump")
    new = address_of(postgresql)
    with pytest.raises(UsageError, match="2 tables t"):
        restore_tables(tmp_path / "dump", new, ["t"])
    with pytest.raises(UsageError, match="no table v"):
        restore_tables(tmp_path / "dump", new, ["a.b", "v"])
    assert sql(new, "select count(*) from pg_tables where schemaname = 'public'") == "0"
    sql(new, "create schema other")
    restore_tables(tmp_path / "dump", new, ["other.t", "a.b", "parts", "other.t"])
    assert sql(new, 'select * from other.t union select * from "a.b" order by 1') == "2\n3"
    assert sql(new, "select count(*) from pg_tables where schemaname = 'public'") == "2"


@pytest.mark.slow
def test_nothing_half_is_left(postgresql: PostgreSQL, tmp_path: Path) -> None:  # noqa: F811
    address = address_of(postgresql)
    sql(address, "create table a (n int); create role gone; alter table a owner to gone")
    with open_session(address) as session:
        session.dump(tmp_path / "dump")
        facts = session.facts
    sql(address, "drop table a; drop role gone")
    server = ServerRecord(
        version=facts.version, encoding=facts.encoding, collate=facts.collate, ctype=facts.ctype
    )
    new = address.of("half")
    with pytest.raises(SourceUnusable, match="gone") as caught:
        restore_database(tmp_path / "dump", new, server)
    assert "--no-owner" in str(caught.value.hint)
    assert "half" not in databases(address)
    restore_database(tmp_path / "dump", new, server, owners=False)
    assert sql(new, "select count(*) from a") == "0"

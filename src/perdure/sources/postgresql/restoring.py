"""Give a dump back to a PostgreSQL server: a new database, or one table into a database that there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from secrets import token_hex

from perdure.errors import PerdureError, UsageError
from perdure.formats.manifest import ServerRecord
from perdure.sources.postgresql.address import MAINTENANCE, Address
from perdure.sources.postgresql.programs import run_program, target
from perdure.sources.postgresql.session import databases
from perdure.sources.scratch import scratch_folder


def restore_database(
    dump: Path, address: Address, server: ServerRecord, *, owners: bool = True, jobs: int = 2
) -> None:
    """Make a new database out of a dump; a database that could not be filled is dropped again.

    It gets its name when it is complete; a restore that is killed leaves one named perdure-restoring-.
    ``server`` says how the database was made that was dumped. With ``owners`` objects belong to whom they
    belonged, who must be there. Raises UsageError when there is a database of that name, SourceUnusable when
    a program fails.
    """
    if not address.database:
        raise UsageError("the new database has no name")
    there = address.of(MAINTENANCE)
    if address.database in databases(there):
        raise UsageError(
            f"there is a database {address.database} already; nothing is restored over it",
            hint="name a new one, and rename it when you have looked at it: ALTER DATABASE ... RENAME TO",
        )
    made = [f"--encoding={server.encoding}", f"--lc-collate={server.collate}"]
    made += [f"--lc-ctype={server.ctype}", "--template=template0", "--no-password"]
    maintenance = f"--maintenance-db={there.conninfo()}"
    what = f"the new database {address}"
    unfinished = address.of(f"perdure-restoring-{token_hex(8)}")
    run_program(["createdb", *made, maintenance, "--", unfinished.database], what)
    try:
        _restore(dump, unfinished, [f"--jobs={jobs}"], owners=owners)
        names = f"{_identifier(unfinished.database)} rename to {_identifier(address.database)}"
        renaming = ["psql", "--no-psqlrc", "--quiet", "--no-password", target(there)]
        run_program([*renaming, "--command", f"alter database {names}"], what)
    except BaseException:
        options = ["--if-exists", "--no-password", maintenance]
        run_program(["dropdb", *options, "--", unfinished.database], what)
        raise


def _identifier(name: str) -> str:
    quoted = name.replace('"', '""')
    return f'"{quoted}"'


def restore_tables(
    dump: Path, address: Address, tables: Sequence[str], *, owners: bool = True
) -> None:
    """Make some tables, which must not be there, with their data; all of them or none.

    A table is named as ``name`` or ``schema.name``. Its indexes and constraints are not part of it. Raises
    SourceUnusable, UsageError.
    """
    entries = [entry for table in dict.fromkeys(tables) for entry in _entries(dump, table)]
    with scratch_folder() as scratch:
        listing = scratch / "listing"
        listing.write_bytes(b"".join(entries))
        options = ["--single-transaction", f"--use-list={listing}"]
        _restore(dump, address, options, owners=owners)


def _entries(dump: Path, table: str) -> list[bytes]:
    """Give what the dump's list has of one table: pg_restore decides. Raises UsageError."""
    schema, dot, name = table.partition(".")
    chosen = _listed(dump, f"--table={table}")
    if not chosen and dot:
        chosen = _listed(dump, f"--schema={schema}", f"--table={name}")
    count = sum(_is_table(line) for line in chosen)
    if not count:
        raise UsageError(f"the dump has no table {table}")
    if count > 1:
        raise UsageError(f"the dump has {count} tables {table}", hint="say which: SCHEMA.TABLE")
    return chosen


def _is_table(line: bytes) -> bool:
    """Whether a line makes a table: ``215; 1259 16385 TABLE public name owner``, 1259 being pg_class."""
    _, catalog, _, what = line.split(b" ", 3)
    return catalog == b"1259" and what.startswith(b"TABLE ")


def _listed(dump: Path, *which: str) -> list[bytes]:
    said = run_program(["pg_restore", "--list", *which, str(dump)], f"the dump in {dump}")
    return [line for line in said.splitlines(keepends=True) if not line.startswith(b";")]


def _restore(dump: Path, address: Address, options: Sequence[str], *, owners: bool) -> None:
    owning = [] if owners else ["--no-owner", "--no-privileges"]
    try:
        run_program(
            [
                *("pg_restore", "--exit-on-error", "--no-password", *owning, *options),
                *(target(address), str(dump)),
            ],
            f"restoring {address}",
        )
    except PerdureError as error:
        if "already exists" in str(error):
            error.hint = "rename or drop what is there; nothing is restored over it"
        elif "role" in str(error) and owners:
            error.hint = "restore the globals first (psql -f globals.sql), or say --no-owner"
        raise

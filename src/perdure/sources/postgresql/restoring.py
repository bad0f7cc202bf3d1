"""Give a dump back to a PostgreSQL server: a new database, or one table into a database that there is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from perdure.errors import PerdureError, UsageError
from perdure.formats.manifest import ServerRecord
from perdure.sources.postgresql.address import MAINTENANCE, Address
from perdure.sources.postgresql.programs import run_program, target
from perdure.sources.postgresql.session import databases


def restore_database(
    dump: Path, address: Address, server: ServerRecord, *, owners: bool = True, jobs: int = 2
) -> None:
    """Make a new database out of a dump; a database that could not be filled is dropped again.

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
    run_program(["createdb", *made, maintenance, "--", address.database], what)
    try:
        _restore(dump, address, [f"--jobs={jobs}"], owners=owners)
    except BaseException:
        options = ["--if-exists", "--no-password", maintenance]
        run_program(["dropdb", *options, "--", address.database], what)
        raise


def restore_tables(
    dump: Path, address: Address, tables: Sequence[str], *, owners: bool = True
) -> None:
    """Make some tables, which must not be there, with their data; all of them or none.

    Their indexes and constraints are not part of them. Raises SourceUnusable, UsageError.
    """
    listed = run_program(["pg_restore", "--list", str(dump)], f"the dump in {dump}").decode()
    for table in tables:
        if not any(_names_table(line, table) for line in listed.splitlines()):
            raise UsageError(f"the dump has no table {table}")
    options = ["--single-transaction", *(f"--table={table}" for table in tables)]
    _restore(dump, address, options, owners=owners)


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
        if "role" in str(error) and owners:
            error.hint = "restore the globals first (psql -f globals.sql), or say --no-owner"
        raise


def _names_table(line: str, table: str) -> bool:
    """Whether a line of a listing is that of a table: ``215; 1259 16385 TABLE public name owner``."""
    return " TABLE " in line and line.split(" TABLE ", 1)[1].split(" ", 1)[-1].startswith(
        f"{table} "
    )

"""What the command line and perdure.toml say of PostgreSQL: which databases, and the globals beside them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli.options import Command, text, with_options
from perdure.cli.session import Session
from perdure.errors import SourceUnusable, UsageError

if TYPE_CHECKING:
    from perdure.config.declaration import SourceSection
    from perdure.restore import Restored
    from perdure.restore_plan import Wanted
    from perdure.sources.protocol import Source

_HERE = "postgresql://"
"""The server that libpq finds by itself."""


@dataclass(frozen=True, slots=True)
class Databases:
    """What is said of databases; the same words on the command line and in perdure.toml."""

    named: tuple[str, ...] = ()
    """Names of databases, or addresses."""
    servers: tuple[str, ...] = ()
    """Addresses of servers of which all databases are meant."""
    globals_of: tuple[str, ...] = ()
    """Addresses of servers of which roles and tablespaces are meant."""

    def __bool__(self) -> bool:
        """Whether any is named."""
        return bool(self.named or self.servers or self.globals_of)

    @classmethod
    def of(cls, section: SourceSection) -> Databases:
        """Give what a table of perdure.toml says."""
        return cls(
            named=(section.postgresql,) if section.postgresql else (),
            servers=(section.postgresql_all,) if section.postgresql_all else (),
            globals_of=(section.postgresql_globals,) if section.postgresql_globals else (),
        )

    def sources(self, name: str | None) -> Iterator[Source]:
        """Make the sources; the globals stand beside all databases of a server.

        A server that does not tell its databases is a source that cannot be read. Raises UsageError.
        """
        if not self:
            return
        from perdure.formats.pgdump import DATABASE
        from perdure.sources.postgresql.address import Address
        from perdure.sources.postgresql.session import databases
        from perdure.sources.postgresql.source import DatabaseSource, GlobalsSource
        from perdure.sources.unusable import UnusableSource

        if name and self.servers:
            raise UsageError(
                "a name is one source's, and all databases of a server are several",
                hint="without it each is named for its database",
            )
        checked = text("name", name) if name else None
        for address in self.named:
            yield DatabaseSource(Address.parse(address), checked)
        for server in self.servers:
            address_of = Address.parse(server)
            try:
                names = databases(address_of)
            except SourceUnusable as error:
                yield UnusableSource(f"{DATABASE}:{address_of}*", error)
                continue
            for database in names:
                yield DatabaseSource(address_of.of(database))
        for server in dict.fromkeys((*self.globals_of, *self.servers)):
            yield GlobalsSource(Address.parse(server), checked)


@dataclass(frozen=True, slots=True)
class Server:
    """Where a dump is restored to, and what of it."""

    address: str | None = None
    tables: tuple[str, ...] = ()
    owners: bool = True

    def restore(self, session: Session, wanted: Wanted, *, dry_run: bool) -> Restored:
        """Restore a dump, by way of a temporary folder. Raises PerdureError."""
        from perdure.restore import RestoreRequest, survey
        from perdure.restore_postgresql import plan_postgresql, restore_into_postgresql
        from perdure.sources.postgresql.address import Address
        from perdure.sources.scratch import scratch_folder

        address = Address.parse(self.address or "")
        with (
            scratch_folder() as scratch,
            session.reading() as repository,
            session.output.observer() as observer,
        ):
            request = RestoreRequest(scratch, wanted, force=True)
            if dry_run:
                only = replace(wanted, source=plan_postgresql(repository, request).record.name)
                [restored] = survey(repository, replace(request, wanted=only), observer)
            else:
                restored = restore_into_postgresql(
                    repository, request, address, self.tables, observer, owners=self.owners
                )
        return replace(restored, files=(Path(str(address)),))


def server_options(command: Command) -> Command:
    """Add the options about restoring into PostgreSQL; the command is given ``server``."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        said = Server(
            address=kwargs.pop("into_postgresql"),
            tables=kwargs.pop("table"),
            owners=not kwargs.pop("no_owner"),
        )
        if said.address is None and said != Server():
            raise UsageError("--table and --no-owner belong to --into-postgresql")
        return command(*args, server=said, **kwargs)

    return with_options(
        command,
        wrapped,
        click.option(
            "--into-postgresql",
            metavar="DATABASE|URI",
            help="Restore the dump of a PostgreSQL database into a new database of this name.",
        ),
        click.option(
            "--table",
            multiple=True,
            metavar="[SCHEMA.]TABLE",
            help="With it: only this table, into a database that there is.",
        ),
        click.option(
            "--no-owner", is_flag=True, help="With it: everything belongs to who restores it."
        ),
    )


def postgresql_options(command: Command) -> Command:
    """Add the options about PostgreSQL; the command is given ``databases``."""

    def wrapped(*args: Any, **kwargs: Any) -> Any:
        said = Databases(
            named=kwargs.pop("postgresql"),
            servers=kwargs.pop("postgresql_all"),
            globals_of=kwargs.pop("postgresql_globals"),
        )
        return command(*args, databases=said, **kwargs)

    return with_options(
        command,
        wrapped,
        click.option(
            "--postgresql",
            multiple=True,
            metavar="DATABASE|URI",
            help="A PostgreSQL database, through pg_dump; may be given several times.",
        ),
        click.option(
            "--postgresql-all",
            multiple=True,
            is_flag=False,
            flag_value=_HERE,
            metavar="[URI]",
            help="All databases of a PostgreSQL server, and its globals.",
        ),
        click.option(
            "--postgresql-globals",
            multiple=True,
            is_flag=False,
            flag_value=_HERE,
            metavar="[URI]",
            help="Roles and tablespaces of a PostgreSQL server, through pg_dumpall.",
        ),
    )

"""A PostgreSQL database, and what is common to all databases of a server, as sources of files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.errors import UsageError
from perdure.formats.manifest import ServerRecord
from perdure.formats.pgdump import DATABASE, GLOBALS
from perdure.sources.files import FilesCut
from perdure.sources.postgresql.address import MAINTENANCE, Address
from perdure.sources.postgresql.session import Facts, Session, dump_globals, open_session
from perdure.sources.scratch import scratch_folder


class DatabaseSource:
    """A database of a PostgreSQL server; dumped into a scratch folder, which needs as much room.

    Raises UsageError for an address without the name of a database.
    """

    kind = DATABASE

    def __init__(
        self, address: Address, name: str | None = None, *, scratch: Path | None = None
    ) -> None:
        if not address.database:
            raise UsageError(
                f"the address of a database names none: postgresql://{address}",
                hint="postgresql://HOST/DATABASE; --postgresql-all takes all of a server",
            )
        self.place = str(address)
        self.name = name or f"{DATABASE}:{address}"
        self.database = address.database
        self._address, self._scratch = address, scratch
        self._facts: Facts | None = None

    @contextmanager
    def cut(self) -> Iterator[FilesCut]:
        """Fix the point at which the database is read. Raises SourceUnusable."""
        with open_session(self._address) as session, scratch_folder(self._scratch) as folder:
            facts = self._facts = session.facts
            yield FilesCut(
                where=f"the database {self.place}",
                path=folder / DATABASE,
                plain=True,
                make=lambda secret: session.dump(folder / DATABASE),
                moment=facts.moment,
                server=_record(facts),
            )

    def concerns(self) -> Iterator[str]:
        """Say when the point could not be held."""
        if self._facts is not None and self._facts.exported is None:
            yield (
                f"{self.place}: the server exports no snapshot; the dump is of the moment at which pg_dump"
                " began, not of the one of the other sources"
            )


class GlobalsSource:
    """Roles and tablespaces of a PostgreSQL server, as a script."""

    kind = GLOBALS
    database = ""

    def __init__(self, server: Address, name: str | None = None) -> None:
        self._address = server if server.database else server.of(MAINTENANCE)
        self.place = f"{str(server).removesuffix(server.database)}globals"
        self.name = name or f"{DATABASE}:{self.place}"
        self._facts: Facts | None = None

    @contextmanager
    def cut(self) -> Iterator[FilesCut]:
        """Ask the server who may read what. Raises SourceUnusable."""
        with open_session(self._address) as session, scratch_folder() as folder:
            yield self._cut(session, folder)

    def _cut(self, session: Session, folder: Path) -> FilesCut:
        facts = self._facts = session.facts
        script = folder / GLOBALS

        def make(secret: str) -> None:
            key = hashlib.sha256(b"perdure restrict key " + secret.encode()).hexdigest()
            dump_globals(self._address, script, key, superuser=facts.superuser)

        return FilesCut(
            where=self.place,
            path=script,
            plain=True,
            make=make,
            moment=facts.moment,
            server=_record(facts),
        )

    def concerns(self) -> Iterator[str]:
        """Say when the passwords of the roles are missing."""
        if self._facts is not None and not self._facts.superuser:
            yield (
                f"{self.place}: only a superuser may read the roles' passwords; they are not in the snapshot"
            )


def _record(facts: Facts) -> ServerRecord:
    return ServerRecord(
        version=facts.version, encoding=facts.encoding, collate=facts.collate, ctype=facts.ctype
    )

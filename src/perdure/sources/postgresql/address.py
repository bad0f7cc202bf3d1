"""Where a database is, in the words of libpq."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote, urlsplit

from perdure.errors import UsageError

MAINTENANCE = "postgres"
"""The database that each server has, to connect to when none is named."""
_SCHEMES = ("postgresql://", "postgres://")


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

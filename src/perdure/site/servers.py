"""Which storage of which of the site's own ZEO servers a client in a zope.conf uses."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from perdure.site.databases import storages_of_server
from perdure.site.zconfig import Configuration, Section

_EVERYWHERE = frozenset({"", "0.0.0.0", "::", "*"})  # noqa: S104 - a server's address is read, none is bound
_HERE = frozenset({"localhost", "localhost.localdomain", "ip6-localhost", "::1"})
FIRST = "1"
"""ZEO's name for a storage that has none."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a ZEO server listens: a socket's path, or a host and a port."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read an address as ZConfig does; a path has no port."""
        if "/" in text:
            return cls(os.path.normpath(text), None)
        host, _, port = text.rpartition(":")
        if not port.isdigit() or (":" in host and not host.startswith("[")):
            return cls(text.lower(), None)
        return cls(host.strip("[]").lower(), int(port))

    def leads_to(self, server: Address, this_host: str) -> bool:
        """Tell whether a client with this address reaches a server of this machine."""
        if self.port != server.port:
            return False
        if self.host == server.host:
            return True
        return self.port is not None and (
            _is_here(self.host, this_host) and _is_here(server.host, this_host)
        )


def served(
    client: Section, servers: Sequence[Configuration], this_host: str
) -> tuple[Configuration, Section] | None:
    """Give the storage that a client's section asks for, and whose server it is; None if not here."""
    wanted = (client.get("storage") or FIRST).lower()
    addresses = [Address.parse(each) for text in client.all("server") for each in text.split()]
    for server in servers:
        listening = _listening(server)
        if not any(
            address.leads_to(place, this_host) for address in addresses for place in listening
        ):
            continue
        for section in storages_of_server(server.top):
            if (section.name or FIRST) == wanted:
                return server, section
    return None


def _listening(server: Configuration) -> list[Address]:
    zeo = [section for section in server.top.sections if section.kind == "zeo"]
    return [
        Address.parse(value) for section in zeo for key, value in section.values if key == "address"
    ]


def _is_here(host: str, this_host: str) -> bool:
    mine = this_host.lower()
    return (
        host in _EVERYWHERE
        or host in _HERE
        or host.startswith("127.")
        or host in {mine, mine.partition(".")[0]}
    )

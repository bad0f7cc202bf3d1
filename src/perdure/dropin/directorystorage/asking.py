"""How a storage is asked to enter and leave snapshot mode: by XML-RPC, over an old ZEO, or not at all."""

from __future__ import annotations

import contextlib
import http.client
import socket
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, BinaryIO, Protocol
from urllib.parse import urlsplit
from xml.parsers.expat import ExpatError
from xmlrpc.client import Error, Fault, ProtocolError, SafeTransport, ServerProxy, Transport

from perdure.dropin.directorystorage.locks import locked
from perdure.dropin.directorystorage.rolling_forward import roll_forward
from perdure.dropin.directorystorage.states import USER
from perdure.errors import PerdureError, StoreError, UsageError
from perdure.formats import old_zeo, snapshot_conf
from perdure.sources.directorystorage.home import LOCK, SNAPSHOT, SUBLOCK, Home, read_file

_LONGEST_TOLD = 300
ANSWER_SECONDS = 600.0
"""How long a storage may take to enter or leave: it flushes its whole journal."""


class Refused(PerdureError):
    """One way into snapshot mode, or out of it, did not work."""


class Method(Protocol):
    """One way into snapshot mode, and out of it."""

    title: str

    def enter(self, code: str) -> None:
        """Enter snapshot mode under a code of ours. Raises Refused, LockTaken."""

    def leave(self, code: str) -> None:
        """Leave it. Raises Refused."""

    def expected(self, code: str) -> str:
        """What ``misc/snapshot`` says while the mode is ours."""


class HttpMethod:
    """Ask a DirectoryStorageToolkit in Zope."""

    def __init__(self, url: str, access: Path) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or "@" in parts.netloc:
            raise UsageError(
                f"{parts.scheme}://{parts.hostname} is no URL of a toolkit: http://HOST:PORT/PATH"
            )
        self.title = f"http {url}"
        self._url = url
        self._access = access

    def enter(self, code: str) -> None:
        """Ask. Raises Refused."""
        self._ask("enterSnapshot", code)

    def leave(self, code: str) -> None:
        """Ask. Raises Refused."""
        self._ask("leaveSnapshot", code)

    def expected(self, code: str) -> str:
        """Give what the storage writes."""
        return USER + code

    def _ask(self, method: str, code: str) -> None:
        transport = (_SafeTransport if self._url.startswith("https:") else _Transport)(
            headers=[("Authorization", f"Basic {b64encode(self._credentials()).decode()}")]
        )
        proxy = ServerProxy(self._url, transport=transport, allow_none=True)
        try:
            with proxy:
                getattr(proxy, method)(code)
        except Fault as fault:
            raise Refused(f"{self.title}: {_told(fault.faultString)}") from None
        except ProtocolError as error:
            raise Refused(f"{self.title}: {error.errcode} {_told(error.errmsg)}") from None
        except (OSError, Error, ExpatError, http.client.HTTPException) as error:
            raise Refused(f"{self.title}: {error}") from None

    def _credentials(self) -> bytes:
        raw = read_file(self._access, snapshot_conf.MOST_BYTES)
        first = (raw or b"").partition(b"\n")[0].strip()
        if b":" not in first:
            raise UsageError(
                f"{self._access} has no user:password in its first line",
                hint="snapshot.conf names it behind the URL; that user may Manage DirectoryStorages",
            )
        return first


class _Transport(Transport):
    def make_connection(self, host: Any) -> http.client.HTTPConnection:
        connection = super().make_connection(host)
        connection.timeout = ANSWER_SECONDS
        return connection


class _SafeTransport(SafeTransport):
    def make_connection(self, host: Any) -> http.client.HTTPSConnection:
        connection = super().make_connection(host)
        connection.timeout = ANSWER_SECONDS
        return connection


class ZeoMethod:
    """Ask a ZEO server of ZODB 3.3 to 3.10; its answers are read without importing anything."""

    def __init__(self, address: str, storage: str) -> None:
        self.title = f"zeo {address}"
        self._address = address
        self._storage = storage

    def enter(self, code: str) -> None:
        """Ask. Raises Refused."""
        self._ask("enter_snapshot", code)

    def leave(self, code: str) -> None:
        """Ask. Raises Refused."""
        self._ask("leave_snapshot", code)

    def expected(self, code: str) -> str:
        """Give what the storage writes."""
        return USER + code

    def _ask(self, method: str, code: str) -> None:
        try:
            with self._connected() as server:
                server.call("register", self._storage, 0)
                server.call(
                    "is_directory_storage"
                )  # any other storage's server ends the connection
                server.call(method, code)
        except (OSError, StoreError) as error:
            raise Refused(f"{self.title}: {_told(str(error))}") from None

    @contextlib.contextmanager
    def _connected(self) -> Iterator[_Server]:
        host, colon, port = self._address.rpartition(":")
        with ExitStack() as stack:
            if colon and port.isdecimal() and "/" not in self._address:
                connection = stack.enter_context(
                    socket.create_connection((host or "localhost", int(port)), ANSWER_SECONDS)
                )
            else:
                connection = stack.enter_context(socket.socket(socket.AF_UNIX))
                connection.settimeout(ANSWER_SECONDS)
                connection.connect(self._address)
            yield _Server(connection, stack.enter_context(connection.makefile("rb")))


class _Server:
    """An old ZEO server, at the other end of a connection."""

    def __init__(self, connection: socket.socket, stream: BinaryIO) -> None:
        self._connection = connection
        self._stream = stream
        self._calls = 0
        self._send(old_zeo.agree(self._receive()))

    def call(self, method: str, *arguments: str | int) -> Any:
        """Call a method; gives its result. Raises StoreError for an exception of the server's, OSError."""
        self._calls += 1
        self._send(old_zeo.encode_call(self._calls, method, *arguments))
        while True:
            message = old_zeo.decode(self._receive())
            if message.method == old_zeo.REPLY and message.number == self._calls:
                break  # the others are invalidations
        if message.failure:
            raise StoreError(message.failure)
        return message.content

    def _send(self, content: bytes) -> None:
        self._connection.sendall(old_zeo.frame(content))

    def _receive(self) -> bytes:
        return self._read(old_zeo.frame_size(self._read(old_zeo.LENGTH_BYTES)))

    def _read(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise StoreError("the server ended the connection")
        return data


class DirectMethod:
    """Take the locks of a storage that nobody has open, and bring what is committed into ``A``.

    Its ``lock`` is held until the mode is left: a storage that started meanwhile would go on in a
    snapshot mode that it could not leave.
    """

    title = "direct"

    def __init__(self, home: Home) -> None:
        self._home = home
        self._lock = ExitStack()

    def enter(self, code: str) -> None:
        """Lock, and roll forward. Raises LockTaken, SourceUnusable."""
        with ExitStack() as stack:
            stack.enter_context(locked(self._home.path, LOCK))
            with locked(self._home.path, SUBLOCK):
                roll_forward(self._home)
            self._lock = stack.pop_all()

    def leave(self, code: str) -> None:
        """Unlock."""
        self._lock.close()

    def expected(self, code: str) -> str:
        """Give what a closed storage says."""
        return "shutdown"


def method_for(given: snapshot_conf.Method, home: Home, folder: Path) -> Method | None:
    """Give the method that a line of snapshot.conf stands for; None for ``live``. Raises UsageError.

    ``folder``: what names in the file are relative to.
    """
    match given:
        case snapshot_conf.Http(url, access_file):
            return HttpMethod(url, folder / access_file)
        case snapshot_conf.Zeo(address, storage):
            return ZeoMethod(address, storage)
        case snapshot_conf.Direct():
            return DirectMethod(home)
        case snapshot_conf.Live():
            return None


def _told(text: str) -> str:
    """What a server says, fit for a message of ours: one line, short, nothing that moves a cursor."""
    line = " ".join(text.split())
    return "".join(c if c.isprintable() else "?" for c in line)[:_LONGEST_TOLD]


def is_ours(home: Home, expected: str) -> bool:
    """Whether ``misc/snapshot`` says what it must say while a mode is ours."""
    raw = read_file(home.path / SNAPSHOT, snapshot_conf.MOST_BYTES)
    return raw is not None and raw == expected.encode()

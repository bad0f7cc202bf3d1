"""An HTTP proxy in front of a server, which does harm where it is told to, and counts what it lets pass."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Fault(Enum):
    """What happens to a request."""

    REFUSED = "the connection is cut before the server hears of it"
    LOST = "the server does it, and the connection is cut before it answers"
    TORN = "the connection is cut in the middle of the answer"
    ERROR_500 = "the server answers 500"
    BUSY_503 = "the server answers 503, SlowDown"
    SILENT = "no answer comes until the client gives up"


@dataclass(frozen=True)
class Asked:
    """A request: the n-th (from 1), its verb as the store counts it, and its path."""

    number: int
    verb: str
    path: str


Harm = Callable[[Asked], Fault | None]


@dataclass
class Proxy:
    """A running proxy; ``harm`` says what becomes of each request, and may be set at any time."""

    endpoint: str
    harm: Harm = lambda asked: None
    asked: list[Asked] = field(default_factory=list)
    bytes_sent: int = 0
    bytes_received: int = 0
    struck: Counter[Fault] = field(default_factory=Counter)
    over: threading.Event = field(default_factory=threading.Event)
    _mutex: threading.Lock = field(default_factory=threading.Lock)

    @property
    def by_verb(self) -> dict[str, int]:
        """How many requests of each verb came."""
        return dict(Counter(asked.verb for asked in self.asked))

    def url(self, bucket: str, prefix: str = "repository", **options: str) -> str:
        """Give a place behind the proxy as Perdure writes it."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}{more}"

    def note(self, verb: str, path: str, size: int) -> Fault | None:
        """Count a request; gives what happens to it."""
        with self._mutex:
            asked = Asked(len(self.asked) + 1, verb, path)
            self.asked.append(asked)
            self.bytes_sent += size
            fault = self.harm(asked)
            if fault:
                self.struck[fault] += 1
        return fault

    def reset(self) -> None:
        """Count anew, and do no harm."""
        self.harm = lambda asked: None
        self.asked.clear()
        self.struck.clear()
        self.bytes_sent = self.bytes_received = 0


def once_each(fault: Fault, verb: str | None = None) -> Harm:
    """Harm the first try of each request (of a verb); the second passes."""
    known: set[tuple[str, str]] = set()

    def harm(asked: Asked) -> Fault | None:
        first = (asked.verb, asked.path) not in known
        known.add((asked.verb, asked.path))
        return fault if first and verb in (None, asked.verb) else None

    return harm


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of ``upstream``, the URL of a server on this machine."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        server.upstream = urlsplit(upstream).netloc
        server.running = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield server.running
        finally:
            server.running.over.set()
            server.shutdown()
            thread.join()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    upstream: str
    running: Proxy

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # the client has gone


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *arguments: object) -> None:
        pass

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        fault = self.server.running.note(verb_of(self.command, self.path), self.path, len(body))
        if fault is Fault.SILENT:
            self.server.running.over.wait(60)
        if fault in (Fault.REFUSED, Fault.SILENT):
            self.cut()
        elif fault in (Fault.ERROR_500, Fault.BUSY_503):
            self.complain(fault)
        else:
            self.forward(body, fault)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

    def forward(self, body: bytes, fault: Fault | None) -> None:
        try:
            answer, content = self.ask(body)
        except (OSError, http.client.HTTPException):
            self.cut()
            return
        if fault is Fault.LOST:
            self.cut()
            return
        length = len(content)
        if self.command == "HEAD":
            length = int(answer.headers.get("Content-Length") or 0)
        self.begin(answer.status, length, dict(answer.headers.items()))
        if fault is Fault.TORN:
            self.wfile.write(content[: len(content) // 2])
            self.cut()
            return
        self.wfile.write(content)
        self.server.running.bytes_received += len(content)

    def ask(self, body: bytes) -> tuple[http.client.HTTPResponse, bytes]:
        with contextlib.closing(
            http.client.HTTPConnection(self.server.upstream, timeout=120)
        ) as server:
            server.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "connection":
                    server.putheader(name, value)
            server.endheaders(body)
            answer = server.getresponse()
            return answer, answer.read()

    def complain(self, fault: Fault) -> None:
        status, code = (500, "InternalError") if fault is Fault.ERROR_500 else (503, "SlowDown")
        text = f"<Error><Code>{code}</Code></Error>".encode()
        self.begin(status, len(text), {})
        if self.command != "HEAD":
            self.wfile.write(text)

    def begin(self, status: int, length: int, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def cut(self) -> None:
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def verb_of(method: str, path: str) -> str:
    """Name what a request does."""
    if method == "GET" and "list-type" in parse_qs(urlsplit(path).query):
        return "list"
    return method.lower()

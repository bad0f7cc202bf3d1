"""An HTTP proxy in front of a server, which does harm where it is told to, and counts what it lets pass."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator
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

    @property
    def by_verb(self) -> dict[str, int]:
        """How many requests of each verb came."""
        return dict(Counter(asked.verb for asked in self.asked))

    def url(self, bucket: str, prefix: str = "repository", **options: str) -> str:
        """Give a place behind the proxy as Perdure writes it."""
        more = "".join(f"&{name}={value}" for name, value in options.items())
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}{more}"

    def reset(self) -> None:
        """Count anew, and do no harm."""
        self.harm = lambda asked: None
        self.asked.clear()
        self.struck.clear()
        self.bytes_sent = self.bytes_received = 0


def once_each(fault: Fault, verb: str | None = None) -> Harm:
    """Harm the first try of each request (of a verb); the second passes."""
    known: set[tuple[str, str]] = set()
    mutex = threading.Lock()

    def harm(asked: Asked) -> Fault | None:
        with mutex:
            first = (asked.verb, asked.path) not in known
            known.add((asked.verb, asked.path))
        return fault if first and verb in (None, asked.verb) else None

    return harm


@contextlib.contextmanager
def proxy(upstream: str) -> Iterator[Proxy]:
    """Run a proxy in front of ``upstream``, the URL of a server on this machine."""
    host = urlsplit(upstream).netloc
    mutex = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with mutex:
                asked = Asked(len(running.asked) + 1, verb_of(self.command, self.path), self.path)
                running.asked.append(asked)
                running.bytes_sent += len(body)
                fault = running.harm(asked)
                if fault:
                    running.struck[fault] += 1
            if fault is Fault.SILENT:
                running.over.wait(60)
            if fault in (Fault.REFUSED, Fault.SILENT):
                self.cut()
            elif fault in (Fault.ERROR_500, Fault.BUSY_503):
                self.complain(fault)
            else:
                self.forward(body, fault)

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = answer

        def forward(self, body: bytes, fault: Fault | None) -> None:
            server = http.client.HTTPConnection(host, timeout=120)
            try:
                server.putrequest(
                    self.command, self.path, skip_host=True, skip_accept_encoding=True
                )
                for name, value in self.headers.items():
                    if name.lower() != "connection":
                        server.putheader(name, value)
                server.endheaders(body)
                answer = server.getresponse()
                content = answer.read()
            except (OSError, http.client.HTTPException):
                self.cut()
                return
            finally:
                server.close()
            if fault is Fault.LOST:
                self.cut()
                return
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                    self.send_header(name, value)
            length = len(content)
            if self.command == "HEAD":
                length = int(answer.headers.get("Content-Length") or 0)
            self.send_header("Content-Length", str(length))
            self.end_headers()
            if fault is Fault.TORN:
                self.wfile.write(content[: len(content) // 2])
                self.cut()
                return
            self.wfile.write(content)
            with mutex:
                running.bytes_received += len(content)

        def complain(self, fault: Fault) -> None:
            status, code = (500, "InternalError") if fault is Fault.ERROR_500 else (503, "SlowDown")
            text = f"<Error><Code>{code}</Code></Error>".encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def cut(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 64

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # the client has gone

    with Server(("127.0.0.1", 0), Handler) as server:
        running = Proxy(f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield running
        finally:
            running.over.set()
            server.shutdown()
            thread.join()


def verb_of(method: str, path: str) -> str:
    """Name what a request does."""
    if method == "GET" and "list-type" in parse_qs(urlsplit(path).query):
        return "list"
    return method.lower()

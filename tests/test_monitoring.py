"""Who is told how a backup went: real HTTP servers, real files, a sendmail of the test's own."""

from __future__ import annotations

import email
import email.policy
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from perdure.config.declaration import MailSection
from perdure.config.values import Address, Url
from perdure.errors import PerdureError
from perdure.formats import prometheus
from perdure.monitoring import BODY_LIMIT, ping, send_mail, write_textfile
from perdure.outcome import Made, Outcome

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SUCCESS = Outcome(
    exit_code=0,
    message="",
    repository='/srv/"backup"\\',
    host="www1",
    started=NOON,
    finished=NOON.replace(minute=1),
    made=Made("ab" * 32, 1234, False, (("main", NOON), ("empty", None))),
)
FAILED = replace(
    SUCCESS.failed(11, "the repository is locked"), made=None, finished=NOON.replace(hour=13)
)


# Pings.


@dataclass
class Server:
    """Answers with the codes it is told, the last one for ever, and remembers what it was asked."""

    codes: list[int]
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "*")
    told = Server([200])

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            told.asked.append((self.command, self.path, body))
            code = told.codes.pop(0) if len(told.codes) > 1 else told.codes[0]
            self.send_response(code)
            self.end_headers()

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002
            """Nothing is printed."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    told.url = f"http://127.0.0.1:{http.server_port}"
    thread = threading.Thread(target=http.serve_forever, args=(0.01,))
    thread.start()
    yield told
    http.shutdown()
    thread.join()
    http.server_close()


def call(url: str, *, timeout: float = 120, retries: int = 2, body: str = "") -> list[float]:
    """Ping; gives the times slept between tries."""
    slept: list[float] = []
    ping(Url.parse(url), body, timeout=timeout, retries=retries, sleep=slept.append)
    return slept


def test_a_ping(server: Server) -> None:
    assert call(f"{server.url}/uuid?create=1", body="all ist güt\n") == []
    assert server.asked == [("POST", "/uuid?create=1", "all ist güt\n")]


def test_a_message_is_cut_short(server: Server) -> None:
    call(server.url, body="x" * 1_000_000)
    assert server.asked[0][2] == "x" * BODY_LIMIT


@pytest.mark.parametrize(
    ("codes", "tries"), [([500, 503, 200], 3), ([429, 200], 2), ([500, 200], 2)]
)
def test_a_ping_is_tried_again(server: Server, codes: list[int], tries: int) -> None:
    server.codes = codes
    assert call(f"{server.url}/uuid") == [1.0, 2.0][: tries - 1]
    assert len(server.asked) == tries


@pytest.mark.parametrize(("codes", "tries"), [([500], 3), ([404], 1), ([403], 1)])
def test_a_ping_is_given_up(server: Server, codes: list[int], tries: int) -> None:
    server.codes = codes
    with pytest.raises(PerdureError, match=f"it answers {codes[0]}") as caught:
        call(f"{server.url}/geheim")
    assert len(server.asked) == tries
    assert "geheim" not in str(caught.value)


@pytest.mark.parametrize("listens", [False, True], ids=["refused", "hanging"])
def test_nobody_answers(listens: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        if listens:
            nobody.listen()
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/geheim"
        with pytest.raises(PerdureError, match="timed out" if listens else "refused") as caught:
            call(url, timeout=0.2)
    assert "geheim" not in str(caught.value)


# The file for Prometheus.

_LINE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\[\\n"])*",?)+)\} ([0-9.e+]+)')


def metrics(path: Path) -> dict[str, float]:
    """Read a file strictly: every line is help, type or a sample, in this order."""
    text = path.read_text()
    assert text.endswith("\n")
    found: dict[str, float] = {}
    announced: list[str] = []
    for line in text.splitlines():
        if line.startswith("# HELP "):
            announced = [line.split(" ")[2]]
        elif line.startswith("# TYPE "):
            assert line == f"# TYPE {announced[0]} gauge"
            announced.append("type")
        else:
            sample = _LINE.fullmatch(line)
            assert sample, line
            assert [sample[1], "type"] == announced
            source = re.search(r'source="([^"]*)"', sample[2])
            assert 'repository="/srv/\\"backup\\"\\\\"' in sample[2]
            name = sample[1] + (f" {source[1]}" if source else "")
            assert name not in found
            found[name] = float(sample[3])
    return found


def test_a_success(tmp_path: Path) -> None:
    path = tmp_path / "perdure.prom"
    write_textfile(path, SUCCESS)
    assert metrics(path) == {
        prometheus.LAST_SUCCESS: SUCCESS.finished.timestamp(),
        prometheus.LAST_RUN: SUCCESS.finished.timestamp(),
        prometheus.EXIT_CODE: 0,
        prometheus.DURATION: 60,
        prometheus.BYTES_ADDED: 1234,
        prometheus.INCOMPLETE: 0,
        f"{prometheus.SOURCE_CUT} main": NOON.timestamp(),
    }
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_failure_keeps_the_last_success(tmp_path: Path) -> None:
    path = tmp_path / "perdure.prom"
    write_textfile(path, SUCCESS)
    before = metrics(path)
    write_textfile(path, FAILED)
    write_textfile(path, FAILED)
    assert metrics(path) == before | {
        prometheus.LAST_RUN: FAILED.finished.timestamp(),
        prometheus.EXIT_CODE: 11,
        prometheus.DURATION: 3600,
    }


def test_an_incomplete_snapshot(tmp_path: Path) -> None:
    path = tmp_path / "perdure.prom"
    write_textfile(path, SUCCESS)
    made = Made("cd" * 32, 5, True, (("other", NOON),))
    write_textfile(path, replace(FAILED, exit_code=3, made=made))
    found = metrics(path)
    assert found[prometheus.LAST_SUCCESS] == SUCCESS.finished.timestamp()
    assert found[prometheus.INCOMPLETE] == 1
    assert found[prometheus.BYTES_ADDED] == 5
    assert f"{prometheus.SOURCE_CUT} other" in found
    assert f"{prometheus.SOURCE_CUT} main" not in found


def test_a_first_failure_and_a_file_of_others(tmp_path: Path) -> None:
    path = tmp_path / "perdure.prom"
    write_textfile(path, FAILED)
    assert prometheus.LAST_SUCCESS not in metrics(path)
    path.write_bytes(b'\xff\nperdure_bytes_added{repository="/elsewhere"} 5\n')
    write_textfile(path, FAILED)
    assert prometheus.BYTES_ADDED not in metrics(path)


def test_a_file_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(PerdureError, match="cannot be written"):
        write_textfile(tmp_path / "none" / "perdure.prom", SUCCESS)
    (tmp_path / "folder").mkdir()
    with pytest.raises(PerdureError, match="cannot be written"):
        write_textfile(tmp_path / "folder", SUCCESS)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


_WRITER = """
import sys
from dataclasses import replace
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from test_monitoring import FAILED, SUCCESS
from perdure.monitoring import write_textfile
while True:
    write_textfile(Path(sys.argv[1]), SUCCESS)
    write_textfile(Path(sys.argv[1]), FAILED)
"""


@pytest.mark.slow
def test_whatever_stops_the_file_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "perdure.prom"
    for _ in range(4):
        command = [sys.executable, "-c", _WRITER, str(path), str(Path(__file__).parent)]
        with subprocess.Popen(command) as process:
            until = time.monotonic() + 300
            while not path.exists():
                assert process.poll() is None
                assert time.monotonic() < until
                time.sleep(0.01)
            process.send_signal(signal.SIGKILL)
        assert len(metrics(path)) == 7
        assert [each for each in tmp_path.iterdir() if each.suffix == ".prom"] == [path]
        path.unlink()


# Mail.


@pytest.fixture
def sendmail(tmp_path: Path) -> Path:
    """A sendmail that keeps its arguments and what it is given."""
    path = tmp_path / "bin" / "sendmail"
    path.parent.mkdir()
    path.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" > {tmp_path}/arguments\ncat > {tmp_path}/mail\n'
    )
    path.chmod(0o755)
    return path


def test_a_mail(tmp_path: Path, sendmail: Path) -> None:
    mail = MailSection(
        to=(Address("admin@example.org"), Address("root")), from_=Address("backup@example.org")
    )
    outcome = FAILED.failed(14, "Däta.fs is not there " + "x" * 2000)
    send_mail(mail, outcome, str(sendmail), NOON)
    arguments = (tmp_path / "arguments").read_text().splitlines()
    assert arguments == ["-i", "-f", "backup@example.org", "--", "admin@example.org", "root"]
    message = email.message_from_bytes(
        (tmp_path / "mail").read_bytes(), policy=email.policy.default
    )
    assert message["Subject"] == 'perdure: backup of www1 to /srv/"backup"\\ failed'
    assert message["To"] == "admin@example.org, root"
    assert message["From"] == "backup@example.org"
    assert message["Date"] == "Sat, 21 Nov 2026 12:00:00 +0000"
    body = message.get_body()
    assert body is not None
    assert "exit code 14" in body.get_content()
    assert "Däta.fs is not there" in body.get_content()


def test_a_mail_from_whom_sendmail_says(tmp_path: Path, sendmail: Path) -> None:
    send_mail(MailSection(to=(Address("root"),)), SUCCESS, str(sendmail), NOON)
    assert (tmp_path / "arguments").read_text().splitlines() == ["-i", "--", "root"]
    content = (tmp_path / "mail").read_bytes()
    message = email.message_from_bytes(content, policy=email.policy.default)
    assert message["From"] is None
    assert message["Subject"].endswith("succeeded")


def test_a_mail_that_is_not_sent(tmp_path: Path, sendmail: Path) -> None:
    mail = MailSection(to=(Address("root"),))
    sendmail.write_text("#!/bin/sh\necho no queue >&2; exit 75\n")
    with pytest.raises(PerdureError, match="ended with 75: no queue"):
        send_mail(mail, SUCCESS, str(sendmail), NOON)
    with pytest.raises(PerdureError, match="cannot be run"):
        send_mail(mail, SUCCESS, str(tmp_path / "none"), NOON)

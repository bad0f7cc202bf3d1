"""Telling others how a backup went: a ping by HTTP, a file for Prometheus, a mail.

Each raises PerdureError when it cannot be done, and it is on the caller to make a warning of that: the
backup is made, whoever may be told of it.
"""

from __future__ import annotations

import http.client
import os
import subprocess
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from email.message import EmailMessage
from email.utils import format_datetime
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

from perdure.config.declaration import MailSection
from perdure.config.values import Url
from perdure.errors import PerdureError
from perdure.formats import prometheus
from perdure.formats.prometheus import Sample
from perdure.outcome import Outcome

BODY_LIMIT = 10_000
"""Characters of a message that a ping carries."""
_TEXTFILE_LIMIT = 1 << 20
_SENDMAIL_TIMEOUT = 60.0
_TRY_AGAIN = {408, 429}


def ping(
    url: Url, body: str, *, timeout: float, retries: int, sleep: Callable[[float], None]
) -> None:
    """Call a URL with a message as body (POST); tries again, waiting longer and longer.

    ``timeout`` is in seconds, for each try. Raises PerdureError, which names only the URL's host.
    """
    for attempt in range(retries + 1):
        if attempt:
            sleep(2.0 ** (attempt - 1))
        problem, worth = _call(url, body[:BODY_LIMIT].encode("utf-8", "replace"), timeout)
        if not problem:
            return
        if not worth:
            break
    raise PerdureError(f"{url.host} could not be told how the backup goes: {problem}")


def _call(url: Url, body: bytes, timeout: float) -> tuple[str | None, bool]:
    """Call once; gives what went wrong, and whether it may go well another time."""
    headers = {"Content-Type": "text/plain; charset=utf-8", "User-Agent": "perdure"}
    try:
        request = Request(url, data=body, method="POST", headers=headers)  # noqa: S310 - http by type
        with urlopen(request, timeout=timeout):  # noqa: S310
            return None, False
    except HTTPError as error:
        error.close()
        return f"it answers {error.code}", error.code >= 500 or error.code in _TRY_AGAIN
    except URLError as error:
        return str(getattr(error.reason, "strerror", None) or error.reason), True
    except (OSError, http.client.HTTPException) as error:
        return str(error) or type(error).__name__, True
    except ValueError:
        return "its URL cannot be used", False


def write_textfile(path: Path, outcome: Outcome) -> None:
    """Write how a backup went, over the file of the run before, at once or not at all.

    Of that one is kept what a failed run cannot tell: the last success, the last snapshot. Raises
    PerdureError.
    """
    try:
        text = prometheus.encode(prometheus.merge(_remembered(path, outcome), _samples(outcome)))
        _replace(path, text.encode("utf-8", "replace"))
    except OSError as error:
        raise PerdureError(f"{path} cannot be written: {error.strerror}") from error


def _samples(outcome: Outcome) -> dict[tuple[str, object], Sample]:
    values = {
        prometheus.LAST_RUN: outcome.finished.timestamp(),
        prometheus.EXIT_CODE: float(outcome.exit_code),
        prometheus.DURATION: outcome.seconds,
    }
    if outcome.exit_code == 0:
        values[prometheus.LAST_SUCCESS] = outcome.finished.timestamp()
    made = outcome.made
    if made:
        values[prometheus.BYTES_ADDED] = float(made.bytes_added)
        values[prometheus.INCOMPLETE] = float(made.incomplete)
    labels = prometheus.labels(repository=outcome.repository)
    samples = [Sample(name, labels, value) for name, value in values.items()]
    for source, cut in made.cuts if made else ():
        if cut:
            of_source = prometheus.labels(repository=outcome.repository, source=source)
            samples.append(Sample(prometheus.SOURCE_CUT, of_source, cut.timestamp()))
    return {(sample.name, sample.labels): sample for sample in samples}


def _remembered(path: Path, outcome: Outcome) -> list[Sample]:
    """Give what holds on of the file of an earlier run."""
    if outcome.exit_code == 0:
        return []
    try:
        with open(path, "rb") as file:
            text = file.read(_TEXTFILE_LIMIT).decode("utf-8", "replace")
    except FileNotFoundError:
        return []
    old = prometheus.decode(text)
    if outcome.made:  # a snapshot without some of its sources has them no more
        old = [sample for sample in old if sample.name != prometheus.SOURCE_CUT]
    return [sample for sample in old if ("repository", outcome.repository) in sample.labels]


def _replace(path: Path, content: bytes) -> None:
    """Put a file in place of another: whole, durable, readable for the collector."""
    # A name that does not end with .prom, which the collector would read.
    temporary = path.with_name(f".{path.name}-tmp-{os.urandom(4).hex()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fchmod(descriptor, 0o644)  # whatever the umask of a service is
            os.fsync(descriptor)
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


def send_mail(mail: MailSection, outcome: Outcome, sendmail: str, now: datetime) -> None:
    """Send how a backup went with a sendmail program. Raises PerdureError."""
    message = EmailMessage()
    message["Subject"] = f"perdure: {outcome.title}"
    message["To"] = ", ".join(mail.to)
    if mail.from_:
        message["From"] = mail.from_
    message["Date"] = format_datetime(now)
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(outcome.text())
    sender = ["-f", mail.from_] if mail.from_ else []
    command = [sendmail, "-i", *sender, "--", *mail.to]
    try:
        done = subprocess.run(
            command,
            input=message.as_bytes(),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_SENDMAIL_TIMEOUT,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise PerdureError(f"{sendmail} was ended: it took {_SENDMAIL_TIMEOUT:g} seconds") from None
    except OSError as error:
        raise PerdureError(f"{sendmail} cannot be run: {error.strerror}") from error
    if done.returncode:
        said = done.stderr[:500].decode("utf-8", "replace").strip()
        raise PerdureError(f"{sendmail} ended with {done.returncode}: {said}")

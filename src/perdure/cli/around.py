"""What runs around a backup: commands before and after it, and those who are told how it went.

It is Python's ``try``: commands of ``before`` and the backup, then ``after`` if both went well, else
``failed``, and ``finally`` at the end. Then monitors are told. A command that fails makes the run fail;
a monitor that cannot be told is a warning.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING

import click

from perdure.cli import messages
from perdure.cli.session import Session
from perdure.config.values import Location
from perdure.errors import INTERRUPTED, BackupIncomplete, PerdureError

if TYPE_CHECKING:
    from perdure.backup import BackupReport
    from perdure.hooks import Surroundings
    from perdure.outcome import Made, Outcome

Clock = Callable[[], datetime]
_STANDARD_ERROR = 2
_SENDMAIL = "/usr/sbin:/usr/lib"
"""Where sendmail is on machines that have it outside PATH."""


class Run:
    """A backup that is under way: it reports what it made."""

    def __init__(self) -> None:
        self.made: Made | None = None

    def report(self, report: BackupReport) -> None:
        """Take note of what was made."""
        from perdure.outcome import Made

        self.made = Made(
            snapshot=report.snapshot_id,
            bytes_added=report.bytes_added,
            incomplete=report.incomplete,
            cuts=tuple(
                (messages.printable(source.name), source.cut.time if source.cut.value else None)
                for source in report.sources
                if source.status != "failed"
            ),
        )


@contextmanager
def around(session: Session, clock: Clock, *, dry_run: bool = False) -> Iterator[Run]:
    """Do what the configuration wants done around a backup; what the backup raises goes on.

    Raises PerdureError when a command fails. A dry run has nothing around it.
    """
    run = Run()
    if dry_run:
        yield run
        return
    surroundings = _Around(session, clock, run)
    try:
        surroundings.before()
        yield run
        surroundings.after()
    except BaseException as error:
        surroundings.end(error)
        raise
    surroundings.end(None)


class _Around:
    def __init__(self, session: Session, clock: Clock, run: Run) -> None:
        self._session = session
        self._config = session.config
        self._clock = clock
        self._run = run
        self._started = clock()
        self._location = Location(session.settings.location)

    def before(self) -> None:
        url = self._config.monitoring.ping
        if url:
            self._told(lambda: self._ping("start", "the backup begins\n"))
        self._hooks("before", None)

    def after(self) -> None:
        if self._run.made is None or not self._run.made.incomplete:
            self._hooks("after", self._outcome(None))

    def end(self, error: BaseException | None) -> None:
        """Run what comes last, and tell how it went. Raises PerdureError if only that failed."""
        outcome = self._outcome(error)
        if outcome.exit_code:
            self._told(lambda: self._hooks("failed", outcome))
        try:
            self._hooks("finally", outcome)
        except PerdureError as problem:
            if outcome.exit_code:
                self._session.output.warning(str(problem))
                self._tell(outcome)
                return
            self._tell(outcome.failed(problem.exit_code, str(problem)))
            raise
        self._tell(outcome)

    def _tell(self, outcome: Outcome) -> None:
        """Tell everybody who is to be told."""
        monitoring = self._config.monitoring
        textfile, mail = monitoring.prometheus_textfile, monitoring.mail
        if textfile:
            from perdure.monitoring import write_textfile

            self._told(lambda: write_textfile(textfile, outcome))
        if monitoring.ping:
            name = "fail" if outcome.exit_code else None
            self._told(lambda: self._ping(name, outcome.text()))
        if mail.to and (outcome.exit_code or mail.on == "always"):
            from perdure.monitoring import send_mail

            self._told(lambda: send_mail(mail, outcome, self._sendmail(), self._clock()))

    def _told(self, tell: Callable[[], None]) -> None:
        """Do it; a failure is a warning."""
        try:
            tell()
        except PerdureError as problem:
            self._session.output.warning(str(problem))

    def _ping(self, name: str | None, body: str) -> None:
        from perdure.monitoring import ping

        monitoring = self._config.monitoring
        assert monitoring.ping
        ping(
            monitoring.ping.below(name) if name else monitoring.ping,
            body,
            timeout=max(monitoring.ping_timeout.total_seconds(), 0.1),
            retries=monitoring.ping_retries,
            sleep=time.sleep,
        )

    def _hooks(self, event: str, outcome: Outcome | None) -> None:
        """Run the commands of an event; the first that fails ends it, but for the last ones."""
        commands = {
            "before": self._config.hooks.before,
            "after": self._config.hooks.after,
            "failed": self._config.hooks.failed,
            "finally": self._config.hooks.finally_,
        }[event]
        failure: PerdureError | None = None
        for command in commands:
            from perdure.hooks import run_hook

            try:
                run_hook(event, command, self._surroundings(), outcome)
            except PerdureError as problem:
                if failure:
                    self._session.output.warning(str(problem))
                failure = failure or problem
                if event in {"before", "after"}:
                    break
        if failure:
            raise failure

    def _surroundings(self) -> Surroundings:
        from perdure.hooks import Surroundings

        configuration = self._session.settings.configuration
        environment = dict(self._session.settings.environment)
        folder = self._location.folder
        environment["PERDURE_REPOSITORY"] = os.path.abspath(folder) if folder else self._location
        if configuration.file:
            environment["PERDURE_CONFIG"] = str(configuration.file)
        return Surroundings(
            environment=environment,
            folder=configuration.file.parent if configuration.file else None,
            timeout=self._config.hooks.timeout.total_seconds(),
            output=_STANDARD_ERROR,
        )

    def _outcome(self, error: BaseException | None) -> Outcome:
        from perdure.outcome import Outcome
        from perdure.repository.processes import host_name

        code, message = _code_of(error)
        made = self._run.made
        if made and made.incomplete and not code:
            code, message = BackupIncomplete.exit_code, "something is missing from the snapshot"
        finished = self._clock()
        return Outcome(
            exit_code=code,
            message=message,
            repository=messages.printable(self._location.without_secrets),
            host=messages.printable(host_name()),
            started=min(self._started, finished),
            finished=finished,
            made=made,
        )

    def _sendmail(self) -> str:
        environment: Mapping[str, str] = self._session.settings.environment
        path = f"{environment.get('PATH', '')}:{_SENDMAIL}"
        found = shutil.which("sendmail", path=path.lstrip(":"))
        if not found:
            raise PerdureError(
                "no mail can be sent: this machine has no sendmail program",
                hint="install one, such as msmtp-mta",
            )
        return found


def _code_of(error: BaseException | None) -> tuple[int, str]:
    """Give the exit code that an exception ends with, and its message on one line."""
    if error is None:
        return 0, ""
    if isinstance(error, KeyboardInterrupt | click.Abort):
        return INTERRUPTED, "interrupted"
    if isinstance(error, PerdureError):
        hint = f" (hint: {error.hint})" if error.hint else ""
        return error.exit_code, messages.printable(f"{error}{hint}")
    code = error.exit_code if isinstance(error, click.ClickException) else 1
    return code, messages.printable(f"{type(error).__name__}: {error}")

"""What runs around a backup: in which order, for which end, and who is told."""

from __future__ import annotations

import email
import email.policy
import os
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import click
import pytest
from doubles import Clock

from perdure.backup import BackupReport, SourceReport
from perdure.cli.around import around
from perdure.cli.options import Settings
from perdure.cli.session import Session
from perdure.config.effective import settle
from perdure.errors import BackupIncomplete, PerdureError, RepositoryLocked
from perdure.formats.prometheus import EXIT_CODE, LAST_SUCCESS, decode
from perdure.model import SnapshotId, Tid

_NOTE = 'echo "$PERDURE_EVENT $PERDURE_STATUS $PERDURE_EXIT_CODE" >> notes'
HOOKS = f"""
[repository]
location = "repo"
[hooks]
before = [["sh", "-c", '{_NOTE}']]
after = [["sh", "-c", '{_NOTE}']]
failed = [["sh", "-c", '{_NOTE}']]
finally = [["sh", "-c", '{_NOTE}']]
[monitoring]
prometheus-textfile = "perdure.prom"
mail.to = ["root"]
mail.on = "always"
"""
pytestmark = pytest.mark.usefixtures("bare_environment")
Body = Callable[[], None]


def report(*, incomplete: bool = False) -> BackupReport:
    cut = Tid.at(datetime(2026, 11, 21, 3, 0, tzinfo=UTC))
    source = SourceReport(
        name="main",
        kind="filestorage",
        path="/Data.fs",
        cut=cut,
        size=5,
        status="complete",
        method="full",
        reason="",
        transactions_new=1,
        records_new=1,
        bytes_new=1,
        bytes_read=1,
    )
    return BackupReport(SnapshotId("ab" * 32), (source,), 1, 1234, 1.0, incomplete=incomplete)


class Site:
    """A configuration, and what is left of a run with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.sendmail = folder / "bin" / "sendmail"
        self.sendmail.parent.mkdir()
        self.sendmail.write_text(f"#!/bin/sh\ncat > {folder}/mail\n")
        self.sendmail.chmod(0o755)

    def run(self, text: str, body: Body | BackupReport | None, *, dry_run: bool = False) -> None:
        environment = {"PATH": f"{self.sendmail.parent}:{os.environ['PATH']}", "KEPT": "yes"}
        found = settle(text, self.folder / "perdure.toml", None, environment)
        assert not found.problems
        session = Session(Settings(environment, read_configuration=lambda: found))
        clock = Clock()
        with around(session, clock, dry_run=dry_run) as run:
            clock.advance(seconds=90)
            if isinstance(body, BackupReport):
                run.report(body)
            elif body:
                body()

    @property
    def notes(self) -> list[str]:
        return self._read("notes").splitlines()

    @property
    def mail(self) -> str:
        """The text of the mail that was sent; empty if none was."""
        path = self.folder / "mail"
        if not path.exists():
            return ""
        message = email.message_from_bytes(path.read_bytes(), policy=email.policy.default)
        body = message.get_body()
        assert body is not None
        return str(body.get_content())

    @property
    def metrics(self) -> dict[str, float]:
        return {sample.name: sample.value for sample in decode(self._read("perdure.prom"))}

    def _read(self, name: str) -> str:
        path = self.folder / name
        return path.read_text() if path.exists() else ""


@pytest.fixture
def around_site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def failing(error: BaseException) -> Body:
    def fail() -> None:
        raise error

    return fail


def test_a_backup_that_goes_well(around_site: Site) -> None:
    around_site.run(HOOKS, report())
    assert around_site.notes == ["before  ", "after success 0", "finally success 0"]
    assert around_site.metrics[EXIT_CODE] == 0
    assert around_site.metrics[LAST_SUCCESS] == Clock().now.timestamp() + 90
    assert "succeeded" in around_site.mail
    assert "snapshot abababab, 1234 bytes added" in around_site.mail
    assert "main: 2026-11-21 03:00:00" in around_site.mail
    assert "took 90.0 seconds" in around_site.mail


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (PerdureError("no space"), "failed", 1),
        (RepositoryLocked("by others"), "failed", 11),
        (BackupIncomplete("parts are missing"), "incomplete", 3),
        (KeyboardInterrupt(), "interrupted", 130),
        (click.Abort(), "interrupted", 130),
        (click.UsageError("what?"), "failed", 2),
        (OSError("disk"), "failed", 1),
        (RuntimeError("a bug\nin two lines"), "failed", 1),
    ],
)
def test_however_it_ends(around_site: Site, error: BaseException, status: str, code: int) -> None:
    with pytest.raises(type(error)) as caught:
        around_site.run(HOOKS, failing(error))
    assert caught.value is error
    end = f"{status} {code}"
    assert around_site.notes == ["before  ", f"failed {end}", f"finally {end}"]
    assert around_site.metrics[EXIT_CODE] == code
    assert LAST_SUCCESS not in around_site.metrics
    assert f"exit code {code}" in around_site.mail


def test_a_report_of_an_incomplete_snapshot(around_site: Site) -> None:
    around_site.run(HOOKS, report(incomplete=True))
    assert around_site.notes[1:] == ["failed incomplete 3", "finally incomplete 3"]


def test_a_failing_command_before_stops_the_backup(around_site: Site) -> None:
    text = HOOKS.replace("before = [[", 'before = [["false"], [')
    backed_up: list[int] = []
    with pytest.raises(PerdureError, match="before ended with 1") as caught:
        around_site.run(text, lambda: backed_up.append(1))
    assert caught.value.exit_code == 1
    assert not backed_up
    assert around_site.notes == ["failed failed 1", "finally failed 1"]
    assert "before ended with 1" in around_site.mail


def test_a_failing_command_after_makes_it_fail(around_site: Site) -> None:
    text = HOOKS.replace("after = [[", 'after = [["false"], [')
    with pytest.raises(PerdureError, match="after ended with 1"):
        around_site.run(text, report())
    assert around_site.notes == ["before  ", "failed failed 1", "finally failed 1"]
    assert around_site.metrics[EXIT_CODE] == 1


def test_a_failing_last_command_makes_it_fail(
    around_site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    text = HOOKS.replace("finally = [[", 'finally = [["false"], ["sh", "-c", "exit 3"], [')
    with pytest.raises(PerdureError, match="finally ended with 1"):
        around_site.run(text, report())
    assert around_site.notes == ["before  ", "after success 0", "finally success 0"]
    assert around_site.metrics[EXIT_CODE] == 1
    assert "finally ended with 3" in capfd.readouterr().err


def test_failing_commands_do_not_hide_the_first_error(
    around_site: Site, capfd: pytest.CaptureFixture[str]
) -> None:
    text = HOOKS.replace("failed = [[", 'failed = [["false"], [')
    text = text.replace("finally = [[", 'finally = [["no-such-program"], [')
    with pytest.raises(RepositoryLocked):
        around_site.run(text, failing(RepositoryLocked("by others")))
    assert around_site.notes == ["before  ", "failed failed 11", "finally failed 11"]
    said = capfd.readouterr().err
    assert "warning: the command false of [hooks] failed ended with 1" in said
    assert "warning: the command no-such-program of [hooks] finally cannot be run" in said


def test_who_cannot_be_told_is_a_warning(
    around_site: Site, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("no_proxy", "*")
    around_site.sendmail.write_text("#!/bin/sh\nexit 1\n")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}/geheim"
        text = HOOKS.replace("perdure.prom", "none/perdure.prom")
        around_site.run(f'{text}ping = "{url}"\nping-retries = 0\n', report())
    said = capfd.readouterr().err
    assert said.count("warning: ") == 4
    assert said.count("could not be told how the backup goes: Connection refused") == 2
    assert "perdure.prom cannot be written" in said
    assert "sendmail ended with 1" in said
    assert "geheim" not in said
    assert around_site.notes[-1] == "finally success 0"


def test_mail_only_of_failures(around_site: Site) -> None:
    text = HOOKS.replace('mail.on = "always"', "")
    around_site.run(text, report())
    assert not around_site.mail
    with pytest.raises(KeyboardInterrupt):
        around_site.run(text, failing(KeyboardInterrupt()))
    assert "was interrupted" in around_site.mail


def test_what_commands_print_is_shown_and_what_they_are_told(
    around_site: Site, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    script = 'echo "$KEPT $PERDURE_REPOSITORY $PERDURE_CONFIG $PWD"'
    around_site.run(
        f"[repository]\nlocation = 'r'\n[hooks]\nbefore = [['sh', '-c', '{script}']]", None
    )
    captured = capfd.readouterr()
    assert captured.err == f"yes {tmp_path}/r {tmp_path}/perdure.toml {tmp_path}\n"
    assert not captured.out


def test_a_dry_run_has_nothing_around_it(around_site: Site) -> None:
    around_site.run(HOOKS, report(), dry_run=True)
    with pytest.raises(KeyboardInterrupt):
        around_site.run(HOOKS, failing(KeyboardInterrupt()), dry_run=True)
    assert not around_site.notes
    assert not around_site.mail
    assert not around_site.metrics


def test_nothing_is_configured(around_site: Site) -> None:
    around_site.run("repository.location = 'r'", report())
    with pytest.raises(RepositoryLocked):
        around_site.run("repository.location = 'r'", failing(RepositoryLocked("x")))

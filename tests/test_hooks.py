"""Commands around a backup, with real processes."""

from __future__ import annotations

import os
import select
import subprocess
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from perdure.errors import PerdureError
from perdure.hooks import Surroundings, run_hook
from perdure.outcome import Made, Outcome

NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
OUTCOME = Outcome(
    exit_code=3,
    message="parts are missing",
    repository="/srv/backup",
    host="www1",
    started=NOON,
    finished=NOON.replace(second=30),
    made=Made("ab" * 32, 1234, True, (("main", NOON), ("ca\ttalog", None))),
)


class Output:
    """What a command prints: a pipe. It ends when nobody has it open any more."""

    def __init__(self) -> None:
        self.reading, self.writing = os.pipe()

    def read(self) -> str:
        """Give all of it, once the command and all that it started have ended."""
        os.close(self.writing)
        said = b""
        while True:
            assert select.select([self.reading], [], [], 120)[0], "something still runs"
            more = os.read(self.reading, 1 << 12)
            if not more:
                os.close(self.reading)
                return said.decode()
            said += more


@pytest.fixture
def output() -> Output:
    return Output()


@pytest.fixture
def around(tmp_path: Path, output: Output) -> Surroundings:
    environment = {"PATH": os.environ["PATH"], "PERDURE_ERROR": "of another run"}
    return Surroundings(environment, tmp_path, 120, output.writing)


def test_what_a_command_is_told(around: Surroundings, output: Output) -> None:
    run_hook("finally", ("env", "-0"), around, OUTCOME)
    said = dict(line.split("=", 1) for line in output.read().split("\0") if line)
    assert {name: value for name, value in said.items() if name.startswith("PERDURE_")} == {
        "PERDURE_EVENT": "finally",
        "PERDURE_STATUS": "incomplete",
        "PERDURE_EXIT_CODE": "3",
        "PERDURE_ERROR": "parts are missing",
        "PERDURE_SECONDS": "30.000",
        "PERDURE_SNAPSHOT": "ab" * 32,
        "PERDURE_BYTES_ADDED": "1234",
        "PERDURE_SOURCES": "main\nca\ttalog",
    }


def test_before_a_backup_nothing_is_known(around: Surroundings, output: Output) -> None:
    run_hook("before", ("env",), around, None)
    said = [line for line in output.read().splitlines() if line.startswith("PERDURE_")]
    assert said == ["PERDURE_EVENT=before"]


def test_no_shell_is_between(around: Surroundings, output: Output, tmp_path: Path) -> None:
    run_hook("before", ("printf", "%s", "$HOME; `x` *"), around, None)
    run_hook("before", ("sh", "-c", "pwd; echo bad >&2; cat"), around, None)
    assert output.read() == f"$HOME; `x` *{tmp_path}\nbad\n"


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (("false",), "the command false of [hooks] after ended with 1"),
        (("sh", "-c", "exit 7; geheim"), "the command sh of [hooks] after ended with 7"),
        (("sh", "-c", "kill -KILL $$"), "was ended by signal 9"),
        (("no-such-program",), "cannot be run: No such file"),
        (("/",), "cannot be run: Permission denied"),
    ],
)
def test_commands_that_fail(
    around: Surroundings, output: Output, command: tuple[str, ...], said: str
) -> None:
    with pytest.raises(PerdureError) as caught:
        run_hook("after", command, around, None)
    assert said in str(caught.value)
    assert "geheim" not in str(caught.value)
    assert caught.value.exit_code == 1
    output.read()


@pytest.mark.parametrize("script", ["sleep 600 & sleep 600", "trap '' TERM; sleep 600; sleep 600"])
def test_a_command_that_takes_too_long_is_ended_with_all_it_started(
    around: Surroundings, output: Output, script: str
) -> None:
    impatient = replace(around, timeout=0.3, grace=0.3)
    with pytest.raises(PerdureError, match=r"it ran for 0\.3 seconds"):
        run_hook("before", ("sh", "-c", script), impatient, None)
    output.read()


def test_an_interruption_ends_it_too(
    around: Surroundings, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    wait = subprocess.Popen.wait

    def interrupted(process: subprocess.Popen[bytes], timeout: float | None = None) -> int:
        monkeypatch.setattr(subprocess.Popen, "wait", wait)
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess.Popen, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_hook("before", ("sh", "-c", "sleep 600 & sleep 600"), around, None)
    output.read()

"""The program as a whole: help, start-up, exit codes, signals, completion."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import click
import pytest
from command_line import Program

import perdure
from perdure.cli.options import Settings
from perdure.cli.output import Output
from perdure.cli.program import program as group
from perdure.dropin.names import COMMANDS

HEAVY = {
    "numpy",
    "cryptography",
    "rich",
    "ZODB",
    "persistent",
    "msgspec",
    "xxhash",
    "platformdirs",
    "obstore",
}

pytestmark = pytest.mark.usefixtures("bare_environment")


def commands(command: click.Command, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield path
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))


@pytest.mark.parametrize(
    "path", [path for path in commands(group) if not COMMANDS.keys() & path], ids=" ".join
)
def test_every_command_has_help(program: Program, path: tuple[str, ...]) -> None:
    own = path and path[0] in COMMANDS
    usage = f"usage: {path[0]}" if own else f"usage: {' '.join(('perdure', *path))}"
    assert usage in program(*path, "--help").out.lower()
    assert program(*path, "-h").out


@pytest.mark.parametrize("path", list(commands(group)), ids=" ".join)
def test_every_option_says_what_it_is_for(path: tuple[str, ...]) -> None:
    command: click.Command = group
    for name in path:
        assert isinstance(command, click.Group)
        command = command.commands[name]
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from perdure.cli.edge import run; run(['--help']);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not HEAVY & set(done.stderr.split())


def test_version(program: Program) -> None:
    assert program("version").out.startswith(f"perdure {perdure.__version__}, ")
    assert program("version", "--json").summary["version"] == perdure.__version__
    assert program("--version").out


def test_usage_errors_exit_with_2_and_lead_to_help(program: Program) -> None:
    done = program("backup", "--unknown", code=2)
    assert "--unknown" in done.err
    assert "perdure backup --help" in done.err
    assert not done.out


def test_errors_in_json(program: Program) -> None:
    done = program("snapshots", "-r", "nowhere", "--json", code=10)
    assert not done.out
    error = json.loads(done.err)
    assert error["message_type"] == "exit_error"
    assert error["code"] == 10
    assert "nowhere" in error["message"]
    assert "perdure init" in error["hint"]


def test_no_repository_is_named(program: Program) -> None:
    assert "PERDURE_REPOSITORY" in program("snapshots", code=2).err


def test_options_stand_before_or_after_the_command(program: Program, repository: Path) -> None:
    assert program("--json", "snapshots").out == "[]\n"
    assert program("snapshots", "--json").out == "[]\n"
    assert program("-r", "nowhere", "snapshots", "-r", str(repository), "--json").out == "[]\n"
    program("-r", "nowhere", "snapshots", code=10)


def test_what_should_not_happen_asks_for_a_report(
    program: Program, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import perdure.snapshots

    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(perdure.snapshots, "list_snapshots", broken)
    done = program("snapshots", code=1)
    assert "ZeroDivisionError: oops" in done.err
    assert "report" in done.err
    assert "Traceback" not in done.err
    assert "Traceback" in program("snapshots", "--verbose", code=1).err
    monkeypatch.setenv("PERDURE_DEBUG", "1")
    assert "Traceback" in program("snapshots", code=1).err


def test_an_error_of_the_system_is_one_line(
    program: Program, repository: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import perdure.snapshots

    def broken(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "/var/backup")

    monkeypatch.setattr(perdure.snapshots, "list_snapshots", broken)
    assert program("snapshots", code=1).err == "perdure: /var/backup: No space left on device\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_130_and_no_lock_is_left(
    repository: Path, data_fs: Path, number: signal.Signals
) -> None:
    code = (
        "import os, signal, time, perdure.backup\n"
        "def signalled(repository, *rest):\n"
        "    assert list(repository.store.list('locks/'))\n"
        # restic sends SIGHUP to see whether the owner of a lock lives: it must not end it.
        "    os.kill(os.getpid(), signal.SIGHUP)\n"
        f"    os.kill(os.getpid(), {int(number)})\n"
        "    time.sleep(10)\n"
        "perdure.backup.backup = signalled\n"
        "from perdure.cli import main\n"
        "main()\n"
    )
    command = [sys.executable, "-c", code, "backup", "--filestorage", str(data_fs)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 130, done
    assert done.stderr == "perdure: interrupted\n"
    assert not list((repository / "locks").iterdir())


def test_a_reader_that_leaves_is_no_error(repository: Path, data_fs: Path) -> None:
    code = (
        "from perdure.cli.output import Output\n"
        "Output.lines = lambda self, head, lines: [print(head) for _ in range(1 << 16)]\n"
        "from perdure.cli import main\n"
        "main()\n"
    )
    perdure = [sys.executable, "-m", "perdure"]
    subprocess.run([*perdure, "backup", "-q", "--filestorage", str(data_fs)], check=True)
    with subprocess.Popen(
        [sys.executable, "-c", code, "log"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as log:
        assert log.stdout
        assert log.stderr
        log.stdout.readline()
        log.stdout.close()
        assert log.stderr.read() == b""
    assert log.returncode == 141
    assert not list((repository / "locks").iterdir())


@pytest.mark.parametrize("end", [">/dev/full", ">&-", ">&- 2>&-"])
def test_an_output_that_cannot_be_written(end: str) -> None:
    script = f"{sys.executable} -m perdure version {end}"
    done = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=False)
    if end == ">/dev/full":
        assert (done.returncode, done.stderr) == (1, "perdure: No space left on device\n")
    else:
        assert (done.returncode, done.stderr) == (0, "")


def test_progress_in_json(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perdure.cli.output._EVERY", 0.0)
    with Output(Settings({}, json=True)).observer() as observer:
        observer.progress("reading", 1, 2)
        observer.warning("odd")
    status, warning = map(json.loads, capsys.readouterr().out.splitlines())
    assert status == {"message_type": "status", "phase": "reading", "done": 1, "total": 2}
    assert warning == {"message_type": "warning", "message": "odd"}


def test_progress_elsewhere_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(Settings({})).observer() as observer:
        observer.progress("reading", 1, 2)
        observer.warning("odd")
    assert capsys.readouterr() == ("", "perdure: warning: odd\n")


def test_progress_at_a_terminal() -> None:
    code = (
        "from perdure.cli.options import Settings\n"
        "from perdure.cli.output import Output\n"
        "with Output(Settings({})).observer() as observer:\n"
        "    observer.progress('reading', 1, 2)\n"
        "    observer.warning('[odd]')\n"
    )
    said = talk([], [], command=["-c", code])
    assert "reading" in said
    assert "50 %" in said
    assert "perdure: warning: [odd]" in said


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(program: Program, shell: str) -> None:
    assert f"_PERDURE_COMPLETE={shell}_complete" in program("completion", shell).out


def test_completion_answers() -> None:
    environment = os.environ | {
        "_PERDURE_COMPLETE": "bash_complete",
        "COMP_WORDS": "perdure re",
        "COMP_CWORD": "1",
    }
    command = [sys.executable, "-m", "perdure"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    assert done.stdout.split() == ["plain,restore", "plain,repair", "plain,repozo"]


def test_at_a_terminal(repository: Path, data_fs: Path) -> None:
    answered = talk(["backup", "--filestorage", str(data_fs)], [])
    assert "snapshot " in answered
    assert "─" in talk(["snapshots"], [])
    talk(["restore", "--to", "out"], [])
    refused = talk(["restore", "--to", "out"], [("not empty", "n")], code=130)
    assert "over files of the same names?" in refused
    talk(["restore", "--to", "out"], [("not empty", "y")])


def test_a_new_password_is_typed_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_REPOSITORY", "typed")
    talk(["init"], [("new password", "one"), ("again", "two")], code=2)
    said = talk(["init"], [("new password", "geheim"), ("again", "geheim")])
    assert "Keep the password" in said
    assert "geheim" not in said
    talk(["snapshots"], [("password of", "wrong"), ("password of", "geheim")])
    talk(["snapshots"], [("password of", "wrong")] * 3, code=12)


def talk(
    arguments: list[str],
    answers: list[tuple[str, str]],
    code: int = 0,
    command: Sequence[str] = ("-m", "perdure"),
) -> str:
    """Run the program at a terminal, and answer its questions."""
    process, terminal = pty.fork()
    if not process:
        os.execv(sys.executable, [sys.executable, *command, *arguments])
    said = unanswered = ""
    answers = list(answers)
    while True:
        try:
            heard = os.read(terminal, 1 << 12).decode("utf-8", "replace")
        except OSError:  # how Linux tells that the other side has closed
            break
        if not heard:
            break
        said += heard
        unanswered += heard
        if answers and answers[0][0] in unanswered and unanswered.rstrip(" ").endswith((":", "]:")):
            os.write(terminal, f"{answers.pop(0)[1]}\n".encode())
            unanswered = ""
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == code, said
    return said

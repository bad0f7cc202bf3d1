"""The program run in this process, and a small site to run it on."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from perdure.cli.edge import run


@dataclass(frozen=True)
class Result:
    """What a run gave."""

    code: int
    out: str
    err: str

    @property
    def events(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def summary(self) -> dict[str, Any]:
        return self.events[-1]


Program = Callable[..., Result]


@pytest.fixture
def bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No variable of ours or restic's, a cache and a working folder of the test's own."""
    for name in list(os.environ):
        if name.startswith(("PERDURE_", "RESTIC_", "_PERDURE")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PERDURE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.chdir(tmp_path)


HANDLED = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)


@pytest.fixture
def program(bare_environment: None, capsys: pytest.CaptureFixture[str]) -> Iterator[Program]:
    """Run the program, as `perdure ARGUMENTS`."""
    handlers = {number: signal.getsignal(number) for number in HANDLED}

    def call(*arguments: str, code: int = 0) -> Result:
        capsys.readouterr()
        given = run(arguments)
        captured = capsys.readouterr()
        result = Result(given, captured.out, captured.err)
        assert given == code, (result.out, result.err)
        return result

    yield call
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def repository(program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A new repository with a key file; the environment leads to both."""
    monkeypatch.setenv("PERDURE_REPOSITORY", str(tmp_path / "repository"))
    program("init", "--new-password-file", str(tmp_path / "key"))
    monkeypatch.setenv("PERDURE_PASSWORD_FILE", str(tmp_path / "key"))
    return tmp_path / "repository"


@pytest.fixture
def data_fs(tmp_path: Path) -> Path:
    """A FileStorage of five transactions."""
    path = tmp_path / "site" / "Data.fs"
    path.parent.mkdir()
    commit(path, 5)
    return path


def commit(path: Path, count: int) -> None:
    """Commit some transactions."""
    from ZODB.DB import DB
    from ZODB.FileStorage import FileStorage

    database = DB(FileStorage(str(path)))
    with database.transaction() as connection:
        connection.root()["number"] = 0
    for number in range(1, count):
        with database.transaction() as connection:
            connection.root()["number"] = number
            transaction = connection.transaction_manager.get()
            transaction.setUser("jörg")
            transaction.note(f"change {number}\x1b[31m")
    database.close()

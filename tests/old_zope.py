"""Python 2.7 with ZODB3 3.8.6 and the real DirectoryStorage 1.1.21, for tests: what the old sites run.

Import the fixture ``old_zope`` from here. The packages come from PyPI, once, into a folder inside the
virtual environment that the tests run in (or, without one, of the session's temporary folder). Nothing of it
is on the path of Python 3. Where there is no python2.7 the tests skip by the name MISSING, the one skip
that continuous integration allows: no Debian after 11 has a package of it.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import pytest

MISSING = (
    "no python2.7 with pip is installed (pyenv install 2.7.18; Debian: python2.7 up to Debian 11)"
)
PACKAGES: tuple[str, ...] = (
    *("DirectoryStorage==1.1.21", "ZODB3==3.8.6", "zc.lockfile==1.4", "setuptools==44.1.1"),
    *("zope.interface==5.5.2", "zope.proxy==4.6.1", "zope.testing==5.0.1"),
    *("ZConfig==3.6.1", "zdaemon==4.4"),
)
PROGRAMS = Path(__file__).parent / "python2"
PATIENCE = 300.0
"""Seconds after which a program of the old world is taken for hung."""


@dataclass(frozen=True)
class OldZope:
    """An old Python and the folder of its packages."""

    python: Path
    packages: Path

    @property
    def environment(self) -> dict[str, str]:
        """What programs of the old world get; nothing of the tests' own Python."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        return kept | {
            "PYTHONPATH": str(self.packages),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C",
        }

    def run(
        self, *arguments: str | Path, status: int = 0, more: Mapping[str, str] | None = None
    ) -> str:
        """Run ``python2.7 ARGUMENTS``; gives what it said (both streams), or fails."""
        done = subprocess.run(
            [self.python, *arguments],
            env=self.environment | dict(more or {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == status, f"{arguments} gave {done.returncode}:\n{done.stdout}"
        return done.stdout

    def tool(self, name: str, *arguments: str | Path, status: int = 0) -> str:
        """Run one of DirectoryStorage's own programs: mkds, checkds, backup, snapshot, ds2fs ..."""
        call = f"import sys; from DirectoryStorage.{name} import main; sys.exit(main())"
        return self.run("-c", call, *arguments, status=status)

    def start(self, program: str, *arguments: str | Path) -> subprocess.Popen[str]:
        """Start a program of tests/python2, with pipes to talk to it; the caller ends it."""
        return subprocess.Popen(
            [self.python, "-u", PROGRAMS / program, *arguments],
            env=self.environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def make_home(
        self,
        path: Path,
        layout: str = "chunky",
        classname: str = "Full",
        settings: Mapping[str, str] | None = None,
    ) -> Path:
        """Make an empty storage with small limits of its journal, so that little data shows all states.

        ``settings`` are lines of config/settings to replace, by option: {"quick_shutdown": "1"}.
        """
        call = "import sys; from DirectoryStorage.mkds import mkds; mkds(*sys.argv[1:])"
        self.run("-c", call, str(path), classname, layout)
        wanted = {
            "flush_file_threshold": "40",
            "flush_transaction_threshold": "5",
            "min_pack_time": "0",
            "sync": "0",
        } | dict(settings or {})
        place = path / "config" / "settings"
        lines = place.read_text().splitlines()
        for option, value in wanted.items():
            where = [n for n, line in enumerate(lines) if line.split(":")[0].strip() == option]
            assert len(where) == 1, f"{option}: {where} in {place}"
            lines[where[0]] = f"{option}: {value}"
        place.write_text("\n".join(lines) + "\n")
        return path


class Living:
    """A process that has a storage open: tests/python2/living.py says what it can be asked for.

    ``settles``: the storage leaves the snapshot mode of its start, which is waited for; else it is refused
    every other one, for a moment or, when somebody holds its sublock, for ever.
    """

    def __init__(self, old_zope: OldZope, home: Path, *, settles: bool = True) -> None:
        self.home = home
        self.process = old_zope.start("living.py", home)
        self._answer()
        if settles:
            self.settle()

    def ask(self, *words: str | float) -> Any:
        """Ask for something: ``ask("commit", 5)``. Gives the answer; raises LivingError."""
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, words)) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def settle(self) -> None:
        """Wait until nothing is recombined any more, so that a snapshot can be entered."""
        end = time.monotonic() + PATIENCE
        while (code := self.ask("code")) is not None:
            assert time.monotonic() < end, f"the storage stays in snapshot mode {code}"
            time.sleep(0.02)

    def close(self) -> None:
        """Let it close the storage in good order."""
        self.ask("close")
        self.process.wait(PATIENCE)

    def kill(self) -> None:
        """End it as a power failure would."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe
            with suppress(BrokenPipeError):
                pipe.close()

    def _answer(self) -> Any:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line, "the living storage has died"
        answer = json.loads(line)
        if "error" in answer:
            raise LivingError(answer["error"])
        return answer["ok"]


class LivingError(Exception):
    """The storage refused what it was asked for."""


@pytest.fixture(scope="session")
def old_zope() -> Iterator[OldZope]:
    """The old world; skips where there is no python2.7."""
    python = _find_python()
    if python is None:
        pytest.skip(MISSING)
    in_environment = sys.prefix != sys.base_prefix and os.access(sys.prefix, os.W_OK)
    root = Path(sys.prefix if in_environment else tempfile.mkdtemp(prefix="perdure-old-zope-"))
    try:
        yield OldZope(python, _install(python, root))
    finally:
        if not in_environment:
            shutil.rmtree(root, ignore_errors=True)


def _find_python() -> Path | None:
    pyenv = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    candidates = sorted(pyenv.glob("versions/2.7.*/bin/python2.7"), reverse=True)
    on_path = shutil.which("python2.7")
    for candidate in (*candidates, *([Path(on_path)] if on_path else [])):
        probe = [str(candidate), "-c", "import sys, pip; assert sys.version_info[:2] == (2, 7)"]
        if not subprocess.run(probe, capture_output=True, check=False).returncode:
            return candidate
    return None


def _install(python: Path, root: Path) -> Path:
    """Give the folder of the packages; makes it if need be, while others who want it wait."""
    target = root / "old-zope"
    with (root / ".old-zope.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if target.exists():
            return target
        half = root / "old-zope.half"
        said = ""
        for _ in range(3):  # the network may fail
            shutil.rmtree(half, ignore_errors=True)
            done = subprocess.run(
                [
                    str(python),
                    "-m",
                    "pip",
                    "install",
                    "--no-deps",
                    "--target",
                    str(half),
                    *PACKAGES,
                ],
                env={k: v for k, v in os.environ.items() if not k.startswith("PYTHON")},
                capture_output=True,
                text=True,
                check=False,
            )
            said = done.stdout + done.stderr
            if done.returncode == 0:
                break
        else:
            raise AssertionError(f"{PACKAGES} could not be installed for {python}:\n{said}")
        for namespace in ("zope", "zc"):  # which .pth files make, where they are read
            (half / namespace / "__init__.py").touch()
        half.rename(target)
    return target

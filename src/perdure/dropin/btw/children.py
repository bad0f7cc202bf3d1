"""The programs that do the work: run with argument lists, and their exit status is always looked at."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from perdure.errors import PerdureError

_PACKAGES = {
    "rdiff-backup": "rdiff-backup, or install perdure[rdiff]",
    "tar": "tar",
    "pg_dump": "postgresql-client",
    "pg_dumpall": "postgresql-client",
    "pg_restore": "postgresql-client",
    "createdb": "postgresql-client",
}
_LINES, _LONGEST = 6, 1000
_MOST_SAID = 1 << 20


@dataclass(frozen=True, slots=True)
class Children:
    """How child processes are run.

    ``kept`` are descriptors that they inherit: what is locked stays so until they have ended, too.
    """

    environment: Mapping[str, str]
    kept: tuple[int, ...] = ()

    def find(self, program: str) -> str:
        """Give a program's path. Raises PerdureError."""
        found = shutil.which(program, path=self.environment.get("PATH", os.defpath))
        if not found:
            package = _PACKAGES.get(program, program)
            raise PerdureError(
                f"{program} is not installed", hint=f"Debian: apt-get install {package}"
            )
        return found

    def run(
        self,
        program: str,
        arguments: Sequence[str | Path],
        *,
        accepted: tuple[int, ...] = (0,),
        output: IO[bytes] | None = None,
    ) -> tuple[int, bytes]:
        """Run a program to its end; gives its exit status, and what it wrote on standard error.

        ``output`` gets its standard output. Raises PerdureError for a status that is not accepted.
        """
        done = subprocess.run(
            [self.find(program), *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=output or subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=dict(self.environment),
            pass_fds=self.kept,
            check=False,
        )
        if done.returncode not in accepted:
            raise failed(program, done.returncode, done.stderr)
        return done.returncode, done.stderr

    @contextmanager
    def reading(self, program: str, arguments: Sequence[str | Path]) -> Iterator[IO[bytes]]:
        """Run a program and read what it gives; when that is read, its status must be 0.

        Raises PerdureError.
        """
        with tempfile.TemporaryFile() as errors:
            with subprocess.Popen(
                [self.find(program), *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=dict(self.environment),
                pass_fds=self.kept,
            ) as child:
                assert child.stdout
                try:
                    yield child.stdout
                except BaseException:
                    child.kill()
                    raise
            errors.seek(0)
            said = errors.read(_MOST_SAID)
        if child.returncode:
            raise failed(program, child.returncode, said)


def our_environment(environment: Mapping[str, str], programs: Path) -> Mapping[str, str]:
    """Give the environment of child processes: ours, but for UTC, in which rdiff-backup writes its names.

    ``programs`` is the folder of Python's own programs, where an installed extra puts rdiff-backup.
    """
    path = environment.get("PATH", os.defpath)
    return {**environment, "PATH": f"{path}:{programs}", "TZ": "UTC"}


def failed(program: str, status: int, said: bytes) -> PerdureError:
    """Give the error for a program that failed: its status and its last lines."""
    how = f"exited with code: {status}" if status >= 0 else f"was ended by signal {-status}"
    lines = said.decode("utf-8", "replace").strip().splitlines()[-_LINES:]
    why = "; ".join(line.strip() for line in lines)[-_LONGEST:]
    return PerdureError(f"{program} {how}{f': {why}' if why else ''}")

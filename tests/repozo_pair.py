"""ZODB's own repozo and ours, on the same folders, at times of the test's choice; both in this process."""

from __future__ import annotations

import contextlib
import hashlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import transaction
import ZODB
from persistent.mapping import PersistentMapping
from ZODB.FileStorage import FileStorage
from ZODB.scripts import repozo as zodbs_repozo

from perdure.dropin import repozo
from perdure.dropin.repozo import command
from perdure.errors import PerdureError
from perdure.formats.repozo import time_of
from perdure.model import SilentObserver

ARCHIVE = Path(__file__).parent / "fixtures/repozo/repozo-fixtures.tar.gz"


@dataclass(frozen=True)
class Done:
    """How a run ended: its exit code, and the last line that it said."""

    code: int
    message: str = ""


def zodbs(*argv: object, now: str = "2026-11-21-03-15-00") -> Done:
    """Run ZODB's repozo as its main does, at a time of its own."""
    options = zodbs_repozo.parseargs([str(argument) for argument in argv])
    options.test_now = time_of(now).timetuple()[:6]
    work = {1: "do_backup", 2: "do_recover", 3: "do_verify"}[options.mode]
    try:
        getattr(zodbs_repozo, work)(options)
    except (zodbs_repozo.RepozoError, OSError) as error:
        return Done(1, str(error))
    except Exception as error:  # its tracebacks, which give the exit code 1, too
        return Done(1, f"{type(error).__name__}: {error}")
    return Done(0)


def ours(*argv: object) -> Done:
    """Run our command line."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        code = command.main([str(argument) for argument in argv])
    lines = said.getvalue().strip().splitlines()
    return Done(code, lines[-1] if lines else "")


def back_up(repository: Path, data: Path, now: str, **how: Any) -> repozo.BackupReport:
    """Back up with our library, at a time of its own."""
    request = repozo.BackupRequest(repository, data, now, **how)
    return repozo.backup(request, SilentObserver())


def recovered(repository: Path, date: str | None = None, **how: Any) -> bytes:
    """Recover with our library beside the repository, and give the bytes. Raises PerdureError."""
    output = repository.parent / "recovered.fs"
    repozo.recover(repozo.RecoverRequest(repository, date, **how), output, SilentObserver())
    return output.read_bytes()


def recovered_or_none(repository: Path, date: str | None = None) -> bytes | None:
    """Recover to a stream; None where that is an error."""
    stream = io.BytesIO()
    request = repozo.RecoverRequest(repository, date)
    try:
        repozo.recover_to_stream(request, stream, SilentObserver())
    except PerdureError:
        return None
    return stream.getvalue()


def problems(repository: Path, *, quick: bool = False) -> tuple[str, ...]:
    """What our verification finds."""
    return repozo.verify(repozo.VerifyRequest(repository, quick), SilentObserver()).problems


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def unpack(folder: Path) -> Path:
    """Unpack the fixtures."""
    with tarfile.open(ARCHIVE) as archive:
        archive.extractall(folder, filter="data")
    return folder / "repozo-fixtures"


class Site:
    """A Data.fs through ZODB's API: ``folder``/Data.fs, and beside it the folder of a repository."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "Data.fs"
        self.repository = folder / "repo"
        self.repository.mkdir()
        self.number = 0
        with self.open():
            pass

    @contextlib.contextmanager
    def open(self) -> Iterator[Any]:
        database = ZODB.DB(FileStorage(str(self.path)))
        try:
            yield database
        finally:
            database.close()

    def commit(self, count: int = 1, size: int = 300) -> bytes:
        """Commit some transactions; gives the bytes of the file."""
        with self.open() as database:
            connection = database.open(transaction.TransactionManager())
            for _ in range(count):
                self.number += 1
                connection.root()[self.number % 7] = PersistentMapping(
                    {"text": f"{self.number} " * (size // 4)}
                )
                connection.transaction_manager.commit()
            connection.close()
        return self.data

    def pack(self) -> bytes:
        with self.open() as database:
            database.pack()
        return self.data

    @property
    def data(self) -> bytes:
        return self.path.read_bytes()


def files(repository: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in repository.iterdir()}


def moment(number: int) -> str:
    """Give a stamp, a minute later for each number."""
    return f"2026-11-21-{3 + number // 60:02}-{number % 60:02}-00"

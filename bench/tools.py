"""Perdure and its peers, each as the commands that its user would type."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from bench.measuring import Cost, folder_size, measure

SOURCE = Path(__file__).resolve().parent.parent / "src"
PASSWORD = "correct horse battery staple"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tool works: the site's folder (with Data.fs), its repository, its caches, its password."""

    site: Path
    home: Path

    @property
    def repository(self) -> Path:
        """The folder that holds the backups."""
        return self.home / "repository"

    @property
    def data(self) -> Path:
        """The file to back up."""
        return self.site / "Data.fs"

    @property
    def blobs(self) -> Path:
        """The blob directory beside it, if the site has one."""
        return self.site / "blobs"


def beside_python(name: str) -> list[str] | None:
    """Find a program that was installed together with this interpreter."""
    program = Path(sys.executable).parent / name
    return [str(program)] if program.exists() else None


class Tool:
    """One tool with one set of options. Subclasses give the commands; this class runs them."""

    name = "?"
    slow = False  # measured in the first repetition only
    program: Sequence[str] = ()

    def __init__(self, place: Place) -> None:
        self.place = place
        self.environment: dict[str, str] = {}
        self.moments: dict[str, str] = {}  # state -> how this tool calls the backup of it
        place.home.mkdir(parents=True)

    @classmethod
    def version(cls) -> str | None:
        """Say which version is installed; None if it is not."""
        raise NotImplementedError

    def init(self) -> None:
        """Make an empty repository."""
        raise NotImplementedError

    def backup_command(self, state: str) -> list[str]:
        """Give the command that backs the site up."""
        raise NotImplementedError

    def restore_command(self, state: str | None, target: Path) -> list[str]:
        """Give the command that restores a state (None: the newest) to ``target``."""
        raise NotImplementedError

    def check_command(self, *, read_data: bool) -> list[str] | None:
        """Give the command that checks the repository, if the tool has it."""
        raise NotImplementedError

    def backup(self, state: str, under: Sequence[str] = ()) -> Cost:
        """Back the site up, as it is in ``state``; ``added`` is what the repository grew by.

        ``under`` is the beginning of a command that runs another.
        """
        before = folder_size(self.place.repository)
        cost, output = self.run([*under, *self.backup_command(state)])
        self.remember(state, output)
        return replace(cost, added=folder_size(self.place.repository) - before)

    def restore(self, state: str | None, target: Path) -> tuple[Cost, Path]:
        """Restore a state; gives the restored Data.fs, too."""
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        cost, _ = self.run(self.restore_command(state, target), target)
        return cost, next(target.rglob("Data.fs"))

    def check(self, *, read_data: bool) -> Cost | None:
        """Check the repository."""
        command = self.check_command(read_data=read_data)
        return self.run(command)[0] if command else None

    def run(self, command: Sequence[str], cwd: Path | None = None) -> tuple[Cost, str]:
        """Run a command in the tool's home (or elsewhere) with its environment."""
        return measure(command, cwd or self.place.home, self.environment)

    def remember(self, state: str, output: str) -> None:
        """Note how to name the backup just made."""


class Perdure(Tool):
    """This program, with a key file of its own making."""

    name = "perdure"
    program = beside_python("perdure") or [sys.executable, "-m", "perdure"]

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.environment = {
            "PERDURE_PASSWORD_FILE": str(place.home / "key"),
            "PERDURE_CACHE_DIR": str(place.home / "cache"),
        }
        self.environment |= self.source_tree()

    @classmethod
    def version(cls) -> str | None:
        """Ask the program."""
        return first_line([*cls.program, "--version"], cls.source_tree())

    @classmethod
    def source_tree(cls) -> dict[str, str]:
        """Give the environment that runs the program from the source tree, where it is not installed."""
        return {} if len(cls.program) == 1 else {"PYTHONPATH": str(SOURCE)}

    def init(self) -> None:
        """Make the repository and a key file."""
        where = ["-r", str(self.place.repository)]
        self.run(
            [*self.program, "init", *where, "--new-password-file", str(self.place.home / "key")]
        )

    def backup_command(self, state: str) -> list[str]:
        """``perdure backup``."""
        where = ["-r", str(self.place.repository)]
        what = ["--filestorage", str(self.place.data)]
        what += ["--blobs", str(self.place.blobs)] if self.place.blobs.exists() else []
        return [*self.program, "backup", "--json", *what, *where]

    def remember(self, state: str, output: str) -> None:
        """A state is known by its last transaction."""
        summary = json.loads(output.splitlines()[-1])
        self.moments[state] = summary["sources"][0]["cut"]

    def restore_command(self, state: str | None, target: Path) -> list[str]:
        """``perdure restore latest``; an old state by its last transaction."""
        moment = [] if state is None else ["--at", self.moments[state]]
        where = ["--to", str(target), "-r", str(self.place.repository)]
        return [*self.program, "restore", "latest", *moment, *where]

    def check_command(self, *, read_data: bool) -> list[str] | None:
        """``perdure check``."""
        how = ["--read-data"] if read_data else []
        return [*self.program, "check", *how, "-r", str(self.place.repository)]


class Repozo(Tool):
    """ZODB's own backup script."""

    name = "repozo"
    program: Sequence[str] = beside_python("repozo") or [
        sys.executable,
        "-m",
        "ZODB.scripts.repozo",
    ]
    options: Sequence[str] = ()

    @classmethod
    def version(cls) -> str | None:
        """The version of ZODB."""
        return first_line(
            [sys.executable, "-c", "from importlib.metadata import version; print(version('ZODB'))"]
        )

    def init(self) -> None:
        """Make the folder."""
        self.place.repository.mkdir()

    def backup(self, state: str, under: Sequence[str] = ()) -> Cost:
        """Wait for the next second, since repozo names its files by the second."""
        time.sleep(1.01 - time.time() % 1)
        return super().backup(state, under)

    def backup_command(self, state: str) -> list[str]:
        """``repozo -B``."""
        where = ["-r", str(self.place.repository), "-f", str(self.place.data)]
        return [*self.program, "-B", *self.options, *where]

    def remember(self, state: str, output: str) -> None:
        """A backup is known by its date."""
        self.moments[state] = f"{datetime.now(UTC):%Y-%m-%d-%H-%M-%S}"

    def restore_command(self, state: str | None, target: Path) -> list[str]:
        """``repozo -R``."""
        date = [] if state is None else ["-D", self.moments[state]]
        return [
            *self.program,
            "-R",
            "-r",
            str(self.place.repository),
            "-o",
            str(target / "Data.fs"),
            *date,
        ]

    def check_command(self, *, read_data: bool) -> list[str] | None:
        """``repozo -V`` (which looks at the newest full backup and its increments only)."""
        quick = [] if read_data else ["-Q"]
        return [*self.program, "-V", *quick, "-r", str(self.place.repository)]


class RepozoQuick(Repozo):
    """Repozo that trusts the sizes of its files."""

    name = "repozo -Q"
    options = ("-Q",)


class RepozoZip(Repozo):
    """Repozo with gzip."""

    name = "repozo -z"
    options = ("-z",)
    slow = True


class RepozoRsync(RepozoQuick):
    """What most sites of many blobs do: repozo, then rsync with hard links to the copy before."""

    name = "repozo + rsync"

    @classmethod
    def version(cls) -> str | None:
        """The versions of both."""
        both = (super().version(), first_line(["rsync", "--version"]))
        return ", ".join(filter(None, both)) if all(both) else None

    def backup_command(self, state: str) -> list[str]:
        """``repozo -B -Q``, and ``rsync --link-dest``."""
        copies = self._copies()
        new = self.place.repository / f"blobs.{len(copies):04}"
        link = [f"--link-dest={copies[-1]}"] if copies else []
        rsync = ["rsync", "-a", "--delete", *link, f"{self.place.blobs}/", f"{new}/"]
        return in_turn(super().backup_command(state), rsync)

    def restore_command(self, state: str | None, target: Path) -> list[str]:
        """``repozo -R``, and ``rsync`` of the newest copy (no other is asked for)."""
        rsync = ["rsync", "-a", f"{self._copies()[-1]}/", f"{target / 'blobs'}/"]
        return in_turn(super().restore_command(state, target), rsync)

    def check_command(self, *, read_data: bool) -> list[str] | None:
        """Nothing checks the copies."""
        return None

    def _copies(self) -> list[Path]:
        return sorted(self.place.repository.glob("blobs.*"))


class Restic(Tool):
    """restic with its defaults."""

    name = "restic"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        (place.home / "password").write_text(PASSWORD)
        self.environment = {
            "RESTIC_PASSWORD_FILE": str(place.home / "password"),
            "RESTIC_CACHE_DIR": str(place.home / "cache"),
            "RESTIC_REPOSITORY": str(place.repository),
        }

    @classmethod
    def version(cls) -> str | None:
        """Ask the program."""
        return first_line(["restic", "version"])

    def init(self) -> None:
        """``restic init``."""
        self.run(["restic", "init"])

    def backup_command(self, state: str) -> list[str]:
        """``restic backup``."""
        return ["restic", "backup", "--json", "--exclude", "*.index", str(self.place.site)]

    def remember(self, state: str, output: str) -> None:
        """A snapshot is known by its id."""
        self.moments[state] = output.rsplit('"snapshot_id":"', 1)[1].split('"')[0]

    def restore_command(self, state: str | None, target: Path) -> list[str]:
        """``restic restore``."""
        return [
            "restic",
            "restore",
            self.moments[state] if state else "latest",
            "--target",
            str(target),
        ]

    def check_command(self, *, read_data: bool) -> list[str] | None:
        """``restic check``."""
        return ["restic", "check", *(["--read-data"] if read_data else [])]


class Borg(Tool):
    """borg with zstd, level 3, without encryption: its fastest."""

    name = "borg"
    encryption = "none"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        self.environment = {
            "BORG_BASE_DIR": str(place.home / "base"),
            "BORG_REPO": str(place.repository),
            "BORG_PASSPHRASE": PASSWORD,
            "BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes",
            "BORG_RELOCATED_REPO_ACCESS_IS_OK": "yes",
        }

    @classmethod
    def version(cls) -> str | None:
        """Ask the program."""
        return first_line(["borg", "--version"])

    def init(self) -> None:
        """``borg init``."""
        self.run(["borg", "init", "-e", self.encryption])

    def backup_command(self, state: str) -> list[str]:
        """``borg create``."""
        self.moments[state] = f"{len(self.moments):04}-{state}"
        options = ["-C", "zstd,3", "-e", "*.index"]
        return ["borg", "create", *options, f"::{self.moments[state]}", str(self.place.site)]

    def restore_command(self, state: str | None, target: Path) -> list[str]:
        """``borg extract`` (into the working directory)."""
        archive = self.moments[state] if state else list(self.moments.values())[-1]
        return ["borg", "extract", f"::{archive}"]

    def check_command(self, *, read_data: bool) -> list[str] | None:
        """``borg check``."""
        return ["borg", "check", *(["--verify-data"] if read_data else [])]


class BorgSealed(Borg):
    """borg with encryption."""

    name = "borg repokey"
    encryption = "repokey-blake2"


TOOLS: tuple[type[Tool], ...] = (Perdure, Restic, Borg, BorgSealed, Repozo, RepozoQuick, RepozoZip)


def in_turn(*commands: Sequence[str]) -> list[str]:
    """Give one command that runs some, each if the one before succeeded."""
    return ["sh", "-c", " && ".join(shlex.join(command) for command in commands)]


def first_line(command: Sequence[str], environment: Mapping[str, str] | None = None) -> str | None:
    """Run a command for its first line of output; None if it is not there."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **(environment or {})},
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.splitlines()[0].strip()

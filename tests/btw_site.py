"""A machine with btw-backup's configuration directory, a source, a ROOT_PATH and a bucket, for tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from object_server import ACCESS_KEY, SECRET_KEY, ObjectServer

from perdure.dropin.btw.bucket import Bucket, open_bucket
from perdure.dropin.btw.s3cmd import connection, parse_s3cmd

PREFIX = "a prefix/backups"


@dataclass
class BtwSite:
    """Everything that a job needs, below one folder."""

    folder: Path
    bucket: str = "unused"
    endpoint: str = "http://127.0.0.1:1"  # nobody answers there
    environment: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for path in (self.config, self.root, self.source):
            path.mkdir(mode=0o700)
        (self.source / "index.txt").write_text("one\n")
        (self.source / "nämé with space.txt").write_text("two\n")
        (self.source / "sub").mkdir()
        (self.source / "sub" / "deep.txt").write_text("three\n")
        (self.source / "link").symlink_to("index.txt")
        write(self.s3cfg, self.s3cmd_settings())
        write(
            self.config / "config.py",
            f'ROOT_PATH="{self.root}"\nS3CMD_CONFIG="{self.s3cfg}"\nS3_URI_PREFIX="s3://{self.bucket}/{PREFIX}"\n',
        )

    @property
    def config(self) -> Path:
        return self.folder / "config"

    @property
    def root(self) -> Path:
        return self.folder / "root"

    @property
    def source(self) -> Path:
        return self.folder / "source"

    @property
    def s3cfg(self) -> Path:
        return self.folder / "s3cfg"

    @property
    def state(self) -> Path:
        return self.config / "sync_state"

    def s3cmd_settings(self, **changed: str) -> str:
        host = self.endpoint.removeprefix("http://")
        settings = {
            "access_key": ACCESS_KEY,
            "secret_key": SECRET_KEY,
            "host_base": host,
            "host_bucket": host,
            "use_https": "False",
            "server_side_encryption": "False",
            "signurl_use_https": "False",
            **changed,
        }
        return "[default]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items())

    def remote(self) -> Bucket:
        """The place where the copy is."""
        settings = parse_s3cmd(self.s3cfg.read_text())
        place = connection(settings, f"s3://{self.bucket}/{PREFIX}", None)
        return open_bucket(place, encrypted=True)

    def command(self, *arguments: str | Path) -> list[str]:
        """The command line of a run in a process of its own."""
        program = [sys.executable, "-m", "perdure", "btw-backup", "--config-dir", str(self.config)]
        return [*program, *map(str, arguments)]

    def environ(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **self.environment}

    def run(self, *arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Run a command in a process of its own; it has to end with ``code``."""
        done = subprocess.run(
            self.command(*arguments),
            env=self.environ(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
        return done

    def destination(self, name: str) -> Path:
        path = self.root / name
        path.mkdir(parents=True, exist_ok=True)
        return path

    def init(self, kind: str, **settings: int | str) -> Path:
        """Make the working directory of the source; gives it."""
        self.run("fs-init", "--type", kind, self.source, "files")
        (folder,) = self.config.glob("files.*")
        with (folder / "config.py").open("a") as file:
            file.writelines(f"{name} = {value!r}\n" for name, value in settings.items())
        return folder


def write(path: Path, text: str) -> None:
    """Write a file that only its owner may write."""
    path.write_text(text)
    path.chmod(0o600)


def tree(folder: Path) -> dict[str, bytes | str]:
    """Give the files below a folder, and where links lead."""
    found: dict[str, bytes | str] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_symlink():
            found[name] = os.readlink(path)
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def names_below(folder: Path) -> Sequence[str]:
    """Give the names in a folder, ascending."""
    return sorted(entry.name for entry in folder.iterdir())


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BtwSite:
    """A machine whose bucket nobody answers for; it is asked once, in this process."""
    _needs_bzip2()
    monkeypatch.setattr("perdure.dropin.btw.bucket._RETRIES", 0)
    return BtwSite(tmp_path)


@pytest.fixture
def copied_site(tmp_path: Path, object_server: ObjectServer) -> BtwSite:
    """A machine with a bucket."""
    _needs_bzip2()
    return BtwSite(tmp_path, object_server.bucket(), object_server.endpoint)


def _needs_bzip2() -> None:
    if shutil.which("bzip2") is None:
        pytest.skip("bzip2 is not installed (Debian: apt-get install bzip2)")

"""What the real btw-backup wrote, unpacked for a test to change."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
from btw_site import write

ARCHIVE = Path(__file__).parent / "fixtures/btw-backup/fixtures.tar.gz"


@dataclass(frozen=True)
class Fixtures:
    """The unpacked files."""

    folder: Path

    def __truediv__(self, name: str) -> Path:
        return self.folder / name

    def versions(self) -> list[dict[str, str]]:
        """What each version restored to with rdiff-backup: destination, full, version, name, sha256."""
        found = []
        for line in (self / "expected-versions.txt").read_text().splitlines():
            words = line.split()
            if words[1].startswith("full="):
                keys = ("destination", "full", "version", "rc", "name", "sha256", "size")
                found.append(dict(zip(keys, (word.split("=")[-1] for word in words), strict=True)))
        return found


@pytest.fixture
def fixtures(tmp_path: Path) -> Fixtures:
    """The files, with the configuration pointing at where they are now."""
    subprocess.run(["tar", "-C", tmp_path, "-xpzf", ARCHIVE], check=True)
    found = Fixtures(tmp_path / "btw-backup")
    for path in (found / "config").rglob("*.py"):
        path.chmod(0o600)
    for folder in (found / "config", *(found / "config").iterdir()):
        if folder.is_dir() and not folder.is_symlink():
            folder.chmod(0o700)
    write(found / "s3cfg", "[default]\naccess_key = x\nsecret_key = y\nhost_base = 127.0.0.1:1\n")
    write(
        found / "config/config.py",
        f'ROOT_PATH="{found / "root"}"\nS3CMD_CONFIG="{found / "s3cfg"}"\nS3_URI_PREFIX="s3://foo/fixture"\n',
    )
    return found

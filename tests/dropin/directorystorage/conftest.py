"""What the tests of the DirectoryStorage drop-in share."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from old_zope import Living, OldZope
from old_zope import old_zope as old_zope

DATABASE = ("A", "B", "config", "journal", "misc")


@pytest.fixture(scope="session")
def grown(old_zope: OldZope, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A HOME with some history, closed in good order; only to be copied."""
    home = old_zope.make_home(tmp_path_factory.mktemp("grown") / "home")
    (home / "backups").mkdir()
    (home / "config" / "snapshot.conf").write_text("direct\n")
    with Living(old_zope, home) as living:
        living.ask("commit", 12)
        living.ask("undo")
        living.ask("commit", 3)
        living.close()
    return home


@pytest.fixture
def home(grown: Path, tmp_path: Path) -> Path:
    """A HOME of this test's own."""
    return Path(shutil.copytree(grown, tmp_path / "home"))


@pytest.fixture(autouse=True)
def outside_of_snapshots(monkeypatch: pytest.MonkeyPatch) -> None:
    """No snapshot tool is around the tests."""
    for name in list(os.environ):
        if name.startswith("SNAPSHOT_"):
            monkeypatch.delenv(name)

"""The README is executed: what it tells people to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

from command_line import commit
from doubles import Restic

ROOT = Path(__file__).parent.parent.parent


def test_what_the_readme_says_works(tmp_path: Path, bare_environment: None, restic: Restic) -> None:
    data_fs = tmp_path / "plone/var/filestorage/Data.fs"
    data_fs.parent.mkdir(parents=True)
    commit(data_fs, 5)
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"
    blocks = re.findall(
        r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL
    )
    assert len(blocks) == 2
    script = "\n".join(blocks).replace("2026-11-20T18:00", now)
    script = re.sub(r"(?<=[ =])/(srv|tmp)/", f"{tmp_path}/", script)

    programs = tmp_path / "bin"
    programs.mkdir()
    perdure = programs / "perdure"
    perdure.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure "$@"\n')
    perdure.chmod(0o755)
    environment = os.environ | {
        "HOME": str(tmp_path),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "RESTIC_CACHE_DIR": str(tmp_path / "restic-cache"),
    }
    command = ["sh", "-ex", "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    for copy in ("restored/Data.fs", "then/Data.fs", "assembled.fs"):
        assert (tmp_path / copy).read_bytes() == data_fs.read_bytes()
    assert "no damage was found" in done.stdout

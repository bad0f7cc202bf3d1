"""The page about looking inside is executed: what it tells people to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from blob_storage import BlobStorage
from command_line import Program

PAGE = Path(__file__).parent.parent.parent / "docs/looking-inside.md"


@pytest.mark.slow
def test_what_the_page_says_works(program: Program, repository: Path, tmp_path: Path) -> None:
    storage = BlobStorage(tmp_path / "plone")
    storage.commit("image")
    storage.close()
    now = f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%f}"  # after the last commit, before the backup
    storage.blobs.rename(tmp_path / "plone/blobstorage")
    program(
        *("backup", "--filestorage", str(storage.path)),
        *("--blobs", str(tmp_path / "plone/blobstorage")),
    )
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    assert len(blocks) == 6
    script = "\n".join(blocks).replace("2026-11-20T18:00", now)
    script = script.replace("/srv/backup", str(repository))
    script = script.replace("/etc/perdure.key", str(tmp_path / "key"))
    script = script.replace("/tmp/Data.fs", str(tmp_path / "Data.fs"))
    programs = tmp_path / "bin"
    programs.mkdir()
    perdure = programs / "perdure"
    perdure.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure "$@"\n')
    perdure.chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "TMPDIR": str(tmp_path)}
    command = ["sh", "-ex", "-c", script]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "Data.fs").read_bytes() == storage.data
    assert "drill passed" in done.stdout
    assert not list(tmp_path.glob("perdure-drill-*"))

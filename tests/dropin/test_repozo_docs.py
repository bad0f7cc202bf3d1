"""docs/repozo.md is executed: what it tells people to type works."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import commit

PAGE = Path(__file__).parent.parent.parent / "docs/repozo.md"


@pytest.mark.slow
def test_what_the_page_says_works(tmp_path: Path, bare_environment: None) -> None:
    data = tmp_path / "plone/var/filestorage/Data.fs"
    (tmp_path / "repozo").mkdir()
    (tmp_path / "standby").mkdir()
    data.parent.mkdir(parents=True)
    commit(data, 5)
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    script = "\n".join(blocks).replace("2026-11-21T03:15:07", "2999-11-21T03:15:07")
    script = re.sub(r"(?<=[ =])/(srv|tmp)/|^/srv/", f"{tmp_path}/", script, flags=re.MULTILINE)
    (tmp_path / "bin").mkdir()
    perdure = tmp_path / "bin/perdure"
    perdure.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure "$@"\n')
    perdure.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PERDURE_REPOSITORY": str(tmp_path / "store"),
        "PERDURE_PASSWORD": "secret",
    }
    subprocess.run([perdure, "init"], env=environment, check=True, timeout=60)
    done = subprocess.run(
        ["sh", "-ex", "-c", script],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    for name in ("recovered.fs", "then.fs", "standby/Data.fs"):
        assert (tmp_path / name).read_bytes() == data.read_bytes()
    assert str(data) in done.stdout

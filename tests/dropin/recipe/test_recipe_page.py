"""The page for users is executed: what it tells people to type works, and the settings it shows are known."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from configparser import RawConfigParser
from pathlib import Path

import pytest
from blob_site import BlobSite

from perdure.dropin.recipe.options import read_options

PAGE = (Path(__file__).parents[3] / "docs" / "recipe.md").read_text()


@pytest.mark.slow
def test_what_the_page_says_works(tmp_path: Path, bare_environment: None) -> None:
    site = BlobSite(tmp_path / "site")
    site.add()
    state = site.state()
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(blocks) == 2
    script = re.sub(r"(?<= )/(srv|etc)/", f"{tmp_path}/\\1/", "\n".join(blocks))
    (tmp_path / "etc" / "perdure").mkdir(parents=True)
    programs = tmp_path / "programs"
    programs.mkdir()
    perdure = programs / "perdure"
    perdure.write_text(f'#!/bin/sh\nexec {sys.executable} -m perdure "$@"\n')
    perdure.chmod(0o755)
    environment = os.environ | {"PATH": f"{programs}:{os.environ['PATH']}", "HOME": str(tmp_path)}
    done = subprocess.run(
        ["sh", "-ex", "-c", script],
        cwd=site.folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert "1 of 1 runs imported now" in done.stdout
    assert site.state() == state


def test_the_parts_that_the_page_shows() -> None:
    for block in re.findall(r"^```ini\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL):
        parser = RawConfigParser()
        parser.read_string(block)
        options = dict(parser["backup"])
        assert options.pop("recipe") == "perdure"
        read_options(options)

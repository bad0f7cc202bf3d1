"""Fixtures that several test modules share."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Generator, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from doubles import Restic
from hypothesis import HealthCheck, settings
from old_zope import MISSING
from small_repository import Site

# A job that a shell put into the background ignores SIGINT, and so would the programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = ["command_line", "buildout_site", "object_server", "recipe_pair"]

settings.register_profile(
    "perdure",
    deadline=None,
    max_examples=int(os.environ.get("PERDURE_TEST_EXAMPLES", "100")),
    derandomize="PERDURE_TEST_RANDOM" not in os.environ,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)
settings.load_profile("perdure")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where PERDURE_NO_SKIP is set, a test that skips has failed: its real part had to be there.

    Without python2.7, which no current Debian packages, those of the old Zope may skip, and say so.
    """
    report = yield
    allowed = hasattr(report, "wasxfail") or MISSING in str(report.longrepr)
    if report.skipped and os.environ.get("PERDURE_NO_SKIP") and not allowed:
        report.outcome = "failed"
    return report


@pytest.fixture
def restic(tmp_path: Path) -> Restic:
    """Run the stock restic on a repository with password "secret"; gives its output, or fails."""
    program = shutil.which("restic")
    if not program:
        pytest.skip("restic is not installed (Debian: apt-get install restic)")
    environment = os.environ | {
        "RESTIC_PASSWORD": "secret",
        "RESTIC_CACHE_DIR": str(tmp_path / "restic-cache"),
        "TZ": "Europe/Berlin",  # restic writes local times; so there are some with an offset
    }

    def run(repository: Path, *arguments: str, status: int = 0, cwd: Path | None = None) -> str:
        command = [program, "-r", str(repository), *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, cwd=cwd, check=False
        )
        assert done.returncode == status, f"{command} gave {done.returncode}:\n{done.stderr}"
        return done.stdout if status == 0 else done.stderr

    return run


@contextmanager
def _without_privileges() -> Iterator[None]:
    mine = os.geteuid()
    if mine == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(mine)


@pytest.fixture
def unprivileged() -> AbstractContextManager[None]:
    """A context in which even root may not do everything."""
    return _without_privileges()


@pytest.fixture
def site() -> Iterator[Site]:
    """A repository in memory."""
    made = Site()
    yield made
    made.repository.close()

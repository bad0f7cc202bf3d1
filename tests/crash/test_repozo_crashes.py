"""A repozo backup that is killed, or loses its power, at any call: what was there is whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from doubles import PowerCut
from repozo_pair import Site, back_up, moment, problems, recovered, zodbs

from perdure.dropin import repozo
from perdure.errors import PerdureError
from perdure.model import SilentObserver

pytestmark = pytest.mark.slow
CALLS = ["pwrite", "fsync", "fdatasync", "rename", "unlink", "ftruncate", "open"]


class Dead(BaseException):
    """The power is off: no call has an effect any more."""


def failing_at(number: int, monkeypatch: pytest.MonkeyPatch, fail: Callable[[], object]) -> None:
    """Have the n-th of these calls, and all behind it, fail before they do anything."""
    calls = count(1)
    for name in CALLS:
        real = getattr(os, name)

        def call(*arguments: Any, _real: Any = real, **more: Any) -> Any:
            if next(calls) >= number:
                fail()
            return _real(*arguments, **more)

        monkeypatch.setattr(os, name, call)


def killed_at(number: int, work: Callable[[], object]) -> bool:
    """Run ``work`` in a child that ends at its n-th call; says whether it was done before."""
    child = os.fork()
    if not child:
        try:
            failing_at(number, pytest.MonkeyPatch(), lambda: os._exit(9))
            work()
            os._exit(0)
        except BaseException:
            os._exit(8)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in {0, 9}
    return code == 0


@pytest.fixture
def site(tmp_path: Path) -> Site:
    made = Site(tmp_path)
    made.commit(3)
    back_up(made.repository, made.path, moment(0))
    made.commit(2)
    back_up(made.repository, made.path, moment(1), gzip=True)
    return made


KINDS: dict[str, dict[str, Any]] = {
    "increment": {},
    "quick": {"quick": True, "gzip": True},
    "full": {"full": True, "gzip": True},
    "kill": {"full": True, "kill_old_on_full": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_killed_at_any_call(kind: str, site: Site, tmp_path: Path) -> None:
    before = site.data
    after = site.commit(2)
    shutil.copytree(site.repository, tmp_path / "kept")
    for number in count(1):
        shutil.rmtree(site.repository)
        shutil.copytree(tmp_path / "kept", site.repository)
        done = killed_at(
            number, lambda: back_up(site.repository, site.path, moment(2), **KINDS[kind])
        )
        check_and_go_on(site, before, after, old_ones=kind != "kill")
        if done:
            break
    assert number > 15


@pytest.mark.parametrize("kind", ["increment", "full"])
def test_without_power_at_any_call(
    kind: str, site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = site.data
    after = site.commit(2)
    shutil.copytree(site.repository, tmp_path / "kept")
    for number in count(1):
        shutil.rmtree(site.repository)
        shutil.copytree(tmp_path / "kept", site.repository)
        done = False
        with monkeypatch.context() as patch:
            power = PowerCut(patch)
            for path in [*site.repository.iterdir(), site.repository]:
                descriptor = os.open(path, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)

            def fail() -> None:
                raise Dead

            failing_at(number, patch, fail)
            try:
                back_up(site.repository, site.path, moment(2), **KINDS[kind])
                done = True
            except Dead:
                pass
        shutil.rmtree(tmp_path / "survived", ignore_errors=True)
        power.survivors(site.repository, tmp_path / "survived")
        shutil.rmtree(site.repository)
        shutil.copytree(tmp_path / "survived", site.repository)
        check_and_go_on(site, before, after)
        if done:
            assert recovered(site.repository) == after
            break
    assert number > 15


def check_and_go_on(site: Site, before: bytes, after: bytes, *, old_ones: bool = True) -> None:
    output = site.path.with_name("zodbs.fs")
    assert recovered(site.repository) in {before, after}
    assert zodbs("-R", "-r", site.repository, "-o", output, now=moment(3)).code == 0
    assert output.read_bytes() in {before, after}
    if old_ones:
        assert recovered(site.repository, moment(1)) == before
    back_up(site.repository, site.path, moment(4), quick=True)
    assert not problems(site.repository)
    assert recovered(site.repository, with_verify=True) == after
    assert zodbs("-V", "-r", site.repository, now=moment(5)).code == 0
    assert zodbs("-R", "-w", "-r", site.repository, "-o", output, now=moment(5)).code == 0
    assert output.read_bytes() == after
    assert not [path for path in site.repository.iterdir() if path.name.startswith(".")]


def test_an_incremental_recovery_killed_at_any_call(site: Site, tmp_path: Path) -> None:
    output, old = tmp_path / "standby.fs", tmp_path / "old.fs"
    request = repozo.RecoverRequest(site.repository, incremental=True)
    repozo.recover(request, old, SilentObserver())
    before = old.read_bytes()
    site.commit(4)
    back_up(site.repository, site.path, moment(2), gzip=True)
    after = site.commit(3)
    back_up(site.repository, site.path, moment(3))
    for number in count(1):
        shutil.copyfile(old, output)
        shutil.copyfile(f"{old}.index", f"{output}.index")
        done = killed_at(number, lambda: repozo.recover(request, output, SilentObserver()))
        there = output.read_bytes()
        assert there == after[: len(there)]
        assert len(there) >= len(before)
        check_opens(output)
        report = repozo.recover(request, output, SilentObserver())
        assert report.kept >= len(before)
        assert output.read_bytes() == after
        if done:
            break
    assert number > 8


def check_opens(path: Path) -> None:
    """ZODB opens it, by the index that is beside it."""
    from ZODB.FileStorage import FileStorage

    storage = FileStorage(str(path), read_only=True)
    try:
        assert list(storage.iterator())
    finally:
        storage.close()


def test_a_disk_that_fails_keeps_what_was_there(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = site.data
    site.commit(2)
    for number in count(1):

        def fail() -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            failing_at(number, patch, fail)
            try:
                back_up(site.repository, site.path, moment(2))
                break
            except (PerdureError, OSError):
                pass
        assert recovered(site.repository) in {before, site.data}
    assert recovered(site.repository) == site.data

"""What the real btw-backup left: its destinations, its state files, its configuration."""

from __future__ import annotations

import hashlib
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest
from btw_fixtures import Fixtures

from perdure.dropin.btw.command import main
from perdure.dropin.btw.configuration import Configuration, JobType, Rotation
from perdure.dropin.btw.state import Kind, replay

RDIFF = pytest.mark.skipif(
    shutil.which("rdiff-backup", path=f"{Path(sys.executable).parent}:/usr/bin") is None,
    reason="rdiff-backup is not installed (Debian: apt-get install rdiff-backup)",
)


@pytest.mark.parametrize("name", ["site-tar", "files-rdiff", "db-shop", "db-globals"])
def test_list_prints_what_btw_backup_printed(
    fixtures: Fixtures, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert main(["--config-dir", str(fixtures / "config"), "list", name]) == 0
    assert capsys.readouterr().out == (fixtures / f"list-{name}.txt").read_text()


def test_the_configuration_is_read(fixtures: Fixtures) -> None:
    found = Configuration(fixtures / "config")
    assert found.root == fixtures / "root"
    assert found.job("/tmp/btw-fixture/site").type is JobType.TAR
    files = found.job("/tmp/btw-fixture/files")
    assert (files.type, files.rotation.count) == (JobType.RDIFF, 2)
    assert found.database("shop").count == 2
    assert found.database("other") == Rotation()


# what the real program answered is in sync_state-results.txt; on the last three it died
STATES = {
    "all-done": [],
    "pending-full-sync": [(Kind.SYNC, ""), (Kind.SYNC, "files-rdiff/2026-01-01T12:00:00/")],
    "pending-real": [
        (Kind.PUSH, "tar/2026-11-21T03:43:58.tbz"),
        (Kind.SYNC, "rdiff/2026-11-21T03:42:37/"),
    ],
    "spaces-utf8": [(Kind.PUSH, "a b/with  spaces and ü.tbz")],
    "done-without-start": [],
    "torn-last-line": [(Kind.PUSH, "site-tar/log.txt")],
    "torn-last-line-short": [(Kind.PUSH, "site-tar/log.txt")],
}


@pytest.mark.parametrize(("name", "pending"), STATES.items())
def test_state_files_of_all_kinds(
    fixtures: Fixtures,
    capsys: pytest.CaptureFixture[str],
    name: str,
    pending: list[tuple[Kind, str]],
) -> None:
    given = fixtures / "sync_state" / name
    assert [(item.kind, item.path) for item in replay(given.read_bytes()).pending] == pending
    shutil.copy(given, fixtures / "config/sync_state")
    options = ["--config-dir", str(fixtures / "config"), "sync-state"]
    assert main([*options, "--list"]) == 0
    lines = [f"Must {kind.value}: {path}" for kind, path in pending]
    in_order = sorted(lines, key=lambda line: line.startswith("Must push"))
    assert capsys.readouterr().out.splitlines() == in_order
    assert main([*options, "--reset"]) == (1 if pending else 0)
    said = capsys.readouterr()
    if pending:
        assert said.err == "btw-backup: cannot reset: some files must be synced or pushed\n"
        assert (fixtures / "config/sync_state").read_bytes() == given.read_bytes()
    else:
        assert said.out == "The state was reset\n"
        assert (fixtures / "config/sync_state").read_bytes() == b""


@RDIFF
@pytest.mark.slow
def test_every_version_restores_to_what_rdiff_backup_made_of_it(
    fixtures: Fixtures, tmp_path: Path
) -> None:
    config = ["--config-dir", str(fixtures / "config"), "-q", "restore"]
    versions = fixtures.versions()
    assert len(versions) == 10
    for number, version in enumerate(versions):
        target = tmp_path / f"restored-{number}"
        options = ["--at", version["version"], "--archive", version["destination"], str(target)]
        assert main([*config, *options]) == 0
        assert hashlib.sha256(target.read_bytes()).hexdigest() == version["sha256"]


@RDIFF
@pytest.mark.slow
def test_a_destination_goes_on(fixtures: Fixtures, capsys: pytest.CaptureFixture[str]) -> None:
    """A job of btw-backup's, with its configuration and its destination, gets its next backup from us."""
    source = fixtures / "source/files"
    configured = Configuration(fixtures / "config")
    job = fixtures / "config/files.jt-7rg"
    (job / "src").unlink()
    job.rename(configured.initialize(str(source), "files", JobType.RDIFF).with_suffix(".old"))
    before = (fixtures / "list-files-rdiff.txt").read_text()
    config = ["--config-dir", str(fixtures / "config")]
    assert main([*config, "fs", str(source), "files-rdiff"]) == 3  # nobody answers for the bucket
    capsys.readouterr()
    assert main([*config, "list", "files-rdiff"]) == 0
    said = capsys.readouterr().out
    assert said.startswith(before)
    (new,) = said.removeprefix(before).split()
    assert abs(datetime.fromisoformat(new).replace(tzinfo=UTC) - datetime.now(UTC)).days < 4000
    assert main([*config, "verify", "files-rdiff"]) == 0


@RDIFF
@pytest.mark.slow
def test_an_interrupted_session_is_taken_back(fixtures: Fixtures, tmp_path: Path) -> None:
    """What rdiff-backup itself left when it was killed half-way."""
    from perdure.dropin.btw import rdiff
    from perdure.dropin.btw.children import Children
    from perdure.dropin.btw.repository import DATA, Condition, sessions_in

    path = fixtures / "rdiff-interrupted/repo"
    names = [entry.name for entry in (path / DATA).iterdir()]
    assert sessions_in(names).condition is Condition.INTERRUPTED
    children = Children({"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "TZ": "UTC"})
    rdiff.take_back(children, path)
    sessions = sessions_in(entry.name for entry in (path / DATA).iterdir())
    assert sessions.condition is Condition.SOUND
    rdiff.verify(children, path, sessions.times[-1])


def test_a_torn_tar_file_is_found(fixtures: Fixtures, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copy(fixtures / "torn/2026-01-05T00:00:00.tbz", fixtures / "root/site-tar")
    assert main(["--config-dir", str(fixtures / "config"), "verify", "site-tar"]) == 13
    said = capsys.readouterr()
    assert "site-tar/2026-01-05T00:00:00.tbz: tar exited with code: 2" in said.err
    assert said.out.count(": good\n") == 2


def test_a_truncated_dump_cannot_be_read(fixtures: Fixtures) -> None:
    from perdure.dropin.btw import dumps
    from perdure.dropin.btw.children import Children
    from perdure.errors import PerdureError

    if not shutil.which("pg_restore"):
        pytest.skip("pg_restore is not installed (Debian: apt-get install postgresql-client)")
    children = Children({"PATH": "/usr/bin:/bin"})
    with pytest.raises(PerdureError, match="pg_restore exited with code: 1"):
        dumps.content_of(children, fixtures / "pg/shop.custom.truncated.dump")
    whole = dumps.content_of(children, fixtures / "pg/shop.custom.dump")
    assert dumps.content_of(children, fixtures / "pg/shop.custom-z0.dump") == whole


def test_globals_with_another_key_are_the_same(fixtures: Fixtures, tmp_path: Path) -> None:
    import bz2

    from perdure.dropin.btw import dumps
    from perdure.dropin.btw.children import Children
    from perdure.errors import DamageFound

    children = Children({})
    text = (fixtures / "pg/globals.sql").read_bytes()
    key = next(line.split()[1] for line in text.splitlines() if line.startswith(b"\\restrict "))
    found = set()
    for number, other in enumerate([key, b"x" * len(key), b"0"]):
        path = tmp_path / f"{number}" / dumps.GLOBALS
        path.parent.mkdir()
        path.write_bytes(bz2.compress(text.replace(key, other.ljust(63, b"0"))))
        found.add(dumps.content_of(children, path))
    assert len(found) == 1
    path.write_bytes(bz2.compress(text.replace(b"ROLE", b"role", 1)))
    assert dumps.content_of(children, path) not in found
    path.write_bytes(bz2.compress(text[: len(text) // 2]))
    with pytest.raises(DamageFound, match="not complete"):
        dumps.content_of(children, path)
    path.write_bytes(bz2.compress(text)[:200])
    with pytest.raises(DamageFound):
        dumps.content_of(children, path)


def test_tar_and_rdiff_programs_are_named_when_they_lack(tmp_path: Path) -> None:
    from perdure.dropin.btw.children import Children
    from perdure.errors import PerdureError

    with pytest.raises(PerdureError, match="rdiff-backup is not installed"):
        Children({"PATH": str(tmp_path)}).find("rdiff-backup")
    with pytest.raises(PerdureError, match="exited with code: 3: two; three"):
        script = tmp_path / "tar"
        script.write_text("#!/bin/sh\necho two >&2; echo three >&2; exit 3\n")
        script.chmod(0o755)
        Children({"PATH": f"{tmp_path}:/bin:/usr/bin"}).run("tar", [])


@RDIFF
@pytest.mark.slow
@pytest.mark.parametrize("lost", ["2026-11-21T04:06:10", "2026-11-21T04:06:12"])
def test_a_session_without_its_mark_is_not_taken_for_another(
    fixtures: Fixtures, capsys: pytest.CaptureFixture[str], lost: str
) -> None:
    data = fixtures / "root/files-rdiff/2026-11-21T04:06:10/rdiff-backup-data"
    (data / f"increments.{lost}Z.dir").unlink()
    options = ["--config-dir", str(fixtures / "config")]
    target = fixtures / "target"
    assert main([*options, "restore", "--at", lost, "files-rdiff", str(target)]) == 13
    assert "lost the mark" in capsys.readouterr().err
    assert not target.exists()
    assert main([*options, "verify", "files-rdiff"]) == 13

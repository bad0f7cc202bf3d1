"""fs-init, fs and list: what btw-backup did, and what it did wrong."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from btw_site import BtwSite, names_below, tree, write
from doubles import PowerCut

from perdure.dropin.btw.arguments import PROGRAM
from perdure.dropin.btw.backing_up import Workshop, back_up_files
from perdure.dropin.btw.children import Children
from perdure.dropin.btw.command import main, parse_owner
from perdure.dropin.btw.configuration import Configuration
from perdure.dropin.btw.destination import Destination
from perdure.dropin.btw.journal import Journal
from perdure.dropin.btw.locking import Wait, destination_locked
from perdure.dropin.btw.names import source_hash
from perdure.dropin.btw.repository import DATA
from perdure.dropin.btw.state import Kind
from perdure.errors import PerdureError, UsageError
from perdure.model import SilentObserver

FULL = "no change in the data to be backed up: skipping creation of new full backup"
INCREMENTAL = FULL.replace("full", "incremental")
PATH = f"{Path(sys.executable).parent}:/usr/bin:/bin"


class Bench:
    """Makes backups in this process, by a clock that is set by hand, and copies nothing."""

    def __init__(self, site: BtwSite, destination: str, **environment: str) -> None:
        self.site = site
        self.now = datetime(2026, 1, 1, 12, tzinfo=UTC)
        self.observer = SilentObserver()
        self.journal = Journal(site.config, Wait(0), lambda: self.now)
        children = Children({"PATH": PATH, "TZ": "UTC", **environment})
        self.shop = Workshop(children, self.journal, self.observer, lambda: self.now)
        site.destination(destination)
        self.destination = Destination(site.root, destination)

    def run(self, text: str | None = None, **later: float) -> None:
        if text is not None:
            (self.site.source / "index.txt").write_text(text)
        self.now += timedelta(**later)
        source = str(self.site.source)
        job = Configuration(self.site.config).job(source)
        back_up_files(self.shop, job, source, self.destination)

    def listing(self) -> list[str]:
        return list(self.destination.listing())

    def pending(self) -> list[tuple[Kind, str]]:
        return [(item.kind, item.path) for item in self.journal.state().pending]


@pytest.fixture
def needs_rdiff() -> None:
    if shutil.which("rdiff-backup", path=PATH) is None:
        pytest.skip("rdiff-backup is not installed (Debian: apt-get install rdiff-backup)")


def run(site: BtwSite, *arguments: str | Path) -> int:
    return main(["--config-dir", str(site.config), *map(str, arguments)])


def test_fs_init(site: BtwSite, capsys: pytest.CaptureFixture[str]) -> None:
    folder = site.config / f"mail.{source_hash('/var/mail')}"
    assert run(site, "fs-init", "--type", "rdiff", "/var/mail", "mail") == 0
    assert capsys.readouterr().out == f"btw-backup: created {folder}\n"
    assert os.readlink(folder / "src") == "/var/mail"
    text = (folder / "config.py").read_text()
    assert text == 'TYPE="rdiff"\nMAX_INCREMENTAL_COUNT=10\nMAX_INCREMENTAL_SPAN="24h"\n'
    assert folder.stat().st_mode & 0o777 == 0o700
    for arguments, why in (
        (["--type", "tar", "/var/mail", "other"], "there is already a directory for this path"),
        (["--type", "tar", "var/mail", "x"], "the source path must be absolute"),
    ):
        assert run(site, "fs-init", *arguments) == 1
        assert capsys.readouterr().err.splitlines()[0] == f"{PROGRAM}: {why}"
    assert run(site, "fs-init", "--type", "tar", "/x", "../x") == 1
    assert run(site, "-q", "fs-init", "--type", "tar", "/x", "x") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "arguments",
    [
        ["fs-init", "/x", "x"],
        ["fs-init", "--type", "zip", "/x", "x"],
        ["fs", "/x"],
        ["nothing"],
        [],
    ],
)
def test_wrong_usage(
    site: BtwSite, arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(site, *arguments) == 2
    assert capsys.readouterr().err.startswith("usage: btw-backup")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("btw-backup 2.0.2")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fs", "/none", "dst"], "no working directory for: /none"),
        (["fs", "{source}", "/dst"], "the dst argument cannot be an absolute path"),
        (["fs", "{source}", "../dst"], "the dst argument leads out of ROOT_PATH: ../dst"),
        (["list", "x/../../dst"], "the dst argument leads out of ROOT_PATH: x/../../dst"),
        (["list", "missing"], "there is no directory {root}/missing"),
        (["db", "dst"], "either -g (--global) or a database name must be specified"),
        (["db", "-g", "shop", "dst"], "-g (--global) cannot be used with a database name"),
        (["db", "global", "dst"], "the name 'global' cannot be used as a database name"),
        (["db", "a/b", "dst"], "'a/b' cannot be the name of a dump's file"),
        (["sync-state"], "must specify --list or --reset"),
        (["sync-state", "--list", "--reset"], "--list and --reset are not allowed together"),
        (["fs", "-u", "nobody-such", "{source}", "dst"], "'nobody-such' names no user and group"),
    ],
)
def test_what_is_refused(
    site: BtwSite, capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    site.destination("dst")
    assert run(site, "fs-init", "--type", "tar", site.source, "x") == 0
    capsys.readouterr()
    given = [each.format(source=site.source) for each in arguments]
    assert run(site, *given) == 1
    expected = f"{PROGRAM}: {message.format(root=site.root)}"
    assert capsys.readouterr().err.startswith(expected)
    assert not (site.folder / "dst").exists()


@pytest.mark.parametrize("name", ["ROOT_PATH", "S3CMD_CONFIG", "S3_URI_PREFIX"])
def test_settings_that_must_be_there(
    site: BtwSite, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    site.destination("dst")
    assert run(site, "fs-init", "--type", "tar", site.source, "x") == 0
    path = site.config / "config.py"
    write(path, re.sub(rf"{name}=.*\n", "", path.read_text()))
    assert run(site, "fs", site.source, "dst") == 1
    assert f"you must specify {name} in the general configuration" in capsys.readouterr().err
    assert names_below(site.root / "dst") == []


def test_a_configuration_is_never_run(site: BtwSite, capsys: pytest.CaptureFixture[str]) -> None:
    owned = site.folder / "owned"
    with (site.config / "config.py").open("a") as file:
        file.write(f"X = open({str(owned)!r}, 'w')\n")
    assert run(site, "list", "dst") == 1
    assert "config.py, line 4: the value is neither a text" in capsys.readouterr().err
    assert not owned.exists()


def test_a_configuration_that_others_may_write_is_refused(
    site: BtwSite, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in (site.config / "config.py", site.config):
        mode = path.stat().st_mode
        path.chmod(mode | 0o020)
        assert run(site, "list", "dst") == 1
        assert f"others may write {path}" in capsys.readouterr().err
        path.chmod(mode)
    if os.geteuid() == 0:
        os.chown(site.config / "config.py", 12345, -1)
        assert run(site, "list", "dst") == 1
        assert "belongs to user 12345" in capsys.readouterr().err


def test_database_settings_lie_in_db_or_beside(site: BtwSite) -> None:
    found = Configuration(site.config)
    write(site.config / "shop.py", "MAX_INCREMENTAL_COUNT = 3\n")
    assert found.database("shop").count == 3
    (site.config / "db").mkdir(mode=0o700)
    write(site.config / "db/shop.py", "MAX_INCREMENTAL_COUNT = 4\nMAX_INCREMENTAL_SPAN = '7d'\n")
    assert found.database("shop").count == 4
    assert found.database("shop").span == timedelta(days=7)
    assert found.database("config").count == 10  # config.py is the general one


def test_tar_files_are_compared_with_the_last_one(site: BtwSite) -> None:
    site.init("tar")
    bench = Bench(site, "some/tars")
    bench.run("one")
    assert bench.listing() == ["2026-01-01T12:00:00.tbz"]
    bench.run(hours=1)
    assert bench.listing() == ["2026-01-01T12:00:00.tbz"]
    line = "2026-01-01T13:00:00.tbz: no change in the data to be backed up: dropping backup\n"
    assert (bench.destination.path / "log.txt").read_text() == line
    bench.run("two", hours=1)
    assert bench.listing() == ["2026-01-01T12:00:00.tbz", "2026-01-01T14:00:00.tbz"]
    assert bench.pending() == [
        (Kind.PUSH, "some/tars/2026-01-01T12:00:00.tbz"),
        (Kind.PUSH, "some/tars/log.txt"),
        (Kind.PUSH, "some/tars/2026-01-01T14:00:00.tbz"),
    ]
    assert names_below(bench.destination.path) == [*bench.listing(), "log.txt"]


def test_directories_with_a_tag_are_left_out(site: BtwSite) -> None:
    (site.source / "cache").mkdir()
    for name in ("NOBACKUP-TAG", "x"):
        (site.source / "cache" / name).touch()
    site.init("tar")
    bench = Bench(site, "dst")
    bench.run()
    names = subprocess.run(
        ["tar", "-tjf", bench.destination.path / bench.listing()[0]],
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    assert "./cache/NOBACKUP-TAG" in names
    assert "./cache/x" not in names


def test_times_go_on_whatever_the_clock_says(site: BtwSite) -> None:
    site.init("tar")
    bench = Bench(site, "dst")
    bench.run("one")
    bench.run("two")  # in the same second
    bench.run("three", days=-40)
    assert bench.listing() == [f"2026-01-01T12:00:0{n}.tbz" for n in range(3)]


def test_a_torn_tar_file_is_replaced_by_the_next_backup(site: BtwSite) -> None:
    site.init("tar")
    bench = Bench(site, "dst")
    bench.run()
    whole = bench.destination.path / "2026-01-01T12:00:00.tbz"
    torn = bench.destination.path / "2026-01-01T13:00:00.tbz"
    torn.write_bytes(whole.read_bytes()[:100])
    bench.run(days=1)
    assert (bench.destination.path / bench.listing()[-1]).read_bytes() == whole.read_bytes()


def test_a_missing_source_is_an_error_and_leaves_nothing(site: BtwSite) -> None:
    site.init("tar")
    bench = Bench(site, "dst")
    shutil.rmtree(site.source)
    with pytest.raises(PerdureError, match=r"tar exited with code: 2: .*source"):
        bench.run()
    assert bench.listing() == []
    assert bench.pending() == []


@pytest.mark.slow
@pytest.mark.usefixtures("needs_rdiff")
def test_rdiff_rotation(site: BtwSite) -> None:
    site.init("rdiff", MAX_INCREMENTAL_COUNT=2, MAX_INCREMENTAL_SPAN="24h")
    bench = Bench(site, "rd")
    for number in range(4):
        bench.run(f"state {number}", minutes=1)
    assert bench.listing() == [
        "2026-01-01T12:01:00",
        " 2026-01-01T12:02:00",
        " 2026-01-01T12:03:00",
        "2026-01-01T12:04:00",
    ]
    bench.run(minutes=1)
    bench.run(hours=24)
    log = (bench.destination.path / "log.txt").read_text().splitlines()
    assert log == [f"2026-01-01T12:05:00: {INCREMENTAL}", f"2026-01-02T12:05:00: {FULL}"]
    bench.run("a day later", minutes=1)  # the span is over
    assert bench.listing()[4:] == ["2026-01-02T12:06:00"]
    assert bench.pending() == [
        (Kind.PUSH, "rd/2026-01-01T12:01:00/"),
        (Kind.SYNC, "rd/2026-01-01T12:01:00/"),
        (Kind.PUSH, "rd/2026-01-01T12:04:00/"),
        (Kind.PUSH, "rd/log.txt"),
        (Kind.PUSH, "rd/2026-01-02T12:06:00/"),
    ]


@pytest.mark.slow
@pytest.mark.usefixtures("needs_rdiff")
def test_a_change_that_keeps_size_and_second_is_seen(site: BtwSite) -> None:
    """rdiff-backup alone looks at size and whole second."""
    site.init("rdiff")
    bench = Bench(site, "rd")
    bench.run("a")
    kept = (site.source / "index.txt").stat()
    for text in "bc":
        bench.run(text)
        os.utime(site.source / "index.txt", ns=(kept.st_mtime_ns, kept.st_mtime_ns))
    assert len(bench.listing()) == 3
    for number, text in enumerate("abc"):
        target = site.folder / text
        at = f"2026-01-01T12:00:0{number}"
        assert run(site, "-q", "restore", "--at", at, "rd", target) == 0
        assert (target / "index.txt").read_text() == text


@pytest.mark.slow
@pytest.mark.usefixtures("needs_rdiff")
def test_a_first_session_that_never_ended_stops_nothing(site: BtwSite) -> None:
    """btw-backup, killed there, failed at each later run, and listed the directory as a backup."""
    site.init("rdiff")
    bench = Bench(site, "rd")
    broken = bench.destination.path / "2026-01-01T11:00:00"
    (broken / DATA / "increments").mkdir(parents=True)
    (broken / DATA / "backup.log").touch()
    (broken / "rdiff-backup.tmp.1").write_bytes(b"half")
    assert bench.listing() == []
    bench.run()
    assert bench.listing() == ["2026-01-01T12:00:00"]
    assert "2026-01-01T11:00:00 is no backup" in bench.observer.warnings[0]
    assert (broken / DATA / "backup.log").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("needs_rdiff")
def test_a_first_increment_that_never_began_stops_nothing(site: BtwSite) -> None:
    """rdiff-backup itself, killed there, takes the repository for new, and fails from then on."""
    site.init("rdiff")
    bench = Bench(site, "rd")
    bench.run("one")
    (name,) = bench.listing()
    data = bench.destination.path / name / DATA
    (data / "current_mirror.2026-01-01T12:30:00Z.data").write_text(f"PID {os.getpid()}\n")
    (data / "error_log.2026-01-01T12:30:00Z.data").touch()
    (data / "increments.2026-01-01T12:00:00Z.dir").touch()
    assert bench.listing() == [name]
    bench.run("two", hours=1)
    assert bench.listing() == [name, " 2026-01-01T13:00:00"]
    assert run(site, "verify", "rd") == 0


@pytest.mark.slow
@pytest.mark.usefixtures("needs_rdiff")
def test_a_repository_deleted_by_hand_stops_nothing(site: BtwSite) -> None:
    """btw-backup looked for every directory that its state file ever named."""
    site.init("rdiff", MAX_INCREMENTAL_COUNT=0)
    bench = Bench(site, "rd")
    bench.run("one")
    bench.run("two")
    assert len(bench.listing()) == 2
    shutil.rmtree(bench.destination.path / bench.listing()[0])
    bench.run("three")
    assert len(bench.listing()) == 2
    for path in list(bench.destination.path.iterdir()):
        shutil.rmtree(path)
    bench.run("four")
    assert len(bench.listing()) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("needs_rdiff")
@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away (run as root)")
def test_files_can_be_given_away(site: BtwSite) -> None:
    site.init("rdiff")
    bench = Bench(site, "rd")
    bench.shop = replace(bench.shop, owner=(1, -1))
    bench.run("one")
    bench.run("two")
    bench.run()
    entries = [*(site.root / "rd").rglob("*")]
    assert {entry.name for entry in entries} >= {"log.txt", "backup.tar", DATA}
    assert {(entry.stat().st_uid, entry.stat().st_gid) for entry in entries} == {(1, 0)}


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("0", (0, -1)),  # root counts, too
        ("root", (0, -1)),
        ("root:", (0, 0)),
        ("0:0", (0, 0)),
        ("12345:root", (12345, 0)),
        ("root:23456", (0, 23456)),
        (None, None),
    ],
)
def test_owners_are_names_and_numbers(text: str | None, owner: tuple[int, int] | None) -> None:
    """UID[:GID], as documented; btw-backup took two names, and nothing else."""
    assert parse_owner(text) == owner


@pytest.mark.parametrize(
    "text", ["", ":", ":root", "nobody-such", "root:nobody-such", "12345:", "-1"]
)
def test_no_owners(text: str) -> None:
    with pytest.raises(UsageError):
        parse_owner(text)


def test_another_job_is_waited_for(site: BtwSite, capsys: pytest.CaptureFixture[str]) -> None:
    """btw-backup died at once, with a traceback, while another job ran."""
    site.init("tar")
    site.destination("dst")
    with destination_locked(site.config, "dst", Wait(0)):
        assert run(site, "--lock-wait", "0s", "fs", site.source, "dst") == 1
        assert "another job holds dst" in capsys.readouterr().err
        waiting = subprocess.Popen(
            site.command("fs", site.source, "dst"), env=site.environ(), stderr=subprocess.PIPE
        )
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(1.5)
        assert names_below(site.root / "dst") == []
    _, said = waiting.communicate(timeout=120)
    assert waiting.returncode == 3, said
    assert len(names_below(site.root / "dst")) == 1


def test_the_state_file_is_waited_for(site: BtwSite, capsys: pytest.CaptureFixture[str]) -> None:
    """The lock of btw-backup itself, which holds the file as long as it runs."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, site.state], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout
    assert holder.stdout.readline() == b"held\n"
    try:
        assert run(site, "--lock-wait", "0s", "sync-state", "--list") == 1
        assert "another job holds" in capsys.readouterr().err
    finally:
        holder.communicate()
    assert run(site, "--lock-wait", "0s", "sync-state", "--list") == 0


HOLDER = """
import fcntl, sys
file = open(sys.argv[1], "a+")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


def test_a_torn_line_is_no_beginning_of_the_next(site: BtwSite) -> None:
    site.init("tar")
    site.state.write_bytes(b"2026-01-01T12:00:00 +push dst/log.txt\n2026-01-01T12:00:01 -push ds")
    bench = Bench(site, "dst")
    bench.run()
    assert bench.pending() == [
        (Kind.PUSH, "dst/log.txt"),
        (Kind.PUSH, "dst/2026-01-01T12:00:00.tbz"),
    ]
    assert b"-push ds\n" not in site.state.read_bytes()
    assert b" ds2026" not in site.state.read_bytes()


def test_a_long_state_file_is_emptied_when_nothing_is_pending(site: BtwSite) -> None:
    line = "2026-01-01T12:00:00 {}push dst/2026-01-01T12:00:00.tbz\n"
    site.state.write_text((line.format("+") + line.format("-")) * 3000)
    bench = Bench(site, "dst")
    site.init("tar")
    bench.run()
    assert site.state.stat().st_size > 1 << 18
    for item in bench.journal.state().pending:
        bench.journal.done(item)
    assert site.state.stat().st_size == 0


def test_what_killed_runs_left_is_cleared(site: BtwSite) -> None:
    site.init("tar")
    bench = Bench(site, "dst")
    (bench.destination.path / ".btw-2026-01-01T11:00:00.tbz").write_bytes(b"half")
    (bench.destination.path / ".btw-source").mkdir()
    bench.run()
    assert names_below(bench.destination.path) == bench.listing()


def test_what_a_power_cut_leaves(site: BtwSite, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is announced and named is on the disk, whole; and it is announced first."""
    site.init("tar")
    bench = Bench(site, "dst")
    power = PowerCut(monkeypatch)
    bench.run()
    (name,) = bench.listing()
    power.survivors(bench.destination.path, site.folder / "dst-left")
    assert tree(site.folder / "dst-left") == tree(bench.destination.path)
    power.survivors(site.config, site.folder / "config-left")
    assert name in (site.folder / "config-left/sync_state").read_text()
    assert name_is_announced_first(bench, monkeypatch)


def name_is_announced_first(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> bool:
    def cut(*_: object) -> None:
        raise OSError("power cut")

    monkeypatch.setattr(Path, "rename", cut)
    with pytest.raises(OSError, match="power cut"):
        bench.run("changed", hours=1)
    return bench.pending()[-1] == (Kind.PUSH, "dst/2026-01-01T13:00:00.tbz")


def test_a_file_that_changes_meanwhile_is_named(site: BtwSite, tmp_path: Path) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    tar = shutil.which("tar")
    script = f"#!/bin/sh\n{tar} \"$@\"\necho 'tar: ./index.txt: file changed as we read it' >&2\nexit 1\n"
    (fake / "tar").write_text(script)
    (fake / "tar").chmod(0o755)
    site.init("tar")
    site.destination("dst")
    site.environment["PATH"] = f"{fake}:{os.environ['PATH']}"
    done = site.run("fs", site.source, "dst", code=3)
    assert "./index.txt: file changed as we read it" in done.stderr
    assert len(names_below(site.root / "dst")) == 1


def test_locks_end_with_the_last_child(site: BtwSite) -> None:
    """A killed run's rdiff-backup goes on working: until it ends, nobody else may."""
    with destination_locked(site.config, "dst", Wait(0)) as lock:
        child = subprocess.Popen(["cat"], stdin=subprocess.PIPE, pass_fds=[lock])
    with pytest.raises(PerdureError), destination_locked(site.config, "dst", Wait(0)):
        pass
    child.communicate()
    with destination_locked(site.config, "dst", Wait(60)) as lock:
        assert fcntl.fcntl(lock, fcntl.F_GETFD) & fcntl.FD_CLOEXEC


def test_a_root_is_needed_by_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read"):
        Configuration(tmp_path / "none")
    assert tree(tmp_path) == {}

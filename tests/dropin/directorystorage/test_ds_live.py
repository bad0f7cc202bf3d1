"""Beside the real DirectoryStorage: a process that commits, undoes and packs, its own tools, its old ZEO."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from command_line import Program
from old_zope import PATIENCE, Living, LivingError, OldZope

from perdure.sources.directorystorage.home import Home, LiveView

pytestmark = pytest.mark.slow
HERE = [sys.executable, "-m", "perdure", "directorystorage"]
RESTORE = ("directorystorage", "restore")
ASKED = ("-t", "60", "-s", "0.1")
LIVE = ("--live",)
Dump = dict[str, Any]


def ask_over(home: Path, living: Living, how: str) -> None:
    """Let snapshot.conf lead to the living process."""
    port = living.ask(how)
    (home / "config" / "access").write_text("backup:secret\nnot this line\n")
    line = (
        f"http http://localhost:{port}/DSToolkit access"
        if how == "http"
        else f"zeo localhost:{port}"
    )
    (home / "config" / "snapshot.conf").write_text(f"{line}\nnodirect\n")


def real_state(old_zope: OldZope, home: Path) -> Dump:
    """What the real storage says of a HOME; its own check has to find it in order."""
    (home / "config" / "snapshot.conf").write_text("direct\n")
    old_zope.tool("checkds", "-q", "--storage", home)
    with Living(old_zope, home) as living:
        living.ask("commit")  # it can be written to
        living.ask("undo")
        dump = living.ask("dump")
        living.close()
    return {"objects": {oid: digest for oid, (_, digest) in dump["objects"].items()}}


def contents(dump: Dump) -> Dump:
    """The same of a dump: an undo gives objects younger tids."""
    return {"objects": {oid: digest for oid, (_, digest) in dump["objects"].items()}}


def committed(home: Path, last: int) -> set[str]:
    """All revisions and transactions up to a tid."""
    return {name.text for name in LiveView(Home(home)).names() if 0 < name.tid <= last}


@pytest.mark.parametrize("how", ["http", "zeo"])
def test_backups_of_a_living_storage(
    old_zope: OldZope, home: Path, tmp_path: Path, program: Program, how: str
) -> None:
    with Living(old_zope, home) as living:
        ask_over(home, living, how)
        living.ask("commit", 5)
        dumps = [living.ask("dump")]
        program("directorystorage", "backup", "--storage", str(home), "full")
        for step in ("commit", "undo", "commit"):
            living.settle()
            living.ask(step)
            dumps.append(living.ask("dump"))
            program("directorystorage", "backup", "--storage", str(home), "inc", "@4000000000")
        assert str(living.ask("code")).startswith(("None", "recombining"))
        living.settle()
        living.close()
    for number, dump in enumerate(dumps, 1):
        target = tmp_path / f"restored-{number}"
        program(*RESTORE, "--number", str(number), str(home / "backups"), str(target))
        assert real_state(old_zope, target) == contents(dump)
    program("directorystorage", "verify", str(home / "backups"))


def test_backups_while_it_commits_and_packs(
    old_zope: OldZope, home: Path, tmp_path: Path, program: Program
) -> None:
    """With snapshots and without, every archive is some state of it, whole; or there is none."""
    made = []
    with Living(old_zope, home) as living:
        ask_over(home, living, "zeo")
        living.ask("run", 0.02)
        for way, packs in ((ASKED, True), (LIVE, True), (ASKED, False), (LIVE, False)):
            command = [*HERE, "backup", "--storage", str(home), *way, "full"]
            backup = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
            if packs:
                with suppress(LivingError):  # the snapshot may keep it from packing
                    living.ask("pack")
            said = backup.communicate(timeout=PATIENCE)[1]
            if backup.returncode:
                assert packs, said
            else:
                made.append(packs)
        living.ask("halt")
        living.settle()
        living.close()
    assert made[-2:] == [False, False]
    for number, packed in enumerate(made, 1):
        target = tmp_path / f"restored-{number}"
        program(*RESTORE, "--number", str(number), str(home / "backups"), str(target))
        (target / "config" / "snapshot.conf").write_text("direct\n")
        old_zope.tool("checkds", "-q", "--storage", target)
        last = LiveView(Home(target)).serial()
        if not packed:  # no pack came after it
            assert committed(target, last) == committed(home, last)


def test_a_storage_that_was_killed_is_rolled_forward(
    old_zope: OldZope, home: Path, tmp_path: Path, program: Program
) -> None:
    with Living(old_zope, home) as living:
        living.ask("enter", "somebody-1")
        living.ask("commit", 8)  # into B and the journal
        dump = living.ask("dump")
        living.kill()
    program("directorystorage", "wreckage", str(home), str(tmp_path / "wreck.tgz"))
    program("directorystorage", "backup", "--storage", str(home), "full")
    program("directorystorage", "restore", str(home / "backups"), str(tmp_path / "restored"))
    (tmp_path / "wreck").mkdir()
    subprocess.run(["tar", "xzf", tmp_path / "wreck.tgz", "-C", tmp_path / "wreck"], check=True)
    for each in (tmp_path / "restored", tmp_path / "wreck", home):
        assert real_state(old_zope, each) == contents(dump)


def test_a_foreign_snapshot_is_not_taken_for_ours(
    old_zope: OldZope, home: Path, program: Program
) -> None:
    with Living(old_zope, home) as living:
        ask_over(home, living, "http")
        living.ask("enter", "dead-4242")
        living.ask("commit", 3)
        said = program("directorystorage", "backup", "--storage", str(home), "full", code=1).err
        assert "user/dead-4242" in said
        assert "somebody else entered" in said
        assert not (home / "backups" / "tindex").exists()
        assert living.ask("code") == "user/dead-4242"
        said = program("directorystorage", "state", str(home)).out
        assert said.startswith("foreign: ")
        program("directorystorage", "leave", str(home))
        living.settle()
        program("directorystorage", "backup", "--storage", str(home), "full")


def test_a_storage_that_cannot_leave_its_snapshot_mode(
    old_zope: OldZope, home: Path, tmp_path: Path, program: Program
) -> None:
    """Started while its sublock was held: A is old, and only what is read beside it is not."""
    import fcntl

    with (home / "misc" / "sublock").open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        living = Living(old_zope, home, settles=False)
    with living:
        ask_over(home, living, "http")
        living.ask("commit", 7)
        dump = living.ask("dump")
        said = program("directorystorage", "backup", "--storage", str(home), "full", code=1).err
        assert "cannot leave" in said
        program("directorystorage", "backup", "--live", "--storage", str(home), "full")
        (home / "config" / "snapshot.conf").write_text("zeo localhost:1\nlive\n")
        said = program("directorystorage", "backup", "--storage", str(home), "full").err
        assert "so it is read while it lives" in said
    for number in ("1", "2"):
        target = tmp_path / number
        program(*RESTORE, "--number", number, str(home / "backups"), str(target))
        assert real_state(old_zope, target) == contents(dump)


def test_the_next_method_is_tried(old_zope: OldZope, home: Path, program: Program) -> None:
    with Living(old_zope, home) as living:
        ask_over(home, living, "http")
        conf = home / "config" / "snapshot.conf"
        http = conf.read_text().splitlines()[0]
        (home / "config" / "wrong").write_text("backup:wrong\n")
        refused = http.replace("access", "wrong")
        conf.write_text(f"{refused}\nnodirect\n")
        said = program("directorystorage", "backup", "--storage", str(home), "full", code=1).err
        assert "401" in said
        assert "wrong" not in said.replace("401 wrong", "")
        conf.write_text(
            f"nonsense\n{refused}\nhttp http://localhost:1/x access\nzeo localhost:1\n{http}\n"
        )
        said = program("directorystorage", "backup", "--storage", str(home), "full").err
        assert "malformed line 1" in said
        living.settle()


def test_the_mode_is_left_when_the_sublock_cannot_be_had(
    old_zope: OldZope, home: Path, program: Program
) -> None:
    """Another tool that is quicker: neither its copy is disturbed, nor does the storage stay as it is."""
    import fcntl

    with Living(old_zope, home) as living:
        ask_over(home, living, "http")
        command = [*HERE, "snapshot", "-t", "60", "-s", "0.05", "--storage", str(home)]
        living.ask("enter", "other-1")
        with (home / "misc" / "sublock").open("r+") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            said = program(
                "directorystorage", "snapshot", "--storage", str(home), "true", code=1
            ).err
            assert "somebody else copies" in said
            waiting = subprocess.Popen([*command, "true"], stderr=subprocess.PIPE, text=True)
            assert waiting.stderr
            assert "trying again" in waiting.stderr.readline()
        living.ask("leave", "other-1")
        assert waiting.wait(PATIENCE) == 0
        waiting.stderr.close()
        living.settle()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_mode_is_left_by_who_is_interrupted(
    old_zope: OldZope, home: Path, number: signal.Signals
) -> None:
    with Living(old_zope, home) as living:
        ask_over(home, living, "http")
        command = [
            *HERE,
            "snapshot",
            "--storage",
            str(home),
            "sh",
            "-c",
            "echo at work; exec sleep 600",
        ]
        running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert running.stdout
        assert running.stdout.readline() == b"at work\n"
        assert str(living.ask("code")).startswith("user/")
        running.send_signal(number)
        running.communicate(timeout=PATIENCE)
        assert running.returncode == 130
        living.settle()
        assert not (home / "misc" / "snapshot").exists()


def test_snapshot_tells_its_command(
    old_zope: OldZope, home: Path, tmp_path: Path, program: Program
) -> None:
    with Living(old_zope, home) as living:
        ask_over(home, living, "http")
        script = tmp_path / "script"
        script.write_text(
            'echo "$SNAPSHOT_VERSION $SNAPSHOT_DIRECTORY" > told; echo "$SNAPSHOT_TIMESTAMP" >> told\n'
            'cat "$SNAPSHOT_DIRECTORY/misc/snapshot" >> told; exit 5\n'
        )
        before = int(time.time())
        program("directorystorage", "snapshot", str(home), "-", "sh", str(script), code=5)
        first, stamp, code = Path("told").read_text().splitlines()
        assert first == f"2 {home}"
        assert before <= int(stamp) <= time.time()
        assert code == f"user/{os.uname().nodename}-{os.getpid()}"
        living.settle()
        program("directorystorage", "snapshot", str(home), "-")  # only in and out
        living.settle()


def test_our_backup_inside_a_snapshot_tool_and_the_real_one_inside_ours(
    old_zope: OldZope, home: Path, program: Program
) -> None:
    """Each finds the storage held, and does not hold it once more; numbers go on."""
    if not shutil.which("cpio"):
        pytest.skip("cpio is not installed (Debian: apt-get install cpio)")
    ours = [*HERE, "backup", "--storage", str(home)]
    more = {"PYTHONPATH": f"{old_zope.packages}"}
    script = home.parent / "ours.sh"
    words = " ".join(f"'{word}'" for word in ours)
    script.write_text(f"PYTHONPATH='{os.environ.get('PYTHONPATH', '')}' exec {words} \"$@\"\n")
    old_zope.tool("snapshot", "--storage", home, "sh", script, "full")
    run = "import sys; sys.argv[0] = 'backup'; from DirectoryStorage.backup import main; main()"
    real = [str(old_zope.python), "-c", run, "--storage", str(home)]
    for words_of in (real, ours):
        with Living(old_zope, home) as living:
            living.ask("commit", 2)
            living.close()
        command = (
            ["env", "-u", "PYTHONHOME", f"PYTHONPATH={more['PYTHONPATH']}"]
            if words_of is real
            else []
        )
        program(
            "directorystorage",
            "snapshot",
            "--storage",
            str(home),
            *command,
            *words_of,
            "inc",
            "@4000000000",
        )
    names = sorted(path.name for path in (home / "backups").iterdir())
    assert names == ["backup-1-to-2.tgz", "backup-1.tgz", "backup-2-to-3.tgz", "tindex"]
    program("directorystorage", "verify", str(home / "backups"))
    program("directorystorage", "restore", str(home / "backups"), str(home.parent / "restored"))
    assert real_state(old_zope, home.parent / "restored") == real_state(old_zope, home)


def test_the_real_tool_s_defects_are_not_ours(
    old_zope: OldZope, home: Path, program: Program
) -> None:
    """Where the real one fails on a modern Python, or says that all is well, ours does neither."""
    with Living(old_zope, home) as living:
        ask_over(home, living, "http")
        said = old_zope.tool("snapshot", "--storage", home, "true", status=1)
        assert "AttributeError" in said
        program("directorystorage", "snapshot", "--storage", str(home), "true")
        living.settle()

"""The main job, shown on a living site: ``make demo``.

A real ZEO server holds two real storages and blobs, writers commit throughout, and everything that is
asked of Perdure is asked on its command line. All of it happens in a temporary folder, which is removed.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import ZEO
from living_site import (
    ACCOUNTS,
    BALANCE,
    CONFIGURATION,
    DOCUMENTS,
    FILES,
    Failed,
    client,
    files,
    found,
    look_at,
)

HERE = Path(__file__).resolve().parent
WRITERS = 2
CHUNK = 1 << 20
EXPECTED = (DOCUMENTS, ACCOUNTS * BALANCE, FILES, DOCUMENTS)
DATABASES = ("catalog.fs", "Data.fs")


class Demo:
    """One site, one repository, and what is done with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        self.configuration = self.site / "zeo.conf"
        self.socket = str(folder / "zeo.sock")
        self.children: list[subprocess.Popen[bytes]] = []
        self.checks = 0
        beside = Path(sys.executable).parent / "perdure"
        self.program = [str(beside)] if beside.exists() else [sys.executable, "-m", "perdure"]
        self.environment = {
            **{name: text for name, text in os.environ.items() if not name.startswith("PERDURE_")},
            "PERDURE_REPOSITORY": str(folder / "repository"),
            "PERDURE_PASSWORD_FILE": str(folder / "key"),
            "PERDURE_CACHE_DIR": str(folder / "cache"),
        }

    # --- the site

    def serve(self) -> None:
        """Start the ZEO server and the writers."""
        self.configuration.write_text(CONFIGURATION.format(address=self.socket, folder=self.site))
        self.start([sys.executable, "-m", "ZEO.runzeo", "-C", str(self.configuration)], "zeo.log")
        for _ in range(200):
            if Path(self.socket).exists():
                break
            time.sleep(0.05)
        writer = [sys.executable, str(HERE / "writer.py"), str(self.site), self.socket]
        for number in range(WRITERS):
            self.start([*writer, str(number)], f"writer{number}.log")
        self.wait_for_commits(5)

    def start(self, command: list[str], log: str) -> None:
        """Start a process of ours; `stop` ends it whatever happens."""
        with (self.folder / log).open("wb") as out:
            self.children.append(subprocess.Popen(command, cwd=self.folder, stdout=out, stderr=out))

    def stop(self) -> None:
        """End the writers, then the server."""
        for child in reversed(self.children):
            if child.poll() is None:
                child.terminate()
            try:
                child.wait(60)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
        self.children.clear()

    def wait_for_commits(self, count: int) -> None:
        """Wait until the writers have grown the main database by some transactions."""
        data = self.site / "Data.fs"
        goal, deadline = data.stat().st_size + count * 1000, time.monotonic() + 120
        while data.stat().st_size < goal:
            self.expect_alive()
            if time.monotonic() > deadline:
                raise Failed("the writers do not commit")
            time.sleep(0.1)

    def expect_alive(self) -> None:
        """Make sure that server and writers are at work."""
        for child in self.children:
            if child.poll() is not None:
                logs = "\n".join(log.read_text()[-1500:] for log in self.folder.glob("*.log"))
                raise Failed(f"{child.args!r} has ended with {child.returncode}:\n{logs}")

    def keep_old(self) -> None:
        """Keep hold of the files that a pack will replace, to compare with them later."""
        for name in DATABASES:
            (self.folder / f"unpacked-{name}").hardlink_to(self.site / name)

    def pack(self) -> None:
        """Pack through the server, which the writers do not notice."""
        before = (self.site / "Data.fs").stat().st_size
        for storage in ("catalog", "main"):
            db = ZEO.DB(self.socket, storage=storage, wait_timeout=60)
            db.pack()
            db.close()
        after = (self.site / "Data.fs").stat().st_size
        say(f"   the server packs {mb(before)} to {mb(after)}; the writers go on")

    # --- perdure

    def perdure(self, *arguments: str) -> str:
        """Run the program as a user would, in the site's folder; gives its standard output."""
        shown = " ".join(argument.replace(f"{self.folder}/", "") for argument in arguments)
        say(f"   $ perdure {shown}")
        done = subprocess.run(
            [*self.program, *arguments],
            env=self.environment,
            cwd=self.site,
            stdout=subprocess.PIPE,
            text=True,
        )
        if done.returncode:
            raise Failed(f"it ended with {done.returncode}\n{done.stdout}")
        return done.stdout

    def backup(self) -> dict[str, Any]:
        """Back the site up and say what that took."""
        output = self.perdure("backup", "--zeo-conf", str(self.configuration), "--json")
        summary: dict[str, Any] = json.loads(output.splitlines()[-1])
        for source in summary["sources"]:
            blobs = source["blobs"]
            with_blobs = f" with {blobs['count']} blobs" if blobs and blobs["count"] else ""
            say(
                f"   {source['database']}: {mb(source['size'])}{with_blobs},"
                f" up to transaction {source['cut']}"
            )
        say(
            f"   read {mb(summary['bytes_read'])}, stored {mb(summary['bytes_added'])},"
            f" took {summary['seconds']:.2f} s"
        )
        self.expect_alive()
        return summary

    def restore(self, *arguments: str) -> list[dict[str, Any]]:
        """Restore the site; gives what is reported of each database."""
        summary = json.loads(self.perdure("restore", *arguments, "--json").splitlines()[-1])
        for source in summary["sources"]:
            blobs = source["blobs"]
            say(
                f"   {source['database']}: {mb(source['size'])},"
                f" of which {mb(source['already_there'])} were there already"
                + (f"; {blobs['count']} blobs, {blobs['kept']} there already" if blobs else "")
            )
        say(f"   took {summary['seconds']:.2f} s")
        sources: list[dict[str, Any]] = summary["sources"]
        return sources

    def choose(self, first: dict[str, Any], second: dict[str, Any]) -> str:
        """Choose a transaction of the main database between two backups from the log of the second."""
        after, until = (summary["sources"][-1]["cut"] for summary in (first, second))
        span = ("--since", after, "--until", until)
        output = self.perdure("log", second["snapshot_id"][:8], "--source", "main", *span, "--json")
        between = [entry for entry in json.loads(output) if after < entry["tid"] < until]
        if not between:
            raise Failed("no transaction between the first two backups is in the log")
        chosen = between[len(between) // 2]
        say(
            f"   of {len(between)} transactions between the first two backups:"
            f" {chosen['tid']}, {chosen['time'][:19]} UTC, “{chosen['description']}”"
        )
        tid: str = chosen["tid"]
        return tid

    # --- what must hold

    def check(self, what: str, *, holds: bool) -> None:
        """Count something that holds; raise Failed if it does not."""
        if not holds:
            raise Failed(f"this does not hold: {what}")
        self.checks += 1
        say(f"   ok: {what}")

    def check_prefix(self, restored: Path, original: Path) -> None:
        """Compare a restored file with the beginning of the file that the server wrote."""
        size = restored.stat().st_size
        self.check(
            f"{restored.name}: all {size:,} bytes are those of the server's file",
            holds=same(restored, original),
        )

    def check_blobs(self, restored: Path, original: Path) -> None:
        """Compare the blobs of a restored site with those that it had."""
        blobs = sorted(restored.rglob("*.blob"))
        right = all(
            blob.read_bytes() == (original / blob.relative_to(restored)).read_bytes()
            for blob in blobs
        )
        self.check(f"{len(blobs)} blobs are those of the site, byte for byte", holds=right)

    def check_objects(self, what: str, seen: tuple[int, ...]) -> None:
        """Look at what ZODB reads."""
        documents, total, uploads, entries = seen
        self.check(
            f"{what}: {documents} documents, {uploads} files as uploaded, {entries} entries in the"
            f" catalog, and the accounts add up to {total}",
            holds=seen == EXPECTED,
        )

    def check_with_restic(self) -> None:
        """Let the stock restic read all of the repository, where it is installed."""
        if shutil.which("restic") is None:
            say("   (restic is not installed here; it would check this repository, too)")
            return
        environment = {
            **os.environ,
            "RESTIC_REPOSITORY": self.environment["PERDURE_REPOSITORY"],
            "RESTIC_PASSWORD_FILE": str(self.folder / "key"),
            "RESTIC_CACHE_DIR": str(self.folder / "cache-restic"),
        }
        command = ["restic", "check", "--read-data"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        self.check(
            "the stock restic reads all data of it and finds no error", holds=done.returncode == 0
        )


def play(demo: Demo) -> None:
    """Show it, one thing after the other."""
    say("1. A site on ZODB: a main database with blobs, and a catalog of its own")
    found(demo.site)
    demo.serve()
    size = sum((demo.site / name).stat().st_size for name in DATABASES)
    say(f"   {mb(size)}, served by ZEO; {WRITERS} writers commit all the time")

    say("2. The first backup, while they write")
    demo.perdure("init", "--new-password-file", str(demo.folder / "key"))
    first = demo.backup()

    say("3. A while later")
    demo.wait_for_commits(150)
    second = demo.backup()

    say("4. After a pack")
    demo.keep_old()
    shutil.copytree(demo.site / "blobs", demo.folder / "blobs-then", copy_function=os.link)
    demo.pack()
    demo.wait_for_commits(5)
    demo.backup()

    say("5. Any transaction can be had: one between two backups, from before the pack")
    tid = demo.choose(first, second)
    past = demo.folder / "past"
    restored = demo.restore("--at", tid, "--to", str(past))
    demo.check("the main database is restored up to it", holds=restored[-1]["cut"] == tid)
    for name, place in (("catalog", "catalog.fs"), ("main", "Data.fs")):
        demo.check_prefix(past / name / place, demo.folder / f"unpacked-{place}")
    demo.check_blobs(past / "main/blobs", demo.folder / "blobs-then")
    lay_out(past)
    with files(past, read_only=True) as db:
        demo.check_objects("ZODB opens the past", look_at(db))

    say("6. A disaster: the main database is gone, with half of the blobs")
    demo.stop()
    demo.perdure("backup", "--zeo-conf", str(demo.configuration))
    kept = demo.folder / "kept"
    shutil.copytree(demo.site, kept)
    (demo.site / "Data.fs").unlink()
    for blob in sorted((demo.site / "blobs").rglob("*.blob"))[::2]:
        blob.unlink()
    demo.restore("--in-place", "--yes")
    for name in DATABASES:
        demo.check_prefix(demo.site / name, kept / name)
    demo.check_blobs(demo.site / "blobs", kept / "blobs")
    demo.serve()
    with client(demo.site, demo.socket) as db:
        demo.check_objects("the server is up again", look_at(db))
    demo.expect_alive()

    say("7. The repository is whole")
    demo.perdure("forget", "--keep-last", "2", "--prune")
    demo.perdure("check", "--read-data")
    demo.check("perdure read and verified all data, old snapshots dropped", holds=True)
    demo.check_with_restic()


def lay_out(past: Path) -> None:
    """Put what was restored into a folder for each database where the site has it."""
    for path in (past / "main").iterdir():
        path.rename(past / path.name)
    for path in (past / "catalog").iterdir():
        path.rename(past / path.name)


def same(restored: Path, original: Path) -> bool:
    """Tell whether a file is the beginning of another."""
    with restored.open("rb") as one, original.open("rb") as other:
        while piece := one.read(CHUNK):
            if piece != other.read(len(piece)):
                return False
    return restored.stat().st_size > 0


def mb(size: int) -> str:
    """Write a number of bytes for people."""
    return f"{size / 1e6:.1f} MB" if size >= 1_000_000 else f"{size / 1e3:.1f} kB"


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def interrupted(number: int, frame: FrameType | None) -> None:
    """Make SIGTERM end the demonstration in good order."""
    raise SystemExit(128 + number)


def main() -> int:
    """Show it; 0 if everything held."""
    signal.signal(signal.SIGTERM, interrupted)
    started = datetime.now(UTC)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="perdure-demo-")))
        demo = Demo(folder)
        stack.callback(demo.stop)
        try:
            play(demo)
        except Failed as failure:
            say(f"\nFAILED: {failure}")
            return 1
    seconds = (datetime.now(UTC) - started).total_seconds()
    say(f"\nEverything held: {demo.checks} checks, {seconds:.0f} seconds.")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The main job, shown on a living ZODB: ``make demo``.

A real ZEO server holds a real FileStorage, writers commit throughout, and everything that is asked of
Perdure is asked on its command line. All of it happens in a temporary folder, which is removed.
"""

from __future__ import annotations

import json
import os
import random
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

import transaction
import ZEO
from BTrees.IOBTree import IOBTree
from persistent.mapping import PersistentMapping
from ZODB import DB
from ZODB.FileStorage import FileStorage

HERE = Path(__file__).resolve().parent
ACCOUNTS, BALANCE, DOCUMENTS, WRITERS = 40, 1000, 2500, 2
CHUNK = 1 << 20


class Failed(Exception):
    """The demonstration did not show what it should."""


class Demo:
    """One site, one repository, and what is done with them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.data = folder / "site" / "Data.fs"
        self.socket = str(folder / "zeo.sock")
        self.repository = folder / "repository"
        self.children: list[subprocess.Popen[bytes]] = []
        self.checks = 0
        beside = Path(sys.executable).parent / "perdure"
        self.program = [str(beside)] if beside.exists() else [sys.executable, "-m", "perdure"]
        self.environment = {
            **os.environ,
            "PERDURE_PASSWORD_FILE": str(folder / "key"),
            "PERDURE_CACHE_DIR": str(folder / "cache"),
        }

    # --- the site

    def found(self) -> None:
        """Make a database that has lived a little, before the server starts."""
        self.data.parent.mkdir()
        db = DB(FileStorage(str(self.data)))
        root, rng = db.open().root(), random.Random(1)
        words = [
            "".join(rng.choices("abcdefghilmnoprstu", k=rng.randint(2, 9))) for _ in range(4000)
        ]
        root["accounts"] = IOBTree({n: PersistentMapping(balance=BALANCE) for n in range(ACCOUNTS)})
        root["documents"] = IOBTree()
        for number in range(DOCUMENTS):
            text = " ".join(rng.choices(words, k=rng.randint(30, 900)))
            root["documents"][number] = PersistentMapping(title=words[number], text=text)
            if number % 20 == 19:
                commit(f"import up to {number}")
        for _ in range(1500):
            document = root["documents"][int(DOCUMENTS ** rng.random()) - 1]
            document["text"] += " " + " ".join(rng.choices(words, k=30))
            commit(f"edit {document['title']}")
        db.close()

    def serve(self) -> None:
        """Start the ZEO server and the writers."""
        server = [sys.executable, "-m", "ZEO.runzeo", "-a", self.socket, "-f", str(self.data)]
        self.start(server, "zeo.log")
        for _ in range(200):
            if Path(self.socket).exists():
                break
            time.sleep(0.05)
        for number in range(WRITERS):
            self.start(
                [sys.executable, str(HERE / "writer.py"), self.socket, str(number)],
                f"writer{number}.log",
            )
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
        for child in self.children:
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()

    def wait_for_commits(self, count: int) -> None:
        """Wait until the writers have grown the file by some transactions."""
        goal, deadline = self.data.stat().st_size + count * 1000, time.monotonic() + 20
        while self.data.stat().st_size < goal:
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

    def pack(self) -> None:
        """Pack through the server, which the writers do not notice."""
        before = self.data.stat().st_size
        db = ZEO.DB(self.socket, wait_timeout=20)
        db.pack()
        db.close()
        say(
            f"   the server packs {mb(before)} to {mb(self.data.stat().st_size)}; the writers go on"
        )

    # --- perdure

    def perdure(self, *arguments: str) -> str:
        """Run the program as a user would; gives its standard output."""
        shown = " ".join(argument.replace(f"{self.folder}/", "") for argument in arguments)
        say(f"   $ perdure {shown}")
        done = subprocess.run(
            [*self.program, *arguments], env=self.environment, stdout=subprocess.PIPE, text=True
        )
        if done.returncode:
            raise Failed(f"it ended with {done.returncode}\n{done.stdout}")
        return done.stdout

    def backup(self) -> dict[str, Any]:
        """Back the site up and say what that took."""
        where = ["--filestorage", str(self.data), "-r", str(self.repository)]
        output = self.perdure("backup", *where, "--json")
        summary: dict[str, Any] = json.loads(output.splitlines()[-1])
        source = summary["sources"][0]
        say(
            f"   database {mb(source['size'])}: read {mb(summary['bytes_read'])},"
            f" stored {mb(summary['bytes_added'])}, took {summary['seconds']:.2f} s;"
            f" up to transaction {source['cut']}"
        )
        self.expect_alive()
        return summary

    def restore(self, name: str, *moment: str) -> Path:
        """Restore the database into a folder of its own; gives the Data.fs."""
        target, started = self.folder / name, time.monotonic()
        self.perdure("restore", "latest", *moment, "--to", str(target), "-r", str(self.repository))
        say(f"   took {time.monotonic() - started:.2f} s")
        return target / "Data.fs"

    def choose(self, snapshot: str, after: str, until: str) -> str:
        """Choose a transaction between two backups from the log of the second."""
        output = self.perdure(
            "log",
            snapshot[:8],
            "--since",
            after,
            "--until",
            until,
            "--json",
            "-r",
            str(self.repository),
        )
        entries = json.loads(output)
        between = [entry for entry in entries if after < entry["tid"] < until]
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

    def check_prefix(self, what: str, restored: Path, original: Path) -> None:
        """Compare a restored file with the beginning of the file that the server wrote."""
        size = restored.stat().st_size
        self.check(
            f"{what}: all {size:,} bytes are those of the server's file",
            holds=same(restored, original),
        )

    def check_with_zodb(self, what: str, restored: Path, tid: str) -> None:
        """Open a restored file with ZODB and look at the objects."""
        db = DB(FileStorage(str(restored), read_only=True))
        root = db.open().root()
        total = sum(account["balance"] for account in root["accounts"].values())
        documents = sum(len(document["text"]) > 0 for document in root["documents"].values())
        last = db.storage.lastTransaction().hex()
        db.close()
        self.check(f"{what}: ZODB opens it, and its last transaction is {tid}", holds=last == tid)
        self.check(
            f"{what}: {documents} documents, and the accounts add up to {total}",
            holds=documents == DOCUMENTS and total == ACCOUNTS * BALANCE,
        )

    def check_with_restic(self) -> None:
        """Let the stock restic read all of the repository, where it is installed."""
        if shutil.which("restic") is None:
            say("   (restic is not installed here; it would check this repository, too)")
            return
        environment = {
            **os.environ,
            "RESTIC_PASSWORD_FILE": str(self.folder / "key"),
            "RESTIC_CACHE_DIR": str(self.folder / "cache-restic"),
        }
        command = ["restic", "-r", str(self.repository), "check", "--read-data"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        self.check(
            "the stock restic reads all data of it and finds no error", holds=done.returncode == 0
        )


def play(demo: Demo) -> None:
    """Show it, one thing after the other."""
    say("1. A site on ZODB")
    demo.found()
    demo.serve()
    say(f"   {mb(demo.data.stat().st_size)}, served by ZEO; {WRITERS} writers commit all the time")

    say("2. The first backup, while they write")
    demo.perdure(
        "init", "-r", str(demo.repository), "--new-password-file", str(demo.folder / "key")
    )
    first = demo.backup()

    say("3. A while later")
    demo.wait_for_commits(150)
    second = demo.backup()

    say("4. After a pack")
    unpacked = demo.folder / "unpacked.fs"
    unpacked.hardlink_to(demo.data)
    demo.pack()
    demo.wait_for_commits(5)
    third = demo.backup()

    say("5. Any transaction can be had: one between two backups, from before the pack")
    tid = demo.choose(
        second["snapshot_id"], first["sources"][0]["cut"], second["sources"][0]["cut"]
    )
    past = demo.restore("past", "--at", tid)
    demo.check_prefix("the past", past, unpacked)
    demo.check_with_zodb("the past", past, tid)

    say("6. And the newest")
    newest = demo.restore("newest")
    demo.check_prefix("the newest", newest, demo.data)
    demo.check_with_zodb("the newest", newest, third["sources"][0]["cut"])

    say("7. The repository is whole")
    demo.perdure("check", "--read-data", "-r", str(demo.repository))
    demo.check("perdure read and verified all data", holds=True)
    demo.check_with_restic()
    demo.expect_alive()


def same(restored: Path, original: Path) -> bool:
    """Tell whether a file is the beginning of another."""
    with restored.open("rb") as one, original.open("rb") as other:
        while piece := one.read(CHUNK):
            if piece != other.read(len(piece)):
                return False
    return restored.stat().st_size > 0


def commit(note: str) -> None:
    """Commit with a description."""
    transaction.get().note(note)
    transaction.commit()


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

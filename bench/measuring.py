"""Run a command as a child process and say what it cost."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

DROP = Path("/proc/sys/vm/drop_caches")


class CommandFailed(Exception):
    """A measured command ended with another code than 0."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What a command took: seconds, bytes; ``read`` counts read(), cached or not, where it is known."""

    wall: float
    cpu: float
    rss: int
    read: int | None
    added: int = 0

    def as_json(self) -> dict[str, float | int | None]:
        """Give the fields by name."""
        return asdict(self)


class PageCache:
    """Brings the page cache into the same state before each measurement."""

    def __init__(self, mode: str) -> None:
        can_drop = os.access(DROP, os.W_OK) and self._drop()
        if mode == "cold" and not can_drop:
            raise SystemExit("a cold page cache needs root: use --cache warm")
        self.mode = ("cold" if can_drop else "warm") if mode == "auto" else mode

    def prepare(self, *places: Path) -> None:
        """Empty the cache; or, where that is not allowed, fill it with what will be read."""
        os.sync()
        if self.mode == "cold":
            self._drop()
            return
        for place in places:
            files = [place] if place.is_file() else [f for f in place.rglob("*") if f.is_file()]
            for file in files:
                with file.open("rb") as opened:
                    while opened.read(1 << 22):
                        pass

    @staticmethod
    def _drop() -> bool:
        try:
            DROP.write_text("3\n")
        except OSError:
            return False
        return True


def measure(command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> tuple[Cost, str]:
    """Run a command; give its cost and what it printed. Raises CommandFailed."""
    with tempfile.TemporaryFile() as out:
        started = time.perf_counter()
        child = subprocess.Popen(
            command,
            cwd=cwd,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        wall = time.perf_counter() - started
        read = _bytes_read(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        out.seek(0)
        text = out.read().decode(errors="replace")
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise CommandFailed(f"{' '.join(command)}\nended with {child.returncode}:\n{text[-3000:]}")
    cpu = usage.ru_utime + usage.ru_stime
    return Cost(wall, cpu, usage.ru_maxrss * 1024, read), text


@dataclass(frozen=True, slots=True)
class Contents:
    """What a folder holds: bytes of files, each file counted once; and how many names there are."""

    size: int
    names: int


def contents(folder: Path) -> Contents:
    """Add up all files below a folder, those with several names (hard links) once."""
    size = names = 0
    linked: set[int] = set()
    folders = [str(folder)]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                names += 1
                if entry.is_dir(follow_symlinks=False):
                    folders.append(entry.path)
                elif entry.is_file():
                    status = entry.stat()
                    if status.st_nlink == 1 or status.st_ino not in linked:
                        size += status.st_size
                    if status.st_nlink > 1:
                        linked.add(status.st_ino)
    return Contents(size, names)


def folder_size(folder: Path) -> int:
    """Add up the bytes of all files below a folder; 0 where there is none."""
    return contents(folder).size if folder.exists() else 0


def _bytes_read(pid: int) -> int | None:
    """Read what the kernel counted for a process that has ended but is not yet forgotten."""
    try:
        lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    except OSError:
        return None
    return int(dict(line.split(": ") for line in lines)["rchar"])

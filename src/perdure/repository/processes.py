"""Who this process is, and whether another one that left a note is certainly dead.

A process id proves nothing across containers, machines or boots. What does: a process that is known
by the boot of its kernel, its process id namespace, its id there and the moment it started is dead
if this very kernel, asked from that very namespace, has no such process.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec


class Process(msgspec.Struct, frozen=True):
    """A process, told apart from all others. Texts are empty where this system does not tell."""

    boot: str
    namespace: str
    pid: int
    started: str

    @classmethod
    def current(cls) -> Process:
        """Describe this process."""
        return cls(_boot(), _namespace(), os.getpid(), _started(os.getpid()))

    @property
    def certainly_dead(self) -> bool:
        """Whether it is known to have ended. False wherever there is a doubt."""
        if not (self.boot and self.namespace and self.started):
            return False
        if (self.boot, self.namespace) != (_boot(), _namespace()):
            return False
        return _started(self.pid) != self.started


def host_name() -> str:
    """Give this machine's name."""
    return os.uname().nodename


def user_name() -> str:
    """Give the name of this process's user, or its number where it has none."""
    import pwd

    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _boot() -> str:
    return _read("/proc/sys/kernel/random/boot_id")


def _namespace() -> str:
    try:
        return str(Path("/proc/self/ns/pid").readlink())
    except OSError:
        return ""


def _started(pid: int) -> str:
    """Give the process's start, in clock ticks since boot; empty if there is no such process."""
    # The second field is the command in parentheses, which may hold anything; proc(5).
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else ""


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""

"""Backups at their times: a service and a timer for systemd, or a line for cron.

It is text, and nothing is installed. Neither needs a lock of its own: Perdure waits for others that work
on the repository.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta

from perdure.config.values import TimeOfDay
from perdure.errors import UsageError

SERVICE, TIMER = "perdure.service", "perdure.timer"
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}\$?")
_TEMPORARY = ("/tmp", "/var/tmp")  # noqa: S108 - named in order to stay out of it
_PLAIN = re.compile(r"[A-Za-z0-9_@/.:=+,%$-]+")
_CACHE = ("CacheDirectory=perdure", "Environment=PERDURE_CACHE_DIR=%C/perdure")
_STRICT = (
    "ProtectSystem=strict",
    "ProtectHome=read-only",
    "CapabilityBoundingSet=CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_SYS_PTRACE",
    "NoNewPrivileges=yes",
    "PrivateDevices=yes",
    "ProtectKernelTunables=yes",
    "ProtectKernelModules=yes",
    "ProtectKernelLogs=yes",
    "ProtectControlGroups=yes",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "LockPersonality=yes",
    "RestrictNamespaces=yes",
    "RestrictRealtime=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK",
    "SystemCallArchitectures=native",
    "SystemCallFilter=@system-service",
)
_LOOSE = (
    "# Commands of [hooks] or sendmail are started. They may need rights of their own and write to other",
    "# places, so that this service is less confined than it could be without them.",
    "ProtectSystem=yes",
    "ProtectControlGroups=yes",
)


@dataclass(frozen=True, slots=True)
class Times:
    """When: once a day at a time of the machine's clock, or every so many minutes or hours."""

    at: TimeOfDay | None = None
    every: timedelta | None = None

    @property
    def calendar(self) -> str:
        """As systemd's OnCalendar has it. Raises UsageError for what no calendar can say."""
        minute, hour = self._fields(lambda step: f"0/{step}")
        return f"*-*-* {hour}:{minute}:00"

    @property
    def cron(self) -> str:
        """As the first five fields of a line of cron. Raises UsageError as `calendar` does."""
        minute, hour = self._fields(lambda step: f"*/{step}")
        return f"{minute} {hour} * * *"

    @property
    def delay(self) -> str:
        """By how much runs may be put off, so that not all machines begin at once; as systemd has it."""
        short = self.every is not None and self.every < timedelta(hours=1)
        return "30s" if short else "5min"

    def _fields(self, steps: Callable[[int], str]) -> tuple[str, str]:
        """Give minutes and hours; ``steps`` writes "every n of them"."""
        if self.every is None:
            hour, minute = (self.at or TimeOfDay("03:15")).split(":")
            return minute, hour
        minutes, rest = divmod(self.every.total_seconds(), 60)
        if not rest and minutes == 24 * 60:
            return "00", "00"
        if not rest and 0 < minutes < 60 and 60 % minutes == 0:
            return steps(int(minutes)), "*"
        hours, rest_of_hour = divmod(minutes, 60)
        if not (rest or rest_of_hour) and 0 < hours < 24 and 24 % hours == 0:
            return "00", "*" if hours == 1 else steps(int(hours))
        raise UsageError(
            "this is no part of an hour or a day: the times would differ from day to day",
            hint="write 5m, 10m, 15m, 20m, 30m, 1h, 2h, 3h, 4h, 6h, 8h, 12h or 24h",
        )


@dataclass(frozen=True, slots=True)
class Job:
    """What is run at these times, and what it needs."""

    command: tuple[str, ...]
    """The program with its absolute path, and its arguments."""
    times: Times
    user: str | None = None
    writes: tuple[str, ...] = ()
    """Absolute paths of folders that it writes to."""
    reads: tuple[str, ...] = ()
    """Absolute paths that it reads."""
    own_cache: bool = True
    """Whether systemd gives it a folder for caches."""
    starts_others: bool = False
    """Whether it sends mail or runs commands that need more than it does itself."""


def systemd_units(job: Job) -> dict[str, str]:
    """Give the text of the service and of its timer. Raises UsageError."""
    return {SERVICE: _service(job), TIMER: _timer(job.times)}


def crontab_line(job: Job, *, with_user: bool) -> str:
    """Give a line for a crontab; ``with_user``: for /etc/cron.d, which names the user. Raises UsageError."""
    command = shlex.join(_one_line(word) for word in job.command)
    user = [_user(job.user or "root")] if with_user else []
    # cron itself makes a line feed of a bare "%", even between quotes.
    return " ".join([job.times.cron, *user, command.replace("%", r"\%")]) + "\n"


def _service(job: Job) -> str:
    paths = [_word(path) for path in (*job.writes, *job.reads)]
    lines = [
        "[Unit]",
        "Description=Backup by Perdure",
        "Documentation=man:perdure(1)",
        "Wants=network-online.target",
        "After=network-online.target",
        *([f"RequiresMountsFor={' '.join(paths)}"] if paths else []),
        "",
        "[Service]",
        "Type=oneshot",
        *([f"User={_user(job.user)}"] if job.user else []),
        f"ExecStart={' '.join(_word(word).replace('$', '$$') for word in job.command)}",
        *(_CACHE if job.own_cache else []),
        "UMask=0077",
        "Nice=10",
        "IOSchedulingPriority=7",
        "KillMode=mixed",
        "TimeoutStopSec=5min",
        "",
        *(_LOOSE if job.starts_others else _STRICT),
        *(f"ReadWritePaths=-{_word(path)}" for path in job.writes),
        *([] if any(map(_is_temporary, (*job.writes, *job.reads))) else ["PrivateTmp=yes"]),
    ]
    return "".join(f"{line}\n" for line in lines)


def _timer(times: Times) -> str:
    lines = [
        "[Unit]",
        "Description=Times of the backup by Perdure",
        "",
        "[Timer]",
        f"OnCalendar={times.calendar}",
        "Persistent=true",
        f"RandomizedDelaySec={times.delay}",
        "",
        "[Install]",
        "WantedBy=timers.target",
    ]
    return "".join(f"{line}\n" for line in lines)


def _word(text: str) -> str:
    """Quote a word as systemd's unit files want it, whose ``%`` are specifiers."""
    text = _one_line(text).replace("%", "%%")
    if _PLAIN.fullmatch(text):
        return text
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise UsageError(f"{text!r} cannot be part of a line", hint="give it another name")
    return text


def _user(name: str) -> str:
    if not _USER.fullmatch(name):
        raise UsageError(f"{name!r} is no name of a user")
    return name


def _is_temporary(path: str) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in _TEMPORARY)

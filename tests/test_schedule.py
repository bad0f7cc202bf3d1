"""What systemd and cron are given, read back as they read it."""

from __future__ import annotations

import re
import shlex
from configparser import ConfigParser
from datetime import timedelta

import pytest

from perdure.config.values import TimeOfDay
from perdure.errors import UsageError
from perdure.schedule import SERVICE, TIMER, Job, Times, crontab_line, systemd_units

ODD = ("/opt/my perdure/bin/perdure", "backup", "--config", '/etc/50% "$HOME"\\x;ü.toml')
PLAIN = Job(("/usr/bin/perdure", "backup"), Times())


class Unit:
    """A unit as systemd reads it: keys may be given several times, words are quoted, % is a specifier."""

    def __init__(self, text: str) -> None:
        self.lines = re.findall(r"^(\w+)=(.*)$", text, re.MULTILINE)
        parser = ConfigParser(strict=False, interpolation=None)
        parser.read_string(text)
        self.sections = parser.sections()

    def all(self, key: str) -> list[str]:
        return [value for name, value in self.lines if name == key]

    def one(self, key: str) -> str:
        (value,) = self.all(key)
        return value

    def words(self, key: str, prefix: str = "") -> list[str]:
        """Split into words, each value without a prefix; escapes are those between double quotes."""
        found = [
            re.sub(r"\\(.)", r"\1", quoted) if quoted else bare
            for value in self.all(key)
            for quoted, bare in re.findall(
                r'"((?:[^"\\]|\\.)*)"|([^\s"]+)', value.removeprefix(prefix)
            )
        ]
        assert not any(re.search(r"(?<!%)%(?:%%)*(?!%)", word) for word in found)
        return [word.replace("%%", "%") for word in found]


def test_the_service() -> None:
    job = Job(
        ODD,
        Times(),
        user="plone",
        writes=("/srv/back up", "/srv/100%"),
        reads=("/srv/plone/Data.fs",),
    )
    unit = Unit(systemd_units(job)[SERVICE])
    assert unit.sections == ["Unit", "Service"]
    assert [word.replace("$$", "$") for word in unit.words("ExecStart")] == list(ODD)
    assert unit.one("User") == "plone"
    assert unit.words("ReadWritePaths", "-") == ["/srv/back up", "/srv/100%"]
    assert unit.words("RequiresMountsFor") == ["/srv/back up", "/srv/100%", "/srv/plone/Data.fs"]
    assert unit.one("ProtectSystem") == "strict"
    assert unit.one("NoNewPrivileges") == "yes"
    assert unit.one("PrivateTmp") == "yes"
    assert unit.one("Environment") == "PERDURE_CACHE_DIR=%C/perdure"
    assert unit.one("CacheDirectory") == "perdure"


def test_a_service_whose_cache_is_elsewhere_and_whose_repository_is_temporary() -> None:
    unit = Unit(systemd_units(Job(ODD, Times(), writes=("/tmp/x",), own_cache=False))[SERVICE])
    assert not unit.all("Environment")
    assert not unit.all("PrivateTmp")
    assert not unit.all("User")


def test_commands_and_mail_need_more_rights() -> None:
    unit = Unit(systemd_units(Job(ODD, Times(), starts_others=True))[SERVICE])
    assert not unit.all("NoNewPrivileges")
    assert not unit.all("SystemCallFilter")
    assert unit.one("ProtectSystem") == "yes"


def test_the_timer() -> None:
    unit = Unit(systemd_units(PLAIN)[TIMER])
    assert unit.sections == ["Unit", "Timer", "Install"]
    assert unit.one("OnCalendar") == "*-*-* 03:15:00"
    assert unit.one("Persistent") == "true"
    assert unit.one("RandomizedDelaySec")
    assert unit.one("WantedBy") == "timers.target"


@pytest.mark.parametrize(
    ("times", "calendar", "cron"),
    [
        (Times(), "*-*-* 03:15:00", "15 03 * * *"),
        (Times(at=TimeOfDay("23:05")), "*-*-* 23:05:00", "05 23 * * *"),
        (Times(every=timedelta(minutes=15)), "*-*-* *:0/15:00", "*/15 * * * *"),
        (Times(every=timedelta(minutes=1)), "*-*-* *:0/1:00", "*/1 * * * *"),
        (Times(every=timedelta(hours=1)), "*-*-* *:00:00", "00 * * * *"),
        (Times(every=timedelta(hours=6)), "*-*-* 0/6:00:00", "00 */6 * * *"),
        (Times(every=timedelta(hours=24)), "*-*-* 00:00:00", "00 00 * * *"),
    ],
)
def test_times(times: Times, calendar: str, cron: str) -> None:
    assert (times.calendar, times.cron) == (calendar, cron)


@pytest.mark.parametrize(
    "every",
    [
        *(timedelta(0), timedelta(seconds=30), timedelta(minutes=7), timedelta(minutes=90)),
        *(timedelta(hours=5), timedelta(hours=48), timedelta(hours=1, seconds=1)),
    ],
)
def test_times_that_no_calendar_has(every: timedelta) -> None:
    for give in (systemd_units, lambda job: crontab_line(job, with_user=False)):
        with pytest.raises(UsageError, match="no part of an hour or a day"):
            give(Job(ODD, Times(every=every)))


def test_a_line_for_cron() -> None:
    line = crontab_line(Job(ODD, Times(), user="plone"), with_user=False)
    assert line.count("\n") == 1
    *times, command = line.rstrip("\n").split(" ", 5)
    assert times == ["15", "03", "*", "*", "*"]
    assert not re.search(r"(?<!\\)%", command)
    assert shlex.split(command.replace(r"\%", "%")) == list(ODD)


def test_a_line_for_a_file_of_cron() -> None:
    named = crontab_line(Job(("/p",), Times(), user="plone"), with_user=True)
    assert named == "15 03 * * * plone /p\n"
    assert crontab_line(Job(("/p",), Times()), with_user=True) == "15 03 * * * root /p\n"


@pytest.mark.parametrize("user", ["", "a b", "-x", "a\nb", "%u"])
def test_what_is_no_user(user: str) -> None:
    job = Job(("/p",), Times(), user=user or " ")
    for give in (systemd_units, lambda job: crontab_line(job, with_user=True)):
        with pytest.raises(UsageError, match="no name of a user"):
            give(job)


def test_a_path_that_breaks_lines() -> None:
    for give in (systemd_units, lambda job: crontab_line(job, with_user=False)):
        with pytest.raises(UsageError, match="part of a line"):
            give(Job(("/p\nExecStart=/bin/sh",), Times()))

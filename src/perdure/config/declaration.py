"""Every setting there is: its section, its type, its default, what it is for, and an example of it.

This is the one list. The reader, the environment's variables, ``perdure config example`` and the table in
docs/configuration.md are made from it.

A key ``keep-daily`` of a section is the field ``keep_daily`` of its class. Its variable is ``PERDURE_``, the
section's own word if it has one (`_WORDS`), and the key in capitals, unless the declaration gives another.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec

from perdure.config.values import (
    Address,
    Count,
    Duration,
    Location,
    Rate,
    Size,
    Span,
    TimeOfDay,
    Url,
)

PREFIX = "PERDURE_"
Command = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]
Commands = tuple[Command, ...]
_WORDS = {"hooks": "HOOK_", "monitoring.mail": "MAIL_", "schedule": "SCHEDULE_"}


def _key(
    about: str, example: Any, variable: str | None = None, *, hidden: bool = False
) -> msgspec.Meta:
    extra = {"example": example, "variable": variable, "hidden": hidden}
    return msgspec.Meta(description=about, extra=extra)


class Section(msgspec.Struct, frozen=True, kw_only=True, rename="kebab"):
    """A table of perdure.toml."""


class RepositorySection(Section, frozen=True):
    """Where the snapshots go."""

    location: Annotated[
        Location | None, _key("Folder of the repository.", "/srv/backup/site", "REPOSITORY")
    ] = None
    password_file: Annotated[
        Path | None,
        _key("File that holds the password; only its owner may read it.", "/etc/perdure/key"),
    ] = None
    password_command: Annotated[
        str | None,
        _key(
            "Command that prints the password, instead of a file.", "pass show backup", hidden=True
        ),
    ] = None
    cache_dir: Annotated[Path | None, _key("Folder for caches.", "/var/cache/perdure")] = None
    retry_lock: Annotated[
        Duration, _key("Wait so long for others to let go of the repository.", "10m")
    ] = Duration(0)
    limit_upload: Annotated[
        Rate | None, _key("Bytes per second that are written at most: 500K, 5M.", "5M")
    ] = None


class SourceSection(Section, frozen=True):
    """What is backed up. Each source is a table of its own, and has one of the keys that name a place."""

    name: Annotated[
        str | None,
        _key("What the source is called in snapshots; by default its path.", "main", "SOURCE"),
    ] = None
    filestorage: Annotated[
        Path | None, _key("A Data.fs.", "/srv/plone/var/filestorage/Data.fs")
    ] = None
    blobs: Annotated[
        Path | None, _key("The blob folder of that Data.fs.", "/srv/plone/var/blobstorage")
    ] = None
    zope_conf: Annotated[
        Path | None,
        _key("A zope.conf: all its databases.", "/srv/plone/parts/instance/etc/zope.conf"),
    ] = None
    zeo_conf: Annotated[
        Path | None, _key("A zeo.conf: all its storages.", "/srv/plone/parts/zeo/etc/zeo.conf")
    ] = None
    buildout: Annotated[
        Path | None, _key("A folder with a buildout: what its parts have.", "/srv/plone")
    ] = None
    site: Annotated[Path | None, _key("A folder in which databases are looked for.", "/srv")] = None
    zconfig: Annotated[
        str | None,
        _key(
            "A storage as a section of ZConfig.",
            "<zeoclient>\n  server localhost:8100\n</zeoclient>",
        ),
    ] = None
    zconfig_file: Annotated[
        Path | None, _key("A file with such a section.", "/etc/perdure/storage.conf")
    ] = None
    tree: Annotated[Path | None, _key("A folder of files, or a file.", "/srv/www")] = None
    exclude: Annotated[
        tuple[str, ...] | None,
        _key("Patterns of what is left out of that tree.", ["*.log", "/srv/www/cache"]),
    ] = None
    iexclude: Annotated[
        tuple[str, ...] | None, _key("The same, where capitals do not matter.", ["thumbs.db"])
    ] = None
    exclude_file: Annotated[
        Path | None, _key("A file with such patterns, one a line.", "/etc/perdure/excludes")
    ] = None
    exclude_caches: Annotated[
        bool | None, _key("Leave out what is in folders with a CACHEDIR.TAG.", True)
    ] = None
    exclude_if_present: Annotated[
        tuple[str, ...] | None,
        _key("Leave out what is in folders with such a file.", ["NOBACKUP-TAG"]),
    ] = None
    one_file_system: Annotated[
        bool | None, _key("Stay on the file system that the tree is on.", True)
    ] = None
    exclude_larger_than: Annotated[
        Size | None, _key("Leave out larger files: 500K, 100M, 2G.", "100M")
    ] = None


SOURCE_PLACES = (
    *("filestorage", "zope-conf", "zeo-conf", "buildout", "site", "zconfig", "zconfig-file"),
    "tree",
)
"""The keys of a source of which it has exactly one."""
OF_TREES = (
    *("exclude", "iexclude", "exclude-file", "exclude-caches", "exclude-if-present"),
    *("one-file-system", "exclude-larger-than"),
)
"""The keys that a source has with a tree only."""


class RetentionSection(Section, frozen=True):
    """Which snapshots are kept. What none of these keeps is forgotten; without any, all are kept."""

    keep_last: Annotated[Count | None, _key("The last so many; a number or unlimited.", 5)] = None
    keep_hourly: Annotated[Count | None, _key("One of each of so many hours.", 24)] = None
    keep_daily: Annotated[Count | None, _key("One of each of so many days.", 14)] = None
    keep_weekly: Annotated[Count | None, _key("One of each of so many weeks.", 8)] = None
    keep_monthly: Annotated[Count | None, _key("One of each of so many months.", 12)] = None
    keep_yearly: Annotated[Count | None, _key("One of each of so many years.", 10)] = None
    keep_within: Annotated[
        Span | None, _key("All of this time before the newest: 1y6m7d12h, m is a month.", "2d")
    ] = None
    keep_within_hourly: Annotated[Span | None, _key("One an hour of this time.", "7d")] = None
    keep_within_daily: Annotated[Span | None, _key("One a day of this time.", "1m")] = None
    keep_within_weekly: Annotated[Span | None, _key("One a week of this time.", "6m")] = None
    keep_within_monthly: Annotated[Span | None, _key("One a month of this time.", "2y")] = None
    keep_within_yearly: Annotated[Span | None, _key("One a year of this time.", "20y")] = None
    keep_tags: Annotated[
        tuple[str, ...], _key("All that have one of these tags.", ["release"])
    ] = ()
    prune: Annotated[bool, _key("Delete what no snapshot needs any more, too.", True)] = False


class BackupSection(Section, frozen=True):
    """How snapshots are made."""

    tags: Annotated[tuple[str, ...], _key("Tags of each snapshot.", ["nightly"])] = ()
    host: Annotated[
        str | None, _key("Host name in the snapshot; by default this machine's.", "www1")
    ] = None
    skip_if_unchanged: Annotated[bool, _key("Make no snapshot when nothing has changed.", True)] = (
        False
    )


class HooksSection(Section, frozen=True):
    """Commands around a backup, as Python's try has it: before and after, or failed, and then finally.

    A command is a list: a program and its arguments. No shell is between. It runs in the folder of this
    file; PERDURE_EVENT, PERDURE_STATUS, PERDURE_SNAPSHOT and others tell it what happened.
    """

    before: Annotated[
        Commands, _key("Run first; when one fails, nothing is backed up.", [["sync"]])
    ] = ()
    after: Annotated[
        Commands, _key("Run when all went well.", [["rclone", "sync", "/srv/backup", "far:backup"]])
    ] = ()
    failed: Annotated[
        Commands, _key("Run when something went wrong.", [["logger", "the backup failed"]])
    ] = ()
    finally_: Annotated[
        Commands, _key("Run last, whatever happened.", [["supervisorctl", "start", "worker"]])
    ] = msgspec.field(default=(), name="finally")
    timeout: Annotated[Duration, _key("A command that runs longer is ended.", "30m")] = Duration(
        hours=1
    )


class MailSection(Section, frozen=True):
    """A message when a backup has ended, sent by the machine's own sendmail program."""

    to: Annotated[tuple[Address, ...], _key("Who gets it.", ["admin@example.org"])] = ()
    from_: Annotated[
        Address | None, _key("Whom it is from; by default sendmail says it.", "backup@example.org")
    ] = msgspec.field(default=None, name="from")
    on: Annotated[Literal["failure", "always"], _key("When: failure or always.", "always")] = (
        "failure"
    )


class MonitoringSection(Section, frozen=True):
    """Who is told how a backup went. What goes wrong here is a warning; the backup is made."""

    ping: Annotated[
        Url | None,
        _key(
            "URL that is called after a backup, /start before it, /fail when it failed.",
            "https://hc-ping.com/your-uuid",
            hidden=True,
        ),
    ] = None
    ping_timeout: Annotated[Duration, _key("Wait so long for an answer.", "5s")] = Duration(
        seconds=10
    )
    ping_retries: Annotated[
        Annotated[int, msgspec.Meta(ge=0, le=10)], _key("Try again so often.", 3)
    ] = 2
    prometheus_textfile: Annotated[
        Path | None,
        _key(
            "File for the textfile collector of Prometheus's node_exporter.",
            "/var/lib/node_exporter/textfile/perdure.prom",
        ),
    ] = None
    mail: MailSection = MailSection()


class ScheduleSection(Section, frozen=True):
    """When `perdure schedule` has backups run."""

    at: Annotated[TimeOfDay | None, _key("Every day at this time.", "03:15")] = None
    every: Annotated[Duration | None, _key("Every so often: 15m, 1h, 6h.", "1h")] = None
    user: Annotated[str | None, _key("User that runs them.", "plone")] = None


class Config(Section, frozen=True):
    """The whole file."""

    repository: RepositorySection = RepositorySection()
    source: tuple[SourceSection, ...] = ()
    retention: RetentionSection = RetentionSection()
    backup: BackupSection = BackupSection()
    hooks: HooksSection = HooksSection()
    monitoring: MonitoringSection = MonitoringSection()
    schedule: ScheduleSection = ScheduleSection()


@dataclass(frozen=True, slots=True)
class Key:
    """One setting, as it is declared."""

    section: str
    """``repository``, ``monitoring.mail``; ``source`` stands for each of the sources."""
    name: str
    field: str
    kind: Any
    """The type of its value; None is not part of it."""
    default: Any
    about: str
    example: Any
    """What may stand in the file."""
    variable: str
    hidden: bool
    """Whether what it says may be a secret."""

    @property
    def path(self) -> str:
        """Section and name, with a dot between."""
        return f"{self.section}.{self.name}"


@functools.cache
def keys() -> dict[str, Key]:
    """Give all keys by their paths, in the order of the declaration."""
    return {key.path: key for key in _keys_of(Config, "")}


@functools.cache
def sections() -> dict[str, type[Section]]:
    """Give the class of each section, by its path."""
    return dict(_sections_of(Config, ""))


def _sections_of(kind: type[Section], path: str) -> Iterator[tuple[str, type[Section]]]:
    hints = get_type_hints(kind)
    for field in msgspec.structs.fields(kind):
        inner = _section_in(hints[field.name])
        if inner:
            below = f"{path}{field.encode_name}"
            yield below, inner
            yield from _sections_of(inner, f"{below}.")


def _keys_of(kind: type[Section], path: str) -> Iterator[Key]:
    for section, inner in _sections_of(kind, path):
        hints = get_type_hints(inner, include_extras=True)
        for field in msgspec.structs.fields(inner):
            if _section_in(hints[field.name]):
                continue
            value_type, *limits, meta = get_args(hints[field.name])
            variable = field.encode_name.upper().replace("-", "_")
            yield Key(
                section=section,
                name=field.encode_name,
                field=field.name,
                kind=_value_kind(value_type, limits),
                default=field.default,
                about=meta.description,
                example=meta.extra["example"],
                variable=f"{PREFIX}{meta.extra['variable'] or _WORDS.get(section, '') + variable}",
                hidden=meta.extra["hidden"],
            )


def _section_in(hint: Any) -> type[Section] | None:
    """Give the section that a field holds, once or as a list."""
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, Section):
            return kind
    return None


def _value_kind(hint: Any, limits: list[msgspec.Meta]) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (kind for kind in get_args(hint) if kind is not type(None))
    return Annotated[hint, *limits] if limits else hint

"""What is on disk: the names of backups of blobs, of scripts and of folders.

The databases are in repozo repositories (`perdure.dropin.repozo`), the blobs in a folder of their own::

    BASE.STAMP/BASE/         a directory of blobs, with .layout and tmp/; unchanged blobs are hard links
    BASE.STAMP.tar[.gz]      the same as a tar, whose members begin with ./
    BASE.STAMP.snar          what GNU tar notes for the increments of the tar of that name
    BASE.STAMP.delta.tar[.gz]    such an increment
    BASE.N/, BASE.N.tar[.gz]     without stamps: 0 is the newest, the next run makes it 1
    latest                   a link to the newest directory or tar with a stamp

BASE is the name of the blob directory, mostly ``blobstorage``. STAMP is that of the newest file in the repozo
repository for which it was made. Where there is none (only-blobs) it is the time of the run. A number says no
time; the modification time does. Everything else is no backup: so a backup that is being made has a
name that begins with ``.perdure-``.

Source: directories that collective.recipe.backup 4.2 and 6.0 and collective.backup 1.0.0a1 wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum

LATEST = "latest"
PART = ".perdure-"
"""What the names begin with of what is being made or removed."""
STAMP = r"\d{4}-\d\d-\d\d-\d\d-\d\d-\d\d"
_ENTRY = re.compile(
    rf"(?P<base>.+?)\.(?:(?P<stamp>{STAMP})|(?P<number>0|[1-9]\d{{0,8}}))"
    r"(?P<delta>\.delta)?(?P<suffix>\.tar\.gz|\.tar|\.snar)?",
    re.DOTALL,
)


class Form(Enum):
    """What an entry is."""

    DIRECTORY = ""
    TAR = ".tar"
    COMPRESSED = ".tar.gz"
    NOTES = ".snar"


@dataclass(frozen=True, slots=True)
class Entry:
    """The name of a backup of blobs, taken apart; it has either a stamp or a number."""

    name: str
    base: str
    stamp: str | None
    number: int | None
    form: Form
    delta: bool = False

    @classmethod
    def parse(cls, name: str) -> Entry | None:
        """Read a name; None where it is that of something else."""
        found = _ENTRY.fullmatch(name)
        if found is None or name.startswith(PART):
            return None
        form = Form(found["suffix"] or "")
        delta = bool(found["delta"])
        if (delta and form not in {Form.TAR, Form.COMPRESSED}) or "/" in name:
            return None
        number = int(found["number"]) if found["number"] else None
        return cls(name, found["base"], found["stamp"], number, form, delta)

    @property
    def is_tar(self) -> bool:
        """Whether it is a tar, of everything or an increment."""
        return self.form in {Form.TAR, Form.COMPRESSED}


def entry_name(base: str, mark: str | int, form: Form, *, delta: bool = False) -> str:
    """Give the name of a backup of blobs; ``mark`` is its stamp or number."""
    return f"{base}.{mark}{'.delta' if delta else ''}{form.value}"


_FOLDERS = {
    "location": ("backups", "s"),
    "snapshotlocation": ("snapshotbackups", "-snapshots"),
    "ziplocation": ("zipbackups", "-zips"),
    "blobbackuplocation": ("blobstoragebackups", "-blobstorages"),
    "blobsnapshotlocation": ("blobstoragesnapshots", "-blobstoragesnapshots"),
    "blobziplocation": ("blobstoragezips", "-blobstoragezips"),
}
_SCRIPTS = {
    "backup": "",
    "fullbackup": "-full",
    "snapshotbackup": "-snapshot",
    "zipbackup": "-zip",
    "restore": "-restore",
    "snapshotrestore": "-snapshotrestore",
    "ziprestore": "-ziprestore",
    "altrestore": "-altrestore",
}
PLAIN = "backup"
"""The name of the part whose folders and scripts have the plain names."""


def folder_name(option: str, part: str) -> str:
    """Give the name that a folder has unless its option says another, in a part of that name."""
    plain, suffix = _FOLDERS[option]
    return plain if part == PLAIN else f"{part}{suffix}"


def script_name(command: str, part: str) -> str:
    """Give the name of the script of a command in a part of that name."""
    return command if part == PLAIN else f"{part}{_SCRIPTS[command]}"

"""An instance.yaml of cookiecutter-zope-instance that has not been made into an instance yet.

Such a file is what cookiecutter's ``--config-file`` takes: a mapping ``default_context`` of settings. Where
the instance has been made, its zope.conf says more, and is read instead. Of the YAML only what a person
writes there is understood: one setting a line, its value plain or in quotes; and of Jinja only
``{{ cookiecutter.NAME }}``. The settings, with their defaults in cookiecutter-zope-instance 1 and 2:

===========================  =========================================================================
``target``                   folder of the instance: ``instance``
``location_clienthome``      ``TARGET/var``
``db_storage``               ``direct`` (a FileStorage), ``zeo``, ``relstorage``, ``pgjsonb``
``db_filestorage_location``  ``CLIENTHOME/filestorage/Data.fs``
``db_blob_location``         ``CLIENTHOME/blobs``; in version 1 ``db_blobs_location``
``db_z3blobs_enabled``       ``true``: the blobs are in a bucket
===========================  =========================================================================
"""

from __future__ import annotations

import re
from pathlib import Path

from perdure.errors import UsageError
from perdure.site.zconfig import content

NAME = "instance.yaml"
_CONTEXT = "default_context"
_SETTING = re.compile(r"( *)([A-Za-z_][A-Za-z0-9_]*) *:(?: +(.*))?")
_QUOTED = re.compile(r"""(?:'((?:[^']|'')*)'|"([^"\\]*)")\s*(?:#.*)?""")
_JINJA = re.compile(r"\{\{\s*cookiecutter\.([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")
_MOST_STEPS = 8
_LONGEST = 4096
_DEFAULTS = {
    "target": "instance",
    "location_clienthome": "{{ cookiecutter.target }}/var",
    "db_storage": "direct",
    "db_filestorage_location": "{{ cookiecutter.location_clienthome }}/filestorage/Data.fs",
    "db_blob_location": "{{ cookiecutter.location_clienthome }}/blobs",
    "db_blobs_location": "",
    "db_z3blobs_enabled": "false",
}


class InstanceYaml:
    """The settings of an instance.yaml that say where its database is; paths are relative to its folder."""

    def __init__(self, path: Path) -> None:
        """Read it. Raises UsageError."""
        self.path = path
        self._given: dict[str, tuple[str, int]] = {}
        self._read(content(path))

    @property
    def target(self) -> Path:
        """The folder that the instance is made in."""
        return self._location("target")

    @property
    def storage(self) -> str:
        """What kind of storage it is to have."""
        return self._value("db_storage")

    @property
    def data_fs(self) -> Path:
        """Where the Data.fs of a direct storage is."""
        return self._location("db_filestorage_location")

    @property
    def blobs(self) -> Path | None:
        """Where its blobs are; None where they are in a bucket."""
        if self._value("db_z3blobs_enabled").lower() == "true":
            return None
        older = self._value("db_blobs_location")
        return self._location("db_blobs_location" if older else "db_blob_location")

    def line(self, key: str) -> int:
        """Give the line of a setting, or else of the first one."""
        return self._given.get(key, ("", 1))[1]

    def _location(self, key: str) -> Path:
        return self.path.parent / self._value(key)

    def _read(self, text: str) -> None:
        inside, indent = False, -1
        for number, line in enumerate(text.splitlines(), 1):
            if not line.strip() or line.lstrip().startswith("#"):
                continue
            match = _SETTING.fullmatch(line.rstrip())
            depth = len(line) - len(line.lstrip())
            if depth == 0:
                inside, indent = match is not None and match[2] == _CONTEXT, -1
                if match and inside and match[3] and not match[3].startswith("#"):
                    self._given |= dict.fromkeys(_DEFAULTS, (match[3], number))
                continue
            if indent < 0:
                indent = depth
            if inside and match and depth == indent and match[2] in _DEFAULTS:
                self._given[match[2]] = (match[3] or "", number)

    def _setting(self, key: str) -> str:
        if key not in self._given:
            return _DEFAULTS[key]
        text, line = self._given[key]
        quoted = _QUOTED.fullmatch(text)
        if quoted:
            return quoted[1].replace("''", "'") if quoted[2] is None else quoted[2]
        plain = re.split(r"(?:^|\s)#", text, maxsplit=1)[0].strip()
        if plain.startswith(tuple("'\"|>&*!%@`[{")):
            raise UsageError(
                f"{self.path}, line {line}: {text} is not understood",
                hint="make the instance with cookiecutter; its etc/zope.conf is read then",
            )
        return "" if plain in {"null", "~"} else plain

    def _value(self, key: str) -> str:
        value = self._setting(key)
        for _ in range(_MOST_STEPS):
            names = set(_JINJA.findall(value))
            if not names or not names <= _DEFAULTS.keys() or len(value) > _LONGEST:
                break
            value = _JINJA.sub(lambda match: self._setting(match[1]), value)
        if "{{" in value or "{%" in value:
            raise UsageError(
                f"{self.path}, line {self.line(key)}: {key} is {value}, which is not understood",
                hint="make the instance with cookiecutter; its etc/zope.conf is read then",
            )
        return value

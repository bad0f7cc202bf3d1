"""What zc.buildout knows of a site: where its parts are, and what they are to be.

The configurations in the parts say more than the options that made them, so these count only where
buildout has not been run, or its parts are gone. Then the defaults of the recipes hold::

    plone.recipe.zeoserver       var = DIRECTORY/var; file-storage and blob-storage are relative to var
    plone.recipe.zope2instance   the same, but blob-storage is relative to DIRECTORY

The blobs are in ``blobstorage`` in var unless blob-storage says otherwise (empty: there are none).
Files are followed by ``extends``, sections by ``<``, values by ``${SECTION:OPTION}``; nothing is fetched.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from configparser import Error as SyntaxFault
from configparser import RawConfigParser
from pathlib import Path

from perdure.errors import UsageError
from perdure.site.collecting import Collector
from perdure.site.found import FILESTORAGE, FoundStorage, LeftOut
from perdure.site.zconfig import content, is_file

NAME, INSTALLED = "buildout.cfg", ".installed.cfg"
_SERVERS = frozenset({"plone.recipe.zeoserver", "plone.recipe.zope2zeoserver"})
_INSTANCE = "plone.recipe.zope2instance"
_REFERENCE = re.compile(r"\$\{([^${}:]*):([^${}:]+)\}")
_DEFAULTS = {"var": "var", "file-storage": "filestorage/Data.fs", "blob-storage": "blobstorage"}
_DEEPEST = 16
_LONGEST = 1 << 16
_MOST_FILES = 64
_YES = frozenset({"yes", "true", "on", "1"})

Sections = dict[str, dict[str, str]]


def locations_of_parts(folder: Path) -> list[Path]:
    """Give the folders of the parts that buildout made there. Raises UsageError."""
    installed = folder / INSTALLED
    if not is_file(installed):
        return []
    sections = _parse(installed)
    return [folder / part["location"] for part in sections.values() if part.get("location")]


def add_planned(collector: Collector, folder: Path) -> None:
    """Take the storages that the parts of a buildout.cfg are to have. Raises UsageError."""
    path = folder / NAME
    if is_file(path):
        buildout = _Buildout(folder, _load(path, []))
        for name in buildout.parts():
            _add_part(collector, buildout, name, f"{NAME}, [{name}]")


class _Buildout:
    """The sections of a buildout.cfg, with values looked up as buildout does."""

    def __init__(self, folder: Path, sections: Sections) -> None:
        self.folder = folder
        self.sections = sections
        own = {"directory": str(folder), "parts-directory": f"{folder}/parts"}
        sections["buildout"] = own | sections.get("buildout", {})

    def parts(self) -> list[str]:
        """Give the sections that may be parts: not those that others are only made from."""
        listed = (self.get("buildout", "parts") or "").split()
        bases = {
            base for options in self.sections.values() for base in options.get("<", "").split()
        }
        return [name for name in self.sections if name in listed or name not in bases]

    def options(self, section: str) -> dict[str, str]:
        """Give the options of a section, with those of the sections that it is made from."""
        seen: list[str] = []
        self._collect(section, seen, {section}, 0)
        merged: dict[str, str] = {}
        for name in seen:
            merged |= self.sections.get(name, {})
        return merged

    def get(self, section: str, option: str, depth: int = 0) -> str | None:
        """Give an option; None where it is missing, or refers to what is not known here."""
        value = self.options(section).get(option)
        if value is None or depth > _DEEPEST:
            return None
        for match in _REFERENCE.finditer(value):
            known = self.get(match[1] or section, match[2], depth + 1)
            if known is None or len(value) > _LONGEST:
                return None
            value = value.replace(match[0], known)
        return value.strip()

    def _collect(self, section: str, into: list[str], met: set[str], depth: int) -> None:
        for base in self.sections.get(section, {}).get("<", "").split():
            if base not in met and depth < _DEEPEST:
                met.add(base)
                self._collect(base, into, met, depth + 1)
        into.append(section)


def _add_part(collector: Collector, buildout: _Buildout, part: str, origin: str) -> None:
    recipe = (buildout.get(part, "recipe") or "").partition("[")[0].strip().lower()
    if recipe not in _SERVERS | {_INSTANCE}:
        return
    given = buildout.options(part)
    if "rel-storage" in given:
        reason = "it uses RelStorage; run buildout, and its zope.conf says how to open that"
        collector.left_out.append(LeftOut(part, reason, origin))
        return
    if recipe == _INSTANCE and (buildout.get(part, "zeo-client") or "").lower() in _YES:
        collector.left_out.append(LeftOut(part, "its data are with a ZEO server", origin))
        return
    values = dict(_DEFAULTS)
    for option in values.keys() & given.keys():
        value = buildout.get(part, option)
        if value is None:
            reason = f"what its {option} refers to is not known; run buildout"
            collector.left_out.append(LeftOut(part, reason, origin))
            return
        values[option] = value
    var = buildout.folder / values["var"]
    path = var / values["file-storage"]
    blobs_in = buildout.folder if recipe == _INSTANCE and "blob-storage" in given else var
    blobs = blobs_in / values["blob-storage"] if values["blob-storage"] else None
    found = FoundStorage("main", FILESTORAGE, path, blobs, None, (), origin)
    collector.add((FILESTORAGE, os.path.realpath(path)), found, part)


def _load(path: Path, files: list[Path]) -> Sections:
    """Read a file with all that it extends; ``files`` are those read so far."""
    files.append(path)
    if len(files) > _MOST_FILES:
        raise UsageError(f"{files[0]} extends more than {_MOST_FILES} files, or itself")
    own = _parse(path)
    merged: Sections = {}
    for base in _extended(path, own):
        if is_file(base):
            _merge(merged, _load(base, files))
    _merge(merged, own)
    return merged


def _extended(path: Path, sections: Sections) -> Iterator[Path]:
    names = sections.get("buildout", {}).get("extends", "").split()
    return (path.parent / name for name in names if "://" not in name)


def _merge(into: Sections, more: Sections) -> None:
    for name, options in more.items():
        into.setdefault(name, {}).update(options)


def _parse(path: Path) -> Sections:
    parser = RawConfigParser(
        strict=False, delimiters=("=",), allow_no_value=True, default_section=""
    )
    parser.optionxform = str  # type: ignore[assignment,method-assign]  # as it is documented
    try:
        parser.read_string(content(path))
    except SyntaxFault as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from error
    sections: Sections = {}
    for name in parser.sections():
        options = {key: value or "" for key, value in parser.items(name)}
        _merge(sections, {name.partition(":")[0].strip(): options})
    return sections

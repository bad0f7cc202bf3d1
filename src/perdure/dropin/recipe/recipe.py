"""The recipe for zc.buildout: ``recipe = perdure`` makes the scripts that collective.recipe.backup makes.

The folders of the site's data are taken from the configurations that the parts of Zope and ZEO made: these
parts are looked at first, so that buildout makes them before this one. An option of this part counts before.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from perdure.config.site import SiteSection
from perdure.config.values import Location
from perdure.dropin.recipe.options import LINES, PATHS, read_options
from perdure.dropin.recipe.part import Part
from perdure.dropin.recipe.scripts import arguments_of, import_paths, write_scripts
from perdure.dropin.recipe.settling import Around, settle
from perdure.errors import PerdureError
from perdure.site import MAIN, Site, from_buildout

SETTINGS = "part.json"
_SERVERS = ("plone.recipe.zeoserver", "plone.recipe.zope2zeoserver")
_INSTANCE = "plone.recipe.zope2instance"
_BUILDOUTS_OWN = ("recipe", "<", "<part-dependencies>")
_HOME = re.compile(r"(?<!\S)~(?=/|$)")
_YES = ("yes", "true", "on", "1")
_LOG = logging.getLogger("perdure")


class Buildout(Protocol):
    """What zc.buildout gives a recipe: its sections, each with its options."""

    def __getitem__(self, name: str) -> Any:
        """Give a section."""


class Recipe:
    """A part with ``recipe = perdure``."""

    def __init__(self, buildout: Buildout, name: str, options: Any) -> None:
        self._buildout, self._name, self._options = buildout, name, options
        for each in buildout["buildout"]["parts"].split():
            if each != name:
                buildout[
                    each
                ]  # so that it is installed before this one, and may add to our options

    def install(self) -> list[str]:
        """Write the settings and the scripts; gives their paths. Raises zc.buildout.UserError."""
        try:
            part = self._part()
        except PerdureError as error:
            from zc.buildout import UserError

            hint = f" ({error.hint})" if error.hint else ""
            raise UserError(f"[{self._name}] {error}{hint}") from error
        folder = Path(self._buildout["buildout"]["parts-directory"], self._name)
        folder.mkdir(parents=True, exist_ok=True)
        settings = folder / SETTINGS
        settings.write_bytes(part.encode())
        settings.chmod(0o600)  # scripts around a backup may have secrets in them
        scripts = write_scripts(
            part,
            arguments_of("--part", str(settings)),
            self._bin,
            sys.executable,
            import_paths(),
        )
        for path in scripts:
            _LOG.info("Generated script '%s'.", path)
        _warn_of_folders(part)
        return [str(folder), *map(str, scripts)]

    update = install

    @property
    def _bin(self) -> Path:
        return Path(self._buildout["buildout"]["bin-directory"])

    def _part(self) -> Part:
        """Read the options; not before all other parts have had their say in them."""
        given = {
            name: _expanded(name, text)
            for name, text in self._options.items()
            if name not in _BUILDOUTS_OWN
        }
        given.setdefault("name", self._name)
        options = read_options(given)
        return settle(options, self._around(options))

    def _around(self, options: SiteSection) -> Around:
        base = self._bin.absolute().parent
        var = base / (self._var() or "var")
        found = self._found()
        mains = [each for each in found.storages if each.name == MAIN] if found else []
        main = mains[0] if mains else None
        named = {line.split()[0] for line in options.additional_filestorages if line.split()}
        for each in found.storages if found else ():
            if each.name != MAIN and each.name not in named:
                _LOG.warning(
                    "[%s] the storage %s (%s) is not backed up; additional_filestorages names more",
                    self._name,
                    each.name,
                    each.path or each.origin,
                )
        blobs = main.blobs if main else None
        if blobs is None and options.blob_storage is None and main is None and self._zope_parts():
            blobs = var / "blobstorage"
        return Around(base, var, main.path if main else None, blobs)

    def _found(self) -> Site | None:
        """Find what the parts of the site have."""
        try:
            # What a configuration takes from the environment of a server is not known here.
            return from_buildout(Path(self._buildout["buildout"]["directory"]), {})
        except PerdureError as error:
            _LOG.info("[%s] %s", self._name, error)
            return None

    def _zope_parts(self) -> Iterator[Mapping[str, str]]:
        """Give the parts of Zope and ZEO, servers first; a client's own folders are not the data's."""
        names = getattr(self._buildout, "_parts", self._buildout["buildout"]["parts"].split())
        parts = [self._buildout[name] for name in names if name != self._name]
        kinds = [
            ((part.get("recipe") or "").partition("[")[0].strip().lower(), part) for part in parts
        ]
        yield from (part for kind, part in kinds if kind in _SERVERS)
        yield from (
            part
            for kind, part in kinds
            if kind == _INSTANCE and (part.get("zeo-client") or "").lower() not in _YES
        )

    def _var(self) -> str | None:
        values = (part.get("zeo-var") or part.get("var") for part in self._zope_parts())
        return next((value for value in values if value), None)


def _expanded(name: str, text: str) -> str:
    """Put in the home folder and variables, now that buildout runs, where a path stands."""
    if name == "repository" and Location(text).is_url:
        return text
    if name in PATHS or name in LINES or name == "blob-storage":
        home = os.path.expanduser("~")  # noqa: PTH111 - it is put into a text
        return _HOME.sub(lambda _: home, os.path.expandvars(text))
    return text


def _warn_of_folders(part: Part) -> None:
    """Warn where a folder of backups could not be made. It need not be there yet: it may be on a disk."""
    for place in part.places.values():
        for path in (place.files, place.blobs):
            folder = next(each for each in (Path(path), *Path(path).parents) if each.exists())
            if not folder.is_dir() or not os.access(folder, os.W_OK):
                _LOG.warning("%s cannot be made in %s", path, folder)

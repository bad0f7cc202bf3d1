"""Finding a site: in a folder and those above it, or by the configurations that somebody names."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from perdure.errors import SourceUnusable, UsageError
from perdure.site.buildout import NAME as BUILDOUT_CFG
from perdure.site.buildout import add_planned
from perdure.site.collecting import Collector
from perdure.site.found import FILESTORAGE, FoundStorage, LeftOut, Site
from perdure.site.layouts import completed, configurations, planned_instances
from perdure.site.plain import add_plain, data_files, is_part_of_site, unnamed
from perdure.site.zconfig import Configuration, read_configuration

_IMAGES = ("app", "plone/instance")
_IMAGE_DATA = "data"
_HIGHER = 3
"""Levels above a folder that may have all that it has, and more."""
_HINT = (
    "name the site's folder, or its configuration with --zope-conf or --zeo-conf,"
    " or one database with --filestorage"
)


def discover(folder: Path, environment: Mapping[str, str], *, machine: Path = Path("/")) -> Site:
    """Find the site in a folder, or in the nearest one above it, or in the image of a container.

    Configurations count before data that merely lie there. Nothing outside ``machine`` is looked at.
    Raises SourceUnusable where nothing is found, and UsageError where a configuration cannot be read.
    """
    start = Path(os.path.abspath(folder))
    if not os.path.isdir(start):  # noqa: PTH112 - it never raises
        raise SourceUnusable(f"{folder} is not a folder", hint=_HINT)
    above = [each for each in (start, *start.parents) if each.is_relative_to(machine)]
    images = [machine / image for image in _IMAGES]
    reasons: list[LeftOut] = []
    data = [machine / _IMAGE_DATA]
    for places, look in (
        (above, _configured),
        (above[:1], _plain),
        (above[1:], _plain_above),
        (images, _configured),
        (data, _plain),
    ):
        for place in places:
            site = look(place, environment)
            if site and site.storages:
                return _with_unnamed(site)
            reasons += site.left_out if site else ()
    why = "".join(f"; {each.name}: {each.reason} ({each.origin})" for each in reasons)
    raise SourceUnusable(
        f"no database was found in {start} or the folders above it{why}", hint=_HINT
    )


def from_zope_conf(paths: Sequence[Path], environment: Mapping[str, str]) -> Site:
    """Give the databases of some zope.conf files. Raises UsageError, SourceUnusable."""
    return from_configurations(paths, (), environment)


def from_zeo_conf(paths: Sequence[Path], environment: Mapping[str, str]) -> Site:
    """Give what some zeo.conf files serve. Raises UsageError, SourceUnusable."""
    return from_configurations((), paths, environment)


def from_configurations(
    zope_confs: Sequence[Path], zeo_confs: Sequence[Path], environment: Mapping[str, str]
) -> Site:
    """Give the databases of some zope.conf files, and what some zeo.conf files serve.

    A ZEO client in a zope.conf is followed to the zeo.conf files that are named, or else to those of the
    site around it. Raises UsageError, and SourceUnusable where nothing is left to back up.
    """
    clients = [_read(Path(os.path.abspath(path)), environment) for path in zope_confs]
    named = [_read(Path(os.path.abspath(path)), environment) for path in zeo_confs]
    root = _root_of((clients or named)[0].path, environment)
    around = (
        [] if named or not clients else _read_all(configurations(root, environment), environment)
    )
    collector = Collector(root, environment, [each for each in (*named, *around) if each.is_server])
    for configuration in clients:
        if not any(True for _ in configuration.databases()):
            raise UsageError(f"{configuration.path} names no database (<zodb_db NAME>)")
        collector.add_databases(configuration)
    for configuration in named:
        if not configuration.is_server:
            raise UsageError(f"{configuration.path} is not a ZEO server's (it has no <zeo>)")
        collector.add_server(configuration)
    return _needed(collector.site(), str((clients or named)[0].path))


def from_buildout(folder: Path, environment: Mapping[str, str]) -> Site:
    """Give the databases of a buildout. Raises UsageError, SourceUnusable."""
    start = Path(os.path.abspath(folder))
    site = _configured(start, environment)
    if site is None:
        raise SourceUnusable(
            f"{start} is no buildout: it has neither parts nor {BUILDOUT_CFG}", hint=_HINT
        )
    return _with_unnamed(_needed(site, str(start)))


def _configured(place: Path, environment: Mapping[str, str]) -> Site | None:
    """Give the site whose configurations are in a folder; None where there are none."""
    paths = configurations(place, environment)
    if not paths:
        return _planned(place, environment)
    root = _highest(place, paths, environment)
    found = _read_all(configurations(root, environment), environment)
    collector = Collector(root, environment, [each for each in found if each.is_server])
    for configuration in found:
        collector.add_databases(configuration)
    for configuration in found:
        if configuration.is_server:
            collector.add_server(configuration)
    return collector.site()


def _planned(place: Path, environment: Mapping[str, str]) -> Site | None:
    """Give the site that is to be made in a folder, by what it is to be made from."""
    collector = Collector(place, environment)
    for instance in planned_instances(place):
        origin = collector.place(instance.path, instance.line("db_storage"))
        if instance.storage == "direct":
            path = instance.data_fs
            found = FoundStorage("main", FILESTORAGE, path, instance.blobs, None, ("/",), origin)
            collector.add((FILESTORAGE, os.path.realpath(path)), found, instance.target.name)
        else:
            reason = (
                f"its storage is {instance.storage}; make the instance, so that it has a zope.conf"
            )
            collector.left_out.append(LeftOut(instance.target.name, reason, origin))
    add_planned(collector, place)
    site = collector.site()
    return site if site.storages or site.left_out else None


def _plain(place: Path, environment: Mapping[str, str]) -> Site | None:
    files = data_files(place)
    if not files:
        return None
    for higher in place.parents[:_HIGHER]:
        if set(files) <= set(data_files(higher)):
            place = higher
    collector = Collector(place, environment)
    add_plain(collector, place)
    return collector.site()


def _plain_above(place: Path, environment: Mapping[str, str]) -> Site | None:
    """Give what lies in a folder above the given one, where any Data.fs in it need not belong to a site."""
    return (
        _plain(place, environment)
        if any(is_part_of_site(each) for each in data_files(place))
        else None
    )


def _highest(place: Path, paths: Sequence[Path], environment: Mapping[str, str]) -> Path:
    """Give the folder, near above, whose site has all of some configurations: parts/instance has one part."""
    for higher in place.parents[:_HIGHER]:
        if set(paths) <= set(configurations(higher, environment)):
            return _highest(higher, paths, environment)
    return place


def _root_of(path: Path, environment: Mapping[str, str]) -> Path:
    folder = path.parent.parent if path.parent.name == "etc" else path.parent
    return _highest(folder, [path], environment)


def _read(path: Path, environment: Mapping[str, str]) -> Configuration:
    return read_configuration(path, completed(environment, path))


def _read_all(paths: Sequence[Path], environment: Mapping[str, str]) -> list[Configuration]:
    return [_read(path, environment) for path in paths]


def _needed(site: Site, where: str) -> Site:
    if not site.storages:
        why = "; ".join(f"{each.name}: {each.reason}" for each in site.left_out)
        raise SourceUnusable(
            f"{where} has no database to back up{': ' if why else ''}{why}", hint=_HINT
        )
    return site


def _with_unnamed(site: Site) -> Site:
    """Note the FileStorages that lie beside those of a site, but that none of its configurations names."""
    known = [each.path for each in site.storages if each.path]
    more = [
        LeftOut(path.name, "no configuration of the site names it", str(path))
        for path in unnamed(known)
    ]
    return Site(site.root, site.storages, (*site.left_out, *more))

"""Where sites keep their configurations and, where there are none, their data.

=============================================  ==========================================================
a site made by                                 has its configuration in
=============================================  ==========================================================
zc.buildout                                    ``parts/PART/etc``, or where ``.installed.cfg`` says
cookiecutter-zope-instance                     ``instance/etc``, or in the target of ``instance.yaml``
cookieplone                                    the same in ``backend/``
mkwsgiinstance, and Zope itself                ``etc``
the images plone-backend and plone-zeo         ``/app/etc``; the data are in ``/data``
the image plone (of Plone 5 and before)        ``/plone/instance/parts/PART/etc``; the data are in ``/data``
=============================================  ==========================================================

The image plone-backend has a configuration for each way of keeping data, and starts with one of them by its
environment: relstorage.conf with RELSTORAGE_DSN, zeo.conf (a client's) with ZEO_ADDRESS, else zope.conf.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from perdure.site.buildout import locations_of_parts
from perdure.site.instance_yaml import NAME as INSTANCE_YAML
from perdure.site.instance_yaml import InstanceYaml
from perdure.site.zconfig import is_file

_CONFIGURATIONS = ("zope.conf", "zeo.conf")
_FOLDERS = (
    "etc",
    "parts/etc",
    "parts/*/etc",
    "instance*/etc",
    "zeo*/etc",
    "client*/etc",
    "backend/instance*/etc",
    "backend/zeo*/etc",
)
_IMAGE_CHOICES = {"RELSTORAGE_DSN": "relstorage.conf", "ZEO_ADDRESS": "zeo.conf"}
_IMAGE_DEFAULTS = {
    "RELSTORAGE_NAME": "storage",
    "RELSTORAGE_READ_ONLY": "off",
    "RELSTORAGE_KEEP_HISTORY": "true",
    "RELSTORAGE_COMMIT_LOCK_TIMEOUT": "30",
    "RELSTORAGE_CREATE_SCHEMA": "true",
    "RELSTORAGE_SHARED_BLOB_DIR": "false",
    "RELSTORAGE_BLOB_CACHE_SIZE": "100mb",
    "RELSTORAGE_BLOB_CACHE_SIZE_CHECK": "10",
    "RELSTORAGE_BLOB_CACHE_SIZE_CHECK_EXTERNAL": "false",
    "RELSTORAGE_BLOB_CHUNK_SIZE": "1048576",
    "RELSTORAGE_CACHE_LOCAL_MB": "10",
    "RELSTORAGE_CACHE_LOCAL_OBJECT_MAX": "16384",
    "RELSTORAGE_CACHE_LOCAL_COMPRESSION": "none",
    "RELSTORAGE_CACHE_DELTA_SIZE_LIMIT": "100000",
    "ZEO_SHARED_BLOB_DIR": "off",
    "ZEO_READ_ONLY": "false",
    "ZEO_CLIENT_READ_ONLY_FALLBACK": "false",
    "ZEO_STORAGE": "1",
    "ZEO_CLIENT_CACHE_SIZE": "128MB",
    "ZEO_DROP_CACHE_RATHER_VERIFY": "false",
}
"""What the image's start sets where nothing else is given."""


def configurations(folder: Path, environment: Mapping[str, str]) -> list[Path]:
    """Give the zope.conf and zeo.conf files of the site in a folder. Raises UsageError."""
    folders = [folder]
    for pattern in _FOLDERS:
        folders += sorted(folder.glob(pattern))
    folders += [location / "etc" for location in locations_of_parts(folder)]
    folders += [each.target / "etc" for each in planned_instances(folder)]
    found = (path for each in folders for path in _of_instance(each, environment))
    return list(dict.fromkeys(found))


def planned_instances(folder: Path) -> Iterator[InstanceYaml]:
    """Give what the site in a folder has of instance.yaml files. Raises UsageError."""
    for path in (folder / INSTANCE_YAML, folder / "backend" / INSTANCE_YAML):
        if is_file(path):
            yield InstanceYaml(path)


def completed(environment: Mapping[str, str], configuration: Path) -> Mapping[str, str]:
    """Add to an environment what the start of an image sets before it reads a configuration."""
    return {**_IMAGE_DEFAULTS, **environment} if _is_image(configuration.parent) else environment


def _of_instance(folder: Path, environment: Mapping[str, str]) -> Iterator[Path]:
    names: tuple[str, ...] = _CONFIGURATIONS
    if _is_image(folder):
        chosen = (name for key, name in _IMAGE_CHOICES.items() if key in environment)
        names = (next(chosen, "zope.conf"),)
    return (folder / name for name in names if is_file(folder / name))


def _is_image(folder: Path) -> bool:
    return all(is_file(folder / name) for name in (*_IMAGE_CHOICES.values(), "zope.conf"))

"""Commands about the site itself: sources."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from perdure.cli import messages
from perdure.cli.options import output_options
from perdure.cli.output import Output
from perdure.cli.session import Session, with_session
from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure.site import FoundStorage, Site

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command(short_help="Show which databases a site has.")
@click.argument("folder", metavar="[DIR]", required=False, type=_FOLDER)
@click.option(
    "--zope-conf", "zope_confs", multiple=True, type=_FILE, help="The databases of this zope.conf."
)
@click.option(
    "--zeo-conf", "zeo_confs", multiple=True, type=_FILE, help="What this zeo.conf serves."
)
@click.option("--buildout", type=_FOLDER, help="The databases of the buildout in this folder.")
@output_options
@with_session
def sources(
    session: Session,
    folder: Path | None,
    zope_confs: tuple[Path, ...],
    zeo_confs: tuple[Path, ...],
    buildout: Path | None,
) -> None:
    """Show which databases a site has, where they are, and what is left out.

    The site is looked for in DIR, or in the current folder, and in the folders above: a buildout, an
    instance of cookiecutter-zope-instance or of Zope itself, a container's image, or a folder var with
    filestorage and blobstorage in it. Nothing is written, and nothing of the site is run.
    """
    site = find_site(session, folder, zope_confs, zeo_confs, buildout)
    session.output.event("sources", _values(site))
    _show(session.output, site)


def find_site(
    session: Session,
    folder: Path | None,
    zope_confs: tuple[Path, ...],
    zeo_confs: tuple[Path, ...],
    buildout: Path | None,
) -> Site:
    """Find the site that is named, or else the one around here. Raises UsageError, SourceUnusable."""
    from perdure.site import discover, from_buildout, from_configurations

    environment = session.settings.environment
    if sum(map(bool, (folder, zope_confs or zeo_confs, buildout))) > 1:
        raise UsageError(
            "a folder, --buildout, and --zope-conf or --zeo-conf exclude each other",
            hint="--zope-conf and --zeo-conf go together, each as often as needed",
        )
    if zope_confs or zeo_confs:
        return from_configurations(zope_confs, zeo_confs, environment)
    if buildout:
        return from_buildout(buildout, environment)
    return discover(folder or Path(), environment)


def _show(output: Output, site: Site) -> None:
    output.line(f"site {messages.printable(str(site.root))}")
    for storage in site.storages:
        output.line(f"\n{messages.printable(storage.name)} ({storage.kind})")
        for label, text in _facts(storage):
            output.line(f"  {label:10} {messages.printable(text)}")
    if site.left_out:
        output.line("\nleft out")
    for each in site.left_out:
        output.line(messages.printable(f"  {each.name}: {each.reason} ({each.origin})"))


def _facts(storage: FoundStorage) -> list[tuple[str, str]]:
    facts = []
    if storage.path:
        missing = "" if os.path.exists(storage.path) else " (missing)"
        facts.append(("database", f"{storage.path}{missing}"))
    if storage.blobs:
        missing = "" if os.path.exists(storage.blobs) else " (missing)"
        facts.append(("blobs", f"{storage.blobs}{missing}"))
    if storage.mount_points:
        facts.append(("mounted at", ", ".join(storage.mount_points)))
    return [*facts, ("found in", storage.origin)]


def _values(site: Site) -> dict[str, Any]:
    return {
        "root": str(site.root),
        "storages": [_storage_values(storage) for storage in site.storages],
        "left_out": [
            {"name": each.name, "reason": each.reason, "origin": each.origin}
            for each in site.left_out
        ],
    }


def _storage_values(storage: FoundStorage) -> dict[str, Any]:
    """Give what is known of a storage, but not the text that opens it: there may be a password in it."""
    return {
        "name": storage.name,
        "kind": storage.kind,
        "path": None if storage.path is None else str(storage.path),
        "exists": None if storage.path is None else os.path.exists(storage.path),
        "blobs": None if storage.blobs is None else str(storage.blobs),
        "mount_points": list(storage.mount_points),
        "origin": storage.origin,
    }

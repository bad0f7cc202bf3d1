"""Gather what a backup reads: what the command line names, or the configuration, or the site around here."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli import messages
from perdure.cli.commands_site import find_site
from perdure.cli.options import text
from perdure.cli.postgresql import Databases
from perdure.cli.session import Session
from perdure.cli.trees import Exclusion
from perdure.config.values import Location
from perdure.errors import PerdureError, SourceUnusable, UsageError

if TYPE_CHECKING:
    from perdure.config.declaration import SourceSection
    from perdure.site import FoundStorage, Site
    from perdure.sources.protocol import Source


@dataclass(frozen=True, slots=True)
class Named:
    """What the command line names."""

    filestorages: tuple[Path, ...] = ()
    storages: tuple[Path, ...] = ()
    zope_confs: tuple[Path, ...] = ()
    zeo_confs: tuple[Path, ...] = ()
    buildout: Path | None = None
    blobs: Path | None = None
    name: str | None = None
    trees: tuple[Path, ...] = ()
    exclusion: Exclusion = field(default_factory=Exclusion)
    databases: Databases = field(default_factory=Databases)
    homes: tuple[Path, ...] = ()
    """Of DirectoryStorages."""

    @property
    def site(self) -> bool:
        """Whether a site is named."""
        return bool(self.zope_confs or self.zeo_confs or self.buildout)

    @property
    def single(self) -> int:
        """How many storages, trees and databases are named, each by itself."""
        databases = self.databases
        others = (databases.named, databases.servers, databases.globals_of, self.trees, self.homes)
        return len(self.filestorages) + len(self.storages) + sum(map(len, others))


class Gathering:
    """Makes sources; ``without_blobs``: of none the blobs are asked for."""

    def __init__(self, session: Session, *, without_blobs: bool) -> None:
        self._session = session
        self._without_blobs = without_blobs
        self.jobs: dict[str, str] = {}
        """The job of each source that belongs to one, by its name."""

    def gather(self, named: Named) -> list[Source]:
        """Give the sources, in the order in which they are read. Raises UsageError, SourceUnusable."""
        if named.single:
            return [*self._single(named), *self._databases(named), *self._trees(named)]
        if named.exclusion != Exclusion():
            raise UsageError("there is no --tree from which to leave something out")
        if named.blobs:
            raise UsageError(
                "--blobs names the blob directory of one --filestorage, and there is none",
                hint="a site's configuration says where its blobs are",
            )
        if named.site:
            site = find_site(self._session, None, named.zope_confs, named.zeo_confs, named.buildout)
            return self._of_site(site, named.name)
        configured = self._session.config.source
        if configured:
            return _only(self._of_sections(configured), named.name)
        return self._of_site(find_site(self._session, None, (), (), None), named.name)

    def _trees(self, named: Named) -> Iterator[Source]:
        """Make the sources of trees that are named: each a job of its own."""
        for path in named.trees:
            source = self._tree(path, named.name, named.exclusion)
            self.jobs[source.name] = source.name
            yield source

    def _databases(self, named: Named) -> Iterator[Source]:
        """Make the sources of databases that are named: each a job of its own."""
        for source in named.databases.sources(named.name):
            self.jobs[source.name] = source.name
            yield source

    def _of_sections(self, sections: Sequence[SourceSection]) -> list[Source]:
        """Make the sources of perdure.toml: each table is a job. Of several, one may be unusable."""
        made: list[Source] = []
        for number, section in enumerate(sections):
            try:
                found = self._configured(section)
            except (SourceUnusable, UsageError) as error:
                if len(sections) == 1:
                    raise
                found = [_unusable(section, error)]
            self.jobs |= {source.name: str(number) for source in found}
            made += found
        return made

    def _single(self, named: Named) -> Iterator[Source]:
        if named.site:
            raise UsageError("storages are named, and a site, too", hint="do only one")
        if named.name and named.single > 1:
            raise UsageError(
                f"--source names one source, and there are {named.single}",
                hint="without --source each is named by its path",
            )
        if named.blobs and (self._without_blobs or len(named.filestorages) != 1):
            raise UsageError(
                "--blobs names the blob directory of one --filestorage",
                hint="--zope-conf or --zeo-conf finds all storages with their blob directories",
            )
        for path in named.storages:
            yield self._storage_file(path, named.name)
        for path in named.homes:
            yield _directorystorage(path, named.name)
        for path in named.filestorages:
            yield self._filestorage(path, named.name, named.blobs)

    def _of_site(self, site: Site, wanted: str | None) -> list[Source]:
        for each in site.left_out:
            self._session.output.detail(
                messages.printable(f"{each.name} is left out: {each.reason} ({each.origin})")
            )
        return _only([self._found(storage) for storage in site.storages], wanted)

    def _found(self, storage: FoundStorage, name: str | None = None) -> Source:
        if storage.path is not None and storage.kind == "directorystorage":
            blobs = None if self._without_blobs else storage.blobs
            return _directorystorage(storage.path, name, blobs, storage.name)
        if storage.path is not None:
            return self._filestorage(storage.path, name, storage.blobs, storage.name)
        assert storage.zconfig is not None
        return self._storage(storage.zconfig, name, storage.name)

    def _configured(self, section: SourceSection) -> list[Source]:
        """Make the sources of one table of perdure.toml, or of its variables."""
        name = section.name
        if section.filestorage:
            return [self._filestorage(section.filestorage, name, section.blobs)]
        if section.directorystorage:
            return [_directorystorage(section.directorystorage, name)]
        if section.zconfig:
            return [self._storage(section.zconfig, name)]
        if section.tree:
            return [self._tree(section.tree, name, Exclusion.of(section))]
        if section.zconfig_file:
            return [self._storage_file(section.zconfig_file, name)]
        if databases := Databases.of(section):
            return list(databases.sources(name))
        confs = tuple(path for path in (section.zope_conf,) if path)
        zeos = tuple(path for path in (section.zeo_conf,) if path)
        found = find_site(self._session, section.site, confs, zeos, section.buildout)
        if name is None:
            return self._of_site(found, None)
        only = len(found.storages) == 1
        return [
            self._found(each, name if only else f"{name}/{each.name}") for each in found.storages
        ]

    def _tree(self, path: Path, name: str | None, exclusion: Exclusion) -> Source:
        """Make the source of a tree; the repository and the caches are never in it."""
        settings = self._session.settings
        folder = Location(settings.location).folder
        places = [os.path.abspath(place) for place in (folder, settings.cache) if place]
        return exclusion.source(path, name, settings.environment, tuple(places))

    def _filestorage(
        self, path: Path, name: str | None, blobs: Path | None, database: str = ""
    ) -> Source:
        from perdure.sources.filestorage import FileStorageSource

        return FileStorageSource(
            Path(text("path", os.path.abspath(path))),
            text("name", name) if name else None,
            blobs=Path(text("path", os.path.abspath(blobs))) if blobs else None,
            without_blobs=self._without_blobs,
            database=database,
        )

    def _storage(self, zconfig: str, name: str | None, database: str = "") -> Source:
        from perdure.sources.storage import StorageSource

        return StorageSource(zconfig, name, without_blobs=self._without_blobs, database=database)

    def _storage_file(self, path: Path, name: str | None) -> Source:
        from perdure.sources.storage import StorageSource

        return StorageSource.from_file(path, name, without_blobs=self._without_blobs)


def _unusable(section: SourceSection, error: PerdureError) -> Source:
    from perdure.sources.unusable import UnusableSource

    place = section.site or section.zope_conf or section.zeo_conf or section.buildout
    why = SourceUnusable(str(error), hint=error.hint)
    place = place or section.zconfig_file or section.tree or section.directorystorage
    return UnusableSource(section.name or str(place or "postgresql"), why)  # no address: a password


def _directorystorage(
    path: Path, name: str | None, blobs: Path | None = None, database: str = ""
) -> Source:
    from perdure.sources.directorystorage.source import DirectoryStorageSource

    return DirectoryStorageSource(
        Path(text("path", os.path.abspath(path))),
        text("name", name) if name else None,
        blobs=Path(text("path", os.path.abspath(blobs))) if blobs else None,
        database=database,
    )


def _only(sources: list[Source], wanted: str | None) -> list[Source]:
    """Give the source of that name alone. Raises UsageError."""
    if wanted is None:
        return sources
    chosen = [source for source in sources if wanted in (source.name, source.database)]
    if not chosen:
        names = ", ".join(repr(source.database or source.name) for source in sources)
        raise UsageError(f"there is no source named {wanted!r}", hint=f"there are: {names}")
    return chosen

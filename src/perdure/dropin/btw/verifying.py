"""Reading backups through: whether each version can be restored, and whether the copy has it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.btw import offsite
from perdure.dropin.btw.archives import same
from perdure.dropin.btw.bucket import Found, Remote, has_content
from perdure.dropin.btw.children import Children
from perdure.dropin.btw.destination import Destination, Repository, TarFile
from perdure.dropin.btw.names import SCRATCH, time_name
from perdure.dropin.btw.repository import Condition
from perdure.dropin.btw.restoring import kept_file, read_through, versions_of
from perdure.dropin.btw.syncing import files_of, objects_of
from perdure.errors import PerdureError
from perdure.sources.scratch import scratch_folder


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found of one version, or of one copy; ``problem`` is empty if it is sound."""

    name: str
    problem: str = ""


def verify(children: Children, destination: Destination) -> Iterator[Finding]:
    """Restore each version of a destination into a scratch folder, and read it through. Raises OSError."""
    contents = destination.contents()
    for path in contents.unfinished:
        yield Finding(
            f"{destination.name}/{path.name}", "its first session never ended; it is no backup"
        )
    for version in versions_of(contents):
        name = f"{destination.name}/{version.backup.path.name}"
        if isinstance(version.backup, Repository):
            name += f" {time_name(version.time)}"
            if version.backup.sessions.condition is Condition.INTERRUPTED:
                yield Finding(
                    name, "a later session was interrupted; the next backup takes it back"
                )
                continue
        with scratch_folder(destination.path, SCRATCH) as scratch:
            try:
                read_through(children, kept_file(children, version, scratch))
            except PerdureError as error:
                yield Finding(name, str(error))
            else:
                yield Finding(name)


def verify_copy(remote: Remote, destination: Destination) -> Iterator[Finding]:
    """Compare all backups of a destination with their copies, by content. Raises StoreError, OSError."""
    there = {found.name: found for found in remote.objects(destination.name)}
    for backup in destination.contents().backups:
        name = f"{destination.name}/{backup.path.name}"
        if isinstance(backup, TarFile):
            found = there.get(name)
            good = found is not None and _same(remote, name, backup.path, found.tag)
        else:
            good = _same_repository(remote, name, backup, objects_of(there.values(), name))
        yield Finding(f"{name} off-site", "" if good else "the copy is not what is here")


def _same_repository(
    remote: Remote, name: str, repository: Repository, there: Mapping[str, Found]
) -> bool:
    def same(each: str, tag: str) -> bool:
        return _same(remote, f"{name}/{each}", repository.path / each, tag)

    return offsite.plan_change(files_of(repository.path), there, same, thorough=True).nothing


def _same(remote: Remote, name: str, path: Path, tag: str) -> bool:
    """Compare by the server's tag; if that says no, it may be one that says nothing: then by content."""
    if has_content(path, tag):
        return True
    with scratch_folder() as scratch:
        remote.fetch(name, scratch / "copy")
        return same(scratch / "copy", path)

"""A repository in memory, short ways to back file trees up to it and to restore them, and what a tree is."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from small_repository import Site

from perdure.backup import BackupReport, BackupRequest, FilesReport, backup
from perdure.check import check
from perdure.model import SilentObserver, Subset
from perdure.repository import Repository
from perdure.restore import Restored, RestoreRequest, restore
from perdure.restore_plan import Wanted
from perdure.sources.excluding import Excludes
from perdure.sources.files import FileTreeSource


def later() -> datetime:
    """A clock that is ahead: what was written before a backup was written long before it."""
    return datetime.now(UTC) + timedelta(hours=1)


def back_up_trees(
    repository: Repository,
    *paths: Path,
    observer: SilentObserver | None = None,
    clock: Callable[[], datetime] = later,
    excludes: Excludes | None = None,
    hostname: str = "www1",
    **wanted: Any,
) -> BackupReport:
    """Back trees up, each a job, as the command line would."""
    sources = [FileTreeSource(path, excludes=excludes) for path in paths]
    jobs = {source.name: source.name for source in sources}
    request = BackupRequest(hostname, "plone", job_names=jobs, **wanted)
    with repository.lock() as lock:
        return backup(repository, lock, sources, request, clock, observer or SilentObserver())


class TreeSite(Site):
    """A repository in memory."""

    def back_up(self, *paths: Path, **wanted: Any) -> FilesReport:
        """Back trees up; gives what became of the first."""
        report = back_up_trees(self.repository, *paths, **wanted)
        files = report.sources[0].files
        assert files is not None
        return files

    def give_back(
        self,
        target: Path | None,
        wanted: Wanted | None = None,
        *,
        force: bool = False,
        observer: SilentObserver | None = None,
    ) -> list[Restored]:
        """Restore what is wanted."""
        request = RestoreRequest(target, wanted or Wanted(), force=force)
        return restore(self.repository, request, observer or SilentObserver())

    def end(self) -> None:
        """End as every test does that wrote something: nothing is damaged."""
        with self.repository.lock():
            report = check(self.repository, read_data=Subset(), observer=SilentObserver())
        assert not report.damaged, report
        self.repository.close()


def seen(top: Path, *, links: bool = True) -> dict[bytes, tuple[object, ...]]:
    """Give everything that a backup has to give back of each file below a folder, and of the folder."""
    found: dict[bytes, tuple[object, ...]] = {}
    inodes: dict[int, bytes] = {}

    def look(path: bytes, name: bytes) -> None:
        status = os.lstat(path)
        mode = status.st_mode
        facts: list[object] = [mode, status.st_uid, status.st_gid, status.st_mtime_ns]
        with suppress(OSError):
            names = sorted(os.listxattr(path, follow_symlinks=False))
            facts += [(each, os.getxattr(path, each, follow_symlinks=False)) for each in names]
        if stat.S_ISLNK(mode):
            facts.append(os.readlink(path))
        if stat.S_ISREG(mode):
            facts.append(Path(os.fsdecode(path)).read_bytes())
        if stat.S_ISBLK(mode) or stat.S_ISCHR(mode):
            facts.append(status.st_rdev)
        if links and stat.S_ISREG(mode):
            facts.append(inodes.setdefault(status.st_ino, name))
        found[name] = tuple(facts)
        if stat.S_ISDIR(mode):
            for inner in sorted(entry.name for entry in os.scandir(path)):
                look(path + b"/" + inner, name + b"/" + inner)

    look(os.fsencode(top), b"")
    return found


def tree_site() -> Iterator[TreeSite]:
    made = TreeSite()
    yield made
    made.end()

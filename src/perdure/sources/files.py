"""Sources that are files: a tree of a file system, as it is while it is read."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from perdure.errors import SourceUnusable
from perdure.formats.manifest import ServerRecord
from perdure.sources.excluding import Excludes

KIND = "tree"


@dataclass(frozen=True, slots=True)
class FilesCut:
    """A file or a folder of files, to be walked: the cut of a source that is no database."""

    where: str
    """What messages call it."""
    path: Path
    """What is walked; nothing above it, and nothing that a symbolic link in it leads to."""
    excludes: Excludes = field(default_factory=Excludes)
    plain: bool = False
    """Owners, times and inodes say nothing and are the same in every snapshot: files made for the backup."""
    make: Callable[[str], None] | None = None
    """Makes the files, just before they are read; it is told a secret of the repository."""
    moment: datetime | None = None
    """Of which moment they are; None: of when they are read."""
    server: ServerRecord | None = None
    """Of a dump, what is to be known about it."""


class FileTreeSource:
    """A file tree. It has no moment of its own: each file is read as it is when its turn comes."""

    kind = KIND
    database = ""

    def __init__(
        self, path: Path, name: str | None = None, *, excludes: Excludes | None = None
    ) -> None:
        self.path = path
        self.place = str(path)
        self.name = name or self.place
        self._excludes = excludes or Excludes()

    @contextmanager
    def cut(self) -> Iterator[FilesCut]:
        """Give what is walked. Raises SourceUnusable when it is not there."""
        try:
            status = os.lstat(self.path)
            if stat.S_ISDIR(status.st_mode):
                os.scandir(self.path).close()
        except OSError as error:
            raise SourceUnusable(
                f"{self.place} cannot be read: {error.strerror}",
                hint="is the disk mounted, and may this user read it?",
            ) from None
        yield FilesCut(self.place, self.path, self._excludes)

    def concerns(self) -> Iterator[str]:
        """Say that a link is kept, not what it leads to."""
        if self.path.is_symlink():
            yield (
                f"{self.place} is a symbolic link: the link is in the snapshot, not what it leads to."
                f" Name that: {os.path.realpath(self.path)}"
            )

"""A copy of a living storage, made without its help: a HOME that is closed in good order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp

from perdure.dropin.directorystorage.holding import Still
from perdure.dropin.directorystorage.members import LivingContents
from perdure.dropin.directorystorage.states import SHUTDOWN
from perdure.errors import SourceDamaged
from perdure.model import Observer
from perdure.sources.directorystorage.home import FOLDERS, SNAPSHOT, Home


@contextmanager
def living_copy(home: Home, folder: Path, timestamp: int, observer: Observer) -> Iterator[Still]:
    """Make a copy in a new folder inside ``folder``, and remove it at the end.

    Raises SourceUnusable, when a pack comes between for one, SourceDamaged, OSError.
    """
    place = Path(mkdtemp(prefix="directorystorage-", dir=folder))
    try:
        for name in FOLDERS:
            (place / name).mkdir()
        contents = LivingContents(home)
        for count, member in enumerate(contents.full(), 1):
            if member.data is None:
                continue
            path = place / member.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(member.data)
            path.chmod(member.mode & 0o777)
            os.utime(path, (member.time, member.time))
            if count % 1000 == 0:
                observer.progress(f"{count} files copied", count, 0)
        contents.finish()
        if contents.damage:
            raise SourceDamaged(contents.damage[0])
        (place / SNAPSHOT).write_text(SHUTDOWN)
        yield Still(Home(place), timestamp)
    finally:
        shutil.rmtree(place, ignore_errors=True)

"""Making one backup: of a directory, of a database, of globals.

The order is what makes it safe: the data complete under a name that is no backup's; then the line in the
state file that it has to be copied; then its own name. An increment changes a repository in place; there
the line comes first, and a session that was cut short is taken back by the next run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from perdure.dropin.btw import archives, dumps, rdiff
from perdure.dropin.btw.children import Children
from perdure.dropin.btw.configuration import Job, JobType, Rotation
from perdure.dropin.btw.destination import Destination, Repository, give_all, sync_all
from perdure.dropin.btw.journal import Journal
from perdure.dropin.btw.names import LOG, TBZ, time_name
from perdure.dropin.btw.repository import Condition
from perdure.dropin.btw.state import Item, Kind
from perdure.errors import BackupIncomplete, PerdureError
from perdure.model import Observer
from perdure.sources.durable import Owner

_ARCHIVE = "backup.tar"
_UNCHANGED = "no change in the data to be backed up"


@dataclass(frozen=True, slots=True)
class Workshop:
    """What a backup is made with. Files belong to ``owner``, if there is one."""

    children: Children
    journal: Journal
    observer: Observer
    clock: Callable[[], datetime]
    owner: Owner | None = None


def back_up_files(shop: Workshop, job: Job, source: str, destination: Destination) -> None:
    """Make one backup of a directory. Raises PerdureError; BackupIncomplete where files changed meanwhile."""
    destination.clear()
    if job.type is JobType.TAR:
        changed = _add_tar(shop, source, destination)
    else:
        folder = job.folder / "backup"
        folder.mkdir(exist_ok=True)
        archive = folder / _ARCHIVE
        archive.unlink(missing_ok=True)
        changed = archives.make_archive(shop.children, source, archive, job.type)
        _add_version(shop, archive, destination, job.rotation, archives.same)
    if changed:
        raise BackupIncomplete(f"the backup was made, but tar said: {changed}")


def back_up_database(
    shop: Workshop, name: str, rotation: Rotation, destination: Destination
) -> None:
    """Make one backup of a database. Raises PerdureError."""
    dump = _new_source(destination) / f"{name}.dump"
    dumps.dump_database(shop.children, name, dump)
    _add_dump(shop, dump, rotation, destination)


def back_up_globals(shop: Workshop, rotation: Rotation, destination: Destination) -> None:
    """Make one backup of what belongs to no database. Raises PerdureError."""
    dump = _new_source(destination) / dumps.GLOBALS
    dumps.dump_globals(shop.children, dump)
    _add_dump(shop, dump, rotation, destination)


def _add_tar(shop: Workshop, source: str, destination: Destination) -> str:
    contents = destination.contents()
    name = f"{time_name(destination.next_time(shop.clock(), contents))}{TBZ}"
    made = destination.unfinished(name)
    changed = archives.make_archive(shop.children, source, made, JobType.TAR)
    last = contents.last_tar
    if last and archives.same(made, last.path):
        made.unlink()
        _note(shop, destination, f"{name}: {_UNCHANGED}: dropping backup")
    else:
        shop.journal.begin([Item(Kind.PUSH, f"{destination.name}/{name}")])
        destination.publish(made, name, shop.owner)
    return changed


def _new_source(destination: Destination) -> Path:
    """Make the directory that rdiff-backup will read; a killed run leaves it to the next one."""
    destination.clear()
    folder = destination.unfinished("source")
    folder.mkdir()
    return folder


def _add_dump(shop: Workshop, dump: Path, rotation: Rotation, destination: Destination) -> None:
    content = dumps.content_of(shop.children, dump)

    def same(_: Path, last: Path) -> bool:
        if last.name != dump.name:
            return False
        try:
            return dumps.content_of(shop.children, last) == content
        except PerdureError as error:
            shop.observer.warning(
                f"the last dump cannot be read, so the new one counts as changed: {error}"
            )
            return False

    _add_version(shop, dump, destination, rotation, same)
    destination.clear()


def _add_version(
    shop: Workshop,
    file: Path,
    destination: Destination,
    rotation: Rotation,
    same: Callable[[Path, Path], bool],
) -> None:
    """Put a file into the destination's newest repository, or into a new one, unless it has not changed."""
    last = _sound(shop, destination)
    contents = destination.contents()
    for path in contents.unfinished:
        shop.observer.warning(
            f"{path} is no backup: its first session never ended; it can be deleted"
        )
    now = shop.clock()
    time = destination.next_time(now, contents)
    goes_on = (
        last is not None
        and last.sessions.increments < rotation.count
        and now - last.time < rotation.span
    )
    if last and same(file, last.file):
        kind = "incremental" if goes_on else "full"
        line = f"{_UNCHANGED}: skipping creation of new {kind} backup"
        _note(shop, destination, f"{time_name(time)}: {line}")
    elif last and goes_on and last.file.name == file.name:
        _add_increment(shop, file, destination, last, time)
    else:
        _add_full(shop, file, destination, time)


def _sound(shop: Workshop, destination: Destination) -> Repository | None:
    """Give the newest repository; a session in it that was cut short is taken back."""
    last = destination.contents().last_repository
    if last and last.sessions.condition is Condition.INTERRUPTED:
        rdiff.take_back(shop.children, last.path)
        sync_all(last.path)
        return destination.contents().last_repository
    return last


def _add_full(shop: Workshop, file: Path, destination: Destination, time: datetime) -> None:
    name = time_name(time)
    made = destination.unfinished(name)
    rdiff.add_session(shop.children, file.parent, made, time)
    shop.journal.begin([Item(Kind.PUSH, f"{destination.name}/{name}/")])
    destination.publish(made, name, shop.owner)


def _add_increment(
    shop: Workshop, file: Path, destination: Destination, last: Repository, time: datetime
) -> None:
    shop.journal.begin([Item(Kind.SYNC, f"{destination.name}/{last.path.name}/")])
    rdiff.add_session(shop.children, file.parent, last.path, time)
    sync_all(last.path)
    give_all(last.path, shop.owner)


def _note(shop: Workshop, destination: Destination, line: str) -> None:
    shop.journal.begin([Item(Kind.PUSH, f"{destination.name}/{LOG}")])
    destination.log(line, shop.owner)

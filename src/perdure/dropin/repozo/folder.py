"""The folder of a repository: its list, its lock, and files that are durable when they are there."""

from __future__ import annotations

import errno
import fcntl
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from perdure.dropin.repozo.chain import Chain, find_chains
from perdure.errors import NoRepository, RepositoryLocked, StoreError
from perdure.formats.repozo import (
    DAT_LIMIT,
    TEMPORARY,
    Dat,
    DataName,
    parse_dat,
    side_stamp,
    stamp_of,
    time_of,
)
from perdure.sources.durable import sync_directory, write_all

LOCK = ".perdure-repozo.lock"
_OURS, _UNFINISHED = ".perdure-", ".tmp"
_PAUSE = 0.1


@dataclass(frozen=True, slots=True)
class Listing:
    """What is in the folder of a repository."""

    folder: Path
    chains: tuple[Chain, ...]
    names: frozenset[str]

    @property
    def newest_stamp(self) -> str:
        """The greatest stamp in use; empty if there is none."""
        return max(filter(None, map(_stamp, self.names)), default="")

    @property
    def strays(self) -> tuple[str, ...]:
        """Names of files that belong to no state, without those that are no business of repozo's."""
        used = {piece.path.name for chain in self.chains for piece in chain.pieces}
        used |= {f"{piece.name.stamp}.index" for chain in self.chains for piece in chain.pieces}
        used |= {chain.dat_path.name for chain in self.chains}
        known = (name for name in self.names if _stamp(name) or _is_left_over(name))
        return tuple(sorted(name for name in known if name not in used))


def list_folder(folder: Path) -> Listing:
    """Read the list of a repository's files, and the .dat files. Raises NoRepository, StoreError."""
    files: dict[str, int] = {}
    dats: dict[str, Dat] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_file():
                    files[entry.name] = entry.stat().st_size
        for name in files:
            stamp = side_stamp(name, "dat")
            if stamp:
                dats[stamp] = parse_dat(read_dat(folder / name))
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_folder(folder, error) from None
    except OSError as error:
        raise StoreError(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    return Listing(folder, find_chains(folder, files, dats), frozenset(files))


def read_dat(path: Path) -> bytes:
    """Read a .dat. Raises OSError, StoreError."""
    with path.open("rb") as file:
        data = file.read(DAT_LIMIT + 1)
    if len(data) > DAT_LIMIT:
        raise StoreError(f"{path} is larger than {DAT_LIMIT} bytes: it is no .dat of repozo's")
    return data


def next_stamp(folder: Path, now: datetime) -> str:
    """Give the stamp of a backup made now: now, or a second behind the newest file if that is not before.

    The greatest of those of several repositories can be given to all of them. Raises NoRepository.
    """
    return free_stamp(list_folder(folder), stamp_of(now))


def free_stamp(listing: Listing, wanted: str) -> str:
    """Give the first stamp from ``wanted`` on that comes after all that are in use."""
    newest = listing.newest_stamp
    return wanted if wanted > newest else stamp_of(time_of(newest) + timedelta(seconds=1))


@contextmanager
def locked(folder: Path, wait: float) -> Iterator[None]:
    """Keep other runs of ours out, and remove what a killed one left unfinished.

    ``wait``: seconds to wait for another run. repozo itself takes no lock. The lock's file is gone
    afterwards. Raises RepositoryLocked, NoRepository, StoreError.
    """
    path = folder / LOCK
    try:
        descriptor = _take(path, time.monotonic() + wait)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _no_folder(folder, error) from None
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        for each in folder.iterdir():
            if _is_ours(each.name):
                each.unlink()
        yield
    finally:
        with suppress(OSError):  # a file that stays is taken by the next run
            path.unlink()
        os.close(descriptor)


def _take(path: Path, deadline: float) -> int:
    """Lock the file that has the name; one that was removed by its last owner does not count."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        except FileNotFoundError:
            pass  # its last owner was just done
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                raise RepositoryLocked(
                    f"another backup into {path.parent} is running",
                    hint="let it end; --lock-wait SECONDS waits for it",
                ) from None
            time.sleep(_PAUSE)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _no_folder(folder: Path, error: OSError) -> NoRepository:
    return NoRepository(
        f"{folder} is no folder: {error.strerror}",
        hint="make it first; if it is on a disk that is mounted, is that mounted?",
    )


def unwritable(path: Path, error: OSError) -> StoreError:
    """Describe what a file system did not do."""
    full = error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
    return StoreError(
        f"{error.filename or path} cannot be written: {error.strerror}",
        hint="make room there; earlier backups are as they were" if full else None,
    )


class NewFile:
    """A file that gets its name only when it is whole, and that is durable then."""

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / name
        self._temporary = folder / f"{_OURS}{name}{_UNFINISHED}"
        self.descriptor = os.open(
            self._temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666
        )
        self.size = 0

    def write(self, data: bytes | memoryview) -> None:
        """Append bytes. Raises OSError."""
        self.size = write_all(self.descriptor, data, self.size)

    def finish(self) -> None:
        """Have it whole on the disk, still without its name. Raises OSError."""
        os.fsync(self.descriptor)

    def name_it(self) -> None:
        """Give it its name. Raises OSError."""
        os.rename(self._temporary, self.path)

    def close(self) -> None:
        """Let go of it; without its name it disappears."""
        os.close(self.descriptor)
        with suppress(FileNotFoundError):
            self._temporary.unlink()


def put_in_place(folder: Path, files: Iterable[NewFile], last: NewFile) -> None:
    """Give finished files their names durably, the last one after all the others. Raises OSError."""
    for file in files:
        file.name_it()
    sync_directory(folder)
    last.name_it()
    sync_directory(folder)


def _stamp(name: str) -> str | None:
    data = DataName.parse(name)
    return data.stamp if data else side_stamp(name, "dat") or side_stamp(name, "index")


def _is_ours(name: str) -> bool:
    return name.startswith(_OURS) and name.endswith(_UNFINISHED)


def _is_left_over(name: str) -> bool:
    return name == TEMPORARY or _is_ours(name)

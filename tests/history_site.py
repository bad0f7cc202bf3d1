"""A repository in memory, and short ways to back a Data.fs up to it and to get it back."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from doubles import Clock
from small_repository import Site

from perdure.backup import BackupReport, BackupRequest, SourceReport, backup
from perdure.formats.extent import scan
from perdure.formats.filestorage import TransactionHeader
from perdure.history.rebuilding import Rebuilt, rebuild
from perdure.model import SilentObserver, SnapshotId, Tid
from perdure.repository import Repository
from perdure.snapshots import Found, sources_in
from perdure.sources.filestorage import WINDOW, FileStorageSource

NAME = "main"


def system_clock() -> datetime:
    return datetime.now(UTC)


def back_up(
    repository: Repository,
    path: Path,
    *,
    name: str = NAME,
    window: int = WINDOW,
    clock: Callable[[], datetime] = system_clock,
    observer: SilentObserver | None = None,
    verify_source: bool = False,
    skip_if_unchanged: bool = False,
    blobs: Path | None = None,
) -> BackupReport:
    """Back one Data.fs up, as the command line would."""
    request = BackupRequest(
        "www1", "plone", verify_source=verify_source, skip_if_unchanged=skip_if_unchanged
    )
    source = FileStorageSource(path, name, window, blobs=blobs)
    with repository.lock() as lock:
        return backup(repository, lock, [source], request, clock, observer or SilentObserver())


class MemoryFile:
    """What a history is rebuilt into."""

    standing = None

    def __init__(self) -> None:
        self.data = bytearray()

    def keep(self, place: Path, size: int) -> bytes:
        raise AssertionError("nothing stands")

    def write(self, data: bytes) -> None:
        self.data += data

    def read(self, position: int, size: int) -> bytes:
        return bytes(self.data[position : position + size])


def rebuilt_from(found: Found, until: Tid | None = None) -> tuple[bytes, Rebuilt]:
    """Give the bytes of a Data.fs in a snapshot, up to a transaction."""
    file = MemoryFile()
    rebuilt = rebuild(found.history, file, until, SilentObserver())
    return bytes(file.data), rebuilt


def snapshots_in(repository: Repository) -> Iterator[Found]:
    return sources_in(repository, repository.snapshots(), None)


@dataclass
class HistorySite(Site):
    """A repository, and what was backed up to it: each state's bytes, to be compared."""

    window: int = WINDOW
    states: dict[SnapshotId, bytes] = field(default_factory=dict)
    reports: list[BackupReport] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def back_up(
        self, path: Path, *, usable: int | None = None, verify_source: bool = False
    ) -> SourceReport:
        """Back up, and remember the first ``usable`` bytes of the file as what must come back."""
        observer = SilentObserver()
        report = back_up(
            self.repository,
            path,
            window=self.window,
            observer=observer,
            verify_source=verify_source,
        )
        assert report.snapshot_id is not None
        self.states[report.snapshot_id] = path.read_bytes()[:usable]
        self.reports.append(report)
        self.warnings += observer.warnings
        return report.sources[0]

    def found(self) -> dict[SnapshotId, Found]:
        return {found.id: found for found in snapshots_in(self.repository)}

    def newest(self) -> Found:
        return self.found()[next(reversed(self.states))]

    def check_newest(self) -> None:
        """The newest snapshot gives the file back, as it is and as it was at every transaction."""
        newest = next(reversed(self.states))
        check_every_moment(self.found()[newest], self.states[newest])

    def check_all(self, every_moment: bool = True) -> None:
        """Every snapshot gives its state back."""
        found = self.found()
        assert found.keys() == self.states.keys()
        for name, data in self.states.items():
            if every_moment:
                check_every_moment(found[name], data)
            else:
                assert rebuilt_from(found[name])[0] == data

    @property
    def segments(self) -> int:
        """How many layouts the newest snapshot has."""
        return len(self.newest().history.names())


def transactions_in(data: bytes) -> tuple[TransactionHeader, ...]:
    return scan(data, 0, where="Data.fs").headers


def check_every_moment(found: Found, data: bytes) -> None:
    """Compare the bytes of a snapshot's file, whole and cut at each of its transactions."""
    whole, rebuilt = rebuilt_from(found)
    assert hashlib.sha256(whole).digest() == hashlib.sha256(data).digest()
    assert rebuilt.size == len(data)
    headers = transactions_in(data)
    assert found.record.transactions == len(headers)
    assert found.record.cut.value == (headers[-1].tid if headers else 0)
    highest = 0
    for header in headers:
        if header.tid > highest:  # else the moment is that of an earlier transaction
            highest = header.tid
            cut, _ = rebuilt_from(found, Tid(header.tid))
            following = [h.position for h in headers if h.tid > header.tid]
            assert cut == data[: following[0] if following else len(data)]


__all__ = ["Clock", "HistorySite", "back_up", "check_every_moment", "rebuilt_from"]

"""A repository, and short ways to back a HOME up to it and to get it back."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from small_repository import Site

from perdure.backup import BackupRequest, SourceReport, backup
from perdure.check import check
from perdure.formats.directorystorage_names import Kind
from perdure.model import SilentObserver, Subset, Tid
from perdure.restore_directorystorage import HomeRestored, restore_home
from perdure.restore_plan import LATEST, Wanted
from perdure.sources.directorystorage.home import Home, LiveView
from perdure.sources.directorystorage.source import DirectoryStorageSource
from perdure.sources.filestorage import WINDOW

NAME = "main"


class HomeSite(Site):
    """Backs HOMEs up as states of one source."""

    def __init__(self, window: int = WINDOW) -> None:
        super().__init__()
        self.window = window
        self.warnings: list[str] = []

    def back_up(
        self, home: Path, *, verify_source: bool = False, skip_if_unchanged: bool = False
    ) -> SourceReport:
        observer = SilentObserver()
        request = BackupRequest(
            "www1", "zope", verify_source=verify_source, skip_if_unchanged=skip_if_unchanged
        )
        source = DirectoryStorageSource(home, NAME, self.window)
        with self.repository.lock() as lock:
            report = backup(self.repository, lock, [source], request, self.clock, observer)
        self.clock.advance(minutes=1)
        self.warnings += observer.warnings
        return report.sources[0]

    def restore(
        self,
        home: Path,
        layout: str | None = None,
        *,
        at: Tid | datetime | None = None,
        snapshot: str = LATEST,
    ) -> HomeRestored:
        wanted = Wanted(snapshot, at)
        return restore_home(self.repository, wanted, home, layout, SilentObserver())

    def check(self) -> None:
        with self.repository.lock():
            report = check(self.repository, read_data=Subset(), observer=SilentObserver())
        assert not report.findings


def files_of(home: Path) -> dict[str, bytes]:
    """Give what the storage of a HOME sees, by logical names: journal, B and A."""
    view = LiveView(Home(home))
    found: dict[str, bytes] = {}
    for name in set(view.names()):
        kept = name.kind in (Kind.REVISION, Kind.TRANSACTION)
        raw = view.fixed(name.text, name.tid) if kept else view.changing(name.text)
        assert raw is not None
        found[name.text] = raw
    return found


def below(folder: Path) -> dict[str, bytes]:
    """Give all files below a folder, by their paths."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }

"""Back a Data.fs up into a repository: a full, an increment, or nothing if nothing is new.

One descriptor is read for the whole run, so that a pack that ends meanwhile changes nothing in what is
written. The source is read once: what is new is taken apart, hashed, compressed and written in one pass.
Nothing of a backup has its name before all of it is whole on the disk; its line in the .dat comes last.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

from perdure.dropin.repozo.chain import Chain, Piece
from perdure.dropin.repozo.committed import committed
from perdure.dropin.repozo.comparing import difference, difference_quick, line_of
from perdure.dropin.repozo.deciding import Plan, decide
from perdure.dropin.repozo.folder import (
    Listing,
    NewFile,
    free_stamp,
    list_folder,
    locked,
    put_in_place,
    read_dat,
    unwritable,
)
from perdure.dropin.repozo.listing import list_lone_full
from perdure.dropin.repozo.pieces import measure
from perdure.dropin.repozo.removing import finish_removing, remove_older
from perdure.dropin.repozo.writing import NewPiece
from perdure.errors import DamageFound, StoreError
from perdure.formats.newest import Newest
from perdure.formats.repozo import DataName, encode_lines, time_of
from perdure.model import Observer
from perdure.sources.filestorage import FileStorageCut, FileStorageSource

_TOLERANCE = 60
"""Seconds by which a backup may be dated behind the clock without a word."""


@dataclass(frozen=True, slots=True)
class BackupRequest:
    """What to back up, and how."""

    repository: Path
    file: Path
    """The Data.fs."""
    stamp: str
    """When this is, as `next_stamp` gives it; later files in the repository move it behind them."""
    full: bool = False
    quick: bool = False
    """Look only at the last range of the source that was backed up, to decide what is new."""
    gzip: bool = False
    kill_old_on_full: bool = False
    """After a full that was read back and proved, delete all that is older."""
    name: str | None = None
    """What the .dat calls the repository, as repozo takes it from its command line; None: its path."""
    wait: float = 0.0
    """Seconds to wait for another run on this repository."""


class BackupKind(enum.Enum):
    """What came of a backup."""

    FULL = "full"
    INCREMENT = "increment"
    NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class BackupReport:
    """What a backup did; sizes in bytes."""

    kind: BackupKind
    reason: str
    stamp: str | None
    path: Path | None
    """The new data file; None: nothing was new."""
    start: int
    end: int
    """The range of the Data.fs that it stands for."""
    md5: str
    stored: int
    replaced: bool
    """Another file has the source's name by now: a pack has ended, or files were moved."""
    removed: tuple[str, ...] = ()


def backup(request: BackupRequest, observer: Observer) -> BackupReport:
    """Add what is new of a Data.fs to a repository.

    Raises NoRepository, RepositoryLocked, SourceUnusable, SourceDamaged, StoreError; VerificationFail if
    a full cannot be read back before what is older is deleted.
    """
    source = FileStorageSource(request.file, without_blobs=True)
    with locked(request.repository, request.wait), source.cut() as cut:
        try:
            finish_removing(request.repository)
            list_lone_full(request.repository, request.name, observer)
            listing = list_folder(request.repository)
            run = _Backup(request, cut, listing, observer)
            report = run.run(decide(listing.chains, full=request.full))
        except OSError as error:
            raise unwritable(request.repository, error) from error
        for concern in source.concerns():
            observer.warning(concern)
        return report


class _Backup:
    """One run, on an open source and a listed repository."""

    def __init__(
        self, request: BackupRequest, cut: FileStorageCut, listing: Listing, observer: Observer
    ) -> None:
        self._request, self._cut, self._listing = request, cut, listing
        self._observer = observer
        self._folder = request.repository

    def run(self, plan: Plan) -> BackupReport:
        """Make what is planned; a full where the source does not begin with the chain any more."""
        if plan.chain is None:
            return self._full(plan.reason)
        listed = plan.chain.pieces[:-1] if plan.unlisted else plan.chain.pieces
        last = listed[-1]
        assert last.line is not None  # a chain without problems has a line for each piece
        end = last.line.end
        dat = read_dat(plan.chain.dat_path)
        newest = None
        if self._request.quick:
            differs = difference_quick(self._cut, listed)
        else:
            newest = Newest() if self._cut.limit > end else None
            differs = difference(self._cut, listed, 0, self._observer, newest)
        if plan.unlisted is not None and differs is None:
            differs = difference(self._cut, [plan.unlisted], end, self._observer, newest)
            if differs is None:
                last, start, end = plan.unlisted, end, end + measure(plan.unlisted)
                dat += encode_lines([line_of(self._cut, last, start, end)], self._name)
        if differs is not None:
            return self._full(differs)
        if self._cut.limit <= end or self._cut.look(end) is None:
            if plan.unlisted is not None:
                self._list_again(plan.chain, dat)
            return self._nothing(end)
        return self._write(plan, end, newest or self._known(last, end), dat)

    def _full(self, reason: str) -> BackupReport:
        report = self._write(Plan(reason), 0, Newest(), b"")
        if not self._request.kill_old_on_full or report.stamp is None:
            return report
        removed = remove_older(self._folder, report.stamp, self._observer)
        return replace(report, removed=removed)

    def _write(self, plan: Plan, start: int, newest: Newest, dat: bytes) -> BackupReport:
        """Write a data file with what follows ``start``, its index, and the .dat with its line."""
        from perdure.formats import fsindex

        stamp = self._stamp()
        name = DataName(stamp, full=plan.chain is None, zipped=self._request.gzip)
        with ExitStack() as stack:
            piece = stack.enter_context(closing(NewPiece(self._folder, name, start)))
            for data in committed(self._cut, start, newest):
                piece.write(data)
                self._observer.progress("backup", piece.end, self._cut.limit)
            line = piece.finish()
            index = self._side(stack, f"{stamp}.index", fsindex.encode(newest, piece.end))
            lines = [dat, encode_lines([line], self._name)]
            new_dat = self._side(stack, f"{plan.chain.stamp if plan.chain else stamp}.dat", lines)
            self._check_unchanged()
            put_in_place(self._folder, [index, piece.file], new_dat)
        replaced = self._cut.replaced
        if replaced:
            self._observer.warning(
                f"{self._cut.where} is another file by now: a pack has ended, or it was replaced. What"
                " was backed up is a whole state of the database; the next run makes a full"
            )
        return BackupReport(
            kind=BackupKind.INCREMENT if plan.chain else BackupKind.FULL,
            reason=plan.reason,
            stamp=stamp,
            path=piece.file.path,
            start=start,
            end=piece.end,
            md5=line.md5,
            stored=piece.file.size,
            replaced=replaced,
        )

    def _nothing(self, end: int) -> BackupReport:
        return BackupReport(
            BackupKind.NOTHING, "nothing is new", None, None, end, end, "", 0, self._cut.replaced
        )

    def _list_again(self, chain: Chain, dat: bytes) -> None:
        """Put a .dat in place that has the line which a killed run left out."""
        with ExitStack() as stack:
            new = self._side(stack, chain.dat_path.name, [dat])
            self._check_unchanged()
            put_in_place(self._folder, [], new)

    def _side(self, stack: ExitStack, name: str, parts: Iterable[bytes]) -> NewFile:
        file = stack.enter_context(closing(NewFile(self._folder, name)))
        for part in parts:
            file.write(part)
        file.finish()
        return file

    @property
    def _name(self) -> str:
        return self._request.name or str(self._folder)

    def _stamp(self) -> str:
        wanted = self._request.stamp
        stamp = free_stamp(self._listing, wanted)
        if (time_of(stamp) - time_of(wanted)).total_seconds() > _TOLERANCE:
            self._observer.warning(
                f"the clock says {wanted}, but {self._folder} has a backup of"
                f" {self._listing.newest_stamp} (GMT): the new one is dated {stamp}. Is the clock right?"
            )
        return stamp

    def _known(self, last: Piece, end: int) -> Newest:
        """Give what the index of a state knows, or find it out from the source."""
        from perdure.formats import fsindex

        try:
            index = fsindex.decode((self._folder / f"{last.name.stamp}.index").read_bytes())
            if index.end == end:
                return index.newest()
        except (FileNotFoundError, DamageFound):
            pass  # it is made anew
        newest = Newest()
        for _ in committed(self._cut, 0, newest, end):
            pass
        return newest

    def _check_unchanged(self) -> None:
        """Check that no other program has written to the repository meanwhile. Raises StoreError."""
        now = list_folder(self._folder)
        if now.chains != self._listing.chains:
            raise StoreError(
                f"another program has written to {self._folder} meanwhile: nothing was added",
                hint="repozo itself keeps nobody out: let only one backup run at a time",
            )

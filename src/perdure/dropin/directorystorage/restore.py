"""Restore: from archives of DirectoryStorage's backup tool, ours or its own, to a HOME.

Everything is made in a folder beside the target: extracted in the order of the chain, each file of the
database looked at before it is written; then, where a moment is asked for, cut back to it; then verified
as a whole; then synced, and renamed to the target. So under the target's name there is nothing, or all of
it. What a pack removed after the full backup comes back with it: it is consistent, and a bit more than
the source had.
"""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from perdure.dropin.directorystorage.backup import INDEX, archives_in, read_index
from perdure.dropin.directorystorage.chain import Chain, plan_chain
from perdure.dropin.directorystorage.cutting import cut_back
from perdure.dropin.directorystorage.file_checks import check_content
from perdure.dropin.directorystorage.reading_archives import (
    IN_HOME,
    Found,
    TrailingBytes,
    layouts_of,
    read_archive,
)
from perdure.dropin.directorystorage.verify import ERROR, Verdict, verify_database
from perdure.errors import SourceDamaged, SourceUnusable, UsageError
from perdure.formats.directorystorage_archive import INDEX_HEADER, ArchiveName, Row
from perdure.formats.directorystorage_names import Kind, name_at, path_of
from perdure.formats.directorystorage_settings import (
    MOST_BYTES as MOST_SETTINGS,
)
from perdure.formats.directorystorage_settings import parse_settings, with_layout
from perdure.model import Observer, Tid
from perdure.sources.directorystorage.home import SETTINGS, Home, View, read_file
from perdure.sources.directorystorage.placing import made_beside
from perdure.sources.durable import Owner, give, write_new

_FOLDER_MODE = 0o755


@dataclass(frozen=True, slots=True)
class RestoreRequest:
    """What to restore, and where to."""

    folder: Path
    """Where the archives are, and their index, if it is there."""
    target: Path
    number: int | None = None
    """The run; None: the last one."""
    moment: Tid | None = None
    """The last transaction to restore; None: all that the archives have."""
    prefixes: tuple[str, ...] = ()
    """Use archives of these prefixes only; none: of all."""
    without: tuple[str, ...] = ()
    """Names of archives to do without."""
    layout: str | None = None
    """The format of the new HOME; None: that of the archives."""
    config: Path | None = None
    """Where ``settings`` and the rest of ``config`` are, for archives that lack them."""
    identity: bytes | None = None
    """32 digits, for a copy that is to live beside the original; None: the original's."""


@dataclass(frozen=True, slots=True)
class RestoreReport:
    """What was restored."""

    chain: Chain
    serial: Tid
    verdict: Verdict


def plan_restore(request: RestoreRequest) -> Chain:
    """Choose the archives. Raises UsageError, where there is a gap for one; SourceUnusable."""
    if not request.folder.is_dir():
        raise SourceUnusable(f"there is no folder {request.folder}")
    archives = archives_in(request.folder)
    prefixes = {name.prefix for name in archives}
    if len(prefixes) > 1 and not request.prefixes and not (request.folder / INDEX).exists():
        raise UsageError(
            f"there are archives of several prefixes: {', '.join(sorted(prefixes))}",
            hint="say with --prefix which of them belong to one storage",
        )
    chosen = [
        name
        for name in archives
        if (not request.prefixes or name.prefix in request.prefixes)
        and str(name) not in request.without
    ]
    number = request.number
    if number is None and request.moment is not None:
        number = _number_for(request.moment, read_index(request.folder))
    return plan_chain(chosen, number)


def restore(request: RestoreRequest, observer: Observer) -> RestoreReport:
    """Restore a storage. Raises UsageError, SourceUnusable, SourceDamaged, TargetInUse, OSError."""
    chain = plan_restore(request)
    target = request.target.absolute()
    with made_beside(target) as half:
        builder = _Builder(request, half)
        for name in chain.archives:
            observer.progress(f"extracting {name}", 0, 1)
            builder.extract(name, observer)
        home = builder.finish()
        if request.moment is not None:
            cut_back(home, request.moment)
        verdict = _verify(home, observer)
        _write_index(request.folder, home, chain)
        builder.settle()
    return RestoreReport(chain, Tid(View(Home(target)).serial()), verdict)


def _number_for(moment: Tid, rows: Sequence[Row]) -> int | None:
    """Choose the first run that includes a moment; None, the last one, where the index does not tell."""
    later = [row.number for row in rows if row.tid >= moment.value]
    return min(later) if later else None


class _Builder:
    """Extracts archives, one after the other, into a folder that nobody else knows of."""

    def __init__(self, request: RestoreRequest, half: Path) -> None:
        self._request, self._half = request, half
        self._source_layout: str | None = None
        self._owner: Owner | None = None
        self._serial = 0
        self._ends = {row.number: row.tid for row in read_index(request.folder)}
        for folder in IN_HOME:
            (half / folder).mkdir(mode=_FOLDER_MODE)
        if request.config:
            for path in sorted(request.config.iterdir()):
                if path.is_file():
                    self._write(f"config/{path.name}", path.read_bytes(), path.stat().st_mode)

    def extract(self, name: ArchiveName, observer: Observer) -> None:
        """Extract one archive. Raises SourceDamaged, SourceUnusable."""
        try:
            self._extract(name, observer)
        except SourceDamaged as error:
            raise SourceDamaged(str(error), hint=f"do without it: --without {name}") from error

    def _extract(self, name: ArchiveName, observer: Observer) -> None:
        path = self._request.folder / str(name)
        if self._source_layout is None:
            self._source_layout = self._find_layout(path)
        has_serial = has_members = False
        try:
            for found in read_archive(path):
                has_members = True
                has_serial |= self._take(path, found)
        except TrailingBytes as trailing:
            observer.warning(f"{trailing}: all members are whole, and used")
        if not has_serial and (has_members or name.reference is None):
            raise SourceDamaged(f"{path} has no x.serial: files were left out when it was made")
        if self._ends.get(name.number, self._serial) != self._serial:
            raise SourceDamaged(
                f"{path} ends at {Tid(self._serial)}, and {INDEX} says {Tid(self._ends[name.number])} of run"
                f" {name.number}: is it another one's archive?"
            )

    def finish(self) -> Home:
        """Give the HOME that has been made. Raises SourceUnusable."""
        settings = self._half / SETTINGS
        raw = settings.read_bytes()
        if self._request.layout:
            self._write(SETTINGS, with_layout(raw, self._request.layout), settings.stat().st_mode)
        if self._request.identity:
            self._write("config/identity", self._request.identity, 0o644)
        return Home(self._half)

    def settle(self) -> None:
        """Give everything its owner, and open it to others as far as its mode says."""
        self._half.chmod(_FOLDER_MODE)
        for folder, _, files in os.walk(self._half):
            for path in (Path(folder), *(Path(folder) / name for name in files)):
                give(path, self._owner)

    def _take(self, archive: Path, found: Found) -> bool:
        """Write a member; gives whether it was x.serial. Raises SourceDamaged."""
        if found.data is None:
            return False
        path = found.path
        if path.startswith("config/") and self._request.config:
            return False
        if not path.startswith("A/"):
            self._write(path, found.data, found.mode)
            return False
        assert self._source_layout is not None
        name = name_at(path.removeprefix("A/"), self._source_layout)
        if name is None:
            return False  # marks of packs, strays: no storage misses them
        check_content(name, found.data, f"{path} in {archive}")
        wanted = f"A/{path_of(name.text, self._request.layout or self._source_layout)}"
        is_serial = name.kind is Kind.COUNTER and name.text == "x.serial"
        if is_serial:
            self._check_rises(archive, found)
        if name.kind is Kind.REVISION and (self._half / wanted).exists():
            self._check_same(archive, wanted, found)
            return False
        self._write(wanted, found.data, found.mode)
        return is_serial

    def _check_rises(self, archive: Path, found: Found) -> None:
        """An archive after another one has a later state. Raises SourceDamaged."""
        assert found.data is not None
        serial = int.from_bytes(found.data, "big")
        if serial < self._serial:
            raise SourceDamaged(
                f"{archive} ends at {Tid(serial)}, before what it is to continue ({Tid(self._serial)}):"
                " is it of another storage?"
            )
        self._serial = serial
        if os.geteuid() == 0:
            self._owner = _owner(found)

    def _check_same(self, archive: Path, path: str, found: Found) -> None:
        if (self._half / path).read_bytes() != found.data:
            raise SourceDamaged(
                f"{found.path} in {archive} is not what an earlier archive has under that name:"
                " they are of different storages"
            )

    def _find_layout(self, path: Path) -> str:
        """Tell the format of what the first archive has, from its settings or those that were given."""
        raw = (
            read_file(self._request.config / "settings", MOST_SETTINGS)
            if self._request.config
            else None
        )
        paths = set()
        try:
            for found in read_archive(path):
                if found.path == SETTINGS and raw is None:
                    raw = found.data
                elif found.path.startswith("A/x"):
                    paths.add(found.path.removeprefix("A/"))
        except TrailingBytes:
            pass  # told when it is extracted
        if raw is None:
            raise UsageError(
                f"{path} has no {SETTINGS}, as before DirectoryStorage 1.1.10",
                hint="give the config folder of the storage with --config",
            )
        layout = parse_settings(raw, f"{SETTINGS} in {path}").layout
        if layout not in layouts_of(paths) and paths:
            raise UsageError(f"{path} is not of the format {layout}, which the settings name")
        return layout

    def _write(self, path: str, data: bytes, mode: int) -> None:
        place = self._half / path
        place.parent.mkdir(mode=_FOLDER_MODE, parents=True, exist_ok=True)
        descriptor = write_new(place, [data])
        try:
            os.fchmod(descriptor, mode & 0o777)
        finally:
            os.close(descriptor)


def _verify(home: Home, observer: Observer) -> Verdict:
    """Make sure that what was restored is complete. Raises SourceDamaged."""
    verdict = Verdict()
    verify_database(home, View(home), verdict, observer)
    errors = [finding.what for finding in verdict.findings if finding.severity == ERROR]
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise SourceDamaged(
            f"what the archives give is not whole: {errors[0]}{more}".replace(f"{home.path}/", ""),
            hint="perdure directorystorage verify names all that is wrong with each archive;"
            " --number and --without choose others",
        )
    return verdict


def _write_index(folder: Path, home: Home, chain: Chain) -> None:
    """Let the new HOME's backups go on with the numbers, as far as they are about what it holds."""
    serial = View(home).serial()
    rows = [row for row in read_index(folder) if row.number <= chain.number and row.tid <= serial]
    if rows:
        text = INDEX_HEADER + "".join(f"{row}\n" for row in rows)
        descriptor = write_new(home.path / "backups" / INDEX, [text.encode()])
        os.fchmod(descriptor, 0o644)
        os.close(descriptor)


def _owner(found: Found) -> Owner:
    """Give to whom a file belongs: by name where the name is known here, else by number."""
    return _number(found.user, found.uid, _user), _number(found.group, found.gid, _group)


def _number(name: str, number: int, look_up: Callable[[str], int]) -> int:
    try:
        return look_up(name) if name else number
    except KeyError:
        return number


@cache
def _user(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


@cache
def _group(name: str) -> int:
    return grp.getgrnam(name).gr_gid

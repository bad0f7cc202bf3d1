"""Verify archives and their index: each archive as a file, and all of them together as a way back.

Of an archive: the compressed stream to its very end; names that lead out of HOME; each file of the
database by its header and MD5; in a full one all that pointers and the last transaction refer to; in an
increment ``x.serial``, ``x.oid``, and a history from its last transaction back to the first one that it
brings, with all of their revisions. Of the index: rows with archives, archives with rows, and that an
archive ends at the tid that its row says. Of all together: which runs can be restored.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from perdure.dropin.directorystorage.backup import INDEX, archives_in, read_index
from perdure.dropin.directorystorage.chain import restorable
from perdure.dropin.directorystorage.file_checks import check_content
from perdure.dropin.directorystorage.reading_archives import Found, TrailingBytes, read_archive
from perdure.dropin.directorystorage.verify import ERROR, NOTE, WARNING, Finding
from perdure.errors import DamageFound, SourceUnusable
from perdure.formats.directorystorage import PointerFile, TransactionFile, parse_counter
from perdure.formats.directorystorage_archive import TEMPORARY, ArchiveName, Row
from perdure.formats.directorystorage_names import (
    FORMATS,
    LAST_OID,
    PACKED,
    SERIAL,
    Kind,
    Name,
    name_at,
    revision_name,
    transaction_name,
)
from perdure.formats.directorystorage_settings import parse_settings
from perdure.model import Observer, Tid
from perdure.sources.directorystorage.home import SETTINGS, list_names


@dataclass
class ArchiveVerdict:
    """What was found in a folder of archives."""

    findings: list[Finding] = field(default_factory=list)
    archives: int = 0
    members: int = 0
    restorable: tuple[int, ...] = ()
    """The runs that whole archives lead to."""

    @property
    def damaged(self) -> bool:
        """Whether there is any error."""
        return any(finding.severity == ERROR for finding in self.findings)


@dataclass
class _Content:
    """What one archive says of its database."""

    names: set[str] = field(default_factory=set)
    pointers: dict[int, int] = field(default_factory=dict)
    transactions: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    serial: int | None = None
    packed: int = 0
    members: int = 0


def verify_archives(folder: Path, observer: Observer) -> ArchiveVerdict:
    """Read all archives in a folder, and its index if there is one. Raises SourceUnusable, SourceDamaged."""
    if not folder.is_dir():
        raise SourceUnusable(f"there is no folder {folder}")
    verdict = ArchiveVerdict()
    names = sorted(
        archives_in(folder), key=lambda name: (name.number, name.reference or 0, name.prefix)
    )
    if not names:
        raise SourceUnusable(
            f"{folder} has no archives", hint="they are called PREFIX-N.tgz, PREFIX-M-to-N.tgz"
        )
    rows = read_index(folder)
    whole: list[ArchiveName] = []
    layout: str | None = None
    for name in names:
        observer.progress(f"reading {name}", len(whole), len(names))
        try:
            content, layout = _read(folder, name, layout, verdict)
        except DamageFound as error:
            verdict.findings.append(Finding(ERROR, str(error)))
            continue
        problems = list(_problems(name, content, rows))
        verdict.findings += [Finding(ERROR, f"{name}: {problem}") for problem in problems]
        verdict.members += content.members
        if not problems:
            whole.append(name)
    verdict.archives = len(names)
    verdict.restorable = tuple(restorable(whole))
    verdict.findings += _together(folder, names, whole, rows)
    return verdict


def _read(
    folder: Path, name: ArchiveName, layout: str | None, verdict: ArchiveVerdict
) -> tuple[_Content, str | None]:
    """Read an archive; gives what is in it, and the format, for which an increment has no settings."""
    content = _Content()
    unnamed: list[Found] = []
    path = folder / str(name)
    if name.reference is None:
        layout = None
    try:
        for found in read_archive(path):
            content.members += 1
            if found.path == SETTINGS and found.data is not None:
                layout = parse_settings(found.data, f"{SETTINGS} in {path}").layout
            if not found.path.startswith("A/") or found.data is None:
                continue
            layout = layout or _guess(found)
            if layout is None:
                unnamed.append(found)
                continue
            for each in (*unnamed, found):
                _note(path, each, layout, content)
            unnamed.clear()
    except TrailingBytes as error:
        verdict.findings.append(Finding(ERROR, str(error)))
    return content, layout


def _guess(found: Found) -> str | None:
    """Tell the format from a path, for increments whose full backup is not here; None: there are several."""
    path = found.path.removeprefix("A/")
    layouts = [layout for layout in FORMATS if name_at(path, layout)]
    return layouts[0] if len(layouts) == 1 else None


def _note(path: Path, found: Found, layout: str, content: _Content) -> None:
    """Check a file of the database, and remember what it is. Raises SourceDamaged."""
    name = name_at(found.path.removeprefix("A/"), layout)
    if name is None or found.data is None:
        return
    where = f"{found.path} in {path}"
    check_content(name, found.data, where)
    content.names.add(name.text)
    _remember(name, found.data, where, content)


def _remember(name: Name, data: bytes, where: str, content: _Content) -> None:
    if name.kind is Kind.POINTER:
        content.pointers[name.oid] = PointerFile.parse(data, where).tid
    elif name.kind is Kind.TRANSACTION:
        transaction = TransactionFile.parse(data, where)
        content.transactions[name.tid] = (transaction.prev, transaction.oids)
    elif name.text == SERIAL:
        content.serial = parse_counter(data, where)
    elif name.text == PACKED:
        content.packed = parse_counter(data, where)


def _problems(name: ArchiveName, content: _Content, rows: Sequence[Row]) -> Iterator[str]:
    known = {row.number: row for row in rows}
    if name.reference is not None and not content.members:
        return  # made after a full one in the same run: there is nothing between the two
    if content.serial is None or LAST_OID not in content.names:
        yield "x.serial or x.oid is not in it: files were left out when it was made"
        return
    row = known.get(name.number)
    if row and row.tid != content.serial:
        yield f"it ends at {Tid(content.serial)}, and the index says {Tid(row.tid)}"
    for oid, tid in content.pointers.items():
        if revision_name(oid, tid) not in content.names:
            yield f"{revision_name(oid, tid)}, which is current, is not in it"
    after = content.packed
    if name.reference is not None:
        reference = known.get(name.reference)
        after = reference.tid if reference else min(content.transactions, default=0) - 1
    yield from _history(content, after)


def _history(content: _Content, after: int) -> Iterator[str]:
    """From the last transaction back to the one after ``after``: each is there, with its revisions."""
    tid = content.serial or 0
    while tid > after:
        known = content.transactions.get(tid)
        if known is None:
            yield f"{transaction_name(tid)} is not in it"
            return
        for oid in known[1]:
            if revision_name(oid, tid) not in content.names:
                yield f"{revision_name(oid, tid)} is not in it"
        if known[0] >= tid:
            yield f"{transaction_name(tid)} calls a younger one its previous"
            return
        tid = known[0]


def _together(
    folder: Path, names: Sequence[ArchiveName], whole: Sequence[ArchiveName], rows: Sequence[Row]
) -> Iterator[Finding]:
    """What only the archives and the index together tell."""
    possible, real = set(restorable(names)), set(restorable(whole))
    for number in sorted(possible - real):
        yield Finding(ERROR, f"backup {number} cannot be restored from what is whole")
    for number in sorted({name.number for name in names} - possible):
        yield Finding(WARNING, f"backup {number} cannot be restored: what it continues is not here")
    numbers = {name.number for name in names}
    for row in rows:
        if row.number not in numbers:
            yield Finding(NOTE, f"the archives of backup {row.number} are not here")
    for number in sorted(numbers - {row.number for row in rows}) if rows else ():
        yield Finding(WARNING, f"{INDEX} has no row for backup {number}: no increment refers to it")
    for earlier, later in pairwise(rows):
        if later.number <= earlier.number or later.time < earlier.time:
            yield Finding(
                WARNING, f"{INDEX}: row {later.number} after row {earlier.number} is out of order"
            )
    for left in sorted(list_names(folder)):
        if left.startswith(TEMPORARY):
            yield Finding(WARNING, f"{folder / left} was left by a run that was stopped")

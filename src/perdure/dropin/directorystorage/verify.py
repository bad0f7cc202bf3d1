"""Verify a storage: every check that can be made of a HOME from outside, without touching it.

Errors: what a storage that is in order never has. Warnings: what may get in the way of a start, a backup
or a pack. Notes: what is as it should be, and good to know. Nothing at or below the time of the last pack
is missed, since packs remove revisions and transactions; a pack that was killed may have left what
nothing refers to in disorder, so an object that cannot be reached from the root counts as a note.

Memory: some hundred bytes for each object and transaction, none for revisions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

from perdure.dropin.directorystorage.file_checks import check_content
from perdure.dropin.directorystorage.members import DELETED
from perdure.dropin.directorystorage.states import State, look
from perdure.errors import DamageFound, SourceDamaged, SourceUnusable
from perdure.formats.directorystorage import (
    RevisionFile,
    TransactionFile,
    damaged,
    parse_counter,
)
from perdure.formats.directorystorage_names import (
    COUNTERS,
    LAST_OID,
    PACKED,
    SERIAL,
    Kind,
    Name,
    name_at,
    pointer_name,
    revision_name,
    transaction_name,
)
from perdure.formats.directorystorage_settings import DETAILED, FULL
from perdure.formats.object_records import is_encrypted, read_record
from perdure.model import Observer, Tid
from perdure.sources.directorystorage.home import Home, LiveView, View, files_below, read_file

ERROR, WARNING, NOTE = "error", "warning", "note"
_IDENTITY_DIGITS = 32
_EVERY = 1000
_MOST_FINDINGS = 10_000


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was found, and how grave it is."""

    severity: str
    what: str


@dataclass
class Verdict:
    """What a verification found, and how much it looked at."""

    findings: list[Finding] = field(default_factory=list)
    transactions: int = 0
    revisions: int = 0
    objects: int = 0
    reachable: int = 0
    size: int = 0
    """Bytes of all files that were read."""

    @property
    def damaged(self) -> bool:
        """Whether there is any error."""
        return any(finding.severity == ERROR for finding in self.findings)

    def add(self, severity: str, what: str) -> None:
        """Note a finding; of very many, the first ones."""
        if len(self.findings) < _MOST_FINDINGS:
            self.findings.append(Finding(severity, what))


def verify_home(home: Home, observer: Observer) -> Verdict:
    """Look at everything in a HOME. Raises SourceUnusable, while a pack runs for one."""
    verdict = Verdict()
    sight = look(home)
    if sight.state is State.PACKING:
        raise SourceUnusable(
            f"{home.path} cannot be verified: {sight.describe()}", hint=sight.advice
        )
    grave = sight.state in (State.STALE, State.CRASHED, State.FOREIGN)
    verdict.add(WARNING if grave else NOTE, sight.describe())
    for strange in sight.journal.strange:
        verdict.add(ERROR, f"{home.path / 'journal' / strange} keeps the storage from starting")
    if sight.journal.replica:
        verdict.add(WARNING, "journal/replica.tar waits to be applied by the next start")
    _surroundings(home, verdict)
    if home.settings.classname != FULL:
        _only_revisions(home, verdict)
        return verdict
    before = LiveView(home).packed()
    verify_database(home, LiveView(home), verdict, observer)
    if home.pack_runs() or LiveView(home).packed() != before:
        raise SourceUnusable(
            f"{home.path} was packed while it was verified", hint="verify it again"
        )
    return verdict


def verify_database(home: Home, view: View, verdict: Verdict, observer: Observer) -> None:
    """Look at all transactions, revisions and pointers that a view has; what is found goes to ``verdict``."""
    _Database(home, view, verdict, observer).run()


class _Database:
    def __init__(self, home: Home, view: View, verdict: Verdict, observer: Observer) -> None:
        self._home, self._view, self._verdict, self._observer = home, view, verdict, observer
        self._serial = self._packed = self._last_oid = 0
        self._newest: dict[int, int] = {}
        self._pointers: dict[int, int] = {}
        self._transactions: set[int] = set()
        self._written: Counter[int] = Counter()
        """How many revisions there are of each transaction that no pack has come near."""
        self._disorder: dict[int, tuple[str, str]] = {}
        """What is wrong with objects' pointers, and how grave that is where nothing leads to the object."""

    def run(self) -> None:
        """All checks, one after the other."""
        self._counters()
        self._scan()
        self._chain()
        self._match_pointers()
        self._reach()
        self._verdict.objects = len(self._newest)
        self._verdict.transactions = len(self._transactions)

    def _error(self, what: str) -> None:
        self._verdict.add(ERROR, what)

    def _counters(self) -> None:
        committed = self._home.journal().committed
        values = {name: self._counter(name) for name in COUNTERS}
        self._last_oid, self._packed = values[LAST_OID], values[PACKED]
        self._serial = max(*committed, values[SERIAL], 0)
        if values[SERIAL] < self._serial:
            self._error(
                f"{self._view.where(SERIAL)} says {Tid(values[SERIAL])}, and the last transaction is"
                f" {Tid(self._serial)}"
            )
        try:
            self._view.check_packed()
        except SourceDamaged as error:
            self._error(str(error))
            self._packed = 0

    def _counter(self, name: str) -> int:
        raw = self._view.counter_bytes(name)
        try:
            if raw is not None:
                return parse_counter(raw, self._view.where(name))
        except SourceDamaged as error:
            self._error(str(error))
        else:
            if name != PACKED:
                self._error(f"{self._view.where(name)} is missing")
        return 0

    def _last(self) -> int:
        """Tell what is the last transaction by now."""
        try:
            return max(self._serial, self._view.serial())
        except SourceDamaged:  # reported already
            return self._serial

    def _scan(self) -> None:
        seen = 0
        moving: set[str] = set()
        for name in self._view.names():
            if not self._home.place("A", name.text).exists():
                if name.text in moving:
                    continue
                moving.add(name.text)
            seen += 1
            if seen % _EVERY == 0:
                self._observer.progress(f"{seen} files", seen, 0)
            try:
                self._look(name)
            except SourceDamaged as error:
                self._error(str(error))
        last = self._last()  # transactions committed meanwhile are no leftovers
        for tid in sorted(tid for tid in self._transactions if tid > last):
            self._error(
                f"{transaction_name(tid)} is younger than the last transaction, {Tid(last)}"
            )
        self._transactions = {tid for tid in self._transactions if tid <= self._serial}

    def _look(self, name: Name) -> None:
        """Look at one file. Raises SourceDamaged."""
        if name.kind is Kind.COUNTER:
            return
        if name.kind is Kind.POINTER:
            pointer = self._view.pointer(name.oid)
            if pointer is not None:
                self._pointers[name.oid] = pointer.tid
            return
        where = self._view.where(name.text)
        if name.kind is Kind.TRANSACTION:
            self._transactions.add(name.tid)
        elif name.kind is Kind.REVISION:
            self._newest[name.oid] = max(name.tid, self._newest.get(name.oid, 0))
            if name.tid > self._packed:
                self._written[name.tid] += 1
        else:
            raise damaged(where, "it is a file of class Minimal")
        raw = self._view.fixed(name.text, name.tid)
        if raw is None:
            raise damaged(where, "it has vanished")
        self._verdict.size += len(raw)
        check_content(name, raw, where)
        if name.kind is Kind.REVISION:
            self._look_at_revision(RevisionFile.parse(raw, where), where)

    def _look_at_revision(self, revision: RevisionFile, where: str) -> None:
        self._verdict.revisions += 1
        if revision.oid > self._last_oid and revision.tid <= self._serial:
            self._error(f"{where}: its oid would be given out once more: {LAST_OID} is lower")
        for tid, what in ((revision.prev, "previous"), (revision.undo_from, "undone")):
            if tid >= revision.tid:
                raise damaged(where, f"its {what} revision is younger than itself")
            if tid > self._packed and not self._view.has(revision_name(revision.oid, tid), tid):
                raise damaged(
                    where, f"its {what} revision, {revision_name(revision.oid, tid)}, is missing"
                )

    def _chain(self) -> None:
        """From the last transaction back by what each calls the previous one."""
        tid, linked = self._serial, set()
        while tid and tid in self._transactions:
            linked.add(tid)
            transaction = self._transaction(tid)
            if transaction is None:
                break
            if tid > self._packed:
                self._complete(transaction)
            if transaction.prev >= tid:
                self._error(
                    f"{transaction_name(tid)}: its previous transaction is younger than itself"
                )
                break
            tid = transaction.prev
        else:
            if tid > self._packed:
                self._error(f"{self._view.where(transaction_name(tid))} is missing")
        loose = self._transactions - linked
        for each in sorted(each for each in loose if each > self._packed):
            self._error(f"{transaction_name(each)} is not linked into the history")
        old = sum(each <= self._packed for each in loose)
        if old:
            self._verdict.add(
                WARNING,
                f"{old} transactions before the last pack are not linked: a pack was stopped",
            )

    def _transaction(self, tid: int) -> TransactionFile | None:
        """Read a transaction; None where that is not possible, which has been reported already."""
        where = self._view.where(transaction_name(tid))
        raw = self._view.fixed(transaction_name(tid), tid)
        try:
            return None if raw is None else TransactionFile.parse(raw, where)
        except SourceDamaged:
            return None

    def _complete(self, transaction: TransactionFile) -> None:
        """Make sure that all is there that a transaction wrote, and no more."""
        tid = transaction.tid
        for oid in transaction.oids:
            if not self._view.has(revision_name(oid, tid), tid):
                self._error(f"{self._view.where(revision_name(oid, tid))} is missing")
        if self._written.pop(tid, 0) > len(set(transaction.oids)):
            self._error(f"{transaction_name(tid)} does not name all revisions that carry its tid")

    def _match_pointers(self) -> None:
        for tid in sorted(tid for tid in self._written if tid <= self._serial):
            if tid not in self._transactions:
                self._error(
                    f"{self._view.where(transaction_name(tid))} is missing: revisions carry its tid"
                )
        last = self._last()
        for oid, tid in self._newest.items():
            if tid > last:
                self._error(f"{revision_name(oid, tid)} is younger than the last transaction")
        for oid, tid in self._pointers.items():
            newest = self._newest.get(oid, 0)
            if not self._view.has(revision_name(oid, tid), tid):
                what = f"leads to {revision_name(oid, tid)}, which is missing"
                self._disorder[oid] = self._gravity(max(tid, newest)), what
            elif tid < newest <= self._serial:  # an older increment was extracted after a newer one
                what = f"leads to {Tid(tid)}, and there is a newer revision, {Tid(newest)}"
                self._disorder[oid] = ERROR, what
        for oid in self._newest.keys() - self._pointers.keys():
            newest = self._newest[oid] if self._newest[oid] <= self._serial else 0  # not moved yet
            self._disorder[oid] = self._gravity(newest), "is missing, and there are revisions"

    def _gravity(self, tid: int) -> str:
        """A pack that was killed leaves disorder among what it removes: nothing that is newer than it."""
        return ERROR if tid > self._packed else NOTE

    def _reach(self) -> None:
        """From the root over all references: what cannot be loaded, and what nothing refers to."""
        seen, to_do = {0}, [0] if self._newest else []
        while to_do:
            oid = to_do.pop()
            if oid in self._disorder:
                self._error(f"{self._view.where(pointer_name(oid))} {self._disorder.pop(oid)[1]}")
            for reference in self._references(oid):
                if reference not in seen:
                    seen.add(reference)
                    to_do.append(reference)
        for oid, (severity, what) in sorted(self._disorder.items()):
            self._verdict.add(severity, f"{self._view.where(pointer_name(oid))} {what}")
        self._verdict.reachable = len(seen & self._newest.keys())
        orphans = len(self._newest) - self._verdict.reachable
        if orphans:
            self._verdict.add(
                NOTE, f"objects that cannot be reached from the root, and go with a pack: {orphans}"
            )

    def _references(self, oid: int) -> Iterator[int]:
        tid = self._pointers.get(oid)
        where = self._view.where(revision_name(oid, tid or 0))
        raw = None if tid is None else self._view.fixed(revision_name(oid, tid), tid)
        if raw is None:
            return
        try:
            data = RevisionFile.parse(raw, where).data
            found = [] if not data or is_encrypted(data) else read_record(data).references
        except SourceDamaged:
            return  # reported by the scan
        except DamageFound as error:
            self._error(f"{where}: {error}")
            return
        for reference in found:
            if reference.database or reference.weak:
                continue
            if reference.oid not in self._pointers and reference.oid not in self._newest:
                self._error(f"{where} refers to {reference.oid:016X}, which is not there")
            else:
                yield reference.oid


def _surroundings(home: Home, verdict: Verdict) -> None:
    """Look at what lies around the database."""
    identity = read_file(home.path / "config" / "identity", 1 << 16)
    if identity is None or len(identity.strip()) != _IDENTITY_DIGITS:
        verdict.add(WARNING, "config/identity is not 32 digits: replicas cannot be told apart")
    if not (home.path / "misc").is_dir():
        verdict.add(
            ERROR,
            "there is no folder misc: the storage will say that another process has it locked",
        )
    if not (home.path / "backups").is_dir():
        verdict.add(NOTE, "there is no folder backups: the backup tool wants one")
    user = (home.path / "A").stat().st_uid
    for folder in ("misc", "journal", "A", "B"):
        place = home.path / folder
        for path in (place, *(place.iterdir() if place.is_dir() else ())):
            if path.exists() and path.stat().st_uid != user:
                verdict.add(
                    WARNING, f"{path} does not belong to the user of A: the storage may not start"
                )
    layout = home.settings.layout
    deleted = strays = 0
    for path in files_below(home.path / "A"):
        if path.endswith(DELETED):
            deleted += 1
        elif name_at(path, layout) is None and not path.endswith(".mark"):
            strays += 1
            verdict.add(NOTE, f"{home.path / 'A' / path} is no file of the storage")
    if deleted:
        verdict.add(NOTE, f"{deleted} files were deleted by packs, and still have their place")
    if home.settings.keep_policy != DETAILED:
        verdict.add(
            NOTE, f"packs keep no transactions of old revisions ({home.settings.keep_policy})"
        )


def _only_revisions(home: Home, verdict: Verdict) -> None:
    """Look at a storage of class Minimal, which has no history: whether each file can be read."""
    view = LiveView(home)
    for name in view.names():
        if name.kind is Kind.ONLY:
            raw = view.changing(name.text)
            verdict.objects += 1
            verdict.size += len(raw or b"")
            if not raw:
                verdict.add(ERROR, f"{view.where(name.text)} is empty")

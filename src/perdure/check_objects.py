"""Check objects: is every record of a snapshot's databases one that ZODB could load, with all it refers to.

Damage is: a record whose pickles are broken; a reference to an object that is not there, which is a
POSKeyError to come; a blob without its file, and a file without its record. An object that nothing leads
to from a root is no damage, nor is what it refers to: the next pack removes it. What only old revisions
refer to may be gone, too: somebody undid its making, or a program packed without them. Both are counted.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from perdure.errors import DamageFound
from perdure.formats.object_records import (
    UNKNOWN,
    ObjectRecord,
    Reference,
    is_encrypted,
    read_class,
    read_record,
)
from perdure.history.blob_table import Pairs, blob_table, only_in, pairs_in, pairs_of
from perdure.history.graph import Graph
from perdure.history.objects import survey_objects
from perdure.history.records import Batch, read_records
from perdure.history.rows import Mask, Ordinals
from perdure.model import Observer, SnapshotId, Tid
from perdure.repository import Repository
from perdure.restore_plan import Chosen, Wanted, choose
from perdure.snapshots import is_named

BROKEN, MISSING_OBJECT, MISSING_DATA = "broken record", "missing object", "missing data"
MISSING_FILE, MISSING_RECORD = "blob without file", "blob file without record"
MOST = 10_000
"""How many findings of one kind are kept of a source; all are counted."""
ROOT = 0
_BLOB = "ZODB.blob.Blob"


@dataclass(frozen=True, slots=True)
class ObjectFinding:
    """Damage at an object: which, in which transaction, of which class, and what is the matter."""

    kind: str
    oid: int
    tid: int
    class_name: str
    what: str


@dataclass(slots=True)
class ObjectsReport:
    """What was found in one source, and how much was looked at."""

    source: str
    snapshot: SnapshotId
    cut: Tid
    objects: int = 0
    records: int = 0
    blobs: int | None = None
    """None: they are not in the snapshot."""
    unreachable: int = 0
    """Objects that nothing leads to from a root."""
    missing_unreachable: int = 0
    """References of such objects to what is not there."""
    missing_old: int = 0
    """References of old revisions to what is not there."""
    encrypted: int = 0
    """Records that cannot be looked into."""
    outside: dict[str, int] = field(default_factory=dict)
    """References into databases that were not looked at, by their names."""
    counts: dict[str, int] = field(default_factory=dict)
    """How much damage of each kind there is."""
    findings: list[ObjectFinding] = field(default_factory=list)

    @property
    def damaged(self) -> bool:
        """Whether anything is damaged."""
        return bool(self.counts)

    def add(self, finding: ObjectFinding) -> None:
        """Count a finding, and keep it while there are not too many."""
        self.counts[finding.kind] = count = self.counts.get(finding.kind, 0) + 1
        if count <= MOST:
            self.findings.append(finding)


def check_objects(
    repository: Repository, wanted: Wanted, observer: Observer
) -> list[ObjectsReport]:
    """Walk every record of the sources that are wanted. Raises UsageError, DamageFound, StoreError."""
    walks = [_Walk(chosen) for chosen in choose(repository, wanted)]
    for walk in walks:
        walk.survey(observer)
        walk.read(observer)
        walk.compare_blobs()
    for walk in walks:
        walk.look_elsewhere(walks)
    return [walk.finish() for walk in walks]


@dataclass(frozen=True, slots=True)
class _Elsewhere:
    """A reference into another database, from an object given by number."""

    number: int
    tid: int
    class_name: str
    reference: Reference


class _Walk:
    """One source, walked through."""

    def __init__(self, chosen: Chosen) -> None:
        self.record = chosen.found.record
        self._found, self._until = chosen.found, chosen.until
        cut = min(chosen.until or self.record.cut, self.record.cut)
        self.report = ObjectsReport(self.record.name, chosen.found.id, cut)
        self._dangling: list[tuple[int, ObjectFinding]] = []
        self._more_dangling = array("Q")
        self._blobs = array("Q")
        self._elsewhere: list[_Elsewhere] = []
        self._roots = array("Q", [ROOT])

    def survey(self, observer: Observer) -> None:
        """Find out which objects there are."""
        self._objects = objects = survey_objects(self._found.history, self._until, observer)
        self._graph = Graph(len(objects))
        self._read = objects.gone.copy()
        self.report.objects, self.report.records = int((~objects.gone).sum()), objects.records

    def read(self, observer: Observer) -> None:
        """Walk through all records."""
        done = 0
        for batch in read_records(self._found.history, self._objects.names, self._until):
            self._add(batch)
            done += len(batch.data)
            observer.progress("records", done, max(self._objects.records, done))
        for number in np.flatnonzero(~self._read).tolist():
            oid, tid = int(self._objects.oid[number]), int(self._objects.tid[number])
            what = "its back pointer leads to no record"
            self.report.add(ObjectFinding(MISSING_DATA, oid, tid, UNKNOWN, what))

    def _add(self, batch: Batch) -> None:
        numbers, _ = self._objects.find(batch.oid)
        newest = self._objects.content[numbers] == batch.tid
        self._read[numbers[newest]] = True
        records = [self._look(batch, place) for place in range(len(batch.data))]
        inner = [[r for r in record.references if not (r.weak or r.database)] for record in records]
        counts = np.array(list(map(len, inner)), np.int64)
        references = [reference for each in inner for reference in each]
        targets, there = self._objects.find(np.array([r.oid for r in references], np.uint64))
        of_record = np.repeat(np.arange(len(records)), counts)
        self._note_missing(batch, records, references, of_record, np.flatnonzero(~there), newest)
        kept = newest[of_record] & there
        reached = np.bincount(of_record[kept], minlength=len(records))
        self._graph.add(numbers[newest], reached[newest], targets[kept])
        self._note_elsewhere(batch, records, numbers, newest)

    def _look(self, batch: Batch, place: int) -> ObjectRecord:
        """Walk through one record; a broken one refers to nothing."""
        data = bytes(batch.data[place])
        if is_encrypted(data):
            self.report.encrypted += 1
            return ObjectRecord(UNKNOWN, [])
        oid, tid = int(batch.oid[place]), int(batch.tid[place])
        try:
            record = read_record(data)
        except DamageFound as error:
            record = ObjectRecord(read_class(data), [])
            self.report.add(ObjectFinding(BROKEN, oid, tid, record.class_name, str(error)))
        if record.class_name == _BLOB:
            self._blobs.extend((oid, tid))
        return record

    def _note_missing(
        self,
        batch: Batch,
        records: Sequence[ObjectRecord],
        references: Sequence[Reference],
        of_record: Ordinals,
        missing: Ordinals,
        newest: Mask,
    ) -> None:
        for place in missing.tolist():
            record = int(of_record[place])
            if not newest[record]:
                self.report.missing_old += 1
                continue
            number = int(self._objects.find(batch.oid[record : record + 1])[0][0])
            reference, name = references[place], records[record].class_name
            self._dangle(number, name, reference)

    def _dangle(self, number: int, class_name: str, reference: Reference) -> None:
        if len(self._dangling) >= MOST:
            self._more_dangling.append(number)
            return
        oid, tid = int(self._objects.oid[number]), int(self._objects.tid[number])
        where = f" of database {reference.database!r}" if reference.database else ""
        what = f"refers to object {reference.oid:#018x} ({reference.class_name}){where}, which is not there"
        self._dangling.append((number, ObjectFinding(MISSING_OBJECT, oid, tid, class_name, what)))

    def _note_elsewhere(
        self,
        batch: Batch,
        records: Sequence[ObjectRecord],
        numbers: Ordinals,
        newest: Mask,
    ) -> None:
        for place, record in enumerate(records):
            for reference in record.references if newest[place] else ():
                if reference.database and not reference.weak:
                    tid = int(batch.tid[place])
                    found = _Elsewhere(int(numbers[place]), tid, record.class_name, reference)
                    self._elsewhere.append(found)

    def look_elsewhere(self, walks: Sequence[_Walk]) -> None:
        """Look up what this database refers to in others."""
        for each in self._elsewhere:
            database = each.reference.database
            other = next((walk for walk in walks if is_named(walk.record, database)), None)
            if other is None:
                self.report.outside[database] = self.report.outside.get(database, 0) + 1
            elif other.has(each.reference.oid):
                other._roots.append(each.reference.oid)
            else:
                self._dangle(each.number, each.class_name, each.reference)

    def has(self, oid: int) -> bool:
        """Tell whether there is an object."""
        return bool(self._objects.find(np.array([oid], np.uint64))[1][0])

    def finish(self) -> ObjectsReport:
        """Tell what can be reached from what only waits for a pack."""
        objects, report = self._objects, self.report
        if len(objects) and not self.has(ROOT):
            what = "the root object is not there"
            report.add(ObjectFinding(MISSING_OBJECT, ROOT, report.cut.value, UNKNOWN, what))
            reachable = np.ones(len(objects), bool)
        else:
            roots, there = objects.find(np.array(self._roots, np.uint64))
            reachable = self._graph.reachable(roots[there])
        report.unreachable = int((~reachable & ~objects.gone).sum())
        for number, finding in self._dangling:
            if reachable[number]:
                report.add(finding)
            else:
                report.missing_unreachable += 1
        more = reachable[np.array(self._more_dangling, np.int64)]
        report.missing_unreachable += int((~more).sum())
        if more.any():
            report.counts[MISSING_OBJECT] = report.counts.get(MISSING_OBJECT, 0) + int(more.sum())
        return report

    def compare_blobs(self) -> None:
        """Compare the records of blobs with the files that the snapshot has."""
        kept = self._found.blobs
        if kept is None:
            return
        there = blob_table(kept, self._until).blobs
        records = self._blob_records()
        self.report.blobs = len(records)
        unreadable = {(oid, tid.value) for oid, tid in kept.record.missing}
        for oid, tid in only_in(records, there):
            why = "could not be read when the snapshot was made"
            what = f"its file {why if (oid, tid) in unreadable else 'is not in the snapshot'}"
            self.report.add(ObjectFinding(MISSING_FILE, oid, tid, _BLOB, what))
        if self.report.encrypted:  # any record may be that of a blob
            return
        for oid, tid in only_in(there, records):
            what = "the snapshot has a file for it, but the database no record"
            self.report.add(ObjectFinding(MISSING_RECORD, oid, tid, _BLOB, what))

    def _blob_records(self) -> Pairs:
        """Give the blobs that records stand for: also those that an undo brought back."""
        own, back = pairs_in(self._blobs), self._objects.back
        if not back:
            return own
        held = pairs_of((oid, tid) for (oid, _), tid in back.items())
        return np.union1d(own, pairs_of(back)[np.isin(held, own)])

"""Bring what is kept of one source, its history and its blobs, up to a cut."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

import msgspec

from perdure.errors import RepositoryDamaged
from perdure.formats import blobs, history
from perdure.formats.manifest import COMPLETE, INCOMPLETE, REPAIRED, BlobsRecord, SourceRecord
from perdure.history.blobs import BlobFolder, KeptBlobs, keep_blobs
from perdure.history.deciding import Advance, Earlier, Totals, decide, unchanged, verify
from perdure.history.folders import Folder
from perdure.model import NO_TID, Observer
from perdure.plan import HistoryPlan, Method
from perdure.repository import Repository, Writer
from perdure.sources.protocol import Cut, Source


@dataclass(frozen=True, slots=True)
class Updated:
    """A source at its cut: its record and its folders in the snapshot, and what was done for them."""

    record: SourceRecord
    folders: dict[str, Folder]
    plan: HistoryPlan
    totals: Totals
    blobs: KeptBlobs
    bytes_read: int

    @property
    def note(self) -> str | None:
        """Under which name it is noted that all of it is in the repository; None: it is not."""
        return note_of(self.record.name) if self.record.blobs is not None else None

    @property
    def unchanged(self) -> bool:
        """Whether the last snapshot had everything."""
        return self.plan.method is Method.NOTHING and not self.blobs.new

    @property
    def method(self) -> str:
        """How it was read."""
        return self.plan.method.value

    @property
    def reason(self) -> str:
        """Why it was read so."""
        return self.plan.reason

    def enter(self, root: Folder) -> None:
        """Enter its folders into the root of a snapshot."""
        for name, folder in self.folders.items():
            root.adopt(name, folder)


class Updating:
    """Updates sources of a host; with ``verify`` all is read and compared with what was kept before."""

    def __init__(
        self,
        repository: Repository,
        writer: Writer,
        observer: Observer,
        hostname: str,
        *,
        verify: bool,
    ) -> None:
        self._repository, self._writer, self._observer = repository, writer, observer
        self._hostname = hostname
        self._verify = verify
        self._notes = repository.notes()

    def update(
        self,
        source: Source,
        cut: Cut,
        tree: str,
        find: Callable[[], Earlier | None],
        *,
        trust_blobs: bool = True,
    ) -> Updated:
        """Store what is new at the cut; ``find`` gives what the last snapshot has, for each try anew.

        Raises SourceDamaged, RepositoryDamaged, StoreError.
        """
        earlier = find()
        if earlier is not None and not trust_blobs:
            earlier = replace(earlier, blobs=None)
        done = self._advance(identity_of(source, tree), cut, earlier)
        folders, facts, kept = {tree: done.history.folder}, None, KeptBlobs()
        if cut.blobs is not None:
            name = f"{tree.removesuffix(history.SUFFIX)}{blobs.SUFFIX}"
            new = BlobFolder(Folder(self._repository, PurePosixPath("/", name), None))
            known = earlier.blobs if earlier is not None else None
            try:
                folder, facts, kept = keep_blobs(
                    cut.blobs,
                    done.blobs,
                    known,
                    new,
                    self._writer,
                    self._observer,
                    verify=self._verify,
                    check=not self._notes.found_whole(note_of(source.name)),
                )
            except RepositoryDamaged as error:
                if not trust_blobs:
                    raise
                self._observer.warning(f"{error}; all blobs are looked for anew")
                return self.update(source, cut, tree, find, trust_blobs=False)
            folders[name] = folder.folder
            facts = msgspec.structs.replace(facts, tree=name)
        return Updated(
            record=_with_blobs(done.record, facts),
            folders=folders,
            plan=done.plan,
            totals=done.totals,
            blobs=kept,
            bytes_read=cut.bytes_read + kept.bytes_read,
        )

    def _advance(self, identity: SourceRecord, cut: Cut, earlier: Earlier | None) -> Advance:
        """Bring the history up to the cut."""
        plan = decide(cut, earlier, verify=self._verify, observer=self._observer)
        if plan.method is Method.NOTHING and earlier is not None:
            done = unchanged(earlier, identity, plan)
        else:
            from perdure.history.advancing import (
                advance,  # columns and what they need: not for nothing
            )

            done = advance(
                cut, identity, earlier, plan, self._repository, self._writer, self._observer
            )
        if self._verify:
            verify(cut, done, self._observer)
        if plan.method is Method.COMPARE and earlier is not None and not done.totals.reused:
            self._suspect(identity.name, earlier.hostname)
        return done

    def _suspect(self, name: str, hostname: str) -> None:
        """Warn where two databases seem to go by one name."""
        if hostname != self._hostname:
            self._observer.warning(
                f"the last snapshot of {name!r} is of host {hostname}, and the two have nothing in"
                " common: is this another database? Those of several machines that have the same path"
                " need names of their own: --source"
            )


def note_of(name: str) -> str:
    """Say under which name it is noted that all blobs of a source are in the repository."""
    return f"blobs of {name}"


def identity_of(source: Source, tree: str) -> SourceRecord:
    """Give the record of a source of which nothing is known yet but who it is."""
    return SourceRecord(
        name=source.name,
        kind=source.kind,
        path=source.place,
        tree=tree,
        cut=NO_TID,
        size=0,
        last_packed=NO_TID,
        transactions=0,
        records=0,
        database=source.database,
    )


def _with_blobs(record: SourceRecord, facts: BlobsRecord | None) -> SourceRecord:
    status = record.status
    if facts is not None and (facts.missing or facts.unseen):
        status = INCOMPLETE
    elif status != REPAIRED:
        status = COMPLETE
    return msgspec.structs.replace(record, blobs=facts, status=status)

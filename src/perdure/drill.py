"""Drill: a restore, rehearsed. The newest data, or any other, comes back in a scratch folder and is tried.

Everything is restored and compared with the snapshot once more, as it lies on the disk: each range of a
database and each blob by its SHA-256. Then a process of its own opens the databases with ZODB and loads the
root and a random sample of the objects. It unpickles nothing, unless it is the Python of the site, told
to make the objects with the site's own code. The scratch folder is removed in the end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
import numpy as np

from perdure import rehearsal
from perdure.errors import DamageFound, StoreError, UsageError
from perdure.history.objects import Objects, survey_objects
from perdure.model import Observer, SnapshotId
from perdure.repository import Repository
from perdure.restore import Restored, RestoreRequest, restore, survey
from perdure.restore_plan import Planned, Wanted, foreign, plan_restore, settled
from perdure.restore_trees import PlannedTree, plan_trees
from perdure.sources.scratch import scratch_folder

PASSED, FAILED = "passed", "failed"
_PREFIX = "perdure-drill-"
_PATIENCE = 3600
"""Seconds that the process may take to load the sample."""
_BLOCK = 4096
"""Bytes that a small file takes on a disk."""
_INDEX = 16
"""Bytes of a FileStorage's index for each object, at most."""


@dataclass(frozen=True, slots=True)
class DrillRequest:
    """What to rehearse, below which folder, how many objects to load, and with which Python (None: ours)."""

    wanted: Wanted
    scratch: Path
    sample: int = 1000
    python: Path | None = None


class _Answer(msgspec.Struct):
    """What the process says of one database; see perdure/rehearsal.py."""

    loaded: int
    root: str | None
    blobs: int
    unknown: dict[str, int]
    failures: list[str]


@dataclass(slots=True)
class Drilled:
    """What became of one source; sizes in bytes."""

    restored: Restored
    objects: int = 0
    """How many there are."""
    loaded: int = 0
    """How many of them were loaded."""
    root: str | None = None
    """The class of the root object."""
    blobs_opened: int = 0
    unknown: dict[str, int] = field(default_factory=dict)
    """Classes that the site's Python cannot import, and how many of the loaded objects they have."""
    failures: list[str] = field(default_factory=list)


@dataclass(slots=True)
class DrillReport:
    """The verdict, and how long each step took."""

    snapshot: SnapshotId
    snapshot_age: timedelta
    data_age: timedelta | None
    """Since the last transaction that came back; None: there was none."""
    size: int
    sources: list[Drilled] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    """What was wrong with no source in particular."""

    @property
    def verdict(self) -> str:
        """``passed`` or ``failed``."""
        bad = self.failures or any(each.failures for each in self.sources)
        return FAILED if bad else PASSED


def drill(
    repository: Repository,
    request: DrillRequest,
    clock: Callable[[], datetime],
    observer: Observer,
) -> DrillReport:
    """Rehearse a restore, and clean up after it.

    Raises UsageError where there is no database to rehearse with, StoreError when there is no room; what
    is found wrong with the data is in the report.
    """
    with _scratch_below(request.scratch) as scratch:
        target = scratch / "restored"
        request = replace(request, wanted=settled(repository, request.wanted))
        if foreign(repository, request.wanted) is not None:
            raise UsageError(
                "the snapshot is another program's: there is no database to rehearse with",
                hint="perdure restore --to gives its files back; perdure check --read-data verifies them",
            )
        plans = plan_restore(repository, request.wanted, target)
        trees = plan_trees(repository, request.wanted, target)
        if not (plans or trees):
            raise UsageError(
                "there is nothing to rehearse with: no source of the snapshot was read"
            )
        report = _new_report(plans, trees, clock())
        _check_room(plans, trees, request.scratch)
        steps = _Steps(repository, request, plans, scratch, report, observer)
        for name, step in (
            ("restore", steps.restore),
            ("verify", steps.verify),
            ("load", steps.load),
        ):
            started = clock()
            try:
                step()
            except DamageFound as error:
                report.failures.append(f"{name}: {error}")
            report.seconds[name] = max((clock() - started).total_seconds(), 0.0)
            if report.failures:
                break
    return report


def room_needed(plans: Sequence[Planned], trees: Sequence[PlannedTree]) -> int:
    """Say how many bytes a restore takes on a disk, at most."""
    needed = 0
    for tree in trees:
        files = tree.record.files
        needed += tree.record.size + ((files.files + files.folders) * _BLOCK if files else 0)
    for plan in plans:
        needed += plan.record.size + plan.record.records * _INDEX + _BLOCK
        if plan.record.blobs is not None:
            needed += plan.record.blobs.size + 3 * plan.record.blobs.count * _BLOCK
    return needed


def _new_report(
    plans: Sequence[Planned], trees: Sequence[PlannedTree], now: datetime
) -> DrillReport:
    found = [(plan.chosen.found.id, plan.chosen.found.snapshot.moment) for plan in plans]
    found += [(tree.found.id, tree.found.snapshot.moment) for tree in trees]
    name, moment = max(found, key=lambda each: each[1])
    cuts = [
        cut.time for cut in (*(p.cut for p in plans), *(t.record.cut for t in trees)) if cut.value
    ]
    size = sum(p.record.size + (p.record.blobs.size if p.record.blobs else 0) for p in plans)
    return DrillReport(
        name,
        now - moment,
        now - max(cuts) if cuts else None,
        size + sum(tree.record.size for tree in trees),
    )


def _check_room(plans: Sequence[Planned], trees: Sequence[PlannedTree], scratch: Path) -> None:
    needed = room_needed(plans, trees)
    status = os.statvfs(scratch)
    free = status.f_bavail * status.f_frsize
    if needed > free:
        raise StoreError(
            f"{scratch} has {free} bytes free, and the drill may need {needed}",
            hint="name a folder on a larger disk with --scratch, or rehearse one source with --source",
        )


class _Steps:
    """The steps of a drill, in their order."""

    def __init__(
        self,
        repository: Repository,
        request: DrillRequest,
        plans: Sequence[Planned],
        scratch: Path,
        report: DrillReport,
        observer: Observer,
    ) -> None:
        self._repository, self._request, self._plans = repository, request, plans
        self._scratch, self._report, self._observer = scratch, report, observer
        self._restore = RestoreRequest(scratch / "restored", request.wanted)

    def restore(self) -> None:
        """Restore, as `perdure restore --to` does."""
        restored = restore(self._repository, self._restore, self._observer)
        self._report.sources = [Drilled(each) for each in restored]

    def verify(self) -> None:
        """Read everything that was restored, and compare."""
        found = survey(self._repository, self._restore, self._observer)
        for drilled, again in zip(self._report.sources, found, strict=True):
            if again.tree is not None:
                if again.tree.kept != again.tree.files:
                    drilled.failures.append(
                        f"{again.tree.files - again.tree.kept} files are not right"
                    )
            elif again.kept != drilled.restored.size and self._request.wanted.at is None:
                drilled.failures.append(
                    f"{again.files[0]} has only {again.kept} bytes that are right"
                )
            blobs, before = again.blobs, drilled.restored.blobs
            if blobs is not None and blobs.kept != blobs.count:
                drilled.failures.append(f"{blobs.count - blobs.kept} blobs are not right")
            if before is not None and before.missing:
                drilled.failures.append(
                    f"{before.missing} blobs are missing from the snapshot: their files could not be"
                    " read when it was made"
                )

    def load(self) -> None:
        """Have the databases opened, and a sample of the objects loaded."""
        samples = []
        if not self._plans:
            return
        # The databases come first, the file trees after them.
        for plan, drilled in zip(self._plans, self._report.sources, strict=False):
            history, until = plan.chosen.found.history, plan.chosen.until
            objects = survey_objects(history, until, self._observer)
            drilled.objects = int((~objects.gone).sum())
            samples.append(_sample(objects, self._request.sample))
        self._observer.progress("load objects", 0, sum(map(len, samples)))
        answers = self._ask(samples)
        for drilled, answer in zip(self._report.sources, answers, strict=False):
            drilled.loaded, drilled.root = answer.loaded, answer.root
            drilled.blobs_opened, drilled.unknown = answer.blobs, answer.unknown
            drilled.failures += answer.failures

    def _ask(self, samples: Sequence[Sequence[tuple[str, str]]]) -> list[_Answer]:
        answer = self._scratch / "answer"
        request = {
            "answer": str(answer),
            "path": None if self._request.python else _module_path(),
            "classes": self._request.python is not None,
            "databases": [
                {
                    "name": plan.record.database or plan.record.name,
                    "path": str(plan.path),
                    "blobs": str(plan.blobs) if plan.blobs and plan.blobs.exists() else None,
                    "cut": str(plan.cut),
                    "objects": objects,
                }
                for plan, objects in zip(self._plans, samples, strict=True)
            ],
        }
        self._run(json.dumps(request))
        if self._report.failures:
            return []
        try:
            found = msgspec.json.decode(answer.read_bytes(), type=list[_Answer])
        except (OSError, msgspec.MsgspecError):
            found = []
        if len(found) != len(samples):
            self._report.failures.append(f"load: {self._program} did not answer: is it a Python?")
        return found

    @property
    def _program(self) -> str:
        return str(self._request.python or sys.executable)

    def _run(self, request: str) -> None:
        command = [self._program, "-c", Path(rehearsal.__file__).read_text()]
        try:
            done = subprocess.run(
                command,
                input=request.encode(),
                capture_output=True,
                timeout=_PATIENCE,
                cwd=self._scratch,
                check=False,
            )
        except OSError as error:
            raise UsageError(
                f"{command[0]} cannot be run: {error.strerror}",
                hint="--python names the Python of the site, such as bin/zopepy of a buildout",
            ) from error
        except subprocess.TimeoutExpired:
            self._report.failures.append(f"load: not done after {_PATIENCE} seconds")
            return
        if done.returncode:
            said = done.stderr.decode("utf-8", "backslashreplace").strip().splitlines()
            why = said[-1] if said else f"exit code {done.returncode}"
            self._report.failures.append(f"load: {command[0]} failed: {why}")


def _module_path() -> list[str]:
    """Say where this Python looks for modules, wherever the process is started."""
    return [os.path.abspath(each) for each in sys.path]


def _sample(objects: Objects, count: int) -> list[tuple[str, str]]:
    """Choose objects at random, the root first."""
    living = np.flatnonzero(~objects.gone)
    root = living[:1][objects.oid[living[:1]] == 0]
    others = living[len(root) :]
    chosen = np.random.default_rng().choice(others, min(count, len(others)), replace=False)
    numbers = [*root.tolist(), *sorted(chosen.tolist())]
    return [(f"{int(objects.oid[n]):016x}", f"{int(objects.tid[n]):016x}") for n in numbers]


@contextmanager
def _scratch_below(folder: Path) -> Iterator[Path]:
    """Give a folder that is removed in the end; those that killed drills left are removed now."""
    with ExitStack() as stack:
        try:
            scratch = stack.enter_context(scratch_folder(folder, _PREFIX))
        except OSError as error:
            raise StoreError(
                f"{error.filename or folder} cannot be written to: {error.strerror}",
                hint="name another folder with --scratch",
            ) from error
        yield scratch

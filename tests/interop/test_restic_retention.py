"""What Perdure forgets and prunes, beside what the stock restic would."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import odd_files
import pytest
from datafs import simple
from doubles import Restic
from history_site import back_up, rebuilt_from, snapshots_in
from small_repository import backup

from perdure.forget import ForgetRequest, forget
from perdure.formats.golang import format_moment
from perdure.formats.keyfile import KdfParameters
from perdure.formats.snapshot import Snapshot
from perdure.formats.tree import Tree
from perdure.model import SilentObserver
from perdure.prune import PruneReport, PruneRequest, prune
from perdure.repository import Repository
from perdure.repository.checking import check_repository
from perdure.repository.prune_plan import Allowance, Limits
from perdure.retention import Duration, Policy
from perdure.selection import Selection
from perdure.stores import open_store
from perdure.tag import TagChange, tag

pytestmark = pytest.mark.slow

CHEAP = KdfParameters(2, 1, 1)
SERIES, POLICIES = 30, 24
ALL = Limits(Allowance(size=0))
PERIODS = ("hourly", "daily", "weekly", "monthly", "yearly")


def clock() -> datetime:
    return datetime.now(UTC)


def create(path: Path) -> Repository:
    return Repository.create(
        open_store(str(path)),
        "secret",
        kdf=CHEAP,
        now=clock(),
        username="plone",
        hostname="www1",
        clock=clock,
    )


def open_repository(path: Path) -> Repository:
    return Repository.open(open_store(str(path)), "secret", cache=None, clock=clock)


def pruned(path: Path, limits: Limits = ALL) -> PruneReport:
    repository = open_repository(path)
    with repository.lock(exclusive=True) as lock:
        report = prune(repository, lock, PruneRequest(limits), SilentObserver())
        assert prune(repository, lock, PruneRequest(limits), SilentObserver()).idle
    assert not check_repository(repository, SilentObserver(), read_data=True).findings
    repository.close()
    return report


def times(random: random.Random) -> Iterator[datetime]:
    """A series of snapshots: regular, in bursts, with gaps; no two of the same moment."""
    moment = datetime(2019, 12, 25, tzinfo=UTC) + timedelta(days=random.randrange(2600))
    steps = [timedelta(seconds=1), timedelta(minutes=17), timedelta(hours=1), timedelta(hours=7)]
    steps += [timedelta(days=1), timedelta(days=1), timedelta(days=8), timedelta(days=100)]
    chosen = random.sample(steps, random.randint(1, 4))
    for _ in range(random.randint(1, 40)):
        yield moment
        step = random.choice(chosen)
        moment += step if random.random() < 0.5 else step * (0.1 + 2 * random.random())


def snapshots(random: random.Random, tree: str) -> Iterator[Snapshot]:
    for number in range(SERIES):
        zone = random.choice(["Z", "Z", "Z", "+05:30", "-03:00"])
        for moment in times(random):
            written = format_moment(moment)
            if zone != "Z":  # as restic writes it on a machine there; Perdure writes UTC
                sign = 1 if zone[0] == "+" else -1
                offset = sign * timedelta(hours=int(zone[1:3]), minutes=int(zone[4:]))
                written = format_moment(moment + offset).replace("Z", zone)
            tags = tuple(sorted(random.sample("abc", random.choice([0, 0, 1, 2]))))
            yield Snapshot(
                time=written, tree=tree, paths=("/b", "/a"), hostname=f"host{number}", tags=tags
            )


def policies(random: random.Random) -> Iterator[Policy]:
    for _ in range(POLICIES):
        names = random.sample(["last", *PERIODS], random.choice([1, 1, 2, 3, 6]))
        rules: dict[str, Any] = {name: random.choice([1, 2, 3, 7, 30]) for name in names}
        rules |= {
            name: Duration(
                random.choice([0, 0, 1, 2]),
                random.choice([0, 0, 1, 5, 14]),
                random.choice([0, 1, 3, 31]),
                random.choice([1, 2, 30]),
            )
            for name in ["within", *(f"within_{period}" for period in PERIODS)]
            if random.random() < 0.15
        }
        some = random.choice([(), (), (("a",),), (("a", "b"), ("c",))])
        yield Policy(**rules, tags=some)
    yield Policy(tags=(("a",),))
    yield Policy(within=Duration(months=1))


def arguments(policy: Policy) -> Iterator[str]:
    for name in Policy.__dataclass_fields__:
        value = getattr(policy, name)
        if name == "tags":
            yield from (f"--keep-tag={','.join(tags)}" for tags in value)
        elif value:
            yield f"--keep-{name.replace('_', '-')}={value}"


def test_the_same_snapshots_are_kept_for_the_same_reasons(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    chance = random.Random(26)
    repository = create(path)
    with repository.lock() as lock, repository.writer(lock) as writer:
        tree = writer.add_tree(Tree(()))
        writer.flush()
    for snapshot in snapshots(chance, tree.hex()):
        repository.save_snapshot(snapshot)
    compared = 0
    for policy in policies(chance):
        theirs = json.loads(restic(path, "forget", "--dry-run", "--json", *arguments(policy)))
        expected = {
            reason["snapshot"]["time"] + reason["snapshot"]["hostname"]: reason["matches"]
            for group in theirs
            for reason in group["reasons"] or ()
        }
        groups = {
            group["host"]: (
                {each["id"] for each in group["keep"] or ()},
                {each["id"] for each in group["remove"] or ()},
            )
            for group in theirs
        }
        with repository.lock() as lock:
            request = ForgetRequest(policy=policy, group_by=("host", "paths"), dry_run=True)
            ours = forget(repository, lock, request, SilentObserver())
        texts = {name: each.time + each.hostname for name, each in repository.snapshots()}
        assert len(ours.groups) == SERIES
        for group in ours.groups:
            keep = {verdict.candidate.id for verdict in group.verdicts if verdict.kept}
            drop = {verdict.candidate.id for verdict in group.verdicts if not verdict.kept}
            their_keep, their_drop = groups[group.group.hostname]
            newest = group.verdicts[0]
            if newest.candidate.id in their_drop:  # Perdure never drops it
                assert newest.reasons == (
                    f"newest complete snapshot of {group.group.hostname}:/a,/b",
                )
                keep, drop = keep - {newest.candidate.id}, drop | {newest.candidate.id}
            assert (keep, drop) == (their_keep, their_drop), list(arguments(policy))
            for verdict in group.verdicts:
                if verdict.candidate.id in their_keep:
                    assert list(verdict.reasons) == expected[texts[verdict.candidate.id]]
            compared += 1
    assert compared == SERIES * (POLICIES + 2)


def test_restic_finds_no_fault_after_a_prune(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    shared, gone = os.urandom(3 << 20), os.urandom(2 << 20)
    first = backup(repository, {"shared": [shared], "gone": [gone], "empty": []})
    second = backup(repository, {"shared": [shared], "new": [os.urandom(1 << 20)]})
    with repository.lock(exclusive=True) as lock:
        forget(repository, lock, ForgetRequest(Selection((first,))), SilentObserver())
    report = pruned(path)
    assert report.bytes_freed > len(gone)
    assert report.bytes_unused == 0

    restic(path, "check", "--read-data")
    restic(path, "restore", second, "--target", str(tmp_path / "restored"))
    assert (tmp_path / "restored/folder/shared").read_bytes() == shared
    left = restic(path, "prune", "--dry-run", "--max-unused", "0")
    assert re.search(r"total prune: +0 blobs", left)


def test_a_repository_that_restic_wrote_is_pruned(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    restic(path, "init", "--repository-version", "1")  # without compression
    folder = tmp_path / "odd"
    odd_files.make(folder)
    for number in range(3):
        (folder / "grows").write_bytes(os.urandom(300_000) + bytes(number * 1000))
        restic(path, "backup", "odd", "--tag", str(number), cwd=tmp_path)
    restic(path, "migrate", "upgrade_repo_v2")
    restic(path, "backup", "odd", cwd=tmp_path)
    repository = open_repository(path)
    before = {
        place.entry.kind for place in repository.index.locations() if not place.entry.content_length
    }
    assert len(before) == 2  # data and trees that are not compressed
    with repository.lock(exclusive=True) as lock:
        request = ForgetRequest(policy=Policy(last=2))
        report = forget(repository, lock, request, SilentObserver())
    assert [len(group.verdicts) for group in report.groups] == [4]
    assert len(report.dropped) == 2
    assert pruned(path).bytes_freed > 300_000

    restic(path, "check", "--read-data")
    for snapshot in json.loads(restic(path, "snapshots", "--json")):
        restic(path, "restore", snapshot["id"], "--target", str(tmp_path / snapshot["id"]))
    assert (tmp_path / snapshot["id"] / "odd/grows").read_bytes() == (folder / "grows").read_bytes()
    restic(path, "backup", "odd", cwd=tmp_path)
    assert re.search(r"to repack: +0 blobs", restic(path, "prune", "--dry-run"))


def test_restic_forgets_and_prunes_what_perdure_wrote(restic: Restic, tmp_path: Path) -> None:
    path, data_fs = tmp_path / "repository", tmp_path / "Data.fs"
    repository = create(path)
    states = [simple(number).data for number in (6, 9, 14, 20)]
    for state in states:
        data_fs.write_bytes(state)
        back_up(repository, data_fs, window=400)
    restic(path, "forget", "--keep-last", "2", "--prune", "--max-unused", "0")
    repository = open_repository(path)
    assert not check_repository(repository, SilentObserver(), read_data=True).findings
    assert [rebuilt_from(found)[0] for found in snapshots_in(repository)] == states[2:]

    data_fs.write_bytes(simple(30).data)
    back_up(repository, data_fs, window=400)
    pruned(path)
    restic(path, "check", "--read-data")
    repository = open_repository(path)
    expected = [*states[2:], simple(30).data]
    assert [rebuilt_from(found)[0] for found in snapshots_in(repository)] == expected


def test_tags_are_changed_as_restic_changes_them(restic: Restic, tmp_path: Path) -> None:
    path = tmp_path / "repository"
    repository = create(path)
    first = backup(repository, {"a": [b"a"]})
    with repository.lock(exclusive=True) as lock:
        (done,) = tag(repository, lock, Selection((first,)), TagChange(add=("x", "ü&")))
    (snapshot,) = json.loads(restic(path, "snapshots", "--json"))
    assert (snapshot["id"], snapshot["original"]) == (done.snapshot, first)
    assert snapshot["tags"] == ["x", "ü&"]
    restic(path, "tag", "--remove", "x")
    ((name, changed),) = open_repository(path).snapshots()
    assert (changed.original, changed.tags) == (first, ("ü&",))
    assert name not in (first, done.snapshot)
    restic(path, "check")

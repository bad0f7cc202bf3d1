from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from datafs import simple
from history_site import HistorySite, back_up
from small_repository import Site

from perdure.errors import PerdureError, RepositoryDamaged, UsageError
from perdure.forget import ForgetReport, ForgetRequest, forget
from perdure.formats import manifest
from perdure.formats.manifest import Manifest
from perdure.history.folders import StoredFile
from perdure.model import ChunkKind, SilentObserver, SnapshotId
from perdure.retention import Policy
from perdure.selection import Selection
from perdure.snapshots import read_manifest, root_of
from perdure.tag import TagChange, Tagged, tag

LAST = Policy(last=1)


def run(site: Site, request: ForgetRequest) -> ForgetReport:
    with site.repository.lock(exclusive=True) as lock:
        return forget(site.repository, lock, request, SilentObserver())


def retag(site: Site, selection: Selection, change: TagChange) -> list[Tagged]:
    with site.repository.lock(exclusive=True) as lock:
        return tag(site.repository, lock, selection, change)


def listed(site: Site) -> list[SnapshotId]:
    return [name for name, _ in site.repository.snapshots()]


@pytest.fixture
def history(tmp_path: Path) -> HistorySite:
    """Three snapshots of one source, then one of another."""
    made = HistorySite()
    for number in (3, 4, 5):
        (tmp_path / "Data.fs").write_bytes(simple(number).data)
        back_up(made.repository, tmp_path / "Data.fs")
    back_up(made.repository, tmp_path / "Data.fs", name="other")
    return made


def without(site: Site, name: SnapshotId, status: str) -> SnapshotId:
    """Put a snapshot in the place of another whose sources have another status, as a run would write it."""
    snapshot = dict(site.repository.snapshots())[name]
    known = read_manifest(site.repository, snapshot)
    assert known
    records = tuple(msgspec.structs.replace(each, status=status) for each in known.sources)
    data = Manifest(known.perdure, records).encode()
    root = root_of(site.repository, snapshot)
    with site.repository.lock() as lock, site.repository.writer(lock) as writer:
        root.put(manifest.NAME, StoredFile((writer.add(ChunkKind.DATA, data).result(),), len(data)))
        tree = root.store(writer)
        assert tree
        changed = writer.commit(msgspec.structs.replace(snapshot, tree=tree.hex()))
    site.repository.delete_snapshot(name)
    return changed


def test_sources_are_judged_apart(history: HistorySite) -> None:
    *_, third, other = listed(history)
    report = run(history, ForgetRequest(policy=LAST))
    assert listed(history) == [third, other]
    assert len(report.dropped) == 2
    assert [group.group.sources for group in report.groups] == [("main",), ("other",)]


def test_incomplete_ones_do_not_stand_for_complete_ones(history: HistorySite) -> None:
    first, second, third, other = listed(history)
    lacking = without(history, third, "incomplete")
    repaired = without(history, second, "repaired")
    report = run(history, ForgetRequest(policy=LAST))
    assert set(listed(history)) == {first, lacking, other}
    assert report.dropped == (repaired,)
    reasons = {verdict.candidate.id: verdict.reasons for verdict in report.verdicts}
    assert reasons[first] == ("last snapshot",)
    assert reasons[lacking] == ("last snapshot, incomplete",)
    assert reasons[repaired] == ("incomplete: main", "no rule keeps it")


def test_the_newest_complete_one_may_be_among_those_not_selected(history: HistorySite) -> None:
    first, second, third, _ = listed(history)
    (tagged,) = retag(history, Selection((first,)), TagChange(add=("old",)))
    nothing = Policy(tags=(("none",),))
    report = run(history, ForgetRequest(Selection(tags=("old",)), nothing))
    assert report.dropped == (tagged.snapshot,)
    report = run(history, ForgetRequest(Selection(source="main"), nothing))
    assert report.dropped == (second,)
    assert third in listed(history)


def test_what_is_named_is_dropped_whatever_it_is(history: HistorySite) -> None:
    names = listed(history)
    report = run(history, ForgetRequest(Selection((names[0][:10], "latest", names[3]))))
    assert set(report.dropped) == {names[0], names[3]}
    assert listed(history) == names[1:3]
    for name in names[1:3]:
        run(history, ForgetRequest(Selection((name,))))
    assert listed(history) == []


def test_a_damaged_snapshot_can_be_dropped_by_its_id_only(site: Site) -> None:
    name = site.backup({"a": [b"a"]})
    site.backup({"b": [b"b"]})
    for packfile in site.names("data"):
        del site.store.contents[packfile]
    with pytest.raises(RepositoryDamaged):
        run(site, ForgetRequest(policy=LAST))
    assert len(listed(site)) == 2
    run(site, ForgetRequest(Selection((name,))))
    assert len(listed(site)) == 1


def test_what_cannot_be_asked(site: Site) -> None:
    name = site.backup({"a": [b"a"]})
    with pytest.raises(UsageError, match="which snapshots to keep"):
        run(site, ForgetRequest())
    with pytest.raises(UsageError, match="a policy is given"):
        run(site, ForgetRequest(Selection((name,)), LAST))
    with pytest.raises(UsageError, match="selected by host"):
        Selection((name,), host="www1")
    with pytest.raises(UsageError, match="no snapshots"):
        run(site, ForgetRequest(Selection((name, "ffff"))))
    assert listed(site) == [name]


def test_a_dry_run_drops_nothing(history: HistorySite) -> None:
    before = dict(history.store.contents)
    with history.repository.lock() as lock:
        request = ForgetRequest(policy=LAST, dry_run=True)
        report = forget(history.repository, lock, request, SilentObserver())
        assert len(report.dropped) == 2
        with pytest.raises(PerdureError, match="exclusive"):
            forget(history.repository, lock, ForgetRequest(policy=LAST), SilentObserver())
    assert history.store.contents == before


def test_a_change_of_tags(site: Site) -> None:
    first = site.backup({"a": [b"a"]})
    (done,) = retag(site, Selection(), TagChange(add=("b", "a", "b")))
    assert done.before == first
    assert done.tags == ("b", "a")
    ((name, snapshot),) = site.repository.snapshots()
    assert (name, snapshot.original, snapshot.tags) == (done.snapshot, first, ("b", "a"))
    (again,) = retag(site, Selection(), TagChange(add=("c",), remove=("b",)))
    ((_, snapshot),) = site.repository.snapshots()
    assert (again.before, snapshot.original, snapshot.tags) == (name, first, ("a", "c"))
    assert retag(site, Selection(), TagChange(add=("c",))) == []
    assert retag(site, Selection(tags=("b",)), TagChange(set=())) == []
    (cleared,) = retag(site, Selection(tags=("a", "c")), TagChange(set=()))
    assert cleared.tags == ()
    (before,) = site.repository.snapshots()
    with site.repository.lock() as lock:
        rehearsed = tag(site.repository, lock, Selection(), TagChange(set=("x",)), dry_run=True)
        assert [each.snapshot for each in rehearsed] == [None]
        with pytest.raises(PerdureError, match="exclusive"):
            tag(site.repository, lock, Selection(), TagChange(set=("x",)))
    assert site.repository.snapshots() == [before]


def test_changes_that_cannot_be() -> None:
    with pytest.raises(UsageError, match="nothing is to be changed"):
        TagChange()
    with pytest.raises(UsageError, match="excludes"):
        TagChange(add=("a",), set=("b",))


def test_a_change_of_tags_that_was_interrupted(site: Site) -> None:
    """Both snapshots are there: the next change deletes the old one, and a policy does not count it."""
    older = site.backup({"old": [b"old"]})
    (name, snapshot), *_ = site.repository.snapshots()
    assert name == older
    newer = msgspec.structs.replace(snapshot, time="2026-11-22T03:15:00Z")
    newer_id = site.repository.save_snapshot(newer)
    half = msgspec.structs.replace(newer, tags=("a",), original=newer_id)
    half_id = site.repository.save_snapshot(half)
    before = dict(site.store.contents)

    report = run(site, ForgetRequest(policy=Policy(last=2)))
    assert report.dropped == (newer_id,)
    assert report.verdicts[-1].reasons == (f"retagged as {half_id[:8]}",)
    assert set(listed(site)) == {older, half_id}

    site.store.contents = before
    done = retag(site, Selection(), TagChange(add=("a",)))
    assert [each.snapshot for each in done] == [
        next(name for name in listed(site) if name != half_id),
        half_id,
    ]
    assert len(listed(site)) == 2


def test_what_another_program_wrote_is_grouped_by_host_and_paths(site: Site) -> None:
    site.backup({"a": [b"a"]})
    (group,) = run(site, ForgetRequest(policy=LAST)).groups
    assert (group.group.sources, group.group.paths) == (None, ("/folder",))

"""Restoring from archives: which, in what order, all of it or nothing."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from directorystorage_homes import FIXTURES, seen, states_of

from perdure.dropin.directorystorage.backup import archives_in, read_index
from perdure.dropin.directorystorage.chain import plan_chain, restorable
from perdure.dropin.directorystorage.restore import RestoreRequest, plan_restore, restore
from perdure.dropin.directorystorage.verify import verify_home
from perdure.dropin.directorystorage.verify_archives import verify_archives
from perdure.errors import SourceDamaged, TargetInUse, UsageError
from perdure.formats.directorystorage_archive import ArchiveName
from perdure.formats.directorystorage_names import Kind
from perdure.model import SilentObserver, Tid
from perdure.sources.directorystorage.home import Home, View
from perdure.sources.directorystorage.placing import made_beside

OBSERVER = SilentObserver()
SETTINGS = "config/settings"


def names(*texts: str) -> list[ArchiveName]:
    parsed = [ArchiveName.parse(f"m-{text}.tgz") for text in texts]
    return [name for name in parsed if name]


def chosen(*texts: str, number: int | None = None) -> list[str]:
    return [str(name)[2:-4] for name in plan_chain(names(*texts), number).archives]


@pytest.fixture
def archives(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURES / "chunky-backups.tar.gz") as archive:
        archive.extractall(tmp_path / "real", filter="data")
    return tmp_path / "real" / "backups"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    with tarfile.open(FIXTURES / "odd-archives.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    return tmp_path / "odd"


def current(home: Path) -> dict[str, tuple[str, str]]:
    """Of each object that can be loaded: tid and SHA-256 of the current revision."""
    view = View(Home(home))
    found = {}
    for name in view.names():
        if name.kind is Kind.POINTER:
            pointer = view.pointer(name.oid)
            assert pointer
            revision = view.revision(name.oid, pointer.tid)
            if revision and revision.data:
                digest = hashlib.sha256(revision.data).hexdigest()
                found[f"{name.oid:016X}"] = (f"{pointer.tid:016X}", digest)
    return found


class TestChain:
    @pytest.mark.parametrize(
        ("given", "wanted", "expected"),
        [
            (["1", "1-to-2", "2-to-3", "2-to-4", "4-to-5"], None, ["1", "1-to-2", "2-to-4", "4-to-5"]),
            (["1", "1-to-2", "2-to-3", "2-to-4"], 3, ["1", "1-to-2", "2-to-3"]),
            (["1", "1-to-2", "2", "2-to-3"], None, ["2", "2-to-3"]),
            (["1", "1-to-3", "2", "4", "3-to-5"], 5, ["4", "3-to-5"]),  # 3-to-5 has what 4 lacks
            (["1", "1-to-3", "2"], 3, ["2", "1-to-3"]),
            (["8", "8-to-10", "9-to-11", "10-to-12"], 12, ["8", "8-to-10", "10-to-12"]),
        ],
    )  # fmt: skip
    def test_the_fewest_archives_without_a_gap(
        self, given: list[str], wanted: int | None, expected: list[str]
    ) -> None:
        assert chosen(*given, number=wanted) == expected

    @pytest.mark.parametrize(
        ("given", "wanted", "why"),
        [
            ([], None, "no archives"),
            (["1-to-2"], None, "no full backup"),
            (
                ["1", "2-to-3"],
                None,
                "m-1.tgz leads to run 1, and the next increment is m-2-to-3.tgz",
            ),
            (["1", "1-to-2"], 3, "leads to run 2, and there is no later increment"),
            (["2"], 1, "no full backup"),
        ],
    )
    def test_a_gap_is_named(self, given: list[str], wanted: int | None, why: str) -> None:
        with pytest.raises(UsageError, match=why):
            chosen(*given, number=wanted)

    def test_what_can_be_restored(self) -> None:
        assert restorable(names("1", "1-to-2", "3-to-4", "5", "4-to-6")) == [1, 2, 5, 6]


@pytest.mark.parametrize("number", range(1, 7))
def test_every_run_of_the_real_tool(archives: Path, tmp_path: Path, number: int) -> None:
    report = restore(RestoreRequest(archives, tmp_path / "home", number=number), OBSERVER)
    state = seen("chunky-backups")["states"][str(number)]
    assert str(report.serial) == state["last_tid"].lower()
    assert current(tmp_path / "home") == {
        oid: (each["tid"], each["sha256"])
        for oid, each in state["objects"].items()
        if "sha256" in each
    }
    assert not verify_home(Home(tmp_path / "home"), OBSERVER).damaged
    assert (tmp_path / "home").stat().st_mode & 0o777 == 0o755
    assert not list((tmp_path / "home" / "misc").iterdir())
    rows = read_index(tmp_path / "home" / "backups")
    assert [row.number for row in rows] == list(range(1, number + 1))


@pytest.mark.parametrize("layout", ["bushy", "chunky", "lawn", "flat"])
def test_another_format(archives: Path, tmp_path: Path, layout: str) -> None:
    restore(RestoreRequest(archives, tmp_path / "home", layout=layout), OBSERVER)
    home = Home(tmp_path / "home")
    assert home.settings.layout == layout
    assert not verify_home(home, OBSERVER).damaged
    assert View(home).serial() == int(seen("chunky-backups")["states"]["6"]["last_tid"], 16)


def test_every_moment(archives: Path, tmp_path: Path) -> None:
    transactions = seen("chunky-backups")["states"]["5"]["iter"]["transactions"]
    for each in transactions[3::7]:
        target = tmp_path / each["tid"]
        report = restore(
            RestoreRequest(archives, target, moment=Tid.from_text(each["tid"])), OBSERVER
        )
        assert str(report.serial) == each["tid"].lower()
        assert not verify_home(Home(target), OBSERVER).damaged


def test_a_lost_increment_is_jumped_over_and_a_gap_is_not(archives: Path, tmp_path: Path) -> None:
    for name in ("mysite-2-to-3.tgz", "mysite-5.tgz", "mysite-6.tgz"):
        (archives / name).unlink()
    request = RestoreRequest(archives, tmp_path / "home")
    assert [str(name) for name in plan_restore(request).archives] == [
        *("mysite-1.tgz", "mysite-1-to-2.tgz", "mysite-2-to-4.tgz"),
        *("mysite-4-to-5.tgz", "mysite-5-to-6.tgz"),
    ]
    assert restore(request, OBSERVER).serial.value == read_index(archives)[-1].tid
    (archives / "mysite-2-to-4.tgz").unlink()
    with pytest.raises(UsageError, match="leads to run 2, and the next increment is mysite-4-to-5"):
        restore(RestoreRequest(archives, tmp_path / "other"), OBSERVER)
    assert not (tmp_path / "other").exists()


def test_a_gap_behind_wrong_names_is_found_by_tids(archives: Path, tmp_path: Path) -> None:
    """Somebody renamed an archive: the numbers fit, the transactions do not."""
    for name in archives_in(archives):
        if str(name) not in ("mysite-1.tgz", "mysite-4-to-5.tgz"):
            (archives / str(name)).unlink()
    (archives / "mysite-4-to-5.tgz").rename(archives / "mysite-1-to-5.tgz")
    (archives / "tindex").unlink()
    with pytest.raises(SourceDamaged, match="not whole"):
        restore(RestoreRequest(archives, tmp_path / "home"), OBSERVER)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["real"]


def test_an_older_archive_after_a_newer_one(archives: Path, tmp_path: Path) -> None:
    (archives / "mysite-2-to-3.tgz").rename(archives / "mysite-4-to-5.tgz")
    (archives / "mysite-5.tgz").unlink()
    with pytest.raises(SourceDamaged, match="before what it is to continue"):
        restore(RestoreRequest(archives, tmp_path / "home", number=5), OBSERVER)


def test_only_into_what_is_empty(archives: Path, tmp_path: Path) -> None:
    target = tmp_path / "home"
    target.mkdir()
    restore(RestoreRequest(archives, target, number=1), OBSERVER)
    before = states_of(target)
    with pytest.raises(UsageError, match="not empty"):
        restore(RestoreRequest(archives, target), OBSERVER)
    assert states_of(target) == before
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    with pytest.raises(UsageError):
        restore(RestoreRequest(archives, tmp_path / "link"), OBSERVER)


def test_one_restore_at_a_time(archives: Path, tmp_path: Path) -> None:
    """Else the second one would take the first one's folder for what an interrupted run left."""
    with made_beside(tmp_path / "home") as part:
        (part / "mine").touch()
        with pytest.raises(TargetInUse, match="another restore"):
            restore(RestoreRequest(archives, tmp_path / "home"), OBSERVER)
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["mine"]


def test_several_storages_in_one_folder(archives: Path, tmp_path: Path) -> None:
    shutil.copy(archives / "mysite-1.tgz", archives / "other-9.tgz")
    (archives / "tindex").unlink()
    with pytest.raises(UsageError, match="several prefixes: mysite, other"):
        restore(RestoreRequest(archives, tmp_path / "home"), OBSERVER)
    report = restore(RestoreRequest(archives, tmp_path / "home", prefixes=("other",)), OBSERVER)
    assert report.chain.number == 9


def test_what_root_restores_belongs_to_whom_it_belonged(archives: Path, tmp_path: Path) -> None:
    if os.geteuid():
        return  # then all of it belongs to who restores it

    def to_nobody(member: tarfile.TarInfo) -> tarfile.TarInfo:
        member.uid = member.gid = 65534
        member.uname = member.gname = ""
        return member

    rewrite(archives / "mysite-1.tgz", {}, change_all=to_nobody)
    restore(RestoreRequest(archives, tmp_path / "home", number=1), OBSERVER)
    made = [tmp_path / "home", *(tmp_path / "home").rglob("*")]
    assert {(path.stat().st_uid, path.stat().st_gid) for path in made} == {(65534, 65534)}


def test_identity(archives: Path, tmp_path: Path) -> None:
    digits = b"0123456789abcdef" * 2
    restore(RestoreRequest(archives, tmp_path / "home", identity=digits), OBSERVER)
    assert (tmp_path / "home" / "config" / "identity").read_bytes() == digits


def rewrite(
    path: Path,
    change: dict[str, str | None],
    extra: tarfile.TarInfo | None = None,
    change_all: Callable[[tarfile.TarInfo], tarfile.TarInfo] = lambda member: member,
) -> None:
    """Write an archive anew, with members renamed or left out, and one more."""
    with tarfile.open(path) as old, tarfile.open(path.with_name("new"), "w:gz") as new:
        for member in old:
            content = old.extractfile(member) if member.isfile() else None
            name = change.get(member.name, member.name)
            if name:
                member.name = name
                new.addfile(change_all(member), content)
        if extra:
            new.addfile(extra, io.BytesIO(b"x" * extra.size))
    path.with_name("new").rename(path)


def test_archives_without_config(archives: Path, tmp_path: Path) -> None:
    """From before DirectoryStorage 1.1.10."""
    restore(RestoreRequest(archives, tmp_path / "whole", number=1), OBSERVER)
    rewrite(archives / "mysite-1.tgz", {SETTINGS: None, "config/identity": None})
    with pytest.raises(UsageError, match=r"no config/settings.*1\.1\.10"):
        restore(RestoreRequest(archives, tmp_path / "home", number=1), OBSERVER)
    config = tmp_path / "whole" / "config"
    restore(RestoreRequest(archives, tmp_path / "home", number=1, config=config), OBSERVER)
    assert (tmp_path / "home" / SETTINGS).read_bytes() == (config / "settings").read_bytes()
    flat = (config / "settings").read_text().replace("format: chunky", "format: flat")
    (config / "settings").write_text(flat)
    with pytest.raises(UsageError, match="not of the format flat"):
        restore(RestoreRequest(archives, tmp_path / "other", number=1, config=config), OBSERVER)


@pytest.mark.parametrize(
    "name", ["../evil", "/evil", "A/../../evil", "misc/snapshot", "journal/x", "a/b"]
)
def test_members_that_lead_elsewhere(archives: Path, tmp_path: Path, name: str) -> None:
    extra = tarfile.TarInfo(name)
    extra.size = 4
    rewrite(archives / "mysite-1.tgz", {}, extra)
    with pytest.raises(SourceDamaged):
        restore(RestoreRequest(archives, tmp_path / "in" / "home", number=1), OBSERVER)
    assert not list((tmp_path / "in").iterdir())


def test_links_and_devices(archives: Path, tmp_path: Path) -> None:
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        extra = tarfile.TarInfo("A/x/link")
        extra.type, extra.linkname = kind, "/etc/passwd"
        rewrite(archives / "mysite-1.tgz", {"A/x/link": None}, extra)
        with pytest.raises(SourceDamaged, match="no ordinary file"):
            restore(RestoreRequest(archives, tmp_path / "home", number=1), OBSERVER)


def test_cut_and_altered_archives(archives: Path, tmp_path: Path) -> None:
    path = archives / "mysite-1.tgz"
    whole = path.read_bytes()
    for bad in (
        whole[:-20],
        whole[: len(whole) // 2],
        whole[:100] + b"\0" + whole[101:],
        b"",
        b"no gzip",
    ):
        path.write_bytes(bad)
        with pytest.raises(SourceDamaged):
            restore(RestoreRequest(archives, tmp_path / "home", number=1), OBSERVER)
    inside = bytearray(gzip.decompress(whole))
    at = inside.find(b"persistent.mapping")
    inside[at] ^= 1
    path.write_bytes(gzip.compress(bytes(inside)))
    with pytest.raises(SourceDamaged, match="MD5 is not that") as raised:
        restore(RestoreRequest(archives, tmp_path / "home", number=1), OBSERVER)
    assert raised.value.hint == "do without it: --without mysite-1.tgz"


def test_an_archive_under_another_one_s_name(archives: Path, tmp_path: Path) -> None:
    """Whole in itself, and not what was asked for."""
    shutil.copy(archives / "mysite-5.tgz", archives / "mysite-2-to-4.tgz")
    with pytest.raises(SourceDamaged, match="tindex says 040d283895602433 of run 4"):
        restore(RestoreRequest(archives, tmp_path / "home", number=4), OBSERVER)
    assert not (tmp_path / "home").exists()


class TestOddArchivesOfTheRealTool:
    """All of them with exit code 0."""

    def test_are_told_apart(self, odd: Path) -> None:
        verdict = verify_archives(odd, OBSERVER)
        said = "\n".join(finding.what for finding in verdict.findings)
        assert "trailing-garbage-backup-1.tgz goes on behind its end" in said
        assert "uid-too-big-backup-2.tgz: x.serial or x.oid is not in it" in said
        assert (
            "object-missing-backup-3.tgz: o0000000000000007.040D2838F44A9000, which is current"
            in said
        )
        assert verdict.damaged
        assert verdict.restorable == (1,)

    def test_and_restored_where_they_are_whole(self, odd: Path, tmp_path: Path) -> None:
        observer = SilentObserver()
        restore(RestoreRequest(odd, tmp_path / "home", number=1), observer)
        assert "goes on behind its end" in observer.warnings[0]
        with pytest.raises(SourceDamaged, match=r"no x\.serial"):
            restore(RestoreRequest(odd, tmp_path / "two", number=2), OBSERVER)
        with pytest.raises(SourceDamaged, match="0007"):
            restore(RestoreRequest(odd, tmp_path / "three", number=3), OBSERVER)


class TestVerifyArchives:
    def test_all_is_well(self, archives: Path) -> None:
        verdict = verify_archives(archives, OBSERVER)
        assert (verdict.findings, verdict.restorable) == ([], (1, 2, 3, 4, 5, 6))

    def test_an_increment_without_its_full(self, archives: Path) -> None:
        for name in ("mysite-1.tgz", "mysite-5.tgz", "mysite-6.tgz"):
            (archives / name).unlink()
        verdict = verify_archives(archives, OBSERVER)
        assert not verdict.damaged
        assert verdict.restorable == ()
        assert "backup 2 cannot be restored: what it continues is not here" in [
            finding.what for finding in verdict.findings
        ]

    def test_the_index_says_something_else(self, archives: Path) -> None:
        index = archives / "tindex"
        index.write_text(index.read_text().replace("040D28387EE67555", "040D28387EE67556"))
        said = [finding.what for finding in verify_archives(archives, OBSERVER).findings]
        assert any(
            text.startswith("mysite-1-to-2.tgz: it ends at 040d28387ee67555") for text in said
        )

    def test_leftovers_and_rows_without_archives(self, archives: Path) -> None:
        (archives / ".tmp-mysite-7.tgz").write_bytes(b"half")
        (archives / "mysite-2-to-3.tgz").unlink()
        said = [(f.severity, f.what) for f in verify_archives(archives, OBSERVER).findings]
        assert ("note", "the archives of backup 3 are not here") in said
        assert any("was left by a run that was stopped" in what for _, what in said)

    def test_a_missing_revision_in_an_increment(self, archives: Path) -> None:
        path = archives / "mysite-1-to-2.tgz"
        with tarfile.open(path) as archive:
            name = next(each.name for each in archive if ".040D" in each.name)
        rewrite(path, {name: None})
        assert verify_archives(archives, OBSERVER).damaged

"""Runs and restores of a site without buildout: what is made, kept, refused, and told."""

from __future__ import annotations

import fcntl
import json
import os
import tarfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from blob_site import BlobSite, State
from command_line import Program, Result

from perdure.dropin.recipe.locking import locked
from perdure.dropin.recipe.options import read_options
from perdure.dropin.recipe.settling import Around, settle
from perdure.errors import StoreError

Run = Callable[..., Result]


@pytest.fixture
def site(tmp_path: Path) -> BlobSite:
    """A site whose folder has spaces in its name, with something in it."""
    made = BlobSite(tmp_path / "a site")
    settings(made, "")
    made.add()
    return made


@pytest.fixture
def run(program: Program, site: BlobSite) -> Run:
    def call(*arguments: str, code: int = 0) -> Result:
        return program("site", "--folder", str(site.folder), *arguments, code=code)

    return call


def settings(site: BlobSite, text: str) -> None:
    (site.folder / "perdure.toml").write_text(f"[site]\nenable-zipbackup = true\n{text}\n")


def names(site: BlobSite, folder: str) -> list[str]:
    path = site.folder / "var" / folder
    found = [each.name for each in path.iterdir()] if path.is_dir() else []
    return sorted(name for name in found if not name.startswith(".perdure-"))


def status(site: BlobSite) -> dict[str, object]:
    path = site.folder / "var" / "backups" / ".perdure-status.json"
    found: dict[str, object] = json.loads(path.read_text())
    return found


def test_unchanged_blobs_are_links(site: BlobSite, run: Run) -> None:
    run("backup")
    site.add()
    run("backup")
    first, second, latest = sorted((site.folder / "var" / "blobstoragebackups").glob("*[!k]"))
    assert latest.is_symlink()
    assert os.readlink(latest) == second.name
    old = {path.relative_to(first): path.stat().st_ino for path in first.rglob("*.blob")}
    new = {path.relative_to(second): path.stat().st_ino for path in second.rglob("*.blob")}
    assert old.items() < new.items()
    live = next(site.blobs.rglob("*.blob"))
    assert live.stat().st_ino not in new.values()
    assert (second / "blobstorage" / ".layout").read_text() == "bushy"
    assert (second / "blobstorage" / "tmp").is_dir()


@pytest.mark.parametrize(
    ("manner", "name"),
    [
        ("archive-blob = true", "blobstorage.{}.tar"),
        ("archive-blob = true\ncompress-blob = true", "blobstorage.{}.tar.gz"),
        ("use-rsync = false", "blobstorage.{}"),
        ("blob-timestamps = false", "blobstorage.0"),
        ("blob-timestamps = false\narchive-blob = true", "blobstorage.0.tar"),
        ("gzip = false\nquick = false\nfull = true", "blobstorage.{}"),
        ("rsync-hard-links-on-first-copy = true", "blobstorage.{}"),
    ],
)
def test_manners(site: BlobSite, run: Run, manner: str, name: str) -> None:
    settings(site, f"keep = 9\n{manner}")
    states: dict[str, State] = {}
    for _ in range(3):
        site.add()
        stamp = run("backup", "--json").summary["stamp"]
        states[stamp] = site.state()
        assert name.format(stamp) in names(site, "blobstoragebackups")
    if "-timestamps" in manner:
        assert [entry.split(".")[1] for entry in names(site, "blobstoragebackups")] == list("012")
    for stamp, state in states.items():
        run("restore", "-n", stamp)
        assert site.state() == state
    run("verify")


def test_nothing_new(site: BlobSite, run: Run) -> None:
    assert "would go to" in run("backup", "--dry-run").out
    assert not (site.folder / "var" / "backups").exists()
    run("backup")
    assert run("backup", "--dry-run", "--json").summary["storages"][0]["unchanged"]
    before = names(site, "backups"), names(site, "blobstoragebackups")
    assert "nothing is new" in run("backup").out
    assert (names(site, "backups"), names(site, "blobstoragebackups")) == before


def test_a_backup_of_blobs_that_was_not_whole_is_made_anew(site: BlobSite, run: Run) -> None:
    run("backup")
    folder = site.folder / "var" / "blobstoragebackups"
    lost = next(folder.glob("blobstorage.*/**/*.blob"))
    lost.unlink()
    assert "1 blob files" in run("verify", code=13).out
    run("backup")
    run("verify")
    assert lost.exists()


def test_a_copy_that_broke_off(site: BlobSite, run: Run) -> None:
    """What an interrupted rsync or copy left is not taken for whole: what it lacks is looked for."""
    run("backup")
    (first,) = (site.folder / "var" / "blobstoragebackups").glob("blobstorage.*")
    state = site.state()
    stamp = first.name[-19:]
    site.add()
    run("backup")
    second = site.state()
    (first / "blobstorage" / ".layout").unlink()
    *_, cut, lost = sorted(first.rglob("*.blob"))
    lost.unlink()
    whole = cut.read_bytes()
    cut.unlink()  # else it would be cut in both: they are links
    cut.write_bytes(whole[:-1])
    (cut.parent / f".{cut.name}.Xa8Jb2").touch()
    run("restore", "-n", stamp)
    assert site.state() == state
    run("restore", "-n")
    assert site.state() == second
    (first.parent / os.readlink(first.parent / "latest")).rename(first.parent / "away")
    assert "1 blob files" in run("restore", "-n", stamp, code=13).err
    run("restore", "-n", "--allow-missing-blobs", stamp)
    assert (site.blobs / ".layout").read_text() == "bushy"


def test_a_copy_whose_last_file_is_cut_off(site: BlobSite, run: Run) -> None:
    """Nothing is missing; but another backup has more of a file. What .layout says is not needed."""
    settings(site, "use-rsync = false")
    run("backup")
    site.add()
    run("backup")
    state = site.state()
    *_, second = sorted((site.folder / "var" / "blobstoragebackups").glob("blobstorage.*"))
    first = min(second.rglob("*.blob"))
    first.write_bytes(first.read_bytes()[:-1])
    (second / "blobstorage" / ".layout").write_text("bus")
    assert "has different sizes in several backups" in run("restore", "-n").err
    assert site.state() == state


def test_increments_of_a_tar_that_lacks_blobs(site: BlobSite, run: Run) -> None:
    settings(site, "archive-blob = true\nincremental-blobs = true")
    run("backup")
    (first,) = (site.folder / "var" / "blobstoragebackups").glob("*.tar")
    with tarfile.open(first, "w"):
        pass
    site.add()
    said = run("backup", "--json")
    stamp = said.summary["stamp"]
    assert any("lack blobs" in str(event) for event in said.events)
    assert f"blobstorage.{stamp}.tar" in names(site, "blobstoragebackups")
    state = site.state()
    site.add()
    run("restore", "-n")
    assert site.state() == state


def test_a_blob_that_is_nowhere(site: BlobSite, run: Run) -> None:
    run("backup")
    state = site.state()
    site.add()
    next(
        path
        for path in site.blobs.rglob("*.blob")
        if str(path.relative_to(site.blobs)) not in state
    ).unlink()
    said = run("backup", code=3)
    assert "lacks 1 blobs, which have no file" in said.err
    assert status(site)["status"] == "incomplete"
    before = site.state()
    refused = run("restore", "-n", code=13)
    assert "1 blob files of this state are in no backup; nothing was touched" in refused.err
    assert site.state() == before
    run("restore", "-n", "--allow-missing-blobs")
    assert site.state() == before


def test_a_blob_that_a_pack_has_put_aside(site: BlobSite, run: Run) -> None:
    """A pack that keeps old blobs moves them away; what was read before it is whole even so."""
    lost = next(site.blobs.rglob("*.blob"))
    kept = site.folder / "var" / "blobstorage.old" / lost.relative_to(site.blobs)
    kept.parent.mkdir(parents=True)
    state = site.state()
    lost.rename(kept)
    run("backup")
    run("restore", "-n")
    assert site.state() == state


def test_a_pack_while_blobs_are_copied(
    site: BlobSite, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perdure.dropin.recipe.copying import DirectoryCopy

    take = DirectoryCopy.take
    packed: list[bool] = []

    def take_after_a_pack(self: DirectoryCopy, wanted: set[object]) -> None:
        if not packed:
            packed.append(True)
            site.pack()
            import shutil

            shutil.rmtree(site.folder / "var" / "blobstorage.old", ignore_errors=True)
        take(self, wanted)  # type: ignore[arg-type]

    site.add()
    monkeypatch.setattr(DirectoryCopy, "take", take_after_a_pack)
    said = run("backup")
    assert "a pack has ended while blobs were read" in said.err
    state = site.state()
    assert len([each for each in names(site, "backups") if each.endswith("fsz")]) == 1
    site.add()
    run("restore", "-n")
    assert site.state() == state
    assert site.is_consistent()


def test_a_pack_while_the_database_is_copied(
    site: BlobSite, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database that is in the backup decides which blobs belong to it, not the one read first."""
    from perdure.dropin import repozo

    original = repozo.backup

    def backup(request: object, observer: object) -> object:
        if not (site.folder / "packed").exists():
            (site.folder / "packed").touch()
            site.add()
            site.pack()
        return original(request, observer)  # type: ignore[arg-type]

    monkeypatch.setattr(repozo, "backup", backup)
    run("backup")
    run("verify")
    state = site.state()
    run("restore", "-n")
    assert site.state() == state


def test_a_disk_that_is_full(site: BlobSite, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    run("backup")
    state = site.state()
    site.add()
    before = names(site, "backups"), names(site, "blobstoragebackups")
    with monkeypatch.context() as patch:

        def full(*arguments: object, **named: object) -> None:
            raise OSError(28, "No space left on device", "/backup")

        patch.setattr(shutil, "copyfile", full)
        said = run("backup", code=1)
    assert "cannot be written: No space left on device" in said.err
    assert (names(site, "backups"), names(site, "blobstoragebackups")) == before
    assert status(site)["status"] == "failed"
    assert status(site)["last_success"]
    run("restore", "-n")
    assert site.state() == state


def test_what_is_kept(site: BlobSite, run: Run) -> None:
    settings(site, "keep = 2")
    foreign = site.folder / "var" / "backups" / "old folder"
    foreign.mkdir(parents=True)
    (foreign.parent / "notes.txt").touch()
    os.utime(foreign.parent / "notes.txt", (0, 0))
    stamps = []
    for _ in range(3):
        for command in ("backup", "backup"):
            site.add()
            stamps.append(run(command, "--json").summary["stamp"])
        site.pack()
    listed = json.loads(run("list", "--kind", "backup", "--json").out)
    assert [each["stamp"] for each in listed] == stamps[2:]
    assert {name[:19] for name in names(site, "backups") if name.endswith("index")} == set(
        stamps[2:]
    )
    assert foreign.is_dir()
    assert (foreign.parent / "notes.txt").exists()
    assert names(site, "blobstoragebackups") == [
        *(f"blobstorage.{stamp}" for stamp in stamps[2:]),
        "latest",
    ]


def test_kept_by_day(site: BlobSite, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from perdure.cli import commands_files

    settings(site, "keep = 1\nkeep-daily = 3")
    moment = datetime(2026, 3, 1, 2, tzinfo=UTC)
    for number in range(12):
        site.add()
        if number % 4 == 3:
            site.pack()
        now = moment + timedelta(hours=12 * number)
        monkeypatch.setattr(commands_files, "now", lambda at=now: at)
        run("backup")
    listed = [each["stamp"] for each in json.loads(run("list", "--json").out)]
    # The last full one, and the last run of each of three days; an increment needs those before it,
    # but of their blobs no backup of their own: all are among those of a later increment.
    days = ["2026-03-04-14", "2026-03-05-02", "2026-03-05-14", "2026-03-06-14"]
    assert listed == [f"{day}-00-00" for day in days]
    kept = [f"blobstorage.{day}-00-00" for day in days if day != "2026-03-05-02"]
    assert names(site, "blobstoragebackups") == [*kept, "latest"]
    run("verify")


def test_scripts_around_a_run(site: BlobSite, run: Run) -> None:
    log = site.folder / "log"
    tell = f"echo $PERDURE_EVENT $PERDURE_KIND $PERDURE_STATUS >> '{log}'"
    settings(
        site,
        f'pre-command = """\n{tell}\n"""\npost-command = """\n{tell}\n"""\n'
        f'failed-command = """\n{tell}\n"""\nfinally-command = """\n{tell}\n"""',
    )
    run("backup")
    assert log.read_text() == "pre backup\npost backup success\nfinally backup success\n"
    log.unlink()
    settings(
        site,
        f'pre-command = """\nfalse\ntrue\n"""\nfailed-command = """\n{tell}\n"""',
    )
    said = run("restore", "-n", code=1)
    assert "pre_command ended with 1" in said.err
    assert log.read_text() == "failed restore failed\n"


def test_a_script_that_takes_the_disk_away(site: BlobSite, run: Run) -> None:
    """It is told on the disk how the run went, before the disk goes."""
    disk = site.folder / "disk"
    settings(
        site,
        f"""locationprefix = "{disk}"\npost-command = "mv '{disk}' '{disk}-away'\"\n"""
        f"""pre-command = "mkdir '{disk}'\"""",
    )
    run("backup")
    assert not disk.exists()
    known = json.loads((site.folder / "disk-away/backups/.perdure-status.json").read_text())
    assert known["status"] == "success"
    assert known["last_success"] == known["finished"]


def test_who_is_told_of_a_run(site: BlobSite, run: Run) -> None:
    """What perdure.toml says of monitors and hooks holds for these backups, too."""
    textfile, log = site.folder / "perdure.prom", site.folder / "log"
    monitors = f"""[monitoring]\nprometheus-textfile = "{textfile}"\n"""
    hooks = f"""[hooks]\nfinally = [["sh", "-c", "echo $PERDURE_STATUS >> '{log}'"]]\n"""
    settings(site, monitors + hooks)
    run("backup")
    settings(site, f"post-command = 'false'\n{monitors}{hooks}")
    run("backup", code=1)
    assert log.read_text() == "success\nfailed\n"
    assert "perdure_last_run_exit_code" in textfile.read_text()
    assert "perdure_last_success_timestamp_seconds" in textfile.read_text()


def test_a_script_that_says_a_lot_or_never_ends(site: BlobSite, run: Run) -> None:
    settings(
        site,
        "pre-command = \"head -c 300000 /dev/zero | tr '\\\\0' x >&2\"\n"
        'post-command = "sleep 1000"\ncommand-timeout = "0.5s"',
    )
    assert "post_command was ended: it ran for 0.5 seconds" in run("backup", code=1).err


def test_one_run_at_a_time(site: BlobSite, run: Run) -> None:
    settings(site, 'lock-timeout = "0s"')
    run("backup")
    with open(site.folder / "var" / "backups" / ".perdure-lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another run works in" in run("backup", code=11).err
        run("snapshotbackup")


def test_the_lock_of_another_user(unprivileged: AbstractContextManager[None]) -> None:
    """What root once locked another user can lock; who may only read does without where there is none."""
    with TemporaryDirectory() as locked_before, TemporaryDirectory() as new:
        for folder in (Path(locked_before), Path(new)):
            folder.chmod(0o755)
        with locked(Path(locked_before), 0, time.sleep):
            pass
        with unprivileged:
            with locked(Path(locked_before), 0, time.sleep):
                pass
            if os.geteuid() != Path(new).stat().st_uid:
                with locked(Path(new), 0, time.sleep, shared=True):
                    pass
                with pytest.raises(StoreError), locked(Path(new), 0, time.sleep):
                    pass


def test_a_server_that_runs(site: BlobSite, run: Run) -> None:
    run("backup")
    database = site.open()
    run("backup")
    try:
        assert "is in use" in run("restore", "-n", code=14).err
    finally:
        database.close()


def test_dates(site: BlobSite, run: Run) -> None:
    stamp = run("backup", "--json").summary["stamp"]
    day = stamp[:10]
    assert "no full filestorage backup at or before" in run("restore", "-n", day, code=2).err
    run("restore", "-n", "--through", day)
    run("restore", "-n", "--through", day[:4])
    run("restore", "-n", f"{day}T{stamp[11:].replace('-', ':')}+00:00")
    for wrong in ("2030-13-01", "letters", "20", "2026-11-21T"):
        assert "is no date" in run("restore", "-n", wrong, code=2).err
    run("restore", "-n", "--dry-run")


def test_blobs_alone(site: BlobSite, run: Run) -> None:
    settings(site, "only-blobs = true\nblob-storage = 'var/blobstorage'")
    run("backup")
    blobs = {name: digest for name, digest in site.state().items() if name != "Data.fs"}
    site.add()
    live = site.database.read_bytes()
    run("restore", "-n")
    state = site.state()
    assert {name: state[name] for name in state if name != "Data.fs"} == blobs
    assert site.database.read_bytes() == live
    assert not names(site, "backups")


def test_blobs_alone_of_several_storages(site: BlobSite, run: Run) -> None:
    other = BlobSite(site.folder, "var/filestorage/catalog.fs", "var/blobstorage-catalog")
    other.add()
    settings(
        site,
        "only-blobs = true\nadditional-filestorages ="
        " ['catalog var/filestorage/catalog.fs var/blobstorage-catalog', 'plain']",
    )
    run("backup")
    assert names(site, "blobstoragebackups_catalog")
    assert not names(site, "blobstoragebackups_plain")
    state = site.state(), other.state()
    next(other.blobs.rglob("*.blob")).unlink()
    run("restore", "-n")
    assert (site.state(), other.state()) == state


def test_several_storages_are_one_run(site: BlobSite, run: Run) -> None:
    other = BlobSite(site.folder, "var/filestorage/catalog.fs", "var/blobstorage-catalog")
    other.add()
    settings(
        site,
        "additional-filestorages = ['catalog \"var/filestorage/catalog.fs\" var/blobstorage-catalog']",
    )
    stamp = run("backup", "--json").summary["stamp"]
    states = site.state(), other.state()
    assert names(site, "backups_catalog")[0].startswith(stamp)
    assert names(site, "blobstoragebackups_catalog")[0] == f"blobstorage-catalog.{stamp}"
    other.add()
    second = run("backup", "--json").summary["stamp"]
    assert names(site, "backups")[0].startswith(stamp)
    assert any(name.startswith(second) for name in names(site, "backups_catalog"))
    run("restore", "-n", stamp)
    assert (site.state(), other.state()) == states
    (site.folder / "var" / "backups_catalog").rename(site.folder / "var" / "away")
    site.add()
    before = site.state(), other.state()
    assert "backups_catalog has no full" in run("restore", "-n", stamp, code=2).err
    assert (site.state(), other.state()) == before


def test_a_zip_is_one_tar(site: BlobSite, run: Run) -> None:
    for _ in range(2):
        site.add()
        run("zipbackup")
    assert names(site, "blobstoragezips") == ["blobstorage.0.tar"]
    assert sum(name.endswith(".fsz") for name in names(site, "zipbackups")) == 1
    with tarfile.open(site.folder / "var" / "blobstoragezips" / "blobstorage.0.tar") as tar:
        assert tar.getnames()[:3] == [".", "./tmp", "./.layout"]
    state = site.state()
    site.add()
    run("ziprestore", "-n")
    assert site.state() == state


def test_scripts_and_crontab(site: BlobSite, run: Run) -> None:
    run("generate")
    scripts = site.folder / "bin"
    assert {path.name for path in scripts.iterdir()} >= {"backup", "zipbackup", "restore"}
    settings(site, "cron = '30 2 * * *'\nenable-snapshotrestore = false\nname = 'nightly'")
    (scripts / "backup.own").write_text("not ours")
    run("generate")
    assert {path.name for path in scripts.iterdir()} >= {"nightly", "nightly-restore", "backup.own"}
    assert not (scripts / "backup").exists()
    line = run("crontab").out
    assert line.startswith("30 2 * * * ")
    assert line.endswith(f"site --folder '{site.folder}' backup --quiet\n")
    assert "__main__" not in line


def test_the_part_of_a_buildout_keeps_its_settings(
    site: BlobSite, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = site.folder / "part.json"
    around = Around(site.folder, site.folder / "var", None, site.blobs)
    file.write_bytes(settle(read_options({}), around).encode())
    where = ("site", "--part", str(file))
    settings(site, '[hooks]\nbefore = [["false"]]')  # of something else
    monkeypatch.chdir(site.folder)
    program(*where, "backup")
    assert program(*where, "crontab").out.endswith(f"site --part '{file}' backup --quiet\n")
    program(*where, "generate")
    assert f"'--part', '{file}', 'backup'" in (site.folder / "bin" / "backup").read_text()


def test_there_is_nothing_to_verify(run: Run) -> None:
    assert "there are no backups in" in run("verify", code=2).err


def test_settings_of_other_tools(
    site: BlobSite, program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.folder / "perdure.toml").unlink()
    (site.folder / "pyproject.toml").write_text('[tool.collective-backup]\nkeep = 5\nname = "x"\n')
    (site.folder / ".env").write_text('COLLECTIVE_BACKUP_FULL="true"\n')
    program("site", "--folder", str(site.folder), "backup")
    assert names(site, "xs")
    (site.folder / "pyproject.toml").write_text('[tool.perdure.site]\nname = "y"\n')
    program("site", "--folder", str(site.folder), "backup")
    assert names(site, "ys")
    monkeypatch.setenv("COLLECTIVE_BACKUP_KEP", "5")
    said = program("site", "--folder", str(site.folder), "backup", code=2)
    assert "there is no option kep" in said.err
    monkeypatch.delenv("COLLECTIVE_BACKUP_KEP")
    monkeypatch.setenv("BACKUP_LOCATION", str(site.folder / "away"))
    program("site", "--folder", str(site.folder), "backup")
    assert (site.folder / "away" / "ys").is_dir()


@pytest.mark.slow
def test_into_a_repository_and_back(
    site: BlobSite, run: Run, repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from perdure.cli import site_snapshots

    run("backup")
    files = site.state()
    stamp = json.loads(run("list", "--json").out)[0]["stamp"]
    monkeypatch.setattr(site_snapshots, "now", lambda: datetime.now(UTC) + timedelta(seconds=5))
    settings(site, f"repository = '{repository}'\npassword-file = '{tmp_path / 'key'}'")
    site.add()
    run("backup")
    state = site.state()
    kinds = [each["snapshot"] is not None for each in json.loads(run("list", "--json").out)]
    assert kinds == [False, True]
    site.add()
    run("restore", "-n")
    assert site.state() == state
    run("restore", "-n", stamp)
    assert site.state() == files
    run("snapshotbackup")
    told = json.loads(run("verify", "--json").out)
    assert (told["good"], told["bad"]) == (3, 0)
    payload = max((repository / "data").glob("*/*"), key=lambda path: path.stat().st_size)
    payload.chmod(0o600)
    payload.write_bytes(b"")
    run("verify", code=13)

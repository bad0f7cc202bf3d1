"""A DirectoryStorage that lives: the real one, under Python 2.7, commits and packs while it is read."""

from __future__ import annotations

import os
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from directorystorage_homes import states_of
from directorystorage_site import HomeSite, files_of
from old_zope import PATIENCE, Living, LivingError, OldZope, old_zope  # noqa: F401 - a fixture

from perdure import open_directorystorage
from perdure.errors import SourceUnusable
from perdure.formats.directorystorage_names import Kind, parse_name
from perdure.model import SilentObserver, Tid
from perdure.sources.directorystorage.contents import Contents
from perdure.sources.directorystorage.home import Home

pytestmark = pytest.mark.slow


def kept(files: dict[str, bytes], last: int) -> dict[str, bytes]:
    """Give the revisions and transactions up to one."""
    names = {text: parse_name(text) for text in files}
    return {
        text: files[text]
        for text, name in names.items()
        if name and name.kind in (Kind.REVISION, Kind.TRANSACTION) and name.tid <= last
    }


def wait_for_commit(living: Living, cut: Tid) -> None:
    """Wait until something was committed after a cut."""
    end = time.monotonic() + PATIENCE
    while int(living.ask("last"), 16) <= cut.value:
        assert time.monotonic() < end
        time.sleep(0.01)


def check_whole(old_zope: OldZope, home: Path) -> None:  # noqa: F811
    """The real storage opens a HOME, its own checker finds nothing, and it can be written to."""
    with Living(old_zope, home) as again:
        again.close()
    old_zope.tool("checkds", "--storage", home)
    with Living(old_zope, home) as again:
        again.ask("commit", 3)
        again.close()


@pytest.mark.parametrize("layout", ["bushy", "chunky"])
def test_backups_beside_one_that_commits(
    tmp_path: Path,
    old_zope: OldZope,  # noqa: F811
    layout: str,
) -> None:
    home = old_zope.make_home(tmp_path / "home", layout)
    site = HomeSite()
    cuts: list[Tid] = []
    with Living(old_zope, home) as living:
        living.ask("commit", 20)
        living.ask("undo")
        living.settle()
        living.ask("run")
        for number in range(6):
            wait_for_commit(living, cuts[-1] if cuts else Tid(0))
            if number == 2:
                living.ask("enter", "elsewhere")
            if number == 4:
                living.ask("leave", "elsewhere")
            cuts.append(site.back_up(home).cut)
        living.ask("halt")
        living.ask("undo")
        cuts.append(site.back_up(home).cut)
        assert cuts[-1].value == int(living.ask("last"), 16)
        truth = living.ask("dump")["objects"]
        living.settle()
        living.close()
    assert cuts == sorted(cuts)
    assert len(set(cuts)) >= 6
    files = files_of(home)
    for number, cut in enumerate(cuts):
        site.restore(tmp_path / f"{number}", at=cut)
        assert kept(files_of(tmp_path / f"{number}"), cut.value) == kept(files, cut.value)
    assert files_of(tmp_path / f"{len(cuts) - 1}") == files
    for number in (0, 3, len(cuts) - 1):
        check_whole(old_zope, tmp_path / f"{number}")
    storage = open_directorystorage(home)
    for oid, (tid, _) in truth.items():
        assert storage.load(bytes.fromhex(oid))[1].hex() == tid
    site.check()


@pytest.mark.parametrize("policy", ["detailed", "undoable"])
def test_a_pack_and_what_comes_after_it(
    tmp_path: Path,
    old_zope: OldZope,  # noqa: F811
    policy: str,
) -> None:
    settings = {"keep_policy": policy, "delay_delete": "0"}
    home = old_zope.make_home(tmp_path / "home", "chunky", settings=settings)
    site = HomeSite()
    with Living(old_zope, home) as living:
        living.ask("commit", 40)
        living.settle()
        site.back_up(home)
        living.ask("pack")
        assert site.back_up(home).method == "compare"
        packed = files_of(home)
        living.ask("commit", 10)
        living.ask("undo")
        assert site.back_up(home).method == "increment"
        living.settle()
        truth = living.ask("dump")["objects"]
        living.close()
    files = files_of(home)
    assert not kept(files, 1 << 64).keys() < kept(packed, 1 << 64).keys()
    for layout in ("chunky", "flat"):
        site.restore(tmp_path / layout, layout)
        assert files_of(tmp_path / layout) == files
        with Living(old_zope, tmp_path / layout) as again:
            assert again.ask("dump")["objects"] == truth
            again.close()
        old_zope.tool("checkds", "--storage", tmp_path / layout)
    site.check()


def test_a_reader_touches_nothing(tmp_path: Path, old_zope: OldZope) -> None:  # noqa: F811
    home = old_zope.make_home(tmp_path / "home", "bushy")
    with Living(old_zope, home) as living:
        living.ask("commit", 13)
        living.settle()
        living.ask("enter", "elsewhere")
        living.ask("commit", 13)
        last = living.ask("last")
        living.process.send_signal(signal.SIGSTOP)  # else its own flushing is seen, too
        os.waitpid(living.process.pid, os.WUNTRACED)
        before = states_of(home)
        storage = open_directorystorage(home)
        assert storage.lastTransaction().hex() == last
        assert len(list(storage.iterator())) == len(list(Contents(Home(home)).transactions()))
        HomeSite().back_up(home)
        assert states_of(home) == before
        living.process.send_signal(signal.SIGCONT)
        living.ask("leave", "elsewhere")
        living.close()


def test_a_filestorage_of_it_is_what_the_old_converter_makes(
    tmp_path: Path,
    old_zope: OldZope,  # noqa: F811
) -> None:
    from ZODB.FileStorage import FileIterator

    from perdure.dropin.directorystorage.convert import convert

    home = old_zope.make_home(tmp_path / "home", "chunky")
    with Living(old_zope, home) as living:
        living.ask("commit", 30)
        living.ask("undo")
        living.close()
    convert(home, tmp_path / "ours.fs", force=False, observer=SilentObserver())
    old_zope.tool("ds2fs", "--storage", home, tmp_path / "theirs.fs")
    told = []
    for name in ("ours", "theirs"):
        file = tmp_path / f"{name}.fs"
        file.write_bytes(b"FS30" + file.read_bytes()[4:])
        told.append(
            [
                (each.tid, each.user, each.description, each.extension_bytes, records)
                for each in FileIterator(str(file))
                if (records := [(r.oid, r.tid, r.data) for r in each])
            ]
        )
    assert told[0] == told[1]


def test_backups_beside_one_that_packs(tmp_path: Path, old_zope: OldZope) -> None:  # noqa: F811
    """Each backup is whole, or refused because of the pack; never anything between."""
    settings = {"delay_delete": "0"}
    home = old_zope.make_home(tmp_path / "home", "bushy", settings=settings)
    site = HomeSite()
    made = 0
    with Living(old_zope, home) as living:
        living.ask("commit", 100)
        living.settle()
        site.back_up(home)
        stop = threading.Event()

        def pack() -> None:
            while not stop.is_set():
                living.ask("commit", 20)
                with suppress(LivingError):  # it has not yet recombined
                    living.ask("pack")

        packing = threading.Thread(target=pack)
        packing.start()
        try:
            for _ in range(25):
                try:
                    site.back_up(home)
                    made += 1
                except SourceUnusable as error:
                    assert "a pack runs" in str(error)  # noqa: PT017
        finally:
            stop.set()
            packing.join()
        living.settle()
        site.back_up(home)
        living.close()
    snapshots = [name for name, _ in site.repository.snapshots()]
    assert len(snapshots) == made + 2
    for number in (0, len(snapshots) // 2, len(snapshots) - 1):
        site.restore(tmp_path / f"{number}", snapshot=snapshots[number])
        check_whole(old_zope, tmp_path / f"{number}")
    site.check()

"""Verifying a HOME: each damage is found, and nothing is said of what is in order."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from directorystorage_homes import seen, states_of, unpack

from perdure.dropin.directorystorage.locks import LockTaken, locked
from perdure.dropin.directorystorage.rolling_forward import roll_forward
from perdure.dropin.directorystorage.states import State, look
from perdure.dropin.directorystorage.verify import verify_home
from perdure.dropin.directorystorage.wreckage import copy_wreckage
from perdure.errors import SourceUnusable, UsageError
from perdure.formats.directorystorage import PointerFile, RevisionFile, TransactionFile
from perdure.formats.directorystorage_names import (
    journal_name,
    pointer_name,
    revision_name,
    transaction_name,
)
from perdure.model import SilentObserver, Tid
from perdure.sources.directorystorage.home import LOCK, Home, View

OBSERVER = SilentObserver()
IN_ORDER = [
    *("bushy-clean", "chunky-clean", "chunky-empty", "chunky-packed-detailed", "bushy-minimal"),
    *("flat-clean-c12", "flat-clean-nomd5", "chunky-killed-temp", "bushy-quick-shutdown"),
    *("chunky-killed-recombine", "bushy-snapshot-live", "chunky-killed-pack"),
]


def errors(home: Path) -> list[str]:
    return [f.what for f in verify_home(Home(home), OBSERVER).findings if f.severity == "error"]


def warnings(home: Path) -> list[str]:
    return [f.what for f in verify_home(Home(home), OBSERVER).findings if f.severity == "warning"]


@pytest.mark.parametrize("name", IN_ORDER)
def test_what_the_real_storage_wrote_is_in_order(name: str, tmp_path: Path) -> None:
    home = unpack(name, tmp_path)
    before = states_of(home)
    assert errors(home) == []
    assert states_of(home) == before
    crashed = look(Home(home)).state is State.CRASHED
    assert crashed == any("not closed in good order" in text for text in warnings(home))


def test_every_damage_of_the_fixture_is_found(tmp_path: Path) -> None:
    home = unpack("chunky-corrupt", tmp_path)
    found = "\n".join(errors(home))
    for path in seen("chunky-corrupt")["damage"]:
        assert path in found
    assert (
        len(errors(home)) == len(seen("chunky-corrupt")["damage"]) + 1
    )  # a previous one is missing


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return unpack("chunky-clean", tmp_path)


def last_transaction(home: Path) -> TransactionFile:
    view = View(Home(home))
    found = view.transaction(view.serial())
    assert found
    return found


def changed_object(home: Path) -> RevisionFile:
    """The current revision, with a previous one, of an object that the root leads to."""
    view = View(Home(home))
    pointer = view.pointer(1)
    assert pointer
    revision = view.revision(1, pointer.tid)
    assert revision
    assert revision.prev
    return revision


def at(home: Path, name: str) -> Path:
    return Home(home).place("A", name)


def rolled_back_pointer(home: Path) -> None:
    revision = changed_object(home)
    at(home, pointer_name(1)).write_bytes(PointerFile(revision.prev).encode())


def rolled_back_counters(home: Path) -> None:
    """What an older increment extracted over a newer one leaves; the real check finds nothing."""
    at(home, "x.serial").write_bytes(last_transaction(home).prev.to_bytes(8, "big"))


def low_oid(home: Path) -> None:
    at(home, "x.oid").write_bytes((3).to_bytes(8, "big"))


def no_pointer(home: Path) -> None:
    at(home, pointer_name(1)).unlink()


def pointer_of_what_nothing_leads_to(home: Path) -> None:
    at(home, pointer_name(0x30)).parent.mkdir(parents=True, exist_ok=True)
    at(home, pointer_name(0x30)).write_bytes(PointerFile(last_transaction(home).prev).encode())


def no_transaction(home: Path) -> None:
    at(home, transaction_name(last_transaction(home).prev)).unlink()


def no_last_transaction(home: Path) -> None:
    at(home, transaction_name(last_transaction(home).tid)).unlink()


def no_serial(home: Path) -> None:
    at(home, "x.serial").unlink()


def pack_in_the_future(home: Path) -> None:
    """Then everything that is missing would pass for packed."""
    at(home, "x.packed").write_bytes(
        Tid.at(datetime(2105, 1, 1, tzinfo=UTC)).value.to_bytes(8, "big")
    )


def serial_that_the_journal_contradicts(home: Path) -> None:
    """A start would take the counter of the journal."""
    last = last_transaction(home)
    folder = home / "journal" / journal_name(last.tid)
    folder.mkdir()
    at(home, transaction_name(last.tid)).rename(folder / transaction_name(last.tid))
    (folder / "x.serial").write_bytes(bytes(8))


def short_serial(home: Path) -> None:
    at(home, "x.serial").write_bytes(b"123")


def short_counter(home: Path) -> None:
    at(home, "x.oid").write_bytes(b"123")


def revision_under_another_name(home: Path) -> None:
    revision = changed_object(home)
    source = at(home, revision_name(1, revision.tid))
    shutil.copy(source, at(home, revision_name(2, revision.tid)))


def revision_that_no_transaction_names(home: Path) -> None:
    revision = changed_object(home)
    other = RevisionFile(0x15, revision.tid, 0, revision.data)
    path = at(home, revision_name(0x15, revision.tid))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(other.encode())


def reference_to_nothing(home: Path) -> None:
    view = View(Home(home))
    pointer = view.pointer(0)
    assert pointer
    root = view.revision(0, pointer.tid)
    assert root
    for oid in (1, 2, 3):  # what the root refers to
        for path in at(home, pointer_name(oid)).parent.glob(f"{oid:04X}.*"):
            path.unlink()


def broken_pickle(home: Path) -> None:
    revision = changed_object(home)
    bad = RevisionFile(1, revision.tid, revision.prev, revision.data[:-3])
    at(home, revision_name(1, revision.tid)).write_bytes(bad.encode())


def strange_journal(home: Path) -> None:
    (home / "journal" / ".keep").touch()


def no_misc(home: Path) -> None:
    shutil.rmtree(home / "misc")


DAMAGE: list[tuple[Callable[[Path], None], str]] = [
    (rolled_back_pointer, "there is a newer revision"),
    (rolled_back_counters, "younger than the last transaction"),
    (low_oid, "would be given out once more"),
    (no_pointer, "is missing, and there are revisions"),
    (pointer_of_what_nothing_leads_to, "which is missing"),
    (no_transaction, "is missing"),
    (no_last_transaction, "is missing"),
    (no_serial, "serial is missing"),
    (short_counter, "has 3 bytes"),
    (short_serial, "has 3 bytes"),
    (pack_in_the_future, "tells of a pack on 2105"),
    (serial_that_the_journal_contradicts, "and the last transaction is"),
    (revision_under_another_name, "of another revision"),
    (revision_that_no_transaction_names, "does not name all revisions"),
    (reference_to_nothing, "which is not there"),
    (broken_pickle, "pickle"),
    (strange_journal, "keeps the storage from starting"),
    (no_misc, "no folder misc"),
]


@pytest.mark.parametrize(("damage", "said"), DAMAGE)
def test_damage_is_found(home: Path, damage: Callable[[Path], None], said: str) -> None:
    damage(home)
    assert any(said in text for text in errors(home)), errors(home)


def test_while_a_pack_runs(home: Path) -> None:
    (home / "misc" / "snapshot").write_text("packing")
    with locked(home, LOCK), pytest.raises(SourceUnusable, match="a pack runs"):
        verify_home(Home(home), OBSERVER)


class TestWreckage:
    @pytest.mark.parametrize("name", ["bushy-killed-temp", "chunky-snapshot-live"])
    def test_has_everything(self, name: str, tmp_path: Path) -> None:
        home = unpack(name, tmp_path)
        (home / "backups").mkdir()
        (home / "backups" / "backup-1.tgz").write_bytes(b"left out")
        before = states_of(home)
        count = copy_wreckage(Home(home), tmp_path / "wreck.tgz", OBSERVER)
        (home / "backups" / "backup-1.tgz").unlink()
        shutil.unpack_archive(tmp_path / "wreck.tgz", tmp_path / "again", "gztar", filter="data")
        known = {path for path in before if path not in ("misc/lock", "misc/sublock")}
        known -= {"backups/backup-1.tgz"}
        again = states_of(tmp_path / "again")
        assert {path for path in again if not path.endswith("lock")} == known
        assert all(again[path][0] == before[path][0] for path in known)
        assert count >= len(known)
        rolled = Home(tmp_path / "again")
        roll_forward(rolled)
        assert View(rolled).serial() == int(seen(name)["recovered_iter"]["x"]["x.serial"], 16)

    def test_not_while_it_is_open_nor_over_a_file(self, home: Path, tmp_path: Path) -> None:
        with locked(home, LOCK), pytest.raises(LockTaken, match="has the storage open"):
            copy_wreckage(Home(home), tmp_path / "wreck.tgz", OBSERVER)
        (tmp_path / "wreck.tgz").write_bytes(b"other")
        with pytest.raises(UsageError, match="is there already"):
            copy_wreckage(Home(home), tmp_path / "wreck.tgz", OBSERVER)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "wreck.tgz"]

    def test_inside_of_the_home_itself(self, home: Path) -> None:
        """The archive in the making is not a part of what it holds."""
        copy_wreckage(Home(home), home / "wreck.tgz", OBSERVER)
        assert (home / "wreck.tgz").exists()

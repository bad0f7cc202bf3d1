"""A HOME's files, read by both views, against what the real storage saw."""

from __future__ import annotations

import fcntl
import hashlib
import time
from pathlib import Path
from typing import Any

import pytest
from directorystorage_homes import READABLE, seen, states_of, unpack

from perdure.errors import SourceDamaged, SourceUnusable
from perdure.formats.directorystorage import RevisionFile, TransactionFile
from perdure.formats.directorystorage_names import COUNTERS, PACKED, Kind, revision_name
from perdure.sources.directorystorage.home import LOCK, Home, LiveView, View

NOTHING: dict[str, Any] = {"objects": {}}
EMPTY = {
    "transactions": [],
    "x": {"x.oid": "0" * 16, "x.serial": "0" * 16, "x.packed": "0" * 16},
}


def dump(view: View) -> dict[str, Any]:
    """Give what the fixtures' dumps have, oldest transaction first."""
    transactions = list(view.chain(view.serial(), 0))
    return {
        "transactions": [_transaction(view, each) for each in reversed(transactions)],
        "x": {
            name: raw.hex().upper()
            for name in COUNTERS
            if (raw := view.counter_bytes(name)) is not None
        },
    }


def _transaction(view: View, said: TransactionFile) -> dict[str, Any]:
    records = [view.revision(oid, said.tid) for oid in said.oids]
    return {
        "tid": f"{said.tid:016X}",
        "prev": f"{said.prev:016X}",
        "user_hex": said.user.hex().upper(),
        "description_hex": said.description.hex().upper(),
        "extension_hex": said.extension.hex().upper(),
        "oids": [f"{oid:016X}" for oid in said.oids],
        "records": [_record(each) for each in records if each is not None],
    }


def _record(each: RevisionFile) -> dict[str, Any]:
    return {
        "oid": f"{each.oid:016X}",
        "tid": f"{each.tid:016X}",
        "prev": f"{each.prev:016X}",
        "undofrom": f"{each.undo_from:016X}",
        "md5": each.md5.hex().upper(),
        "size": len(each.data) or None,
        "sha256": hashlib.sha256(each.data).hexdigest() if each.data else None,
    }


@pytest.mark.parametrize("name", READABLE)
def test_both_views_are_those_of_the_real_storage(tmp_path: Path, name: str) -> None:
    home, truth = unpack(name, tmp_path), seen(name)
    before = states_of(home)
    live = LiveView(Home(home))
    assert dump(live) == truth.get("recovered_iter", EMPTY)
    if Home(home).snapshot_code() not in (None, "packing"):
        assert dump(View(Home(home))) == truth["A_only"]
    for text, known in truth.get("recovered_api", NOTHING)["objects"].items():
        pointer = live.pointer(int(text, 16))
        current = live.revision(int(text, 16), pointer.tid) if pointer else None
        if "sha256" not in known:
            assert current is None or not current.data
            continue
        assert current is not None
        assert known["sha256"] == hashlib.sha256(current.data).hexdigest()
        assert known["tid"] == f"{current.tid:016X}"
    assert states_of(home) == before


@pytest.mark.parametrize("name", READABLE)
def test_a_scan_finds_all_that_the_chain_leads_to(tmp_path: Path, name: str) -> None:
    live = LiveView(Home(unpack(name, tmp_path)))
    names = {each.text for each in live.names()}
    led = {
        revision_name(oid, said.tid) for said in live.chain(live.serial(), 0) for oid in said.oids
    }
    missing = led - names
    assert not missing or live.packed()
    assert not any(each.kind is Kind.ONLY for each in live.names())


def test_what_is_no_home_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="config/settings"):
        Home(tmp_path)
    home = unpack("chunky-empty", tmp_path)
    (home / "B").rmdir()
    with pytest.raises(SourceUnusable, match="no folder B"):
        Home(home)


@pytest.mark.parametrize("view", [View, LiveView])
def test_a_pack_that_begins_empties_its_counter_for_a_moment(
    tmp_path: Path, view: type[View], monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(unpack("chunky-packed-detailed", tmp_path))
    packed = view(home).packed()
    counter = home.place("A", PACKED)
    written = counter.read_bytes()
    counter.write_bytes(b"")
    with pytest.raises(SourceDamaged, match="0 bytes"):
        view(home).packed()  # nobody is about to write it
    with (home.path / LOCK).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        monkeypatch.setattr(time, "sleep", lambda _: counter.write_bytes(written))
        assert view(home).packed() == packed

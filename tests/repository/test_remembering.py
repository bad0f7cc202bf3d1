"""What was found whole need not be looked for again, until something is taken from the index."""

from __future__ import annotations

from pathlib import Path

from perdure.repository.remembering import Notes


def test_notes_hold_while_the_index_grows(tmp_path: Path) -> None:
    Notes(tmp_path / "notes", {"a", "b"}).note_whole("main")
    assert Notes(tmp_path / "notes", {"a", "b"}).found_whole("main")
    assert Notes(tmp_path / "notes", {"a", "b", "c"}).found_whole("main")
    assert not Notes(tmp_path / "notes", {"a", "c"}).found_whole("main")
    assert not Notes(tmp_path / "notes", {"a", "b"}).found_whole("other")


def test_without_a_cache_or_with_a_damaged_one(tmp_path: Path) -> None:
    notes = Notes(None, {"a"})
    notes.note_whole("main")
    assert not notes.found_whole("main")
    notes = Notes(tmp_path, {"a"})
    notes.note_whole("main")
    [note] = tmp_path.iterdir()
    for damaged in (b"", b"\xff\xfe", b"b"):
        note.write_bytes(damaged)
        assert not notes.found_whole("main")

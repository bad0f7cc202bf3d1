"""Files that ZODB no longer writes, or never did: they come back byte for byte as well."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from datafs import FIRST_TID, DataFs, Record, Transaction, simple
from history_site import HistorySite, rebuilt_from
from living_storage import index_of_perdure, index_of_zodb

from perdure.formats.layout import Layout

MakeSite = Callable[[int], HistorySite]


def fs21() -> DataFs:
    made = simple()
    made.data = b"FS21" + made.data[4:]
    return made


def versions() -> DataFs:
    """Old version data in the middle of ordinary transactions."""
    made = simple(3)
    made.add(Transaction([Record(7, b"in a version", version=b"draft")]))
    return made.add(Transaction([Record(7, b"after it", prev=made.at[-1])]))


def falling_tids() -> DataFs:
    """A clock that was put back under an old ZODB: the order of the file is the truth."""
    made = simple(3)
    made.add(Transaction([Record(5, b"from before")], tid=FIRST_TID - 5000))
    made.add(Transaction([Record(6, b"still before")], tid=FIRST_TID - 4000))
    return made.add(Transaction([Record(0, b"now", prev=made.at[0])], tid=FIRST_TID + 99999))


def equal_tids() -> DataFs:
    made = simple(2)
    made.add(Transaction([Record(5, b"one")], tid=FIRST_TID + 50000))
    return made.add(Transaction([Record(6, b"other")], tid=FIRST_TID + 50000))


def no_records() -> DataFs:
    """References into data that look like a record of the same object."""
    made = simple(2)
    made.add(Transaction([Record(5, bytes(16) + bytes(8) + b"12345678" + bytes(40))]))
    data = made.at[-1] + 42
    made.add(Transaction([Record(0, b"zeros", prev=data)]))
    made.add(Transaction([Record(0, b"tid", prev=data + 16)]))
    return made.add(Transaction([Record(0, data + 16, prev=made.at[-1])]))


def ambiguous_tids() -> DataFs:
    """The same object under the same tid twice, and references to the first of the two records."""
    made = simple(2)
    made.add(Transaction([Record(5, b"one")], tid=FIRST_TID + 50000))
    first = made.at[-1]
    made.add(Transaction([Record(5, b"other", prev=first)], tid=FIRST_TID + 50000))
    made.add(Transaction([Record(5, b"later", prev=made.at[-1])]))
    made.add(Transaction([Record(5, b"odd", prev=first)]))
    made.add(Transaction([Record(5, first, prev=made.at[-1])]))
    made.add(Transaction([Record(6, b"of another tid", tid=FIRST_TID + 50000)]))
    return made.add(Transaction([Record(6, b"z", prev=made.at[-1]), Record(5, first)]))


def undone() -> DataFs:
    """Status u: skipped by ZODB's readers, whatever its records look like."""
    made = simple(3)
    made.add(Transaction([Record(1, b"undone", prev=3, tloc=77)], status=b"u"))
    made.add(Transaction(raw=b"no records at all", status=b"u"))
    return made.add(Transaction([Record(1, b"after it", prev=made.at[-2])]))


def odd_prev() -> DataFs:
    """Prev pointers that position arithmetic does not give: all are exceptions."""
    made = simple(4)
    a, b = made.at[0], made.at[1]
    made.add(Transaction([Record(0, b"to the first", prev=a), Record(1, b"to none", prev=0)]))
    made.add(Transaction([Record(2, b"to another's", prev=b), Record(3, b"nowhere", prev=12345)]))
    made.add(Transaction([Record(3, b"forward", prev=1 << 40)]))
    at = made.at[-1]
    made.add(Transaction([Record(3, b"into a record", prev=at + 7), Record(9, b"huge", 2**64 - 1)]))
    return made.add(Transaction([Record(3, b"once more", prev=at)]))


def prev_to_itself() -> DataFs:
    made = simple(2)
    at = len(made.data) + 23
    made.add(Transaction([Record(8, b"its own predecessor", prev=at)]))
    made.add(Transaction([Record(8, 0, prev=at), Record(9, b"x")]))
    return made.add(Transaction([Record(8, at, prev=made.at[-2])]))


def back_pointers() -> DataFs:
    """To data, to another back pointer, to 0, to another object, forward, into nothing."""
    made = simple(4)
    a = made.at[0]
    made.add(Transaction([Record(0, a, prev=a)]))
    made.add(Transaction([Record(0, made.at[-1], prev=made.at[-1])]))
    made.add(Transaction([Record(1, 0, prev=made.at[1])]))
    made.add(Transaction([Record(2, a), Record(3, 1 << 40), Record(4, 2**64 - 1), Record(5, 13)]))
    return made.add(Transaction([Record(2, a + 1), Record(4, a)]))


def twice_in_one() -> DataFs:
    """The same object twice in a transaction, and references to either record."""
    made = simple(2)
    made.add(Transaction([Record(4, b"first"), Record(4, b"second"), Record(5, b"between")]))
    first, second = made.at[-3], made.at[-2]
    made.add(Transaction([Record(4, first, prev=second)]))
    made.add(Transaction([Record(4, second, prev=first)]))
    return made.add(Transaction([Record(4, b"new", prev=second), Record(5, b"x", made.at[-3])]))


def without_records() -> DataFs:
    made = DataFs()
    for _ in range(3):
        made.add(Transaction(user=b"u" * 300, description=b"d" * 2000, extension=b"\x80\x03}."))
    return made


def empty_records() -> DataFs:
    """Extremes of the header fields."""
    made = DataFs()
    made.add(Transaction([Record(2**64 - 1, b"x")], tid=2**64 - 2))
    return made.add(Transaction([Record(0, b"y" * 5000)], tid=2**64 - 1))


def packed() -> DataFs:
    """Status p: prev is 0 there; and once is not, by hand."""
    made = DataFs()
    made.add(Transaction([Record(1, b"one"), Record(2, b"two")], status=b"p"))
    made.add(Transaction([Record(1, b"one again")], status=b"p"))
    made.add(Transaction([Record(2, b"odd", prev=made.at[1])], status=b"p"))
    return made.add(Transaction([Record(1, b"later", prev=made.at[2])]))


BUILDERS = [
    fs21,
    versions,
    falling_tids,
    no_records,
    equal_tids,
    ambiguous_tids,
    undone,
    odd_prev,
    prev_to_itself,
    back_pointers,
    twice_in_one,
    without_records,
    empty_records,
    packed,
]


@pytest.mark.parametrize("window", [100, 400, 1 << 20])
@pytest.mark.parametrize("build", BUILDERS)
def test_comes_back_at_every_moment(
    build: Callable[[], DataFs], window: int, history_site: MakeSite, tmp_path: Path
) -> None:
    made = build()
    site, path = history_site(window), tmp_path / "Data.fs"
    path.write_bytes(made.data)
    site.back_up(path, verify_source=True)
    site.check_all()


@pytest.mark.parametrize("window", [100, 400, 1 << 20])
@pytest.mark.parametrize("build", BUILDERS)
def test_comes_back_when_it_grew_from_run_to_run(
    build: Callable[[], DataFs], window: int, history_site: MakeSite, tmp_path: Path
) -> None:
    made = build()
    site, path = history_site(window), tmp_path / "Data.fs"
    for end in made.ends:
        with path.open("ab") as file:
            file.write(made.data[path.stat().st_size : end])
        site.back_up(path)
    site.check_all()


@pytest.mark.parametrize("build", BUILDERS)
def test_another_file_with_the_same_content_adds_nothing(
    build: Callable[[], DataFs], history_site: MakeSite, tmp_path: Path
) -> None:
    site, path = history_site(1 << 20), tmp_path / "Data.fs"
    path.write_bytes(build().data)
    site.back_up(path)
    path.rename(tmp_path / "Data.fs.old")
    path.write_bytes(build().data)
    report = site.back_up(path)
    assert report.method == "compare"
    site.check_all()
    if all(layout.facts.verbatim is False for layout in layouts(site)):
        assert report.bytes_new == 0


@pytest.mark.parametrize("build", [simple, back_pointers, packed, undone])
def test_the_index_is_what_zodb_makes_of_it(
    build: Callable[[], DataFs], history_site: MakeSite, tmp_path: Path
) -> None:
    made = build()
    site, path = history_site(200), tmp_path / "Data.fs"
    path.write_bytes(made.data)
    site.back_up(path)
    data, rebuilt = rebuilt_from(site.newest())
    assert index_of_perdure(rebuilt.revisions, rebuilt.size, tmp_path) == index_of_zodb(
        data, tmp_path
    )


def test_only_what_the_model_cannot_say_is_verbatim(history_site: MakeSite, tmp_path: Path) -> None:
    verbatim = []
    for build in BUILDERS:
        site, path = history_site(1 << 20), tmp_path / "Data.fs"
        path.write_bytes(build().data)
        site.back_up(path)
        verbatim += [build.__name__ for layout in layouts(site) if layout.facts.verbatim]
    assert verbatim == ["versions", "falling_tids", "equal_tids", "ambiguous_tids", "undone"]


def layouts(site: HistorySite) -> list[Layout]:
    history = site.newest().history
    return [history.layout(name) for name in history.names()]

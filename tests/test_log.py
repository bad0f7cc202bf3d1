"""The transactions of a snapshot: all of them once, in a span of time, also where segments cut them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from datafs import FIRST_TID, DataFs, Record, Transaction
from history_site import HistorySite, back_up

from perdure.errors import PerdureError, UsageError
from perdure.log import read_log
from perdure.model import Tid

MINUTE = 1 << 32
COUNT = 12


def database() -> DataFs:
    """A transaction a minute; one of them larger than the segments, one without records."""
    made = DataFs()
    for number in range(COUNT):
        records = {3: [Record(n, b"x" * 90) for n in range(20)], 5: []}.get(
            number, [Record(number, b"data")]
        )
        made.add(
            Transaction(
                records,
                tid=FIRST_TID + number * MINUTE,
                user=b"user %d" % number,
                description="über %d".encode() % number,
            )
        )
    return made


@pytest.fixture
def site(tmp_path: Path) -> Iterator[HistorySite]:
    made = HistorySite(300)
    path = tmp_path / "Data.fs"
    path.write_bytes(database().data)
    back_up(made.repository, path, window=300, clock=made.clock)
    yield made
    made.repository.close()


def test_all(site: HistorySite) -> None:
    made = database()
    found = list(read_log(site.repository, "latest"))
    assert [info.tid.value for info in found] == made.tids
    assert [info.position + info.size for info in found] == made.ends
    assert [info.records for info in found] == [1, 1, 1, 20, 1, 0, 1, 1, 1, 1, 1, 1]
    assert [info.user for info in found] == [b"user %d" % number for number in range(COUNT)]
    assert found[7].description == "über 7".encode()
    assert {info.status for info in found} == {" "}


def tid(number: int, more: int = 0) -> Tid:
    return Tid(FIRST_TID + number * MINUTE + more)


@pytest.mark.parametrize(
    ("since", "until", "numbers"),
    [
        (tid(3), None, range(3, COUNT)),
        (None, tid(3), range(4)),
        (tid(3), tid(3), range(3, 4)),
        (tid(3, 1), tid(5, -1), range(4, 5)),
        (tid(4).time, None, range(4, COUNT)),
        (None, tid(4).time, range(5)),
        (tid(4).time + timedelta(seconds=1), tid(6).time - timedelta(seconds=1), range(5, 6)),
        (datetime(2000, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC), range(COUNT)),
        (tid(9), tid(2), range(0)),
        (None, Tid(0), range(0)),
    ],
)
def test_a_span(
    site: HistorySite,
    since: Tid | datetime | None,
    until: Tid | datetime | None,
    numbers: range,
) -> None:
    found = read_log(site.repository, "latest", since=since, until=until)
    assert [info.user for info in found] == [b"user %d" % number for number in numbers]


def test_of_a_source_that_is_not_there(site: HistorySite) -> None:
    with pytest.raises(PerdureError, match="no snapshot of the source 'other'"):
        read_log(site.repository, "latest", source="other")
    [(name, _)] = site.repository.snapshots()
    with pytest.raises(UsageError, match="has no source named 'other'") as error:
        read_log(site.repository, name, source="other")
    assert "there are: 'main'" in str(error.value.hint)

"""Names of archives, and their index."""

from __future__ import annotations

import pytest

from perdure.errors import SourceDamaged, UsageError
from perdure.formats.directorystorage_archive import (
    ArchiveName,
    Row,
    check_prefix,
    next_number,
    parse_index,
    reference_of,
)

NAMES = [
    ("backup-1.tgz", ArchiveName("backup", None, 1)),
    ("mystorage-8-to-10.tgz", ArchiveName("mystorage", 8, 10)),
    ("a-1-b-12.tgz", ArchiveName("a-1-b", None, 12)),
]
INDEX = """
# a comment
1     1795234106   040D28386CDC1BEE
2     1795234109   040d28387ee67555   # and another one

3     1795234112   040D283889AA6C99
"""
ROWS = [
    Row(1, 1795234106, 0x040D28386CDC1BEE),
    Row(2, 1795234109, 0x040D28387EE67555),
    Row(3, 1795234112, 0x040D283889AA6C99),
]


@pytest.mark.parametrize(("text", "name"), NAMES)
def test_names_both_ways(text: str, name: ArchiveName) -> None:
    assert ArchiveName.parse(text) == name
    assert str(name) == text


@pytest.mark.parametrize("text", [".tmp-backup-1.tgz", "backup.tgz", "tindex", "backup-1.tar"])
def test_other_files_are_no_archives(text: str) -> None:
    assert ArchiveName.parse(text) is None


@pytest.mark.parametrize("prefix", ["", "a/b", ".hidden", "x-1-to", "new\nline"])
def test_prefixes_that_make_no_name(prefix: str) -> None:
    with pytest.raises(UsageError):
        check_prefix(prefix)


def test_an_index_is_read() -> None:
    assert parse_index(INDEX, "tindex") == ROWS
    assert parse_index("", "tindex") == []


def test_a_row_is_written_as_the_tool_writes_it() -> None:
    assert str(ROWS[0]) == "1     1795234106   040D28386CDC1BEE"


@pytest.mark.parametrize("line", ["1 2", "x 1795234106 040D28386CDC1BEE", "1 5 040D28386CDC1B"])
def test_a_strange_row_is_refused_by_its_number(line: str) -> None:
    with pytest.raises(SourceDamaged, match="line 2 of tindex"):
        parse_index(f"# header\n{line}\n", "tindex")


def test_numbers_go_on_after_rows_and_archives() -> None:
    assert next_number([], []) == 1
    assert next_number(ROWS, []) == 4
    assert next_number(ROWS, [ArchiveName("backup", None, 7)]) == 8


@pytest.mark.parametrize(
    ("time", "number"),
    [(1795234105, None), (1795234106, 1), (1795234111, 2), (1795234112, 3), (1 << 40, 3)],
)
def test_an_increment_refers_to_the_last_run_at_or_before_a_time(
    time: int, number: int | None
) -> None:
    row = reference_of(ROWS, time)
    assert (row.number if row else None) == number


def test_the_order_of_the_file_decides() -> None:
    """A clock that was put back: what stands behind a later row is not looked at."""
    rows = [Row(1, 100, 1), Row(2, 500, 2), Row(3, 200, 3)]
    assert reference_of(rows, 300) == rows[0]

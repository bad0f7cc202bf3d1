"""Patterns, as restic has them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from perdure.errors import UsageError
from perdure.sources.excluding import CACHE_TAG, Excludes, Excluding

MATCHES = [
    ("*.log", "/srv/a.log"),
    ("*.log", "/srv/.log"),
    ("/srv/*.log", "/srv/a.log"),
    ("cache", "/srv/www/cache"),
    ("www/cache", "/srv/www/cache"),
    ("/srv/**/cache", "/srv/cache"),
    ("/srv/**/cache", "/srv/a/b/cache"),
    ("tmp/**", "/srv/tmp/a/b"),
    ("a?c", "/abc"),
    ("a[b-d]c", "/acc"),
    ("a[^b]c", "/acc"),
    ("a[!b]c", "/a!c"),
    ("a[!b]c", "/abc"),
    ("a[\\]\\-x]c", "/a]c"),
    ("a[\\w&&|~]c", "/a&c"),
    ("a[\\w&&|~]c", "/awc"),
    ("a\\*c", "/a*c"),
    ("/srv/", "/srv"),
    ("./x", "/srv/x"),
    ("a.c", "/a.c"),
    ("na\nme", "/na\nme"),
]
MATCHES_NOT = [
    ("*.log", "/srv/a.log.gz"),
    ("/srv/*.log", "/srv/www/a.log"),
    ("/srv/*.log", "/x/srv/a.log"),
    ("cache", "/srv/cached"),
    ("cache", "/srv/mycache"),
    ("www/cache", "/srv/www/x/cache"),
    ("a?c", "/a/c"),
    ("a[^b]c", "/a/c"),
    ("a[!b]c", "/acc"),
    ("a\\*c", "/abc"),
    ("a.c", "/abc"),
    ("*.LOG", "/a.log"),
]


def leaves_out(path: str, *patterns: str) -> bool:
    return Excluding(Excludes(patterns), 0).matches(path)


@pytest.mark.parametrize(("pattern", "path"), MATCHES)
def test_a_pattern_matches(pattern: str, path: str) -> None:
    assert leaves_out(path, pattern)
    assert Excluding(Excludes(any_case=(pattern.upper().replace("[^B]", "[^b]"),)), 0).matches(path)


@pytest.mark.parametrize(("pattern", "path"), MATCHES_NOT)
def test_a_pattern_does_not_match(pattern: str, path: str) -> None:
    assert not leaves_out(path, pattern)


def test_what_was_left_out_is_taken_back() -> None:
    assert leaves_out("/a.log", "*.log", "!b.log")
    assert not leaves_out("/b.log", "*.log", "!b.log")
    assert leaves_out("/b.log", "*.log", "!b.log", "b.*")
    assert not leaves_out("/b.log", "!b.log")


@pytest.mark.parametrize(
    "pattern", ["", "/", "!", "a[b", "[z-a]", "a[]]c", "[-a]", "[a-]", "a\\", "[a\\]", "[]"]
)
def test_no_pattern(pattern: str) -> None:
    with pytest.raises(UsageError):
        leaves_out("/a", pattern)


def test_places_are_left_out_whatever_is_said() -> None:
    excluding = Excluding(Excludes(("!/srv/repository",), places=("/srv/repository/",)), 0)
    assert set(excluding.places_in("/srv")) == {"repository"}
    assert not excluding.places_in("/srv/repository")
    assert set(Excluding(Excludes(places=("/cache",)), 0).places_in("/")) == {"cache"}
    assert not Excluding(Excludes(), 0).by_pattern


def test_other_file_systems_and_large_files(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(100))
    status, folder = os.stat(tmp_path / "file"), os.stat(tmp_path)
    here = Excluding(Excludes(one_file_system=True, larger_than=100), status.st_dev)
    assert not here.elsewhere(status)
    assert not here.unwanted(status)
    elsewhere = Excluding(Excludes(one_file_system=True), status.st_dev + 1)
    assert elsewhere.elsewhere(folder)
    assert elsewhere.unwanted(status)
    assert not elsewhere.unwanted(folder), "the folder on which something is mounted is kept"
    assert Excluding(Excludes(larger_than=99), 0).unwanted(status)
    assert not Excluding(Excludes(larger_than=0), 0).unwanted(folder)


def test_folders_that_say_so(tmp_path: Path) -> None:
    excluding = Excluding(Excludes(if_present=("NOBACKUP-TAG", CACHE_TAG)), 0)
    assert excluding.tag_in(str(tmp_path), {"a", "NOBACKUP-TAG"}) == "NOBACKUP-TAG"
    assert excluding.tag_in(str(tmp_path), {"a"}) is None
    (tmp_path / "CACHEDIR.TAG").write_bytes(b"Signature: something else")
    assert excluding.tag_in(str(tmp_path), {"CACHEDIR.TAG"}) is None
    (tmp_path / "CACHEDIR.TAG").write_bytes(CACHE_TAG.partition(":")[2].encode() + b"\n# x")
    assert excluding.tag_in(str(tmp_path), {"CACHEDIR.TAG"}) == "CACHEDIR.TAG"
    (tmp_path / "CACHEDIR.TAG").unlink()
    os.mkfifo(tmp_path / "CACHEDIR.TAG")
    assert excluding.tag_in(str(tmp_path), {"CACHEDIR.TAG"}) is None


def test_what_was_asked_for_is_told() -> None:
    asked = Excludes(("*.log",), ("*.TMP",), ("TAG",), one_file_system=True, larger_than=5)
    assert asked.spoken() == (
        "--exclude=*.log",
        "--iexclude=*.TMP",
        "--exclude-if-present=TAG",
        "--one-file-system",
        "--exclude-larger-than=5",
    )

"""snapshot.conf, by its lines."""

from __future__ import annotations

import pytest

from perdure.formats.snapshot_conf import Direct, Http, Live, Method, Zeo, parse

CASES: list[tuple[str, tuple[Method, ...]]] = [
    ("", (Direct(),)),
    ("direct\n", (Direct(),)),
    ("nodirect", ()),
    ("http http://localhost:80/DS access\n", (Http("http://localhost:80/DS", "access"), Direct())),
    ("zeo localhost:8100\nnodirect\n", (Zeo("localhost:8100"),)),
    ("zeo /var/zeo.sock main\nlive\n", (Zeo("/var/zeo.sock", "main"), Live(), Direct())),
    ("  # a comment\n\n#another\ndirect\nnodirect", (Direct(),)),
]  # fmt: skip


@pytest.mark.parametrize(("text", "methods"), CASES)
def test_methods_in_their_order(text: str, methods: tuple[Method, ...]) -> None:
    conf = parse(text, "snapshot.conf")
    assert conf.methods == methods
    assert conf.complaints == ()


def test_lines_that_are_not_understood_are_passed_over_and_named() -> None:
    conf = parse("ftp somewhere\ndirect\nhttp onlyone\n", "snapshot.conf")
    assert conf.methods == (Direct(),)
    assert [text.partition(" is ")[0] for text in conf.complaints] == [
        "malformed line 1 of snapshot.conf",
        "malformed line 3 of snapshot.conf",
    ]

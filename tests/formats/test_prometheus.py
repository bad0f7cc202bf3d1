"""The file for Prometheus, both ways."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.formats.prometheus import (
    BYTES_ADDED,
    HELP,
    LAST_SUCCESS,
    SOURCE_CUT,
    Sample,
    decode,
    encode,
    labels,
    merge,
)


def test_the_text() -> None:
    odd = labels(source='a\\b"c\nd', repository="/srv")
    samples = [
        Sample(SOURCE_CUT, odd, 1795231200.5),
        Sample(LAST_SUCCESS, labels(repository="/srv"), 1795231200.0),
        Sample(SOURCE_CUT, labels(repository="/srv", source="ü"), 0),
    ]
    text = (
        f"# HELP {LAST_SUCCESS} {HELP[LAST_SUCCESS]}\n"
        f"# TYPE {LAST_SUCCESS} gauge\n"
        f'{LAST_SUCCESS}{{repository="/srv"}} 1795231200.0\n'
        f"# HELP {SOURCE_CUT} {HELP[SOURCE_CUT]}\n"
        f"# TYPE {SOURCE_CUT} gauge\n"
        f'{SOURCE_CUT}{{repository="/srv",source="a\\\\b\\"c\\nd"}} 1795231200.5\n'
        f'{SOURCE_CUT}{{repository="/srv",source="ü"}} 0.0\n'
    )
    assert encode(samples) == text
    assert decode(text) == [samples[1], samples[0], samples[2]]


@given(st.dictionaries(st.sampled_from(["repository", "source"]), st.text()), st.floats(0, 1e18))
def test_any_label(given_labels: dict[str, str], value: float) -> None:
    sample = Sample(BYTES_ADDED, labels(**given_labels), value)
    assert decode(encode([sample])) == [sample]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "\0\x80 nonsense {",
        "perdure_bytes_added 5\n",
        'other_metric{a="b"} 5\n',
        'perdure_bytes_added{a="b} 5\n',
        'perdure_bytes_added{a="b"} five\n',
        'perdure_bytes_added{a="\\x"} 5\n',
    ],
)
def test_what_is_not_ours_is_passed_over(text: str) -> None:
    assert decode(text) == []


def test_new_samples_are_laid_over_old_ones() -> None:
    old = [Sample(BYTES_ADDED, (("a", "1"),), 1.0), Sample(LAST_SUCCESS, (), 2.0)]
    new = Sample(BYTES_ADDED, (("a", "1"),), 3.0)
    assert merge(old, {(new.name, new.labels): new}) == [new, old[1]]

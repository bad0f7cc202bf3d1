"""Places in an object store, as people and restic write them."""

from __future__ import annotations

import pytest

from perdure.errors import UsageError
from perdure.stores import is_far, open_store
from perdure.stores.places import Place, parse_place

HOST = "https://s3.example.org:9000"


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("s3://bucket/a/prefix", Place("s3", "bucket", "a/prefix")),
        ("s3://bucket", Place("s3", "bucket", "")),
        (f"s3://bucket/x/?endpoint={HOST}", Place("s3", "bucket", "x", HOST)),
        (
            "s3://bucket/x?endpoint=http://127.0.0.1:18333&region=eu-1&timeout=2.5s",
            Place("s3", "bucket", "x", "http://127.0.0.1:18333", "eu-1", timeout=2.5),
        ),
        (f"s3:{HOST}/bucket/a/prefix", Place("s3", "bucket", "a/prefix", HOST)),
        ("s3:s3.example.org/bucket", Place("s3", "bucket", "", "https://s3.example.org")),
        ("s3:s3.amazonaws.com/bucket/x", Place("s3", "bucket", "x")),
        (
            "s3:https://s3.eu-west-1.amazonaws.com/bucket/x",
            Place("s3", "bucket", "x", region="eu-west-1"),
        ),
        ("gs://bucket/x", Place("gs", "bucket", "x")),
        ("gs:bucket:/x", Place("gs", "bucket", "x")),
        ("az://container/x?account=me", Place("az", "container", "x", account="me")),
        ("azure:container:/", Place("az", "container", "")),
    ],
)
def test_what_is_understood(text: str, place: Place) -> None:
    assert is_far(text)
    assert parse_place(text) == place
    assert parse_place(str(place)) == parse_place(str(parse_place(str(place))))


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3:///x",
        "s3:bucket",
        "s3://bucket/../x",
        "s3://bucket/a//x",
        "s3://bucket/x#y",
        "gs:bucket",
        "az:container/x",
        "s3://bucket/x?endpoint=ftp://host",
        "s3://bucket/x?endpoint=host:900000",
        "s3:http://host:900000/bucket",
        "s3://bucket/x?secret=abc",
        "s3://bucket/x?timeout=0",
        "s3://bucket/x?timeout=never",
        "gs://bucket/x?region=y",
    ],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(UsageError):
        parse_place(text)


@pytest.mark.parametrize(
    "text", ["s3://key:geheim@bucket/x", "s3:http://key:geheim@host/bucket", "gs:geheim@b:/x"]
)
def test_a_secret_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        open_store(text, {})
    assert "geheim" not in f"{caught.value}{caught.value.hint}"

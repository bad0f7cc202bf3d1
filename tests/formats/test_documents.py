"""The JSON documents of a repository: config, key files, index files, snapshots, locks."""

from __future__ import annotations

import base64
import os
from datetime import UTC, datetime

import pytest

from perdure.errors import PerdureError, RepositoryDamaged
from perdure.formats import envelope, index, zstandard
from perdure.formats.config import Config
from perdure.formats.index import Packed
from perdure.formats.keyfile import FOR_KEY_FILES, FOR_PASSWORDS, KdfParameters, KeyFile
from perdure.formats.lock import LockRecord
from perdure.formats.packfile import Entry
from perdure.formats.sealing import MasterKey
from perdure.formats.snapshot import Snapshot, Summary
from perdure.model import ChunkId, ChunkKind

ID = "ab" * 32
CONFIG = b'{"version":2,"id":"' + ID.encode() + b'","chunker_polynomial":"3079a0609528b7"}'


def test_config() -> None:
    config = Config(2, ID, "3079a0609528b7")

    assert config.encode() == CONFIG
    assert Config.decode(CONFIG, "it") == config


@pytest.mark.parametrize("version", [0, 1, 3, 99])
def test_other_versions_are_refused(version: int) -> None:
    with pytest.raises(PerdureError, match=f"the config has version {version} ") as caught:
        Config.decode(b'{"version":%d,"new":{}}' % version, "the config")
    assert not isinstance(caught.value, RepositoryDamaged)


def test_damaged_config() -> None:
    with pytest.raises(RepositoryDamaged):
        Config.decode(b'{"version":2,"id":"x","chunker_polynomial":""}', "it")


def make_key(password: str, cost: KdfParameters = FOR_KEY_FILES) -> tuple[MasterKey, KeyFile]:
    master = MasterKey.from_material(os.urandom(64))
    made = KeyFile.make(
        master,
        password,
        cost,
        created="2026-11-21T03:15:00Z",
        username="plone",
        hostname="www1",
        randomness=os.urandom,
    )
    return master, made


def test_key_file() -> None:
    master, keyfile = make_key("påsswörd")
    again = KeyFile.decode(keyfile.encode(), "it")

    assert again.open("påsswörd", "it") == master
    assert again.open("password", "it") is None
    assert keyfile.encode().startswith(
        b'{"created":"2026-11-21T03:15:00Z","username":"plone","hostname":"www1","kdf":"scrypt",'
        b'"N":1024,"r":8,"p":1,"salt":"'
    )


@pytest.mark.parametrize(
    "cost",
    [
        KdfParameters(0, 8, 1),
        KdfParameters(1, 8, 1),
        KdfParameters(1000, 8, 1),
        KdfParameters(1 << 40, 8, 1),
        KdfParameters(1024, 0, 1),
        KdfParameters(1024, 8, -1),
        KdfParameters(1024, 8, 1 << 20),
    ],
)
def test_costs_that_are_refused(cost: KdfParameters) -> None:
    text = KeyFile("2026-11-21T03:15:00Z", "u", "h", "scrypt", cost.n, cost.r, cost.p, b"", b"")

    with pytest.raises(RepositoryDamaged, match="parameters"):
        KeyFile.decode(text.encode(), "it")


def test_costs_that_are_used_are_reasonable() -> None:
    assert FOR_KEY_FILES.reasonable
    assert FOR_PASSWORDS.reasonable


def test_another_key_derivation_is_refused() -> None:
    text = make_key("x")[1].encode().replace(b'"scrypt"', b'"argon2"')

    with pytest.raises(RepositoryDamaged, match="argon2"):
        KeyFile.decode(text, "it")


def test_index() -> None:
    entries = [
        Entry(ChunkKind.DATA, ChunkId(b"a" * 32), 0, 40, 0),
        Entry(ChunkKind.TREE, ChunkId(b"b" * 32), 40, 50, 99),
    ]
    text = (
        f'{{"packs":[{{"id":"{"cc" * 32}","blobs":[{{"id":"{"61" * 32}","type":"data","offset":0,'
        f'"length":40}},{{"id":"{"62" * 32}","type":"tree","offset":40,"length":50,'
        '"uncompressed_length":99}]}]}\n'
    ).encode()

    assert index.encode([Packed(b"\xcc" * 32, entries)]) == text
    assert index.decode(text, "it") == [Packed(b"\xcc" * 32, entries)]
    older = text.replace(b'{"packs"', b'{"supersedes":["' + b"dd" * 32 + b'"],"packs"')
    assert index.decode(older, "it") == [Packed(b"\xcc" * 32, entries)]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("id", '"zz"'),
        ("id", '"' + "zz" * 32 + '"'),
        ("type", '"blob"'),
        ("offset", "-1"),
        ("length", "1"),
        ("length", str(1 << 32)),
        ("uncompressed_length", str((1 << 32) - 1)),
    ],
)
def test_damaged_index(field: str, value: str) -> None:
    fields = {"id": f'"{ID}"', "type": '"data"', "offset": "0", "length": "40"} | {field: value}
    chunk = ",".join(f'"{name}":{text}' for name, text in fields.items())

    with pytest.raises(RepositoryDamaged, match="index x"):
        index.decode(f'{{"packs":[{{"id":"{ID}","blobs":[{{{chunk}}}]}}]}}'.encode(), "index x")


def test_snapshot() -> None:
    text = (
        f'{{"time":"2026-11-21T09:13:25.538411344+01:00","tree":"{ID}","paths":["/srv"],'
        '"hostname":"vm","username":"root","tags":["a\\u0026b"]}'
    ).encode()
    snapshot = Snapshot.decode(text, "it")

    assert snapshot.encode() == text
    assert snapshot.moment == datetime(2026, 11, 21, 8, 13, 25, 538411, tzinfo=UTC)
    assert snapshot.root == bytes.fromhex(ID)
    assert snapshot.tags == ("a&b",)


def test_snapshot_with_everything() -> None:
    summary = Summary(backup_start="2026-11-21T08:13:25Z", backup_end="2026-11-21T08:13:26Z")
    snapshot = Snapshot(
        time="2026-11-21T08:13:25Z",
        parent=ID,
        tree=ID,
        paths=(),
        uid=5,
        gid=6,
        excludes=("*.tmp",),
        original=ID,
        program_version="perdure 1",
        summary=summary,
    )
    text = snapshot.encode()

    assert Snapshot.decode(text, "it") == snapshot
    assert b'"summary":{"backup_start":"2026-11-21T08:13:25Z","backup_end":' in text
    assert b'"files_new":0,"files_changed":0' in text
    assert Snapshot.decode(text.replace(b'"uid":5', b'"later":{},"uid":5'), "it") == snapshot


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'{"time":"now","tree":"' + ID.encode() + b'","paths":[]}',
        b'{"time":"2026-11-21T08:13:25Z","tree":"..","paths":[]}',
    ],
)
def test_damaged_snapshots(text: bytes) -> None:
    with pytest.raises(RepositoryDamaged, match="snapshot x"):
        Snapshot.decode(text, "snapshot x")


def test_lock() -> None:
    text = (
        b'{"time":"2026-11-21T08:13:25.5Z","exclusive":false,"hostname":"vm","username":"root",'
        b'"pid":4711}'
    )
    record = LockRecord.decode(text, "it")

    assert record.encode() == text
    assert record.moment == datetime(2026, 11, 21, 8, 13, 25, 500000, tzinfo=UTC)
    with pytest.raises(RepositoryDamaged):
        LockRecord.decode(text.replace(b"2026-11-21T", b"2026-11-21 "), "it")


def test_envelope() -> None:
    assert envelope.decode(envelope.encode(b'{"a":1}'), "it") == b'{"a":1}'
    assert envelope.encode(b"{}")[:1] == b"\x02"
    for plain in (b"{}", b"[1]"):
        assert envelope.decode(plain, "it") == plain


@pytest.mark.parametrize(
    "content", [b"", b"\x01{}", b"\x02", b"\x02{}", b"\x03" + zstandard.compress(b"{}")]
)
def test_damaged_envelopes(content: bytes) -> None:
    with pytest.raises(RepositoryDamaged, match="lock x"):
        envelope.decode(content, "lock x")


def test_decompression_is_bounded() -> None:
    bomb = zstandard.compress(bytes(10_000_000))

    assert len(bomb) < 1000
    assert zstandard.decompress(bomb, 10_000_000) == bytes(10_000_000)
    for broken, limit in ((bomb, 9_999_999), (bomb[:-1], 10_000_000), (bomb + bomb, 10_000_000)):
        with pytest.raises(ValueError, match=r"it "):
            zstandard.decompress(broken, limit)
    assert zstandard.decompress(zstandard.compress(b""), 0) == b""


def test_go_reads_our_base64() -> None:
    _, keyfile = make_key("x")

    assert base64.b64encode(keyfile.salt) in keyfile.encode()

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.errors import RepositoryDamaged
from perdure.formats.sealing import OVERHEAD, MacKey, MasterKey, SealBroken, seal, unseal

KEY = MasterKey.from_material(bytes(range(64)))
NONCE = b"n" * 16

# Poly1305-AES: the test vectors of Bernstein's paper, appendix B (message, r, k, nonce, result)
VECTORS = [
    (
        "f3f6",
        "851fc40c3467ac0be05cc20404f3f700",
        "ec074c835580741701425b623235add6",
        "fb447350c4e868c52ac3275cf9d4327e",
        "f4c633c3044fc145f84f335cb81953de",
    ),
    (
        "",
        "a0f3080000f46400d0c7e9076c834403",
        "75deaa25c09f208e1dc4ce6b5cad3fbf",
        "61ee09218d29b0aaed7e154a2c5509cc",
        "dd3fab2251f11ac759f0887129cc2ee7",
    ),
]


@pytest.mark.parametrize(("message", "r", "k", "nonce", "mac"), VECTORS)
def test_the_code_is_poly1305_aes(message: str, r: str, k: str, nonce: str, mac: str) -> None:
    # What is authenticated is the hidden text, so hide a text that becomes the vector's message.
    key = MasterKey(MacKey(bytes.fromhex(k), bytes.fromhex(r)), bytes(32))
    hidden = bytes.fromhex(message)
    stream = seal(key, bytes(len(hidden)), bytes.fromhex(nonce))[16:-16]
    content = bytes(a ^ b for a, b in zip(hidden, stream, strict=True))

    sealed = seal(key, content, bytes.fromhex(nonce))

    assert sealed == bytes.fromhex(nonce) + hidden + bytes.fromhex(mac)


@given(st.binary(), st.binary(min_size=16, max_size=16))
def test_both_ways(content: bytes, nonce: bytes) -> None:
    sealed = seal(KEY, content, nonce)

    assert len(sealed) == len(content) + OVERHEAD
    assert unseal(KEY, sealed) == content
    assert unseal(KEY, memoryview(sealed)) == content


def test_each_bit_counts() -> None:
    sealed = seal(KEY, b"content", NONCE)
    for position in range(len(sealed) * 8):
        broken = bytearray(sealed)
        broken[position // 8] ^= 1 << position % 8
        with pytest.raises(SealBroken):
            unseal(KEY, broken)


def test_what_is_cut_short() -> None:
    sealed = seal(KEY, b"content", NONCE)
    for length in range(len(sealed)):
        with pytest.raises(SealBroken):
            unseal(KEY, sealed[:length])


def test_another_key() -> None:
    with pytest.raises(SealBroken):
        unseal(MasterKey.from_material(bytes(range(1, 65))), seal(KEY, b"content", NONCE))


def test_the_key_as_json() -> None:
    text = (
        b'{"mac":{"k":"ICEiIyQlJicoKSorLC0uLw==","r":"MDEyAzQ1Ngc4OToLPD0+Dw=="},'
        b'"encrypt":"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}'
    )

    assert MasterKey.decode(KEY.encode(), "it") == KEY
    assert KEY.encode() == text
    assert "encrypt" not in repr(KEY)


@pytest.mark.parametrize(
    "text",
    [
        b"{}",
        b'{"mac":{"k":"","r":""},"encrypt":""}',
        MasterKey(MacKey(bytes(16), bytes(16)), bytes(32)).encode(),
    ],
)
def test_keys_that_are_none(text: bytes) -> None:
    with pytest.raises(RepositoryDamaged, match="the key"):
        MasterKey.decode(text, "the key")

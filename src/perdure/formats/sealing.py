"""Sealing: how every byte of a repository, but its key files, is encrypted and authenticated.

::

    offset  size  content
    0       16    nonce: random, never used twice
    16      n     the content, AES-256 in counter mode; the nonce is the first counter block
    n+16    16    Poly1305-AES of the n bytes before it

A master key is three keys: ``encrypt`` (32 bytes, AES-256), ``k`` (16 bytes, AES-128) and ``r`` (16
bytes). Poly1305's one-time key is r, then AES-128 under k of the nonce. r is clamped: of its bytes
3, 7, 11, 15 only the lower four bits count, of 4, 8, 12 all but the lowest two.

A master key is written as JSON, its keys in Base64::

    {"mac":{"k":"...","r":"..."},"encrypt":"..."}

Source: restic's doc/design.rst; D. J. Bernstein, "The Poly1305-AES message-authentication code".
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import TypeAlias

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from perdure.errors import RepositoryDamaged
from perdure.formats.golang import decode_json, encode_json

Bytes: TypeAlias = bytes | bytearray | memoryview

NONCE_SIZE = 16
MAC_SIZE = 16
OVERHEAD = NONCE_SIZE + MAC_SIZE
KEY_MATERIAL = 64
"""How many (random or derived) bytes make a key: encrypt, k, r."""

_CLAMP = int.from_bytes(bytes.fromhex("ffffff0ffcffff0ffcffff0ffcffff0f"), "big")


class SealBroken(ValueError):
    """Sealed bytes are not what was sealed with this key: another key, or damage."""


class MacKey(msgspec.Struct, frozen=True):
    """The two keys of Poly1305-AES."""

    k: bytes
    r: bytes


class MasterKey(msgspec.Struct, frozen=True):
    """What seals and unseals."""

    mac: MacKey
    encrypt: bytes

    @classmethod
    def from_material(cls, material: bytes) -> MasterKey:
        """Make a key of 64 bytes: encrypt, k, r (clamped here)."""
        if len(material) != KEY_MATERIAL:
            raise ValueError(f"a key is made of {KEY_MATERIAL} bytes, not {len(material)}")
        r = int.from_bytes(material[48:], "big") & _CLAMP
        return cls(MacKey(material[32:48], r.to_bytes(16, "big")), material[:32])

    @classmethod
    def decode(cls, text: bytes, where: str) -> MasterKey:
        """Read the JSON of a key. Raises RepositoryDamaged, naming ``where``."""
        key = decode_json(text, cls, where)
        if (len(key.mac.k), len(key.mac.r), len(key.encrypt)) != (16, 16, 32):
            raise RepositoryDamaged(f"{where} holds a master key of another length")
        if not (any(key.mac.k) and any(key.mac.r) and any(key.encrypt)):
            raise RepositoryDamaged(f"{where} holds a master key of zeros")
        return key

    def encode(self) -> bytes:
        """Give the JSON of the key."""
        return encode_json(self)

    def __repr__(self) -> str:
        return "MasterKey(...)"


def seal(key: MasterKey, content: Bytes, nonce: bytes) -> bytes:
    """Seal ``content`` with 16 random bytes that were never used before."""
    encryptor = Cipher(_aes(key.encrypt), modes.CTR(nonce)).encryptor()
    hidden = encryptor.update(content)
    mac = Poly1305.generate_tag(_one_time_key(key, nonce), hidden)
    return b"".join((nonce, hidden, mac))


def unseal(key: MasterKey, sealed: Bytes) -> bytes:
    """Give the content. Raises SealBroken if one bit is not as it was sealed."""
    if len(sealed) < OVERHEAD:
        raise SealBroken(f"{len(sealed)} bytes are too few to be sealed")
    view = memoryview(sealed)
    nonce = bytes(view[:NONCE_SIZE])
    hidden = view[NONCE_SIZE:-MAC_SIZE]
    try:
        Poly1305.verify_tag(_one_time_key(key, nonce), hidden, bytes(view[-MAC_SIZE:]))
    except InvalidSignature:
        raise SealBroken("its authentication code does not match") from None
    return Cipher(_aes(key.encrypt), modes.CTR(nonce)).decryptor().update(hidden)


def seal_many(key: MasterKey, contents: Sequence[Bytes], nonces: bytes) -> list[bytes]:
    """Seal many contents; the nonces, 16 bytes for each, stand one behind the other.

    Of small contents the ciphers' making would cost more than their work: one is used for all.
    """
    sealed = []
    split = [nonces[at : at + NONCE_SIZE] for at in range(0, len(nonces), NONCE_SIZE)]
    encryptor = Cipher(_aes(key.encrypt), modes.CTR(bytes(NONCE_SIZE))).encryptor()
    for content, nonce, once in zip(contents, split, _one_time_keys(key, nonces), strict=True):
        encryptor.reset_nonce(nonce)
        hidden = encryptor.update(content)
        sealed.append(b"".join((nonce, hidden, Poly1305.generate_tag(once, hidden))))
    return sealed


def unseal_many(key: MasterKey, sealed: Sequence[bytes]) -> list[bytes]:
    """Give the contents of many. Raises SealBroken if one bit is not as it was sealed."""
    contents = []
    decryptor = Cipher(_aes(key.encrypt), modes.CTR(bytes(NONCE_SIZE))).decryptor()
    nonces = b"".join(each[:NONCE_SIZE] for each in sealed)
    for each, once in zip(sealed, _one_time_keys(key, nonces), strict=True):
        hidden = memoryview(each)[NONCE_SIZE:-MAC_SIZE]
        try:
            Poly1305.verify_tag(once, hidden, each[-MAC_SIZE:])
        except InvalidSignature:
            raise SealBroken("its authentication code does not match") from None
        decryptor.reset_nonce(each[:NONCE_SIZE])
        contents.append(decryptor.update(hidden))
    return contents


def _one_time_keys(key: MasterKey, nonces: bytes) -> list[bytes]:
    hidden = Cipher(_aes(key.mac.k), modes.ECB()).encryptor().update(nonces)  # noqa: S305 - see below
    return [key.mac.r + hidden[at : at + NONCE_SIZE] for at in range(0, len(hidden), NONCE_SIZE)]


@functools.lru_cache(maxsize=8)
def _aes(key: bytes) -> algorithms.AES:
    return algorithms.AES(key)


def _one_time_key(key: MasterKey, nonce: bytes) -> bytes:
    # ECB of a single block is AES itself, which is what Poly1305-AES is defined with.
    block_cipher = Cipher(_aes(key.mac.k), modes.ECB()).encryptor()  # noqa: S305
    return key.mac.r + block_cipher.update(nonce)

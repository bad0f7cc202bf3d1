"""Key files, ``keys/<id>``: the master key, sealed with a key that is derived from a password.

A key file is plain JSON, named by the SHA-256 of its bytes::

    {"created":"2026-11-21T03:15:00Z",   when, RFC 3339
     "username":"plone",                 who made it, and where; to tell keys apart
     "hostname":"www1",
     "kdf":"scrypt",                     anything else is refused
     "N":65536,"r":8,"p":2,              scrypt's cost: N a power of two
     "salt":"...",                       Base64, 64 random bytes
     "data":"..."}                       Base64, the master key's JSON, sealed

scrypt gives 64 bytes from password and salt; they are the key that ``data`` is sealed with (see
`perdure.formats.sealing`). A repository has one master key and any number of key files, each with a
password of its own.

Bounds: scrypt may ask for at most 1 GiB (128 * N * r bytes) and N * r * p of at most 2**27, so that
a forged key file cannot stop the machine.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from perdure.errors import RepositoryDamaged
from perdure.formats.golang import decode_json, encode_json
from perdure.formats.sealing import KEY_MATERIAL, NONCE_SIZE, MasterKey, SealBroken, seal, unseal

SALT_SIZE = 64
_MOST_MEMORY = 1 << 30
_MOST_WORK = 1 << 27


class KdfParameters(msgspec.Struct, frozen=True):
    """What it costs to try one password: 128 * n * r bytes of memory, n * r * p steps."""

    n: int
    r: int
    p: int

    @property
    def work(self) -> int:
        """A number that grows with the time one try takes."""
        return self.n * self.r * self.p

    @property
    def reasonable(self) -> bool:
        """Whether scrypt accepts them, and in bounded memory and time."""
        if self.n < 2 or self.n & (self.n - 1) or self.r < 1 or self.p < 1:
            return False
        return 128 * self.n * self.r <= _MOST_MEMORY and self.work <= _MOST_WORK


FOR_KEY_FILES = KdfParameters(n=1 << 10, r=8, p=1)
"""For 256 random bits, which no stretching makes harder to guess: about 2 ms."""

FOR_PASSWORDS = KdfParameters(n=1 << 16, r=8, p=2)
"""For a password that a person has chosen: 64 MiB and about 0.3 s a try, docs/decisions/0002."""


class KeyFile(msgspec.Struct, frozen=True):
    """A key file's content."""

    created: str
    username: str
    hostname: str
    kdf: str
    n: int = msgspec.field(name="N")
    r: int
    p: int
    salt: bytes
    data: bytes

    @classmethod
    def decode(cls, text: bytes, where: str) -> KeyFile:
        """Read a key file. Raises RepositoryDamaged, naming ``where``."""
        keyfile = decode_json(text, cls, where)
        if keyfile.kdf != "scrypt":
            raise RepositoryDamaged(f"{where} wants the key derivation {keyfile.kdf!r}, not scrypt")
        if not keyfile.cost.reasonable:
            raise RepositoryDamaged(
                f"{where} has parameters that scrypt does not accept: {keyfile.cost}"
            )
        return keyfile

    @classmethod
    def make(
        cls,
        master: MasterKey,
        password: str,
        cost: KdfParameters,
        *,
        created: str,
        username: str,
        hostname: str,
        randomness: Callable[[int], bytes],
    ) -> KeyFile:
        """Seal ``master`` with ``password``; ``randomness(n)`` gives n random bytes."""
        salt = randomness(SALT_SIZE)
        sealed = seal(_derive(password, salt, cost), master.encode(), randomness(NONCE_SIZE))
        return cls(created, username, hostname, "scrypt", cost.n, cost.r, cost.p, salt, sealed)

    @property
    def cost(self) -> KdfParameters:
        """What one try of a password costs."""
        return KdfParameters(self.n, self.r, self.p)

    def encode(self) -> bytes:
        """Give the bytes of the key file."""
        return encode_json(self)

    def open(self, password: str, where: str) -> MasterKey | None:
        """Give the master key, or None if the password is another. Raises RepositoryDamaged."""
        try:
            text = unseal(_derive(password, self.salt, self.cost), self.data)
        except SealBroken:
            return None
        return MasterKey.decode(text, where)


def _derive(password: str, salt: bytes, cost: KdfParameters) -> MasterKey:
    scrypt = Scrypt(salt=salt, length=KEY_MATERIAL, n=cost.n, r=cost.r, p=cost.p)
    return MasterKey.from_material(scrypt.derive(password.encode("utf-8", "surrogateescape")))

"""The keys of a repository: one master key, sealed in as many key files as there are passwords."""

from __future__ import annotations

import hashlib
import os
from datetime import datetime

import msgspec

from perdure.errors import NameNotFound, PerdureError, RepositoryDamaged, UsageError, WrongPassword
from perdure.formats.golang import format_moment
from perdure.formats.keyfile import KdfParameters, KeyFile
from perdure.formats.sealing import KEY_MATERIAL, MasterKey
from perdure.repository.sealed import is_id
from perdure.stores import Store

FOLDER = "keys"


class Owner(msgspec.Struct, frozen=True):
    """Who makes a key, and when: what tells keys apart in a list."""

    username: str
    hostname: str
    now: datetime


class OpenedKey(msgspec.Struct, frozen=True):
    """A key file that a password has opened."""

    name: str
    master: MasterKey


def new_master_key() -> MasterKey:
    """Draw a master key."""
    return MasterKey.from_material(os.urandom(KEY_MATERIAL))


def open_key(store: Store, password: str) -> OpenedKey:
    """Find the key file that the password opens. Raises WrongPassword, RepositoryDamaged.

    The cheapest go first, so that a generated key is not kept waiting by a typed one; among equals
    the newest. A damaged key file does not stand in the way of another that opens.
    """
    damage: RepositoryDamaged | None = None
    keyfiles: list[tuple[str, KeyFile]] = []
    for name in _names(store):
        try:
            keyfiles.append((name, _load(store, name)))
        except RepositoryDamaged as error:
            damage = error
    keyfiles.sort(key=lambda pair: pair[1].created, reverse=True)
    keyfiles.sort(key=lambda pair: pair[1].cost.work)
    for name, keyfile in keyfiles:
        master = keyfile.open(password, _where(store, name))
        if master:
            return OpenedKey(name, master)
    if damage:
        raise damage
    raise WrongPassword(
        f"none of the {len(keyfiles)} keys of {store.location} opens with this password",
        hint="it is looked for in PERDURE_PASSWORD_FILE, _PASSWORD_COMMAND and _PASSWORD",
    )


def add_key(
    store: Store, master: MasterKey, password: str, cost: KdfParameters, owner: Owner
) -> str:
    """Write a key file for one more password; gives its id."""
    keyfile = KeyFile.make(
        master,
        password,
        cost,
        created=format_moment(owner.now),
        username=owner.username,
        hostname=owner.hostname,
        randomness=os.urandom,
    )
    content = keyfile.encode()
    if KeyFile.decode(content, "the new key").open(password, "the new key") != master:
        raise PerdureError("a key that was just written does not open")
    name = hashlib.sha256(content).hexdigest()
    store.put(f"{FOLDER}/{name}", content)
    return name


def list_keys(store: Store) -> list[tuple[str, KeyFile]]:
    """Give the id and content of each key file, oldest first. Raises RepositoryDamaged."""
    keyfiles = [(name, _load(store, name)) for name in _names(store)]
    return sorted(keyfiles, key=lambda pair: (pair[1].created, pair[0]))


def remove_key(store: Store, prefix: str, in_use: str) -> str:
    """Remove a key file, but never the one in use; gives its id. Raises UsageError."""
    matches = [name for name in _names(store) if name.startswith(prefix)]
    if len(matches) != 1 or not prefix:
        raise UsageError(
            f"{len(matches)} keys have an id that starts with {prefix!r}",
            hint="perdure key list shows them",
        )
    if matches[0] == in_use:
        raise UsageError(
            f"key {in_use[:8]} is the one in use",
            hint="open the repository with the password of another key to remove it",
        )
    store.delete(f"{FOLDER}/{matches[0]}")
    return matches[0]


def _names(store: Store) -> list[str]:
    names = (name.removeprefix(f"{FOLDER}/") for name, _ in store.list(f"{FOLDER}/"))
    return [name for name in names if is_id(name)]


def _load(store: Store, name: str) -> KeyFile:
    where = _where(store, name)
    try:
        content = store.get(f"{FOLDER}/{name}")
    except NameNotFound as error:
        raise RepositoryDamaged(f"{where} is gone") from error
    if hashlib.sha256(content).hexdigest() != name:
        raise RepositoryDamaged(f"{where} is damaged: its SHA-256 is not its name")
    return KeyFile.decode(content, where)


def _where(store: Store, name: str) -> str:
    return f"{FOLDER}/{name} in {store.location}"

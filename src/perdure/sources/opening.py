"""Open the storage that a ZConfig text describes, as Zope and zodbconvert do.

The text has one storage section (``<relstorage>``, ``<zeoclient>``, ...), below ``%import`` lines for the
packages that it needs. ZConfig imports these packages: they are what the owner of the site wrote into the
configuration, and nothing else can open the storage. Nothing that comes out of a backup gets here.

A storage that is backed up is opened read-only, does not create tables, and leaves the caches of the
site's own processes alone. Passwords are neither stored nor shown: a place is described by the few keys
that are known to be harmless, and what the storage's driver says goes through ``without_secrets``.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from perdure.errors import PerdureError, SourceUnusable

_SECTION = re.compile(r"\s*<([\w.-]+)")
_KEY = re.compile(r"\s*(?:%define\s+)?([\w.-]+)\s+(\S.*)")
_PLACE_KEYS = {
    *("server", "storage", "path", "data-dir", "host", "port", "db", "unix_socket"),
    *("master_nodes", "master-nodes", "cluster"),
}
_DSN_WORD = re.compile(r"\b(\w+)\s*=\s*('(?:[^'\\]|\\.)*'|\S+)")
_DSN_PLACE = {"host", "hostaddr", "port", "dbname", "service"}
_SECRET = re.compile("pass|secret|token", re.IGNORECASE)
_TALKATIVE = ("relstorage", "ZEO", "ZODB")


def read_text(path: Path) -> str:
    """Read a ZConfig file. Raises SourceUnusable."""
    try:
        return path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise SourceUnusable(
            f"{path} cannot be read: {why}",
            hint="give a ZConfig file with one storage section, such as <relstorage> or <zeoclient>",
        ) from error


def describe(zconfig: str) -> str:
    """Say in a line which storage a ZConfig text describes, without its secrets."""
    words: list[str] = []
    for line in zconfig.splitlines():
        section, key = _SECTION.match(line), _KEY.match(line)
        if section:
            words.append(section[1])
        elif key and key[1] == "dsn":
            words += _dsn_words(key[2].strip())
        elif key and key[1].lower() in _PLACE_KEYS and "%" not in line:
            words.append(f"{key[1].lower()}={key[2].strip()}")
    return " ".join(words)


def _dsn_words(dsn: str) -> list[str]:
    if "://" in dsn:
        try:
            parts = urlsplit(dsn)
            known = (("host", parts.hostname), ("port", parts.port), ("dbname", parts.path[1:]))
        except ValueError:
            return []
        return [f"{key}={value}" for key, value in known if value]
    found = ((word[1], word[2].strip("'")) for word in _DSN_WORD.finditer(dsn))
    return [f"{key}={value}" for key, value in found if key in _DSN_PLACE]


def without_secrets(message: str, zconfig: str) -> str:
    """Take the passwords of a ZConfig text out of a message."""
    if "invalid dsn" in message:  # it quotes what it cannot make sense of
        return "its dsn cannot be taken apart"
    for secret in sorted(_secrets(zconfig), key=len, reverse=True):
        message = message.replace(secret, "***")
    return message


def _secrets(zconfig: str) -> set[str]:
    found: set[str] = set()
    for line in zconfig.splitlines():
        key = _KEY.match(line)
        if not key:
            continue
        value = key[2].strip()
        if _SECRET.search(key[1]):
            found.add(value)
        for word in _DSN_WORD.finditer(value):
            if _SECRET.search(word[1]):
                found |= {word[2], word[2].strip("'")}
        if "://" in value:
            found.add(value)
            user, _, password = value.partition("://")[2].rpartition("@")[0].partition(":")
            found |= {password} if user else set()
    return found - {""}


@contextmanager
def opened_storage(
    zconfig: str, *, read_only: bool, blob_cache: Path | None = None
) -> Iterator[Any]:
    """Open the storage that a ZConfig text describes, and close it in the end.

    ``blob_cache``: an empty folder for blobs that come through the storage, where it has no directory of
    its own that is shared with the server. Raises SourceUnusable.
    """
    factory = _factory(zconfig)
    if read_only:
        _tame(factory, blob_cache)
    for name in _TALKATIVE:  # what goes wrong is raised, and said once
        logging.getLogger(name).addHandler(logging.NullHandler())
    with translated(zconfig, "cannot be opened"):
        storage = factory.open()
    try:
        yield storage
    finally:
        storage.close()


@contextmanager
def translated(
    zconfig: str, what: str, kind: type[PerdureError] = SourceUnusable
) -> Iterator[None]:
    """Turn whatever a storage or its driver raises into an error of ours, without secrets."""
    try:
        yield
    except PerdureError:
        raise
    except Exception as error:  # noqa: BLE001 - each driver has a tree of its own
        why = " ".join(without_secrets(str(error), zconfig).split()) or "it says no more"
        raise kind(
            f"{describe(zconfig)} {what}: {type(error).__name__}: {why}",
            hint="is the server running, and does it let this user in from here? The configuration is that"
            " of the site's own storage section",
        ) from None


def _factory(zconfig: str) -> Any:
    import ZConfig
    import ZODB.config

    try:
        schema = ZODB.config.getStorageSchema()
        config, _ = ZConfig.loadConfigFile(schema, StringIO(zconfig))
        why = "it has no storage section"
    except (ZConfig.ConfigurationError, ImportError, ValueError) as error:
        config, why = None, without_secrets(str(error), zconfig)
    if config is None or config.storage is None:
        raise SourceUnusable(
            f"the configuration of the storage cannot be used: {why}",
            hint="it has one storage section, and above it %import with each package that the section needs"
            " (%import relstorage); these must be installed where perdure is",
        ) from None
    return config.storage


def _tame(factory: Any, blob_cache: Path | None) -> None:
    """Open read-only, wait for the server, create nothing, and use no cache of the site's processes."""
    config: Any = getattr(factory, "config", None)
    inner = getattr(config, "base", None)
    if inner is not None:
        _tame(inner, blob_cache)
    wanted: dict[str, object] = {
        "read_only": True,
        "wait": True,
        "create_schema": False,
        "cache_local_dir": None,
        "client": None,
    }
    shared = getattr(config, "shared_blob_dir", None)
    if shared is not None and not (shared and config.blob_dir):
        wanted |= {"blob_dir": str(blob_cache) if blob_cache else None, "blob_cache_size": None}
        wanted["shared_blob_dir"] = False
    for key, value in wanted.items():
        if hasattr(config, key):
            setattr(config, key, value)

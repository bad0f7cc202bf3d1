"""Options that are texts, as a buildout, an environment or another tool's file has them, into settings.

A word that is no yes or no, a number that is none, and an option that is not known are errors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from perdure.config.declaration import Key, keys
from perdure.config.reading import convert, did_you_mean
from perdure.config.site import SiteSection
from perdure.errors import UsageError

_TRUE = frozenset({"true", "yes", "on", "1"})
_FALSE = frozenset({"false", "no", "off", "0"})
_ALIASES = {
    "blob-storage": "blob_storage",
    "gzip_blob": "archive_blob",
    "alternative_restore_sources": "alternative_restore_source",
}
LINES = ("additional_filestorages", "alternative_restore_source")
"""Options with a line for each value."""
PATHS = (
    *("location", "snapshotlocation", "ziplocation", "blobbackuplocation"),
    *("blobsnapshotlocation", "blobziplocation", "locationprefix", "datafs", "blob_storage"),
    *("repository", "password_file", "base_dir", "bin_dir", "var_dir"),
)


def declared() -> dict[str, Key]:
    """Give what is declared of each option, by its name."""
    return {key.field: key for key in keys().values() if key.section == "site"}


def read_options(given: Mapping[str, str], ignored: Iterable[str] = ()) -> SiteSection:
    """Read options that are all texts. Raises UsageError, with the option."""
    known = declared()
    named: dict[str, str] = {}
    for spelled, text in given.items():
        if spelled in ignored:
            continue
        name = _ALIASES.get(spelled, spelled)
        if name not in known:
            hint = did_you_mean(spelled, list(known)) or f"there are: {', '.join(known)}"
            raise UsageError(f"there is no option {spelled}", hint=hint)
        if named.setdefault(name, text) != text:
            raise UsageError(f"{name} and {spelled} are the same option, with different values")
    values = {name: _value(known[name], text) for name, text in named.items()}
    return SiteSection(**{name: value for name, value in values.items() if value is not None})


def _value(key: Key, text: str) -> Any:
    """Give the value of a text; None: as if it had not been said."""
    text = text.strip()
    if not text:
        if key.field in PATHS and key.field != "repository":
            raise UsageError(f"{key.field} is empty", hint="give a path, or leave the option out")
        return None
    raw: Any = text
    if key.kind is bool:
        raw = _truth(key.field, text)
    elif key.field in LINES:
        lines = (line.strip() for line in text.splitlines())
        raw = [line for line in lines if line and not line.startswith("#")]
    try:
        return convert(key, raw, None, strict=False)
    except UsageError as error:
        raise UsageError(f"{key.field} = {text}: {error}", hint=error.hint) from None


def _truth(name: str, text: str) -> bool:
    word = text.lower()
    if word not in _TRUE | _FALSE:
        raise UsageError(f"{name} = {text} is neither yes nor no", hint="write true or false")
    return word in _TRUE

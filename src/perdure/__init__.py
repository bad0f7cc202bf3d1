"""Perdure backs up ZODB, Zope and Plone sites into a standard repository, and gives any moment back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from perdure.sources.directorystorage.storage import DirectoryStorage

__version__ = "0.1.0"


def open_directorystorage(path: Path | str) -> DirectoryStorage:
    """Open the HOME of a DirectoryStorage as a read-only ZODB storage, without touching it.

    It stays at the last transaction of the moment when it is opened. Raises SourceUnusable.
    """
    from perdure.sources.directorystorage.storage import DirectoryStorage

    return DirectoryStorage(Path(path))

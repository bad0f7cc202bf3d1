"""A Data.fs out of a repozo repository, in a scratch folder that disappears."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from perdure.dropin import repozo
from perdure.dropin.recipe.copying import remove
from perdure.dropin.recipe.naming import PART
from perdure.model import Observer, SilentObserver


@contextmanager
def recovered(
    repository: Path, date: str | None, beside: Path, observer: Observer | None = None
) -> Iterator[Path]:
    """Recover a state into a new folder with a name like ``beside``; gives the Data.fs, which has an index.

    Raises UsageError, DamageFound, StoreError.
    """
    folder = beside.with_name(f"{PART}{beside.name}.recovered")
    remove(folder)
    folder.mkdir(parents=True, mode=0o700)
    try:
        path = (
            folder / "database"
        )  # not Data.fs: what a killed restore leaves is no storage of the site
        request = repozo.RecoverRequest(repository=repository, date=date)
        repozo.recover(request, path, observer or SilentObserver())
        yield path
    finally:
        shutil.rmtree(folder)

"""A source of which only the name is known: what it consists of could not be found out."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from perdure.errors import SourceUnusable
from perdure.sources.files import FilesCut


class UnusableSource:
    """Stands for such a source, so that a backup can say so and go on with the others."""

    kind = "unknown"
    database = ""

    def __init__(self, name: str, error: SourceUnusable) -> None:
        self.name = self.place = name
        self._error = error

    @contextmanager
    def cut(self) -> Iterator[FilesCut]:
        """Raise what is the matter: SourceUnusable."""
        raise self._error
        yield

    def concerns(self) -> Iterator[str]:
        """Nothing is known that could be said."""
        yield from ()

"""What earlier runs made of a source whose bytes are made, not read, as its history tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from perdure.errors import RepositoryDamaged
from perdure.formats.history import LayoutName
from perdure.history.in_repository import RepositoryHistory

if TYPE_CHECKING:
    from perdure.formats.revisions import Revisions


class HistoryPast:
    """Where the records before some positions stand: told by layouts and catalogues, without payloads."""

    def __init__(self, history: RepositoryHistory) -> None:
        self._history = history
        self._names = history.names()
        self._done = 0
        self._revisions: Revisions | None = None

    def last_tid(self, position: int) -> int:
        """Give the tid of the last transaction before a position; 0: there is none."""
        before = (name.last_tid for name in self._names if name.start < position)
        return max(before, default=0)

    def newest(self, position: int) -> Callable[[int], tuple[int, int]]:
        """Give what tells position and tid of an oid's last record before a position; 0, 0 for none.

        Of a position behind the last one that was asked for, only what lies between is read; the earlier
        answer then tells of this one. Raises DamageFound.
        """
        from perdure.formats.revisions import Revisions

        before = sum(name.start < position for name in self._names)
        if self._revisions is None or before < self._done:
            self._revisions, self._done = Revisions(), 0
        for name in self._names[self._done : before]:
            self._note(name, self._revisions)
        self._done = before
        return self._revisions.revision

    def _note(self, name: LayoutName, revisions: Revisions) -> None:
        from perdure.formats.arrangement import Arrangement

        history = self._history
        layout = history.layout(name)
        if layout.facts.verbatim:
            raise RepositoryDamaged(f"{history.where}: {name} is verbatim, which nothing made was")
        catalogues = [history.catalogue(segment) for segment in history.segments(layout)]
        Arrangement(layout, catalogues, f"{history.where}: {name}").note(revisions)

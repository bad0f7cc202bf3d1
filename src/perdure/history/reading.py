"""A history as something to read, wherever it is kept: its layouts, catalogues and payloads."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from perdure.errors import DamageFound
from perdure.formats.catalogue import Catalogue
from perdure.formats.history import LayoutName
from perdure.formats.layout import Layout
from perdure.model import Tid


@dataclass(frozen=True, slots=True)
class Piece:
    """A layout with everything that its range of the file is put together from."""

    name: LayoutName
    layout: Layout
    catalogues: tuple[Catalogue, ...]
    payloads: tuple[list[bytes], ...]
    """Of each segment, the chunks that its payload's file has."""
    where: str


class History(Protocol):
    """Read access to a history; see formats/history.py for what it consists of."""

    where: str

    def names(self) -> list[LayoutName]:
        """Give the names of all layouts, in the order of the file. Raises DamageFound."""

    def layout(self, name: LayoutName) -> Layout:
        """Load a layout. Raises DamageFound."""

    def pieces(self, names: Sequence[LayoutName]) -> Iterator[Piece]:
        """Load layouts with catalogues and payloads, in the given order. Raises DamageFound."""


def check_seamless(names: Sequence[LayoutName], where: str) -> None:
    """Check that the first layout begins the file. Raises DamageFound."""
    if not names or names[0].start != 0:
        raise DamageFound(f"{where}: the layout that begins the file is missing")


def check_follows(piece: Layout, end: int, where: str) -> None:
    """Check that a layout begins where the one before it ended. Raises DamageFound."""
    if piece.facts.start != end:
        raise DamageFound(
            f"{where}: the layout begins at byte {piece.facts.start} of the file,"
            f" the one before it ended at {end}: one is missing"
        )


def names_until(names: Sequence[LayoutName], until: Tid | None) -> Sequence[LayoutName]:
    """Leave out what lies behind the first layout that has a transaction above ``until``."""
    if until is None:
        return names
    beyond = next((n for n, name in enumerate(names) if name.last_tid > until.value), None)
    return names if beyond is None else names[: beyond + 1]

"""What was found whole in a repository, and need not be looked for again while its index only grows.

Only a prune or a repair takes index files away; while all that were listed then are listed still, every chunk
that was there is there. The notes are in the cache, and without them everything is looked for again.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Set as AbstractSet
from contextlib import suppress
from pathlib import Path

_LONGEST = 16 << 20


class Notes:
    """Notes in a folder of the cache (None: there is no cache), while ``listed`` are the index files."""

    def __init__(self, folder: Path | None, listed: AbstractSet[str]) -> None:
        self._folder, self._listed = folder, listed

    def found_whole(self, what: str) -> bool:
        """Tell whether something was found whole, and nothing was taken from the index since."""
        if self._folder is None:
            return False
        try:
            with open(self._place(self._folder, what), encoding="ascii") as file:
                then = file.read(_LONGEST).split()
        except (OSError, UnicodeDecodeError):
            return False
        return bool(then) and self._listed >= set(then)

    def note_whole(self, what: str) -> None:
        """Note that something is whole now; what it consists of is in the index files that are listed."""
        if self._folder is None:
            return
        with suppress(OSError):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            place = self._place(self._folder, what)
            part = place.with_suffix(f".{os.getpid()}")
            part.write_text("\n".join(sorted(self._listed)), encoding="ascii")
            part.replace(place)

    def _place(self, folder: Path, what: str) -> Path:
        return folder / f"{hashlib.sha256(what.encode()).hexdigest()[:32]}.whole"

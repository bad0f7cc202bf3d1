"""How a backup went: what commands around it, monitors and mails are told."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Self

from perdure.errors import INTERRUPTED, BackupIncomplete

STATUSES = {0: "success", BackupIncomplete.exit_code: "incomplete", INTERRUPTED: "interrupted"}
"""Exit codes that have a word of their own; all others are "failed"."""


@dataclass(frozen=True, slots=True)
class Made:
    """What a backup made: the snapshot, if there is one, and the cut of each source by its name."""

    snapshot: str | None
    bytes_added: int
    incomplete: bool
    cuts: tuple[tuple[str, datetime | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a backup ended."""

    exit_code: int
    message: str
    """What went wrong; empty if nothing did. One line, without secrets."""
    repository: str
    host: str
    started: datetime
    finished: datetime
    made: Made | None = None

    @property
    def status(self) -> str:
        """``success``, ``incomplete``, ``interrupted`` or ``failed``."""
        return STATUSES.get(self.exit_code, "failed")

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max((self.finished - self.started).total_seconds(), 0.0)

    @property
    def title(self) -> str:
        """One line that says how it went."""
        how = {"success": "succeeded", "failed": "failed"}.get(self.status, f"was {self.status}")
        how = "is incomplete" if self.status == "incomplete" else how
        return f"backup of {self.host} to {self.repository} {how}"

    def failed(self, exit_code: int, message: str) -> Self:
        """The same, but that it failed."""
        return replace(self, exit_code=exit_code, message=message)

    def text(self) -> str:
        """A few lines for people; times are UTC."""
        lines = [f"{self.title} (exit code {self.exit_code})"]
        if self.message:
            lines += ["", self.message]
        lines += ["", f"started {_time(self.started)} UTC, took {self.seconds:.1f} seconds"]
        if self.made:
            made = self.made
            snapshot = f"snapshot {made.snapshot[:8]}" if made.snapshot else "no new snapshot"
            lines.append(f"{snapshot}, {made.bytes_added} bytes added")
            lines += [f"{name}: {_time(cut) if cut else 'empty'}" for name, cut in made.cuts]
        return "\n".join(lines) + "\n"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M:%S}"

"""What is around a run of `perdure site`: the user's own scripts, and a file that says how it went."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from perdure.cli import messages
from perdure.cli.around import code_of
from perdure.cli.session import Session, now
from perdure.errors import PerdureError

if TYPE_CHECKING:
    from perdure.dropin.recipe.part import Part
    from perdure.outcome import Outcome

_STANDARD_ERROR = 2
STATUS_FILE = ".perdure-status.json"


@dataclass(slots=True)
class Told:
    """What a run tells those around it."""

    command: str
    locations: tuple[str, ...]
    stamp: str = ""
    storages: list[dict[str, object]] = field(default_factory=list)


@contextmanager
def around_run(session: Session, part: Part, told: Told, *, status: bool) -> Iterator[Told]:
    """Run the scripts of a part around a run: as Python's try, but that one script stands for each case.

    ``status``: write the file about it. What the run raises goes on.
    """
    run = _Around(session, part, told)
    try:
        run.script("pre_command", part.hooks.pre, None)
        yield told
        if status and part.hooks.post.strip():  # which may unmount the disk that it is on
            run.write_status(run.outcome(None))
        run.script("post_command", part.hooks.post, run.outcome(None))
    except BaseException as error:
        outcome = run.outcome(error)
        run.quietly("failed_command", part.hooks.failed, outcome)
        run.quietly("finally_command", part.hooks.last, outcome)
        if status:
            run.write_status(outcome)
        raise
    outcome = run.outcome(None)
    if status:
        run.write_status(outcome)
    run.script("finally_command", part.hooks.last, outcome)


class _Around:
    def __init__(self, session: Session, part: Part, told: Told) -> None:
        self._session, self._part, self._told = session, part, told
        self._started = now()

    def script(self, name: str, text: str, outcome: Outcome | None) -> None:
        """Run a script, whose first failing command ends it. Raises PerdureError."""
        if not text.strip():
            return
        from perdure.hooks import Surroundings, run_hook

        told = {
            "KIND": self._told.command,
            "LOCATIONS": "\n".join(self._told.locations),
            "STAMP": self._told.stamp,
        }
        around = Surroundings(
            environment=self._session.settings.environment,
            folder=Path(self._part.base) if os.path.isdir(self._part.base) else None,  # noqa: PTH112 - a text
            timeout=self._part.hooks.timeout,
            output=_STANDARD_ERROR,
            told=told,
            called=name,
        )
        run_hook(name.removesuffix("_command"), ("/bin/sh", "-e", "-c", text), around, outcome)

    def quietly(self, name: str, text: str, outcome: Outcome) -> None:
        """Run a script; that it fails is a warning: something else has failed before."""
        try:
            self.script(name, text, outcome)
        except PerdureError as problem:
            self._session.output.warning(str(problem))

    def outcome(self, error: BaseException | None) -> Outcome:
        from perdure.outcome import Outcome
        from perdure.repository.processes import host_name

        code, message = code_of(error)
        return Outcome(
            exit_code=code,
            message=message,
            repository=messages.printable(self._told.locations[0]),
            host=messages.printable(host_name()),
            started=self._started,
            finished=max(now(), self._started),
        )

    def write_status(self, outcome: Outcome) -> None:
        """Write how it went beside the backups; that this cannot be is a warning."""
        path = Path(self._told.locations[0], STATUS_FILE)
        if not path.parent.is_dir():
            return
        try:
            values = self._values(outcome, path)
            part = path.with_name(f"{STATUS_FILE}.part")
            part.write_text(json.dumps(values, indent=2) + "\n")
            os.rename(part, path)
        except OSError as error:
            self._session.output.warning(f"{path} cannot be written: {error.strerror}")

    def _values(self, outcome: Outcome, path: Path) -> dict[str, object]:
        good = messages.iso(outcome.finished) if outcome.status == "success" else _last_good(path)
        return {
            "version": 1,
            "command": self._told.command,
            "status": outcome.status,
            "exit_code": outcome.exit_code,
            "message": outcome.message,
            "started": messages.iso(outcome.started),
            "finished": messages.iso(outcome.finished),
            "last_success": good,
            "stamp": self._told.stamp or None,
            "storages": self._told.storages,
        }


def _last_good(path: Path) -> str | None:
    """Give when the last good run ended, as the file that is there says."""
    try:
        known = json.loads(path.read_text())
        return str(datetime.fromisoformat(known["last_success"]).isoformat())
    except (OSError, ValueError, KeyError, TypeError):
        return None

"""Which state a date means, and where inside its last piece to stop."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.repozo.chain import Chain, State, state_at
from perdure.dropin.repozo.failures import NoFiles
from perdure.dropin.repozo.folder import list_folder
from perdure.dropin.repozo.pieces import last_tid
from perdure.formats.repozo import check_date
from perdure.model import Tid, parse_time


@dataclass(frozen=True, slots=True)
class Choice:
    """A state, and the last transaction of it that is wanted (None: all of them)."""

    state: State
    until: Tid | None = None


def choose(folder: Path, date: str | None) -> Choice:
    """Find what to recover. Raises NoFiles, UsageError, NoRepository, VerificationFail."""
    moment = _moment(date)
    chains = list_folder(folder).chains
    if not chains:
        raise NoFiles(_before("No files in repository", date))
    if moment is None:
        state = state_at(chains, date)
        if state is None:
            raise NoFiles(_before("No files in repository", date))
        return Choice(state)
    state = _containing(chains, moment)
    if state is None:
        newest = chains[-1].states[-1]
        if isinstance(date, str) and "T" not in date.upper():
            raise NoFiles(f"there is no transaction {date}: the newest is {last_tid(newest)}")
        return Choice(newest)
    return Choice(state, moment)


def _moment(date: str | None) -> Tid | None:
    """Read a transaction id or a time; None for a date as repozo has it. Raises UsageError."""
    if date is None:
        return None
    try:
        return Tid.from_text(date.strip())
    except ValueError:
        pass
    if "T" in date.upper():
        return Tid.at(parse_time(date))
    check_date(date)
    return None


def _containing(chains: Sequence[Chain], tid: Tid) -> State | None:
    """Find the first backup that has everything up to a transaction.

    The first, since a later one may have been made after a pack that removed what was there.
    """
    found: Chain | None = None
    for chain in reversed(chains):
        last = last_tid(chain.states[-1])
        if last is None or last < tid:
            break
        found = chain
    if found is None:
        return None
    for state in found.states:
        last = last_tid(state)
        if last is not None and not last < tid:
            return state
    raise AssertionError  # the last one has it


def _before(text: str, date: str | None) -> str:
    return f"{text} before {date}" if date else text

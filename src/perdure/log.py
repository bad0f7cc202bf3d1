"""Log: the transactions of a source, as a snapshot has them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from perdure.errors import UsageError
from perdure.formats.layout import Layout
from perdure.history.in_repository import RepositoryHistory
from perdure.model import Tid
from perdure.repository import Repository
from perdure.restore_plan import Wanted, choose
from perdure.snapshots import names_of


@dataclass(frozen=True, slots=True)
class TransactionInfo:
    """A transaction: who committed what, how many records, how many bytes of the file, and where."""

    tid: Tid
    time: datetime
    status: str
    user: bytes
    description: bytes
    records: int
    size: int
    position: int


def read_log(
    repository: Repository,
    snapshot: str,
    *,
    source: str | None = None,
    since: Tid | datetime | None = None,
    until: Tid | datetime | None = None,
) -> Iterator[TransactionInfo]:
    """Give the transactions from ``since`` to ``until``, both included, in the order of the file.

    Raises UsageError, RepositoryDamaged.
    """
    chosen = choose(repository, Wanted(snapshot, source=source))
    if len(chosen) > 1:
        names = names_of(each.found.record for each in chosen)
        raise UsageError(
            f"snapshot {chosen[0].found.id[:8]} has {len(chosen)} sources",
            hint=f"choose one with --source; there are: {names}",
        )
    history = chosen[0].found.history
    first = _floor(since) if since is not None else 0
    last = (Tid.at(until) if isinstance(until, datetime) else until or Tid((1 << 64) - 1)).value
    transactions = _whole(_transactions(history, first))
    return (each for each in transactions if first <= each.tid.value <= last)


def _floor(moment: Tid | datetime) -> int:
    """Give the smallest tid of a commit at a moment or later."""
    if isinstance(moment, Tid):
        return moment.value
    return Tid.at(moment - timedelta(microseconds=1)).value + 1


def _transactions(history: RepositoryHistory, first: int) -> Iterator[TransactionInfo]:
    for name in history.names():
        if name.last_tid >= first:
            yield from _of_layout(history.layout(name))


def _of_layout(layout: Layout) -> Iterator[TransactionInfo]:
    transactions = layout.transactions
    text = transactions.text.tobytes()
    taken = 0
    columns = zip(
        transactions.tid.tolist(),
        transactions.status.tolist(),
        transactions.user.tolist(),
        transactions.description.tolist(),
        transactions.extension.tolist(),
        transactions.records.tolist(),
        transactions.length.tolist(),
        layout.positions().tolist(),
        strict=True,
    )
    for tid, status, user, description, extension, records, length, position in columns:
        yield TransactionInfo(
            tid=Tid(tid),
            time=Tid(tid).time,
            status=chr(status),
            user=text[taken : taken + user],
            description=text[taken + user : taken + user + description],
            records=records,
            size=length + 8,
            position=position,
        )
        taken += user + description + extension


def _whole(transactions: Iterator[TransactionInfo]) -> Iterator[TransactionInfo]:
    """Join what layouts have of one transaction that was too large for one of them."""
    pending: TransactionInfo | None = None
    for transaction in transactions:
        if pending is not None and pending.position == transaction.position:
            pending = replace(pending, records=pending.records + transaction.records)
            continue
        if pending is not None:
            yield pending
        pending = transaction
    if pending is not None:
        yield pending

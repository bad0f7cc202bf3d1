"""Which archives bring a storage back: the newest full one that serves, then increments that continue it.

An increment ``M-to-N`` continues what has been restored up to run R when M <= R < N. So one that was lost
may be jumped over, where increments overlap; where none continues, there is a gap, and nothing is
restored across it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from perdure.errors import UsageError
from perdure.formats.directorystorage_archive import ArchiveName


@dataclass(frozen=True, slots=True)
class Chain:
    """The archives to extract, in this order, and why these."""

    archives: tuple[ArchiveName, ...]
    reasons: tuple[str, ...]

    @property
    def number(self) -> int:
        """The run that it leads to."""
        return self.archives[-1].number


def plan_chain(archives: Collection[ArchiveName], number: int | None = None) -> Chain:
    """Choose the archives that lead to a run; None: to the last one. Raises UsageError, naming the gap."""
    if not archives:
        raise UsageError(
            "there are no archives", hint="archives are called PREFIX-N.tgz and PREFIX-M-to-N.tgz"
        )
    wanted = max(name.number for name in archives) if number is None else number
    fulls = sorted(
        (name for name in archives if name.reference is None and name.number <= wanted),
        key=lambda name: (-name.number, name.prefix),
    )
    if not fulls:
        raise UsageError(
            f"no full backup is there that could lead to backup {wanted}", hint=_known(archives)
        )
    gaps = []
    for full in fulls:
        chain, gap = _continue(full, archives, wanted)
        if gap is None:
            return chain
        gaps.append(gap)
    raise UsageError(
        f"backup {wanted} cannot be restored from what is there: {'; '.join(gaps)}",
        hint=_known(archives),
    )


def restorable(archives: Collection[ArchiveName]) -> list[int]:
    """List the runs that the archives lead to, ascending."""
    reached: set[int] = set()
    increments = sorted((name for name in archives if name.reference is not None), key=_by_number)
    for full in sorted((name for name in archives if name.reference is None), key=_by_number):
        from_here = {full.number}
        for name in increments:  # ascending, so that what it continues is known already
            if any((name.reference or 0) <= number < name.number for number in from_here):
                from_here.add(name.number)
        reached |= from_here
    return sorted(reached)


def _by_number(name: ArchiveName) -> tuple[int, str]:
    return name.number, name.prefix


def _continue(
    full: ArchiveName, archives: Collection[ArchiveName], wanted: int
) -> tuple[Chain, str | None]:
    """Go on from a full backup as far as it goes; gives also where the gap is, if there is one."""
    chosen, reasons = [full], [f"a full backup of run {full.number}"]
    reached = full.number
    increments = [name for name in archives if name.reference is not None]
    while reached < wanted:
        # the one that reaches farthest leaves the most to choose from
        following = [
            name
            for name in increments
            if name.reference is not None and name.reference <= reached < name.number <= wanted
        ]
        if not following:
            return Chain((), ()), _gap(full, reached, increments, wanted)
        best = max(
            following, key=lambda name: (name.number, name.prefix == full.prefix, name.prefix)
        )
        reasons.append(f"continues run {reached} with what came after run {best.reference}")
        chosen.append(best)
        reached = best.number
    return Chain(tuple(chosen), tuple(reasons)), None


def _gap(full: ArchiveName, reached: int, increments: Sequence[ArchiveName], wanted: int) -> str:
    later = sorted(
        (name for name in increments if (name.reference or 0) > reached and name.number <= wanted),
        key=lambda name: (name.reference or 0, name.number),
    )
    lack = f"the next increment is {later[0]}" if later else "there is no later increment"
    return f"{full} leads to run {reached}, and {lack}"


def _known(archives: Collection[ArchiveName]) -> str:
    numbers = ", ".join(map(str, restorable(archives)))
    return (
        f"these runs can be restored: {numbers}" if numbers else "no run can be restored from them"
    )

"""Decide how a backup goes on: pure, from what is listed. The source is asked afterwards."""

from __future__ import annotations

from dataclasses import dataclass

from perdure.dropin.repozo.chain import Chain, Piece, unlisted_last


@dataclass(frozen=True, slots=True)
class Plan:
    """Make a full, or continue a chain if the source still begins with it."""

    reason: str
    chain: Chain | None = None
    """The chain to continue; None: make a full."""
    unlisted: Piece | None = None
    """Its last increment, if a killed run has left that without a line in the .dat."""


def decide(chains: tuple[Chain, ...], *, full: bool) -> Plan:
    """Say whether the newest chain can be continued, as its files and its .dat stand."""
    if full:
        return Plan("it was asked for")
    if not chains:
        return Plan("there is no backup yet")
    chain = chains[-1]
    unlisted = unlisted_last(chain)
    if unlisted is not None:
        return Plan(f"{unlisted.path.name} was left without its line in the .dat", chain, unlisted)
    problems = chain.problems
    if problems:
        return Plan(f"the newest backup cannot be continued: {problems[0]}")
    return Plan("the newest backup is whole", chain)

"""What the scripts of a part call."""

from __future__ import annotations

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run ``perdure site`` with these arguments; gives its exit code."""
    from perdure.cli.edge import run

    return run(["site", *argv])

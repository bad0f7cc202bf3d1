"""The names of the older programs, and what stands in for each of them."""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS: Mapping[str, str] = {
    "repozo": "Back a Data.fs up as ZODB's repozo does, on the same files.",
}
"""The drop-ins that are commands of perdure, and their short help.

The command line of each is ``perdure.dropin.NAME.command``: ``main(argv)`` gives the exit code.
"""

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "repozo": ("repozo",),
}
"""From the name of a program to the arguments of perdure that do its work."""

"""The names of the older programs, and what stands in for each of them."""

from __future__ import annotations

from collections.abc import Mapping

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "repozo": ("repozo",),
}
"""From the name of a program to the arguments of perdure that do its work."""

"""The names of the older programs, and what stands in for each of them."""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS: Mapping[str, tuple[str, str]] = {
    "repozo": ("repozo", "Back a Data.fs up as ZODB's repozo does, on the same files."),
    "btw-backup": ("btw", "Do as btw-backup does, on its files."),
}
"""The drop-ins that are commands of perdure with a command line of their own: package and short help.

The command line of each is ``perdure.dropin.PACKAGE.command``: ``main(argv)`` gives the exit code.
"""

PROGRAMS: Mapping[str, tuple[str, ...]] = {
    "repozo": ("repozo",),
    "btw-backup": ("btw-backup",),
    "backup.py": ("directorystorage", "backup"),
    "dirstorage_backup": ("directorystorage", "backup"),
    "snapshot.py": ("directorystorage", "snapshot"),
    "dirstorage_snapshot": ("directorystorage", "snapshot"),
}
"""From the name of a program to the arguments of perdure that do its work."""

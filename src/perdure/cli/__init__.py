"""The command line: arguments, environment, terminal, exit codes, and nothing else.

`main` is the program ``perdure``. Nothing that takes long to import is imported before a command
needs it, so that ``perdure --help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the program with ``sys.argv`` or the given arguments, and exit."""
    import sys

    from perdure.cli.edge import run  # so that importing this package imports no command

    sys.exit(run(arguments))

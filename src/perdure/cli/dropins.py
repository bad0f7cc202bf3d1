"""Run an older program's command line."""

from __future__ import annotations

import importlib
from collections.abc import Sequence

from perdure.dropin.names import COMMANDS


def run_dropin(name: str, arguments: Sequence[str]) -> int:
    """Run the command line of a drop-in with its arguments; gives its exit code."""
    package, _ = COMMANDS[name]
    code: int = importlib.import_module(f"perdure.dropin.{package}.command").main(arguments)
    return code

"""Run an older program's command line."""

from __future__ import annotations

import importlib
from collections.abc import Sequence


def run_dropin(name: str, arguments: Sequence[str]) -> int:
    """Run the command line of a drop-in with its arguments; gives its exit code."""
    code: int = importlib.import_module(f"perdure.dropin.{name}.command").main(arguments)
    return code

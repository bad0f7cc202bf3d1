"""Count the system calls in which a program names a blob file, with strace."""

from __future__ import annotations

import re
from collections.abc import Iterable

from bench.tools import Tool, first_line

STRACE = ("strace", "-f", "-qq", "-e", "trace=%file")
_NAMES_BLOB = re.compile(rb'0x[0-9a-f]{16}\.blob"')


def possible() -> bool:
    """Whether strace is there and may be used."""
    return first_line([*STRACE, "-o", "/dev/null", "echo", "yes"]) == "yes"


def count(tool: Tool, state: str) -> int:
    """Run a backup under strace; give the calls that name a blob file. Raises CommandFailed."""
    log = tool.place.home / "strace.log"
    tool.backup(state, (*STRACE, "-o", str(log)))
    with log.open("rb") as file:
        calls = calls_in(file)
    log.unlink()
    return calls


def calls_in(lines: Iterable[bytes]) -> int:
    """Count in what strace wrote; a call told in two lines has its names in the first."""
    return sum(1 for line in lines if _NAMES_BLOB.search(line))

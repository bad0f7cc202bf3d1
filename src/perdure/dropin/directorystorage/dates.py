"""A TIME as DirectoryStorage's backup tool takes it: seconds since 1970, or what GNU date understands."""

from __future__ import annotations

import subprocess

from perdure.errors import UsageError

_SECONDS = 60


def seconds_of(text: str) -> int:
    """Give a time in seconds since 1970; ``date`` is run for all but a number. Raises UsageError."""
    if text.strip().isdecimal():
        return int(text)
    try:
        done = subprocess.run(
            ["date", f"--date={text}", "+%s"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise UsageError(
            f"the time {text!r} cannot be told: date does not run: {error}", hint=_HINT
        ) from error
    if done.returncode or not done.stdout.strip().lstrip("-").isdecimal():
        raise UsageError(
            f"date does not understand the time {text!r}: {done.stderr.strip()}", hint=_HINT
        )
    return int(done.stdout)


_HINT = "GNU date understands '36 hours ago' or yesterday; without it give seconds since 1970"

"""The command line of repozo: short flags that combine, long options that may be abbreviated."""

from __future__ import annotations

import getopt
from collections.abc import Sequence
from dataclasses import dataclass

HELP = """\
repozo -- incremental and full backups of a Data.fs, as ZODB's repozo makes them, on the same files.

Usage: repozo (-B | -R | -V) [options]

Exactly one of these must be given:

    -B / --backup     back a Data.fs up
    -R / --recover    recover a Data.fs
    -V / --verify     verify all backups in the repository

    -r DIR / --repository=DIR
        The folder of the backups. It must exist. Required.
    -v / --verbose    say on standard error what is done
    -h / --help       print this text and exit

Options for -B:

    -f FILE / --file=FILE
        The Data.fs. It may be in use. Required.
    -F / --full       make a full backup, even if an increment were enough
    -Q / --quick      to decide what is new, look only at the last range that was backed up
    -z / --gzip       compress with gzip
    -k / --kill-old-on-full
        After a full backup that was read back and proved, delete all that is older.
    --lock-wait=SECONDS
        Wait so long for another backup into this repository. By default it is an error.

Options for -R:

    -D DATE / --date=DATE
        What to recover; times are GMT:
            yyyy[-mm[-dd[-hh[-mm[-ss]]]]]  the last backup that is not after it; a short date means its
                                           beginning
            2026-11-21T03:15:07            the database as it was then, between two backups or not
            03f8a5b1c2d3e4f5               the database after this transaction
        By default the newest backup.
    -o FILE / --output=FILE
        Where to write it, with its index; FILE is replaced when the new one is whole. By default
        standard output, without an index.
    -w / --with-verify
        Fail if a file has no checksum in the repository; those that have are always checked.
    --incremental
        If FILE is the beginning of what is recovered, append what is missing. With -Q only the last
        range of FILE is compared with the checksums, else all of it.

Options for -V:

    -Q / --quick      sizes only

All modes: --json prints what was done as one JSON object on standard output (with -R only beside -o).
Exit status: 0 done, or nothing was to be done; 1 anything else.
"""

_SHORT = "BRVvhr:f:FQzkD:o:w"
_LONG = {
    "backup": "B",
    "recover": "R",
    "verify": "V",
    "verbose": "v",
    "help": "h",
    "repository=": "r",
    "file=": "f",
    "full": "F",
    "quick": "Q",
    "gzip": "z",
    "kill-old-on-full": "k",
    "date=": "D",
    "output=": "o",
    "with-verify": "w",
    "incremental": "incremental",
    "lock-wait=": "lock-wait",
    "json": "json",
}
_OLD_SPELLING = "--with-verification"
_MODES = {"B": "backup", "R": "recover", "V": "verify"}
_IGNORED = {
    "backup": ("date", "output", "with-verify", "incremental"),
    "recover": ("file", "kill-old-on-full", "lock-wait"),
    "verify": (
        *("date", "output", "full", "gzip", "file", "kill-old-on-full", "with-verify"),
        *("incremental", "lock-wait"),
    ),
}
"""What has no meaning in a mode, and is dropped; -F, -Q and -z with -R always were, without a word."""


class WrongUsage(Exception):
    """Arguments that cannot be carried out; the message says why."""


class HelpWanted(Exception):
    """The help was asked for."""


@dataclass(frozen=True, slots=True)
class Arguments:
    """What a command line says."""

    mode: str
    repository: str
    verbose: bool = False
    file: str | None = None
    full: bool = False
    quick: bool = False
    gzip: bool = False
    kill_old_on_full: bool = False
    date: str | None = None
    output: str | None = None
    with_verify: bool = False
    incremental: bool = False
    lock_wait: float = 0.0
    json: bool = False
    ignored: tuple[str, ...] = ()
    """Options that mean nothing in this mode."""


def parse(argv: Sequence[str]) -> Arguments:
    """Read a command line. Raises WrongUsage, HelpWanted."""
    given = _options(argv)
    if "h" in given:
        raise HelpWanted
    modes = [name for flag, name in _MODES.items() if flag in given]
    if not modes:
        raise WrongUsage("Either --backup, --recover or --verify is required")
    if not given.get("r"):
        raise WrongUsage("--repository is required")
    mode = modes[0]
    ignored = tuple(name for name in _IGNORED[mode] if given.pop(_flag(name), None) is not None)
    if mode == "backup" and not given.get("f"):
        raise WrongUsage("--file is required in backup mode")
    if given.get("o") == "":
        raise WrongUsage("--output is empty")
    if "incremental" in given and "o" not in given:
        raise WrongUsage("--incremental needs the file to append to: --output is required")
    return Arguments(
        mode=mode,
        repository=given["r"],
        verbose="v" in given,
        file=given.get("f"),
        full="F" in given,
        quick="Q" in given,
        gzip="z" in given,
        kill_old_on_full="k" in given,
        date=given.get("D"),
        output=given.get("o"),
        with_verify="w" in given,
        incremental="incremental" in given,
        lock_wait=_seconds(given.get("lock-wait", "0")),
        json="json" in given,
        ignored=ignored,
    )


def _options(argv: Sequence[str]) -> dict[str, str]:
    """Take the command line apart: each option by its flag, the last value of each."""
    names = list(_LONG)
    if any(_is_old_spelling(argument) for argument in argv):
        names.append(_OLD_SPELLING[2:])
    try:
        options, rest = getopt.getopt(list(argv), _SHORT, names)
    except getopt.GetoptError as error:
        raise WrongUsage(str(error)) from None
    given: dict[str, str] = {}
    for option, value in options:
        flag = option[1:] if len(option) == 2 else _flag(option[2:])
        if flag in _MODES and _MODES.keys() & given.keys():
            raise WrongUsage("-B, -R, and -V are mutually exclusive")
        given[flag] = value
        if flag == "h":
            raise HelpWanted
    if rest:
        raise WrongUsage(f"Invalid arguments: {', '.join(rest)}")
    return given


def _flag(name: str) -> str:
    if name == _OLD_SPELLING[2:]:
        return "w"
    return _LONG[name] if name in _LONG else _LONG[f"{name}="]


def _is_old_spelling(argument: str) -> bool:
    """Whether it is, or abbreviates, the option's name of ZODB 5.6 to 5.8.0 and nothing else."""
    return _OLD_SPELLING.startswith(argument) and len(argument) > len("--with-verif")


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1
    if not 0 <= value < 1e9:
        raise WrongUsage(f"--lock-wait takes seconds, not {text!r}")
    return value

"""The arguments of btw-backup, and of what it never had."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from perdure import __version__

PROGRAM = "btw-backup"
VERSION = "2.0.2"
"""The version of btw-backup whose commands and files these are."""

_DEFAULT_WAIT = "1h"
_DESTINATION = "the destination, relative to ROOT_PATH"
_OWNER = "whose the created files are to be: names or numbers"


def parser() -> argparse.ArgumentParser:
    """Give the parser: names of commands and options as btw-backup has them."""
    top = argparse.ArgumentParser(
        PROGRAM, description="Backs up directories and PostgreSQL databases."
    )
    top.add_argument("-q", "--quiet", action="store_true", help="print nothing but errors")
    top.add_argument(
        "--config-dir", metavar="CONFIG_DIR", help="the configuration directory (~/.btw-backup)"
    )
    top.add_argument(
        "--lock-wait",
        default=_DEFAULT_WAIT,
        metavar="SPAN",
        help="how long to wait for another job (%(default)s)",
    )
    top.add_argument(
        "--version", action="version", version=f"{PROGRAM} {VERSION} (perdure {__version__})"
    )
    commands = top.add_subparsers(title="subcommands", dest="command", required=True)
    _backups(commands)
    _copies(commands)
    _care(commands)
    return top


def _backups(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    init = commands.add_parser("fs-init", help="initializes the working directory for backups")
    init.add_argument(
        "--type", choices=("rdiff", "tar"), required=True, help="how backups are kept"
    )
    init.add_argument("src", help="what is to be backed up: an absolute path")
    init.add_argument("name", help="a name for it")
    files = commands.add_parser("fs", help="backs up a filesystem hierarchy")
    files.add_argument("-u", "--uid", metavar="UID[:GID]", help=_OWNER)
    files.add_argument("src", help="what to back up, as it was given to fs-init")
    files.add_argument("dst", help=_DESTINATION)
    listing = commands.add_parser("list", help="lists backups")
    listing.add_argument("dst", help=_DESTINATION)
    database = commands.add_parser("db", help="makes a database backup")
    database.add_argument(
        "-g", "--global", action="store_true", dest="globals", help="roles and tablespaces"
    )
    database.add_argument("-u", "--uid", metavar="UID[:GID]", help=_OWNER)
    database.add_argument("db", nargs="?", help="the database")
    database.add_argument("dst", help=_DESTINATION)


def _copies(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    sync = commands.add_parser("sync", help="sync files to S3 storage")
    sync.add_argument(
        "--full", action="store_true", help="all of ROOT_PATH, and compare every content"
    )
    state = commands.add_parser("sync-state", help="shows or empties the state of syncing")
    state.add_argument("--list", action="store_true", help="list what has not been synced")
    state.add_argument("--reset", action="store_true", help="empty the state file")


def _care(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    restore = commands.add_parser("restore", help="restores a backup (not in btw-backup)")
    restore.add_argument("dst", help=_DESTINATION)
    restore.add_argument(
        "target",
        nargs="?",
        help="the directory that gets the files; of a database, the dump's file",
    )
    restore.add_argument("--at", metavar="TIME", help="the newest backup not after this time (UTC)")
    restore.add_argument("--offsite", action="store_true", help="from the copy in S3")
    restore.add_argument(
        "--archive", action="store_true", help="give the tar file, do not unpack it"
    )
    restore.add_argument("--into-database", metavar="NAME", help="make a new database of the dump")
    verify = commands.add_parser("verify", help="reads backups through (not in btw-backup)")
    verify.add_argument("dst", nargs="*", help=f"{_DESTINATION}; all unless given")
    verify.add_argument("--offsite", action="store_true", help="compare the copy in S3, too")
    forget = commands.add_parser("forget", help="deletes old backups (not in btw-backup)")
    forget.add_argument("dst", help=_DESTINATION)
    for name in KEEP_COUNTS:
        forget.add_argument(f"--keep-{name}", metavar="N", help=f"keep N {name} backups")
    forget.add_argument("--keep-within", metavar="DURATION", help="keep all this young: 2y5m7d3h")
    forget.add_argument("--offsite", action="store_true", help="delete their copies in S3, too")
    forget.add_argument(
        "-n", "--dry-run", action="store_true", help="delete nothing; say what would be"
    )


KEEP_COUNTS = ("last", "hourly", "daily", "weekly", "monthly", "yearly")
"""The counts of a retention policy."""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the arguments; ends the process as argparse does (0 or 2)."""
    return parser().parse_args(argv)

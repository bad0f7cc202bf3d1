"""The older programs by their own command lines, and the command that installs their names."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from perdure.cli.dropins import run_dropin
from perdure.cli.options import output_options
from perdure.cli.session import Session, with_session
from perdure.dropin.names import COMMANDS

if TYPE_CHECKING:
    from perdure.dropin.installing import Program


class DropIn(click.Command):
    """A command whose arguments, ``--help`` included, are the older program's business.

    It is here for the list of commands; when it is called, the edge does not load the others.
    """

    def __init__(self, name: str, short_help: str) -> None:
        text = f"{short_help}\n\nIt takes the older tool's own options: perdure {name} --help lists them."
        super().__init__(
            name,
            help=text,
            short_help=short_help,
            add_help_option=False,
            options_metavar="OPTIONS",
        )

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments as they are."""
        ctx.args = args
        return []

    def invoke(self, ctx: click.Context) -> None:
        """Run the program."""
        assert self.name
        ctx.exit(run_dropin(self.name, ctx.args))


DROPINS = tuple(DropIn(name, short_help) for name, (_, short_help) in COMMANDS.items())


@click.command(short_help="Put programs with the older tools' names into a folder.")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.argument("names", metavar="[NAME...]", nargs=-1)
@click.option("--dry-run", "-n", is_flag=True, help="Write nothing; say what would be written.")
@output_options
@with_session
def dropins(session: Session, folder: Path, names: tuple[str, ...], dry_run: bool) -> None:
    """Put programs with the older tools' names into DIR, so that cron lines go on as they are.

    Each is a small script that runs perdure, for all drop-ins or for those of these NAMEs. A file that
    perdure has not written is never replaced, ZODB's own script least of all: give a folder of its own,
    and put it first in PATH.
    """
    from perdure.dropin.installing import install, plan

    programs = plan(folder.absolute(), [sys.executable, "-m", "perdure"], names)
    if not dry_run:
        install(programs)
    session.output.table(
        ("Program", "What", "Runs"),
        [(str(each.path), _what(each, dry_run=dry_run), _runs(each)) for each in programs],
        [
            {"path": str(each.path), "what": _what(each, dry_run=dry_run), "runs": _runs(each)}
            for each in programs
        ],
    )


def _what(program: Program, *, dry_run: bool) -> str:
    if program.standing == "foreign":
        return "not replaced: perdure did not write it"
    if program.current:
        return "is there"
    return "would be written" if dry_run else "written"


def _runs(program: Program) -> str:
    command = program.script.splitlines()[-1]
    return shlex.join(shlex.split(command)[1:-1])

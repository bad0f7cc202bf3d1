"""The commands around btw-backup: the drop-in, and the import of its destinations."""

from __future__ import annotations

import click


@click.command(
    "btw-backup",
    short_help="Do as btw-backup does, on its files.",
    context_settings={
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
        "help_option_names": [],
    },
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="COMMAND ...")
@click.pass_context
def btw_backup(context: click.Context, arguments: tuple[str, ...]) -> None:
    """Do as btw-backup 2.0.2 does: directories and PostgreSQL databases, with a copy in S3.

    It works on btw-backup's configuration directory, state file and destinations. "perdure btw-backup
    --help" lists its commands.
    """
    from perdure.dropin.btw.command import main

    context.exit(main(arguments))

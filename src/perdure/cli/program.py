"""The program: one group of commands."""

from __future__ import annotations

import click

from perdure import __version__
from perdure.cli.commands_backup import backup
from perdure.cli.commands_care import check, repair
from perdure.cli.commands_compare import diff, stats
from perdure.cli.commands_config import config, schedule
from perdure.cli.commands_directorystorage import directorystorage
from perdure.cli.commands_dropins import DROPINS, dropins
from perdure.cli.commands_elsewhere import copy, mirror
from perdure.cli.commands_files_care import site
from perdure.cli.commands_import_btw import import_btw_backup
from perdure.cli.commands_import_repozo import import_repozo
from perdure.cli.commands_import_site import import_site
from perdure.cli.commands_insight import drill, dump, ls
from perdure.cli.commands_list import log, snapshots
from perdure.cli.commands_program import completion, version
from perdure.cli.commands_repository import init, key, unlock
from perdure.cli.commands_restore import assemble, restore
from perdure.cli.commands_retention import forget, prune, tag
from perdure.cli.commands_site import sources
from perdure.cli.options import repository_options

NAME = "perdure"

_EPILOG = """\
Exit codes: 0 done; 1 failed; 2 wrong usage; 3 a snapshot was made, but something is missing from it;
10 no repository; 11 the repository is locked; 12 wrong password; 13 damage found; 14 a source is missing,
empty or not what it should be, or a restore's target is in use; 130 interrupted.
"""
_COMMANDS = (
    init,
    sources,
    backup,
    snapshots,
    log,
    diff,
    stats,
    ls,
    dump,
    restore,
    forget,
    prune,
    tag,
    check,
    drill,
    repair,
    mirror,
    copy,
    unlock,
    key,
    assemble,
    config,
    schedule,
    site,
    directorystorage,
    *DROPINS,
    dropins,
    import_repozo,
    import_site,
    import_btw_backup,
    version,
    completion,
)


class _Ordered(click.Group):
    """A group that lists its commands in the order in which they are met."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


@click.group(
    NAME,
    cls=_Ordered,
    epilog=_EPILOG,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name=NAME)
@repository_options
def program() -> None:
    """Back up ZODB databases while they are in use, and give any moment of them back.

    A backup reads only what was committed since the last one, a pack does not make it start anew, and
    the repository is restic's: the stock restic lists, checks and restores it, too.
    """


for _command in _COMMANDS:
    program.add_command(_command)

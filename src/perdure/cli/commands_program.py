"""Commands about the program itself: version, completion."""

from __future__ import annotations

import platform

import click

from perdure import __version__
from perdure.cli.options import output_options
from perdure.cli.session import Session, with_session

REPOSITORY_FORMAT = 2
"""The version of restic's repository format that is written."""


@click.command()
@output_options
@with_session
def version(session: Session) -> None:
    """Print the version."""
    python = platform.python_version()
    session.output.line(
        f"perdure {__version__}, repository format {REPOSITORY_FORMAT}, Python {python}"
    )
    values = {"version": __version__, "repository_format": REPOSITORY_FORMAT, "python": python}
    session.output.event("version", values)


@click.command(short_help="Print the script for completion in a shell.")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script that completes commands and options in a shell.

    \b
    bash: perdure completion bash > ~/.local/share/bash-completion/completions/perdure
    zsh:  perdure completion zsh > a file _perdure in a folder of $fpath
    fish: perdure completion fish > ~/.config/fish/completions/perdure.fish
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = context.find_root()
    script = found(root.command, {}, "perdure", "_PERDURE_COMPLETE").source()
    click.echo(script)

"""Commands for the repository itself: init, key, unlock."""

from __future__ import annotations

from pathlib import Path

import click

from perdure.cli import messages
from perdure.cli.options import repository_options
from perdure.cli.password import (
    ask_new_password,
    make_password_file,
    new_password,
    read_password_file,
)
from perdure.cli.session import Session, has_repository, now, with_session
from perdure.errors import PerdureError, UsageError

_KEEPING = """\
The key file {path} is all that opens this repository. On the day of the disaster it is gone with the
machine, unless you keep it elsewhere: print it, put it into a password manager, or both.
    cat {path}
Or add a password of your own, which opens the repository too:  perdure key add -r {place}
Without a key or a password nobody can read the backups, ever."""
_REMEMBER = (
    "Keep the password where the disaster does not reach: without it nobody can read the backups."
)

_key_file = click.option(
    "--new-password-file",
    "key_file",
    type=click.Path(path_type=Path),
    help="Make a key file here: a random password, in a new file.",
)
_from_file = click.option(
    "--new-password-from",
    "from_file",
    type=click.Path(path_type=Path),
    help="Read the new password from this file.",
)


@click.command()
@_key_file
@repository_options
@with_session
def init(session: Session, key_file: Path | None) -> None:
    """Make a repository.

    Its password comes from --password-file, --password-command, the environment or a prompt; or
    --new-password-file makes one, in a file that `--password-file` takes from then on.
    """
    from perdure.formats.keyfile import FOR_KEY_FILES, FOR_PASSWORDS
    from perdure.repository import Repository

    store = session.store()
    if has_repository(store):
        raise PerdureError(f"there is a repository at {store.location} already")
    if key_file:
        _refuse_two_passwords(session)
        password = make_password_file(key_file)
    else:
        password = new_password(session.settings)
    owner = session.owner()
    try:
        repository = Repository.create(
            store,
            password,
            kdf=FOR_KEY_FILES if key_file else FOR_PASSWORDS,
            now=owner.now,
            username=owner.username,
            hostname=owner.hostname,
        )
    except BaseException:
        if key_file and not has_repository(store):
            key_file.unlink()  # it opens nothing, and the next try wants the name
        raise
    session.output.line(f"made repository {repository.id[:10]} at {store.location}")
    keeping = _KEEPING.format(path=key_file, place=store.location) if key_file else _REMEMBER
    session.output.line(keeping)
    values = {"id": repository.id, "repository": store.location}
    session.output.event("initialized", values | ({"key_file": str(key_file)} if key_file else {}))


@click.group()
def key() -> None:
    """List and change the passwords that open the repository."""


@key.command("list")
@repository_options
@with_session
def key_list(session: Session) -> None:
    """List the keys; a star marks the one in use."""
    from perdure.repository.keys import list_keys

    with session.writing() as (repository, _):
        keys = list_keys(repository.store)
        in_use = repository.key_id
    session.output.table(
        ("", "id", "user", "host", "created"),
        [
            ("*" if name == in_use else "", name[:8], file.username, file.hostname, file.created)
            for name, file in keys
        ],
        [
            {
                "id": name,
                "short_id": name[:8],
                "current": name == in_use,
                "username": file.username,
                "hostname": file.hostname,
                "created": file.created,
            }
            for name, file in keys
        ],
    )


@key.command("add")
@_key_file
@_from_file
@repository_options
@with_session
def key_add(session: Session, key_file: Path | None, from_file: Path | None) -> None:
    """Let one more password open the repository."""
    from perdure.formats.keyfile import FOR_KEY_FILES, FOR_PASSWORDS

    with session.writing() as (repository, _):
        password = _new_password(key_file, from_file)
        kdf = FOR_KEY_FILES if key_file else FOR_PASSWORDS
        added = repository.add_key(password, kdf, session.owner())
    session.output.line(f"added key {added[:8]}")
    session.output.event("key_added", {"id": added})


@key.command("remove")
@click.argument("key_id", metavar="ID")
@repository_options
@with_session
def key_remove(session: Session, key_id: str) -> None:
    """Remove a key, so that its password no longer opens the repository.

    Whoever has a copy of the removed key file can still read the repository with it.
    """
    with session.writing(exclusive=True) as (repository, _):
        removed = repository.remove_key(key_id)
    session.output.line(f"removed key {removed[:8]}")
    session.output.event("key_removed", {"id": removed})


@key.command("passwd")
@_key_file
@_from_file
@repository_options
@with_session
def key_passwd(session: Session, key_file: Path | None, from_file: Path | None) -> None:
    """Replace the password in use by a new one."""
    from perdure.formats.keyfile import FOR_KEY_FILES, FOR_PASSWORDS

    with session.writing(exclusive=True) as (repository, _):
        password = _new_password(key_file, from_file)
        kdf = FOR_KEY_FILES if key_file else FOR_PASSWORDS
        changed = repository.change_password(password, kdf, session.owner())
    session.output.line(f"the password is changed; the new key is {changed[:8]}")
    session.output.event("key_changed", {"id": changed})


@click.command(short_help="Remove the locks of dead processes.")
@click.option("--remove-all", is_flag=True, help="Remove locks of living processes, too.")
@repository_options
@with_session
def unlock(session: Session, remove_all: bool) -> None:
    """Remove the locks of processes that are dead, or that are older than 30 minutes."""
    with session.repository() as repository:
        removed = repository.unlock(everything=remove_all)
    session.output.line(f"removed {messages.count(removed, 'lock')}")
    session.output.event("unlocked", {"removed": removed, "time": messages.iso(now())})


def _new_password(key_file: Path | None, from_file: Path | None) -> str:
    if key_file and from_file:
        raise UsageError("--new-password-file and --new-password-from exclude each other")
    if key_file:
        return make_password_file(key_file)
    if from_file:
        return read_password_file(from_file)
    return ask_new_password()


def _refuse_two_passwords(session: Session) -> None:
    if session.settings.password_file or session.settings.password_command:
        raise UsageError(
            "--new-password-file makes a password; --password-file and --password-command name another"
        )

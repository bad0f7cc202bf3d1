"""Where a password comes from: a file, a command, the environment, or a person at a terminal.

The first place that is named wins, in this order: ``--password-file`` or ``--password-command``, the
``PERDURE_`` variables, the ``RESTIC_`` variables, perdure.toml, a prompt. A file that others than its
owner may read is refused, but for the secrets that a container or a service is given. White space around
what a file or a command gives is no part of the password, and a byte order mark is understood, as in
restic, so that the same file opens a repository for both. A password is never an argument, and never
part of a message.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path

from perdure.cli.options import Settings
from perdure.errors import PerdureError, UsageError

ATTEMPTS = 3
"""How often a person at a terminal is asked for the password."""
_SIZE_LIMIT = 1 << 16
_FAMILIES = ("PERDURE", "RESTIC")
_MARKS = ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be"))
# What Unicode calls white space; str.strip takes off four control characters more.
_WHITE = (
    "\t\n\v\f\r \x85\xa0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a"
    "\u2028\u2029\u202f\u205f\u3000"
)
_WHERE_FROM = (
    "name a file with --password-file or PERDURE_PASSWORD_FILE, a command with --password-command or"
    " PERDURE_PASSWORD_COMMAND, or set PERDURE_PASSWORD"
)

SECRETS = (Path("/run/secrets"), Path("/run/credentials"))
"""Where Docker, Podman and systemd put the secrets that they give to a container or a service."""
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


def given_password(settings: Settings) -> str | None:
    """Give the password that options, environment or configuration lead to; None if they lead to none.

    Raises UsageError, PerdureError when the command fails.
    """
    file, command = settings.password_file, settings.password_command
    if file or command:
        _refuse_both(file, command, "--password-file", "--password-command")
        return _from_file_or_command(file, command)
    for family in _FAMILIES:
        path = settings.environment.get(f"{family}_PASSWORD_FILE")
        command = settings.environment.get(f"{family}_PASSWORD_COMMAND")
        if path or command:
            _refuse_both(path, command, f"{family}_PASSWORD_FILE", f"{family}_PASSWORD_COMMAND")
            return _from_file_or_command(Path(path) if path else None, command)
        if password := settings.environment.get(f"{family}_PASSWORD"):
            return password
    configured = settings.configuration.in_file.repository
    if configured.password_file or configured.password_command:
        return _from_file_or_command(configured.password_file, configured.password_command)
    return None


def ask_password(place: str) -> str:
    """Ask a person for the password of a repository. Raises UsageError where there is no terminal."""
    if not sys.stdin.isatty():
        raise UsageError(
            "no password is given, and there is no terminal to ask at", hint=_WHERE_FROM
        )
    return _ask(f"password of the repository at {place}: ")


def new_password(settings: Settings) -> str:
    """Give the password of a new repository: as given, or typed twice. Raises UsageError."""
    given = given_password(settings)
    return ask_new_password() if given is None else given


def ask_new_password() -> str:
    """Ask a person for a new password, twice. Raises UsageError."""
    if not sys.stdin.isatty():
        raise UsageError(
            "no new password is given, and there is no terminal to ask at",
            hint="--new-password-file PATH makes a key file",
        )
    password = _ask("new password: ")
    if _ask("the same again: ") != password:
        raise UsageError("the two passwords differ")
    return password


def read_password_file(path: Path) -> str:
    """Read a password from a file; one that others may read is refused. Raises UsageError."""
    try:
        with open(path, "rb") as file:
            problem = exposure(path, file.fileno())
            content = b"" if problem else file.read(_SIZE_LIMIT + 1)
    except OSError as error:
        raise UsageError(f"password file {path} cannot be read: {error.strerror}") from error
    if problem:
        raise UsageError(problem, hint=f"chmod 600 {path} keeps it to its owner")
    if len(content) > _SIZE_LIMIT:
        raise UsageError(f"password file {path} is too large: it has more than {_SIZE_LIMIT} bytes")
    return _decoded(content, f"password file {path}")


def exposure(path: Path, descriptor: int) -> str | None:
    """Say who else may read a secret's open file; None if nobody, or if that is not for us to say.

    Pipes and the like have no mode that means anything. The secrets of containers and services have modes
    of their own (Docker's are for all, systemd's for the group, with an access list behind it), in a place
    of their own; those of Kubernetes lie on a read-only file system, not that of ``/``, and are root's.
    """
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or not status.st_mode & _OTHERS:
        return None
    if any(path.resolve().is_relative_to(place) for place in SECRETS):
        return None
    read_only = os.fstatvfs(descriptor).f_flag & os.ST_RDONLY
    if read_only and status.st_uid == 0 and status.st_dev != Path("/").stat().st_dev:
        return None
    who = "everybody on this machine" if status.st_mode & stat.S_IRWXO else "its group"
    return f"{who} may read or change the password file {path} (mode {status.st_mode & 0o777:03o})"


def make_password_file(path: Path) -> str:
    """Make a key file: 256 random bits as text, durable, readable by its owner alone.

    A file that exists is never overwritten. Raises UsageError.
    """
    import base64
    import secrets

    password = base64.b64encode(secrets.token_bytes(32)).decode()
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(f"{password}\n".encode())
            file.flush()
            os.fsync(descriptor)
        _sync_folder(path.absolute().parent)
    except FileExistsError:
        raise UsageError(
            f"{path} exists, and is not overwritten",
            hint="name a new file, or use this one with --password-file",
        ) from None
    except OSError as error:
        raise UsageError(f"{path} cannot be written: {error.strerror}") from error
    return password


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _ask(prompt: str) -> str:
    import getpass

    password = getpass.getpass(prompt)
    if not password:
        raise UsageError("a password must not be empty")
    return password


def _refuse_both(file: object, command: object, first: str, second: str) -> None:
    if file and command:
        raise UsageError(f"{first} and {second} exclude each other")


def _from_file_or_command(file: Path | None, command: str | None) -> str:
    if file:
        return read_password_file(file)
    assert command
    return _from_command(command)


def _from_command(command: str) -> str:
    """Run a command, without a shell, and read what it prints."""
    import shlex
    import subprocess

    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the password command cannot be split into words: {error}") from None
    if not words:
        raise UsageError("the password command is empty")
    try:
        done = subprocess.run(words, stdout=subprocess.PIPE, check=False)
    except OSError as error:
        raise PerdureError(f"password command {words[0]}: {error.strerror}") from error
    if done.returncode:
        raise PerdureError(f"the password command {words[0]} ended with {done.returncode}")
    return _decoded(done.stdout, f"what the password command {words[0]} prints")


def _decoded(content: bytes, where: str) -> str:
    encoding = "utf-8"
    for mark, name in _MARKS:
        if content.startswith(mark):
            content, encoding = content[len(mark) :], name
    try:
        password = content.decode(encoding, "surrogateescape").strip(_WHITE)
    except UnicodeDecodeError as error:
        raise UsageError(f"{where} is not text: {error.reason}") from None
    if not password:
        raise UsageError(f"{where} is empty")
    return password

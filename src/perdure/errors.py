"""Everything that Perdure raises: one tree, each with the exit code that tells an operator what to do.

::

    PerdureError                 1   something failed; the message says what
    ├── UsageError               2   the command line, a setting or a request cannot be carried out
    ├── StoreError               1   a directory or a bucket under a repository did not do as asked
    │   ├── NameNotFound         1   it does not hold that name
    │   └── StoreUnavailable     1   it does not answer, or not now
    ├── BackupIncomplete         3   a snapshot was written, parts of the source are missing from it
    ├── NoRepository            10   there is no repository at that place
    ├── RepositoryLocked        11   another process works on the repository
    ├── WrongPassword           12   no key of the repository opens with this password
    ├── DamageFound             13   bytes are not what they were when they were written
    │   ├── RepositoryDamaged   13   ... in a repository
    │   └── SourceDamaged       13   ... inside a source
    ├── SourceUnusable          14   the source is missing, empty, unreadable or not what it should be
    └── TargetInUse             14   a running program holds what a restore would replace

An interrupted run exits with 130. Codes 0 to 12 and 130 mean what they mean in restic.
"""

from __future__ import annotations

INTERRUPTED = 130


class PerdureError(Exception):
    """Any failure that Perdure explains: a message (what, where, why) and often a hint (what to do)."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint


class UsageError(PerdureError):
    """A request that cannot be carried out as it stands."""

    exit_code = 2


class StoreError(PerdureError):
    """A store did not do as asked: no permission, no space, no connection."""


class NameNotFound(StoreError):
    """A store holds nothing under the name that was asked for."""


class StoreUnavailable(StoreError):
    """A store did not answer, or asked to be left alone for now: the same call may work later."""


class BackupIncomplete(PerdureError):
    """A snapshot was written, but something that belongs to its sources is missing from it."""

    exit_code = 3


class NoRepository(PerdureError):
    """There is no repository at the given place."""

    exit_code = 10


class RepositoryLocked(PerdureError):
    """Another process holds a lock that excludes this one."""

    exit_code = 11


class WrongPassword(PerdureError):
    """No key of the repository opens with the given password."""

    exit_code = 12


class DamageFound(PerdureError):
    """Bytes are not what they were when they were written."""

    exit_code = 13


class RepositoryDamaged(DamageFound):
    """Something in a repository is missing, cut short or altered."""


class SourceDamaged(DamageFound):
    """A source is damaged inside: what follows the damage cannot be trusted to be complete."""


class SourceUnusable(PerdureError):
    """A source is missing, empty, unreadable, or not what it was said to be."""

    exit_code = 14


class TargetInUse(PerdureError):
    """A running program holds what a restore would replace."""

    exit_code = 14

"""repozo, ZODB's backup script, on the same files and without its defects: a library.

::

    backup(BackupRequest(repository, data_fs, next_stamp(repository, now)), observer)
    recover(RecoverRequest(repository, date="2026-11-21"), output, observer)
    verify(VerifyRequest(repository), observer)
    for chain in chains(repository): ...

``formats/repozo.py`` has the format. docs/repozo.md is for users, and says what differs from repozo.
"""

from __future__ import annotations

from pathlib import Path

from perdure.dropin.repozo.backing_up import BackupKind, BackupReport, BackupRequest, backup
from perdure.dropin.repozo.chain import Chain, Piece, State
from perdure.dropin.repozo.failures import NoFiles, VerificationFail
from perdure.dropin.repozo.folder import list_folder, next_stamp
from perdure.dropin.repozo.pieces import last_tid
from perdure.dropin.repozo.recovering import (
    RecoverReport,
    RecoverRequest,
    recover,
    recover_to_stream,
)
from perdure.dropin.repozo.verifying import VerifyReport, VerifyRequest, verify

__all__ = [
    "BackupKind",
    "BackupReport",
    "BackupRequest",
    "Chain",
    "NoFiles",
    "Piece",
    "RecoverReport",
    "RecoverRequest",
    "State",
    "VerificationFail",
    "VerifyReport",
    "VerifyRequest",
    "backup",
    "chains",
    "last_tid",
    "next_stamp",
    "recover",
    "recover_to_stream",
    "verify",
]


def chains(repository: Path) -> tuple[Chain, ...]:
    """List the chains of a repository, oldest first, with their states. Raises NoRepository, StoreError."""
    return list_folder(repository).chains

"""What a snapshot is told of its making: by whom, where, and with which program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from perdure.cli.options import text

if TYPE_CHECKING:
    from perdure.backup import BackupRequest


def backup_request(
    host: str | None = None,
    tags: tuple[str, ...] = (),
    *,
    verify_source: bool = False,
    skip_if_unchanged: bool = False,
    dry_run: bool = False,
) -> BackupRequest:
    """Give the request for a backup by this program; by default the host is this machine.

    Raises UsageError when the host's name cannot stand in a snapshot.
    """
    from perdure import __version__
    from perdure.backup import BackupRequest
    from perdure.repository.processes import host_name, user_name

    return BackupRequest(
        hostname=text("host name", host or host_name()),
        username=user_name(),
        tags=tags,
        program_version=f"perdure {__version__}",
        verify_source=verify_source,
        skip_if_unchanged=skip_if_unchanged,
        dry_run=dry_run,
    )

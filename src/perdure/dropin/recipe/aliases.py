"""Settings under the names that other tools gave them: collective.backup and zodb-backup.

collective.backup has the options of the recipe, in the table ``[tool.collective-backup]`` of pyproject.toml,
in a file ``.env`` beside it, and in the environment as ``COLLECTIVE_BACKUP_KEEP``. zodb-backup has bare
names, such as ``KEEP``; these count only where one that nobody else uses says that they are meant.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from perdure.errors import UsageError

COLLECTIVE = "COLLECTIVE_BACKUP_"
NOT_NEEDED = ("repozo",)
"""Options of collective.backup that mean nothing here."""
_BARE = {
    "DATAFS": "datafs",
    "BLOBSTORAGE": "blob_storage",
    "BACKUP_LOCATION": "locationprefix",
    "KEEP": "keep",
    "KEEP_BLOB_DAYS": "keep_blob_days",
    "FULL": "full",
    "QUICK": "quick",
    "GZIP": "gzip",
    "ARCHIVE_BLOB": "archive_blob",
    "COMPRESS_BLOB": "compress_blob",
    "INCREMENTAL_BLOBS": "incremental_blobs",
    "BACKUP_BLOBS": "backup_blobs",
    "ONLY_BLOBS": "only_blobs",
    "USE_RSYNC": "use_rsync",
    "RSYNC_OPTIONS": "rsync_options",
    "PRE_COMMAND": "pre_command",
    "POST_COMMAND": "post_command",
}
_SIGNS = ("BACKUP_LOCATION", "BLOBSTORAGE", "DATAFS")
_LINE = re.compile(r"\s*(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*?)\s*")


def from_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Give options that stand in an environment under the names of other tools."""
    found = {}
    if any(environment.get(sign) for sign in _SIGNS):
        found = {
            option: environment[name] for name, option in _BARE.items() if environment.get(name)
        }
    for name, text in environment.items():
        option = name.removeprefix(COLLECTIVE).lower()
        if name.startswith(COLLECTIVE) and text.strip() and option not in NOT_NEEDED:
            found[option] = text
    return found


def from_table(table: Mapping[str, object], where: str) -> dict[str, str]:
    """Give options that stand in ``[tool.collective-backup]``. Raises UsageError."""
    found = {}
    for name, value in table.items():
        if isinstance(value, bool):
            value = "true" if value else "false"
        if not isinstance(value, str | int):
            raise UsageError(f"{where}: {name} is neither a text nor a number nor yes or no")
        option = name.replace("-", "_")
        if option not in NOT_NEEDED:
            found[option] = str(value)
    return found


def parse_dotenv(text: str) -> dict[str, str]:
    """Read a file ``.env``: a variable on each line, perhaps in quotes. What is no variable is left out."""
    found = {}
    for line in text.splitlines():
        match = None if line.lstrip().startswith("#") else _LINE.fullmatch(line)
        if match:
            value = match[2]
            if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
                value = value[1:-1]
            found[match[1]] = value
    return found

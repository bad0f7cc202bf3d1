"""HOMEs that the real DirectoryStorage wrote, and what it saw in each (fixtures/directorystorage)."""

from __future__ import annotations

import gzip
import json
import tarfile
from functools import cache
from pathlib import Path
from typing import Any

FIXTURES = Path(__file__).parent / "fixtures" / "directorystorage"
FULL = sorted(
    path.name.removesuffix(".tar.gz")
    for path in FIXTURES.glob("*.tar.gz")
    if path.name.split(".")[0] not in ("odd-archives", "bushy-minimal", "chunky-backups")
)
"""The fixtures with a HOME of class Full."""
REFUSED = ("chunky-replica-pending", "chunky-corrupt")
READABLE = [name for name in FULL if name not in REFUSED]


def unpack(name: str, folder: Path) -> Path:
    """Unpack a fixture; gives its HOME."""
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="fully_trusted")
    return folder / "home"


@cache
def seen(name: str) -> dict[str, Any]:
    """Give what the real storage saw in a fixture."""
    document: dict[str, Any] = json.loads(
        gzip.decompress((FIXTURES / f"{name}.json.gz").read_bytes())
    )
    return document


def states_of(home: Path) -> dict[str, tuple[bytes, int, int]]:
    """Give content, time and mode of everything below a HOME, to tell whether it was touched."""
    return {
        str(path.relative_to(home)): (
            path.read_bytes() if path.is_file() else b"",
            path.stat().st_mtime_ns,
            path.stat().st_mode,
        )
        for path in sorted(home.rglob("*"))
    }

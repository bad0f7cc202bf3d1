"""Tar files: made of a source, read through, unpacked. GNU tar does it, as in btw-backup.

Status 1 of tar means that a file changed while it was read: the archive is whole, but those files may not be.
"""

from __future__ import annotations

import filecmp
from pathlib import Path

from perdure.dropin.btw.children import Children
from perdure.dropin.btw.configuration import JobType

_EXCLUDE = {
    JobType.TAR: "--exclude-tag=NOBACKUP-TAG",
    JobType.RDIFF: "--exclude-tag-under=NOBACKUP-TAG",
}
"""What is left out of a directory with such a file: all but that file; that file, too."""
_MOST = 2000


def make_archive(children: Children, source: str, path: Path, kind: JobType) -> str:
    """Archive a source; gives what tar said of files that changed meanwhile. Raises PerdureError.

    Names are sorted, so that an unchanged source makes an unchanged file.
    """
    compress = ["-j"] if kind is JobType.TAR else []
    status, said = children.run(
        "tar",
        ["-C", source, "--sort=name", _EXCLUDE[kind], "-c", "-p", *compress, "-f", path, "."],
        accepted=(0, 1),
    )
    return said.decode("utf-8", "replace").strip()[-_MOST:] if status else ""


def check_archive(children: Children, path: Path) -> None:
    """Read an archive through to its end. Raises PerdureError."""
    children.run("tar", ["-t", "-f", path])


def unpack(children: Children, path: Path, target: Path) -> None:
    """Unpack an archive into a directory. Raises PerdureError."""
    children.run("tar", ["-C", target, "-x", "-p", "-f", path])


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes. Raises OSError."""
    return filecmp.cmp(one, other, shallow=False)

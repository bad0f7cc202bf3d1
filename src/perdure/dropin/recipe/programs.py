"""Backups of blobs that other programs make: rsync, told so by options for it, and GNU tar's increments.

They are given lists of arguments, their output is everybody's to see at once, and what they return is judged:
then each blob that is wanted has to be in what they made.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Sequence
from pathlib import Path

from perdure.dropin.recipe.containers import Container, TarContainer
from perdure.dropin.recipe.copying import BlobCopy, Target, copy_file, newest_directory, remove
from perdure.dropin.recipe.naming import PART, Entry, Form, entry_name
from perdure.errors import PerdureError
from perdure.formats.blobs import path_in_directory
from perdure.model import BlobId
from perdure.sources.blobs import BlobDirectory
from perdure.sources.durable import sync_directory

_STANDARD_ERROR = 2
_VANISHED = 24
"""What rsync returns when files went away while it ran."""
_CHANGED = 1
"""What GNU tar returns when files changed while it read them."""
_PACKAGES = {"rsync": "rsync", "tar": "tar"}


class RsyncCopy(BlobCopy):
    """A directory that rsync fills."""

    def __init__(
        self,
        live: BlobDirectory,
        target: Target,
        options: Sequence[str],
        *,
        link_first: bool,
    ) -> None:
        super().__init__(live, target)
        self._options = options
        self._before = newest_directory(target)
        self._link_first = link_first and self._before is None
        self.part.mkdir()

    def take(self, wanted: Collection[BlobId]) -> None:
        """Run rsync over the whole directory, then look whether each blob is there."""
        source, target = str(self.live.path), str(self.part)
        options = [*self._options]
        if self._before is not None:
            options += ["--delete", f"--link-dest={self._before.parent}"]
        elif self._link_first:
            options.append(f"--link-dest={source}/")
            source, target = f"{source}/", f"{target}/{self.target.base}/"
        run_program(["rsync", "-a", *options, "--", source, target], {0, _VANISHED})
        inner = self.part / self.target.base
        for blob in wanted:
            place = inner / path_in_directory(blob, self.live.layout or "")
            if not place.exists():
                kept = next((each for each in self.live.places(blob) if os.path.exists(each)), None)
                if kept is None:
                    continue
                place.parent.mkdir(parents=True, exist_ok=True)
                copy_file(kept, place)
            self.taken.add(blob)

    def finish(self) -> None:
        """Bring everything to the disk."""
        os.sync()


class IncrementCopy(BlobCopy):
    """A tar of GNU tar's, with its notes: of everything, or (``full`` is the stamp of that) what is new."""

    def __init__(
        self, live: BlobDirectory, target: Target, full: str | None, *, compress: bool
    ) -> None:
        super().__init__(live, target)
        self.form = Form.COMPRESSED if compress else Form.TAR
        self.delta = full is not None
        self._compress = compress
        self._notes = target.folder / f"{PART}{target.base}{Form.NOTES.value}.new"
        self._full = full
        self._chain: list[Container] = []
        if full is not None:
            self._chain = [each for each in target.earlier() if each.time >= full]

    def take(self, wanted: Collection[BlobId]) -> None:
        """Run tar over the whole directory, then look whether each blob is in it or in those before."""
        remove(self._notes)
        if self._full is not None:
            name = entry_name(self.target.base, self._full, Form.NOTES)
            shutil.copyfile(self.target.folder / name, self._notes)
        mode = "-cz" if self._compress else "-c"
        command = ["tar", mode, "-f", str(self.part), f"--listed-incremental={self._notes}"]
        run_program([*command, "-C", str(self.live.path), "."], {0, _CHANGED})
        name = entry_name(self.target.base, 0, self.form)
        entry = Entry.parse(name)
        assert entry is not None
        made = TarContainer(entry, self.part, "")
        for each in (made, *self._chain):
            self.taken |= each.blobs.keys() & set(wanted)
        if made.damage:
            raise PerdureError(made.damage)

    def finish(self) -> None:
        """Bring the tar and its notes to the disk."""
        sync_file(self.part)
        sync_file(self._notes)

    def publish(self, stamp: str, *, numbered: bool) -> Path:
        """Give the tar its name, then its notes: older notes only make the next increment larger."""
        made = super().publish(stamp, numbered=numbered)
        name = entry_name(self.target.base, self._full or stamp, Form.NOTES)
        os.rename(self._notes, self.target.folder / name)
        sync_directory(self.target.folder)
        return made

    def abandon(self) -> None:
        """Leave nothing behind."""
        super().abandon()
        remove(self._notes)


def has_notes(target: Target, full: str) -> bool:
    """Tell whether increments can follow the tar of a stamp."""
    forms = (Form.TAR, Form.COMPRESSED)
    names = [entry_name(target.base, full, form) for form in forms]
    return (target.folder / entry_name(target.base, full, Form.NOTES)).is_file() and any(
        (target.folder / name).is_file() for name in names
    )


def run_program(command: Sequence[str], good: Collection[int]) -> None:
    """Run a program to its end. Raises PerdureError when it is missing or returns what is not good."""
    program = command[0]
    try:
        code = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=_STANDARD_ERROR, check=False
        ).returncode
    except OSError as error:
        raise PerdureError(
            f"{program} cannot be run: {error.strerror}",
            hint=f"install it (Debian: apt-get install {_PACKAGES[program]})",
        ) from error
    if code not in good:
        ended = f"was ended by signal {-code}" if code < 0 else f"ended with {code}"
        raise PerdureError(
            f"{program} {ended}; the backup of the blobs is not complete, and is dropped",
            hint="it says above what is the matter",
        )


def sync_file(path: Path) -> None:
    """Bring a file to the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

"""Delete what a new full has made superfluous, once it is proved that it can be recovered."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from perdure.dropin.repozo.failures import VerificationFail
from perdure.dropin.repozo.folder import list_folder
from perdure.dropin.repozo.joining import join
from perdure.dropin.repozo.proving import Prover, prove
from perdure.formats.repozo import DataName, side_stamp
from perdure.model import Observer
from perdure.sources.durable import sync_directory

_INTENT = ".perdure-older-than-"


def remove_older(folder: Path, stamp: str, observer: Observer) -> tuple[str, ...]:
    """Delete all backups but the full of this stamp; gives the names of the data files.

    The full is read back and proved first. The newest file goes first, so that what is left when this is
    killed are whole states; the next run goes on, by a file that tells what was meant. Raises
    VerificationFail, OSError.
    """
    listing = list_folder(folder)
    kept = listing.chains[-1]
    if kept.stamp != stamp or len(kept.pieces) != 1:
        raise VerificationFail(f"{folder} has other backups than it should: nothing is deleted")
    with closing(Prover(observer, "verify")) as prover:
        prove(prover, join(kept.pieces), None, sums=True, observer=observer)
    (folder / f"{_INTENT}{stamp}").touch()
    sync_directory(folder)
    return _remove(folder, stamp)


def finish_removing(folder: Path) -> None:
    """Go on with what a killed run was deleting. Raises OSError."""
    for each in list(folder.glob(f"{_INTENT}*")):
        _remove(folder, each.name.removeprefix(_INTENT))


def _remove(folder: Path, stamp: str) -> tuple[str, ...]:
    removed: list[str] = []
    names = [each.name for each in folder.iterdir()]
    for name in sorted(filter(DataName.parse, names), reverse=True):
        parsed = DataName.parse(name)
        assert parsed is not None
        if parsed.stamp < stamp:
            (folder / name).unlink()
            removed.append(name)
    sync_directory(folder)
    for name in names:
        side = side_stamp(name, "dat") or side_stamp(name, "index")
        if side is not None and side < stamp:
            (folder / name).unlink(missing_ok=True)
    sync_directory(folder)
    (folder / f"{_INTENT}{stamp}").unlink()
    return tuple(removed)

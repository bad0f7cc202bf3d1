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


def remove_older(folder: Path, stamp: str, observer: Observer) -> tuple[str, ...]:
    """Delete all backups but the full of this stamp; gives the names of the data files.

    The full is read back from the disk and proved first. The newest file goes first, so that what is left
    when this is killed are whole states. Raises VerificationFail, OSError.
    """
    listing = list_folder(folder)
    kept = listing.chains[-1]
    if kept.stamp != stamp or len(kept.pieces) != 1:
        raise VerificationFail(f"{folder} has other backups than it should: nothing is deleted")
    with closing(Prover(observer, "verify")) as prover:
        prove(prover, join(kept.pieces), None, sums=True, observer=observer)
    removed: list[str] = []
    for name in sorted(filter(DataName.parse, listing.names), reverse=True):
        parsed = DataName.parse(name)
        assert parsed is not None
        if parsed.stamp == stamp:
            continue
        (folder / name).unlink()
        (folder / f"{parsed.stamp}.index").unlink(missing_ok=True)
        removed.append(name)
    sync_directory(folder)
    for name in listing.names:
        if side_stamp(name, "dat") not in {None, stamp}:
            (folder / name).unlink(missing_ok=True)
    sync_directory(folder)
    return tuple(removed)

"""Finish what a killed run has left: a full that has its name, but no .dat yet."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

from perdure.dropin.repozo.chain import unlisted_full
from perdure.dropin.repozo.failures import VerificationFail
from perdure.dropin.repozo.folder import NewFile, list_folder, put_in_place
from perdure.dropin.repozo.joining import Placed
from perdure.dropin.repozo.proving import Prover
from perdure.formats.repozo import Line, encode_lines
from perdure.model import Observer


def list_lone_full(folder: Path, name: str | None, observer: Observer) -> None:
    """Write the .dat of a newest full that has none, if the full is a whole Data.fs.

    It was whole on the disk before it got its name. The backup that follows compares all of it with the
    source. Raises OSError, NoRepository, StoreError.
    """
    chains = list_folder(folder).chains
    full = unlisted_full(chains[-1]) if chains else None
    if full is None:
        return
    try:
        with closing(Prover(observer, "verify")) as prover:
            proof = prover.read(Placed(full, 0, None))
    except VerificationFail as error:
        observer.warning(f"{error}; it has no .dat, and is left as it is")
        return
    line = Line(full.path.name, 0, proof.end, proof.md5)
    with closing(NewFile(folder, chains[-1].dat_path.name)) as dat:
        dat.write(encode_lines([line], name or str(folder)))
        dat.finish()
        put_in_place(folder, [], dat)

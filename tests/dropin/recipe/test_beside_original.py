"""The real collective.recipe.backup and ours, made by the real zc.buildout, on the same site and files."""

from __future__ import annotations

import shutil

import pytest
from blob_site import BlobSite, State
from command_line import Program
from recipe_pair import MANNERS, call, next_second, ours, run

pytestmark = pytest.mark.slow


def test_each_restores_what_either_made(pair_site: BlobSite, program: Program) -> None:
    folder = pair_site.folder
    states: dict[str, dict[str, State]] = {manner: {} for manner in MANNERS}
    for who, step in (
        ("ours", pair_site.add),
        ("theirs", pair_site.add),
        ("ours", pair_site.pack),
        ("theirs", pair_site.pack),
        ("ours", pair_site.add),
    ):
        next_second()
        step()
        for manner, known in states.items():
            if who == "ours":
                ours(program, folder, manner, "backup")
            else:
                run(folder, f"their{manner}")
            newest = max(p.name[:19] for p in (folder / "var" / manner / "backups").glob("*.*fsz"))
            assert newest not in known
            known[newest] = pair_site.state()

    for manner, known in states.items():
        for number, (stamp, state) in enumerate(known.items()):
            if number % 2 == 0:  # ours made it
                run(folder, f"their{manner}-restore", "-n", stamp)
                assert pair_site.state() == state, (manner, stamp)
                shutil.rmtree(pair_site.blobs)
            ours(program, folder, manner, "restore", "-n", stamp)
            assert pair_site.state() == state, (manner, stamp)
            assert pair_site.is_consistent()


def test_the_scripts_of_a_part_called_backup(pair_site: BlobSite, program: Program) -> None:
    folder = pair_site.folder
    scripts = {path.name for path in (folder / "bin").iterdir()}
    named = {"backup", "fullbackup", "snapshotbackup", "zipbackup", "altrestore"}
    restores = {"restore", "snapshotrestore", "ziprestore"}
    assert named | restores <= scripts
    assert {"dirs", "dirs-snapshot", "dirs-restore", "dirs-snapshotrestore"} <= scripts
    pair_site.add()
    states = {}
    for script in ("backup", "snapshotbackup", "zipbackup"):
        pair_site.add()
        run(folder, script, "-q")
        states[script] = pair_site.state()
    for script, restore in zip(states, sorted(restores), strict=True):
        run(folder, restore, "--no-prompt")
        assert pair_site.state() == states[script]
    ours(program, folder, "dirs", "backup")
    production = pair_site.state()
    pair_site.add()
    run(folder, "altrestore", "-n")
    assert pair_site.state() == production
    assert (folder / "var" / "blobstoragezips" / "blobs2.0.tar").is_file()
    assert (folder / "var" / "backups").is_dir()  # in var, as the server has it
    code, text = call(folder, "restore")
    assert (code, pair_site.state()) == (2, production)
    assert "nobody to ask" in text

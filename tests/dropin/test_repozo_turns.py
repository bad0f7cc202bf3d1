"""ZODB's repozo and ours by turns on one repository: each goes on with what the other wrote."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from repozo_pair import Site, moment, problems, recovered, sha256, zodbs
from repozo_pair import back_up as our_backup

pytestmark = pytest.mark.slow
STEPS = 10


@pytest.mark.parametrize("seed", range(6))
def test_by_turns(seed: int, tmp_path: Path) -> None:
    chance = random.Random(seed)
    folder = tmp_path / chance.choice(["plain", "a b"])
    folder.mkdir()
    site = Site(folder)
    states: dict[str, str] = {}
    for number in range(STEPS):
        change(site, chance)
        now = moment(2 * number)
        flags = [flag for flag in "QzFk" if chance.random() < (0.1 if flag in "Fk" else 0.4)]
        # Where there are spaces ZODB's repozo cannot continue what itself wrote, with -Q.
        if chance.random() < 0.5 and " " not in folder.name:
            where = ("-r", site.repository, "-f", site.path)
            assert zodbs(f"-B{''.join(flags)}", *where, now=now).code == 0
        else:
            how = {"Q": "quick", "z": "gzip", "F": "full", "k": "kill_old_on_full"}
            our_backup(site.repository, site.path, now, **{how[flag]: True for flag in flags})
        if "k" in flags and len(list(site.repository.glob("*.dat"))) == 1:
            kept = {path.stem for path in site.repository.glob("*.*fs*")}
            states = {date: digest for date, digest in states.items() if date in kept}
        states[now] = sha256(site.data)
        check(site, now, states)


def change(site: Site, chance: random.Random) -> None:
    match chance.choice(["commit", "commit", "commit", "pack", "nothing"]):
        case "commit":
            site.commit(chance.randint(1, 6), chance.choice([20, 3000, 60_000]))
        case "pack":
            site.pack()


def check(site: Site, now: str, states: dict[str, str]) -> None:
    later = now[:-2] + "30"
    output = site.path.with_name("zodbs.fs")
    assert not problems(site.repository)
    assert not problems(site.repository, quick=True)
    assert sha256(recovered(site.repository, with_verify=True)) == states[now]
    assert zodbs("-V", "-r", site.repository, now=later).code == 0
    assert zodbs("-Rw", "-r", site.repository, "-o", output, now=later).code == 0
    assert sha256(output.read_bytes()) == states[now]
    for date, digest in states.items():
        assert sha256(recovered(site.repository, date)) == digest

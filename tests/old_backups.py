"""The sites of tests/fixtures/recipe: unpacked, with the settings that their buildout.cfg has."""

from __future__ import annotations

import hashlib
import tarfile
from configparser import RawConfigParser
from dataclasses import dataclass
from pathlib import Path

from perdure.dropin.recipe.options import read_options
from perdure.dropin.recipe.part import Part
from perdure.dropin.recipe.settling import Around, settle

FIXTURES = Path(__file__).parent / "fixtures" / "recipe"


@dataclass(frozen=True)
class Line:
    """A line of a must.tsv."""

    archive: str
    script: str
    date: str | None
    state: str | None
    """A file of hashes; None: the restore refuses."""

    def __str__(self) -> str:
        return f"{self.archive}-{self.script}-{self.date or 'newest'}"


def lines() -> list[Line]:
    """All lines of all archives."""
    found = []
    for path in sorted(FIXTURES.glob("*.tar.gz")):
        name = path.name.removesuffix(".tar.gz")
        with tarfile.open(path) as archive:
            file = archive.extractfile(f"{name}/must.tsv")
            assert file is not None
            rows = [row.split("\t") for row in file.read().decode().splitlines()[1:]]
        for script, date, result, detail in rows:
            state = detail if result == "state" else None
            found.append(Line(name, script, None if date == "-" else date, state))
    return found


def unpack(name: str, target: Path) -> Path:
    """Unpack a site; gives its folder."""
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as archive:
        archive.extractall(target, filter="tar")
    folder = target / name
    write_settings(folder)
    return folder


def part_of(folder: Path) -> Part:
    """Give the part of a site by its buildout.cfg."""
    parser = RawConfigParser()
    parser.read(folder / "buildout.cfg")
    options = {
        key: value.replace("${buildout:directory}", str(folder))
        for key, value in parser["backup"].items()
        if key != "recipe"
    }
    if folder.name == "alt-other-blob-name":  # the backups that production had are in var here
        source = options["alternative_restore_source"]
        options["alternative_restore_source"] = source.replace("/prod/", "/var/")
    return settle(read_options(options), Around(folder, folder / "var"))


def write_settings(folder: Path) -> None:
    """Write the settings as the recipe does."""
    if not (folder / "pyproject.toml").exists():
        (folder / "part.json").write_bytes(part_of(folder).encode())


def hashes(path: Path) -> dict[str, str]:
    """Read what sha256sum wrote."""
    rows = (line.split("  ", 1) for line in path.read_text().splitlines())
    return {name: digest for digest, name in rows}


def live(folder: Path) -> dict[str, str]:
    """Give the hashes of the live data below ``var``, without what is not a site's data."""
    var = folder / "var"
    found = {}
    for top in sorted(var.iterdir()):
        if top.name.startswith(("blobstorage", "blobs")) and (top / ".layout").exists():
            every = (p for p in top.rglob("*") if p.is_file())
            files = [p for p in every if "tmp" not in p.relative_to(top).parts]
        elif top.name == "filestorage":
            files = [p for p in top.rglob("*.fs") if p.is_file()]
        else:
            continue
        for path in files:
            found[str(path.relative_to(var))] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found

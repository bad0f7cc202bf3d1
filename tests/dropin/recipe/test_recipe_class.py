"""The recipe, in a buildout that is only sections; the real one is in test_beside_original.py."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from blob_site import BlobSite

from perdure.dropin.recipe.part import Part, Storage
from perdure.dropin.recipe.recipe import Recipe


class Buildout(dict[str, dict[str, str]]):
    """Sections; that of a recipe which adds to another part does so when it is looked at, as in buildout."""

    _parts: list[str]

    def __getitem__(self, name: str) -> Any:
        section = super().__getitem__(name)
        if section.get("recipe") == "collective.recipe.filestorage":
            for storage in section["parts"].split():
                path = f"{section['where']}/{storage}/{storage}.fs"
                self.setdefault("backup", {})["additional_filestorages"] = f"\n{storage} '{path}'"
        return section


def buildout(folder: Path, **sections: dict[str, str]) -> Buildout:
    made = Buildout(
        buildout={
            "directory": str(folder),
            "bin-directory": str(folder / "bin"),
            "parts-directory": str(folder / "parts"),
            "parts": " ".join(sections),
        },
        **sections,
    )
    made._parts = list(sections)
    return made


def install(made: Buildout) -> Part:
    recipe = Recipe(made, "backup", dict.__getitem__(made, "backup"))
    paths = recipe.install()
    assert all(Path(path).exists() for path in paths)
    settings = Path(made["buildout"]["parts-directory"], "backup", "part.json")
    return Part.decode(settings.read_bytes(), str(settings))


@pytest.fixture
def site(tmp_path: Path) -> BlobSite:
    made = BlobSite(tmp_path / "a site")
    made.add()
    return made


def test_storages_that_another_recipe_adds(site: BlobSite) -> None:
    filestorage = {
        "recipe": "collective.recipe.filestorage",
        "parts": "shop",
        "where": str(site.folder),
    }
    made = buildout(site.folder, backup={"recipe": "perdure"}, filestorage=filestorage)
    part = install(made)
    assert part.storages[0] == Storage("shop", f"{site.folder}/shop/shop.fs")
    assert part.storages[-1] == Storage("", str(site.database), str(site.blobs))


def test_the_script_runs_from_anywhere(site: BlobSite) -> None:
    install(buildout(site.folder, backup={"recipe": "perdure", "location": "var of its own/b"}))
    script = site.folder / "bin" / "backup"
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [str(script), "-q"],
        cwd="/",
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert list((site.folder / "var" / "var of its own" / "b").glob("*.fsz"))
    assert str(sys.executable) in script.read_text()


def test_var_of_a_client_is_not_that_of_the_data(site: BlobSite) -> None:
    instance = {"recipe": "plone.recipe.zope2instance", "zeo-client": "on", "zeo-var": "/cache"}
    part = install(buildout(site.folder, backup={"recipe": "perdure"}, instance=instance))
    assert part.places["backup"].files == str(site.folder / "var" / "backups")
    server = {"recipe": "plone.recipe.zeoserver[zrs]", "zeo-var": str(site.folder / "data")}
    part = install(buildout(site.folder, backup={"recipe": "perdure"}, i=instance, zeo=server))
    assert part.places["backup"].files == str(site.folder / "data" / "backups")


def test_home_and_variables_are_put_in(site: BlobSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/plone")
    monkeypatch.setenv("AWAY", "/mnt/away")
    options = {
        "recipe": "perdure",
        "location": "~/b",
        "blobbackuplocation": "$AWAY/blobs",
        "additional_filestorages": "shop ~/shop.fs",
        "pre_command": "echo $AWAY",
    }
    part = install(buildout(site.folder, backup=options))
    assert part.places["backup"].files == "/home/plone/b"
    assert part.places["backup"].blobs == "/mnt/away/blobs"
    assert part.storages[0].datafs == "/home/plone/shop.fs"
    assert part.hooks.pre == "echo $AWAY"

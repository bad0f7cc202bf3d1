"""Finding a real site that zc.buildout made, while its ZEO server runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from buildout_site import BuildoutSite, SiteTools
from command_line import Program
from ZODB.blob import Blob
from ZODB.FileStorage import FileStorage

from perdure.site import FILESTORAGE, discover, from_buildout, from_zeo_conf, from_zope_conf

pytestmark = pytest.mark.slow


def commit(site: BuildoutSite, storage: str, name: str, content: bytes | None) -> None:
    database = site.open(storage)
    try:
        with database.transaction() as connection:
            connection.root()[name] = name if content is None else Blob(content)
    finally:
        database.close()


def test_a_buildout_with_two_storages_is_found(
    buildout_site: BuildoutSite, program: Program, tmp_path: Path
) -> None:
    folder = buildout_site.folder
    with buildout_site.running():
        for number in range(3):
            commit(buildout_site, "1", f"file {number}", bytes([number]) * 1000)
        commit(buildout_site, "catalog", "index", None)
        site = discover(folder, {})

    assert site.root == folder
    catalog, main = site.storages
    assert (catalog.name, main.name) == ("catalog", "main")
    assert (catalog.kind, main.kind) == (FILESTORAGE, FILESTORAGE)
    assert catalog.path == folder / "var/filestorage/Catalog.fs"
    assert main.path == folder / "var/filestorage/Data.fs"
    assert catalog.blobs is None
    assert main.blobs == buildout_site.blobs
    assert len(list(main.blobs.rglob("*.blob"))) == 3
    assert catalog.mount_points == ("/plone/portal_catalog",)
    assert main.mount_points == ("/",)
    assert main.origin.startswith("parts/zeoserver/etc/zeo.conf, line ")
    assert [each.name for each in site.left_out] == ["temporary"]

    for storage, names in ((catalog, {"index"}), (main, {"file 0", "file 1", "file 2"})):
        file = FileStorage(str(storage.path), read_only=True)
        assert any(all(name.encode() in data for name in names) for data in records(file))
        file.close()

    for place in ("parts/instance/etc", "var/filestorage", "bin"):
        assert discover(folder / place, {}) == site
    assert from_buildout(folder, {}) == site
    instance = from_zope_conf([folder / "parts/instance/etc/zope.conf"], {})
    assert (instance.root, instance.storages) == (folder, site.storages)
    server = from_zeo_conf([folder / "parts/zeoserver/etc/zeo.conf"], {})
    assert [(each.name, each.path) for each in server.storages] == [
        ("catalog", catalog.path),
        ("main", main.path),
    ]
    listed = json.loads(program("sources", str(folder), "--json").out)
    assert [each["name"] for each in listed["storages"]] == ["catalog", "main"]
    assert all(each["exists"] for each in listed["storages"])


def records(storage: FileStorage) -> list[bytes]:
    return [record.data or b"" for transaction in storage.iterator() for record in transaction]


def test_an_instance_of_mkwsgiinstance_is_found(site_tools: SiteTools, tmp_path: Path) -> None:
    site_tools.run("mkwsgiinstance", "-d", "zope", "-u", "admin:admin", cwd=tmp_path)
    (main,) = discover(tmp_path / "zope", {}).storages
    assert main.path == tmp_path / "zope/var/Data.fs"
    assert (main.name, main.kind, main.mount_points) == ("main", FILESTORAGE, ("/",))
    assert main.origin.startswith("etc/zope.conf, line ")

"""What is found in sites that generators made, or that have their form."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure.errors import SourceUnusable
from perdure.site import FILESTORAGE, STORAGE, Site, discover, from_buildout, from_zope_conf

FIXTURES = Path(__file__).parent.parent / "fixtures" / "sites"

Facts = tuple[str, str, str | None, str | None, tuple[str, ...]]
Place = Callable[[str], Path]

# name, kind, Data.fs, blobs, mount points: in the order of backup
FOUND: dict[str, list[Facts]] = {
    "buildout-standalone": [
        ("main", FILESTORAGE, "var/filestorage/Data.fs", "var/blobstorage", ("/",)),
    ],
    "buildout-zlib": [
        ("main", FILESTORAGE, "var/filestorage/Data.fs", "var/blobstorage", ("/",)),
    ],
    "buildout-before-demo": [
        ("main-changes", FILESTORAGE, "var/filestorage/Demo.fs", "var/demoblobs", ()),
        ("main", FILESTORAGE, "var/filestorage/Data.fs", "var/blobstorage", ("/",)),
    ],
    "buildout-relstorage": [("main", STORAGE, None, "var/blobstorage", ("/",))],
    "buildout-remote": [("main", STORAGE, None, None, ("/",))],
    "buildout-two-instances": [
        (
            "archive",
            FILESTORAGE,
            "var/filestorage/archive/archive.fs",
            "var/blobstorage-archive",
            ("/plone/archive:/archive",),
        ),
        ("main", FILESTORAGE, "var/filestorage/Data.fs", "var/blobs", ("/",)),
    ],
    "buildout-own-zeo-conf": [
        ("users", FILESTORAGE, "data/users.fs", None, ()),
        ("main", FILESTORAGE, "data/Data.fs", "data/blobs", ()),
    ],
    "mkwsgiinstance": [("main", FILESTORAGE, "var/Data.fs", None, ("/",))],
    "plone-4": [
        (
            "catalog",
            FILESTORAGE,
            "var/filestorage/CatalogData.fs",
            None,
            ("/plone/portal_catalog",),
        ),
        ("main", FILESTORAGE, "var/filestorage/Data.fs", "var/blobstorage", ("/",)),
    ],
    "cookieplone": [
        (
            "main",
            FILESTORAGE,
            "backend/instance/var/filestorage/Data.fs",
            "backend/instance/var/blobs",
            ("/",),
        ),
    ],
    "image-zeo/app": [
        ("main", FILESTORAGE, "../data/filestorage/Data.fs", "../data/blobstorage", ())
    ],
    "image-backend/app": [
        ("main", FILESTORAGE, "var/filestorage/Data.fs", "var/blobstorage", ("/",)),
    ],
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    """Put a fixture somewhere."""

    def put(name: str) -> Path:
        top = name.partition("/")[0]
        for path in (FIXTURES / top).rglob("*"):
            if path.is_file():
                copy = tmp_path / top / path.relative_to(FIXTURES / top)
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_text(path.read_text().replace("@SITE@", str(tmp_path / top)))
        return tmp_path / name

    return put


def facts(site: Site) -> list[Facts]:
    def inside(path: Path | None) -> str | None:
        return None if path is None else os.path.relpath(path, site.root)

    return [
        (each.name, each.kind, inside(each.path), inside(each.blobs), each.mount_points)
        for each in site.storages
    ]


@pytest.mark.parametrize("name", FOUND)
def test_a_site_is_found(name: str, place: Place) -> None:
    folder = place(name)
    site = discover(folder, {})
    assert site.root == folder
    assert facts(site) == FOUND[name]


@pytest.mark.parametrize("name", FOUND)
def test_a_site_is_found_from_within(name: str, place: Place) -> None:
    folder = place(name)
    for configuration in folder.rglob("etc"):
        assert discover(configuration, {}) == discover(folder, {})


def test_origins_and_what_is_left_out(place: Place) -> None:
    folder = place("plone-4")
    site = discover(folder, {})
    assert [each.origin for each in site.storages] == [
        "parts/zeoserver/etc/zeo.conf, line 37",
        "parts/zeoserver/etc/zeo.conf, line 16",
    ]
    (temporary,) = site.left_out
    assert temporary.name == "temporary"
    assert "memory" in temporary.reason
    assert temporary.origin == "parts/instance/etc/zope.conf, line 69"


def test_one_zope_conf_leads_to_the_server_of_its_site(place: Place) -> None:
    folder = place("buildout-two-instances")
    site = from_zope_conf([folder / "parts/instance2/etc/zope.conf"], {})
    assert facts(site) == FOUND["buildout-two-instances"]
    assert from_buildout(folder, {}).storages == site.storages


def test_a_password_is_written_so_that_it_is_read_again(place: Place) -> None:
    (main,) = discover(place("buildout-relstorage"), {}).storages
    assert main.zconfig is not None
    assert main.zconfig.startswith("%import relstorage\n<relstorage>\n")
    assert "\n    dsn dbname='zodb' user='zope' password='pa$$word'\n" in main.zconfig


def test_a_client_is_opened_beside_the_running_one(place: Place) -> None:
    folder = place("buildout-remote")
    (main,) = discover(folder, {}).storages
    assert main.zconfig == (
        "<zeoclient>\n"
        "  read-only false\n"
        "  read-only-fallback false\n"
        f"  blob-dir {folder}/var/blobcache\n"
        "  shared-blob-dir no\n"
        "  server db1.example.com:8100\n"
        "  server db2.example.com:8100\n"
        "  storage plone\n"
        "  name zeostorage\n"
        "  cache-size 128MB\n"
        "</zeoclient>\n"
    )


def test_a_container_starts_as_its_environment_says(place: Place) -> None:
    folder = place("image-backend/app")
    (client,) = discover(folder, {"ZEO_ADDRESS": "zeo:8100"}).storages
    assert (client.kind, client.blobs) == (STORAGE, None)
    assert client.zconfig is not None
    assert "server zeo:8100\n" in client.zconfig
    assert "storage 1\n" in client.zconfig

    shared = {"ZEO_ADDRESS": "zeo:8100", "ZEO_SHARED_BLOB_DIR": "on"}
    (client,) = discover(folder, shared).storages
    assert client.blobs == folder / "var/blobstorage"

    both = {"ZEO_ADDRESS": "zeo:8100", "RELSTORAGE_DSN": "dbname=plone"}
    (relstorage,) = discover(folder, both).storages
    assert relstorage.zconfig is not None
    assert "dsn dbname=plone\n" in relstorage.zconfig
    assert "keep-history true\n" in relstorage.zconfig


def test_a_container_is_found_from_anywhere(place: Place, tmp_path: Path) -> None:
    machine = place("image-zeo")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (main,) = discover(elsewhere, {}, machine=machine).storages
    assert main.path == machine / "data/filestorage/Data.fs"


def test_nothing_is_found(tmp_path: Path) -> None:
    with pytest.raises(SourceUnusable, match="no database was found") as caught:
        discover(tmp_path, {}, machine=tmp_path)
    assert caught.value.hint
    with pytest.raises(SourceUnusable, match="not a folder"):
        discover(tmp_path / "missing", {})

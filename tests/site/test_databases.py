"""From databases, through wrappers and ZEO servers, to storages."""

from __future__ import annotations

from pathlib import Path

import pytest
import ZODB.config
from ZODB.FileStorage import FileStorage

from perdure.errors import SourceUnusable, UsageError
from perdure.site import FILESTORAGE, STORAGE, Site, from_configurations, from_zope_conf
from perdure.site.servers import Address

HERE = "www1.example.com"


def site_of(folder: Path, zope: str, *zeo: str, environment: dict[str, str] | None = None) -> Site:
    (folder / "zope.conf").write_text(zope)
    servers = []
    for number, text in enumerate(zeo):
        servers.append(folder / f"zeo{number}.conf")
        servers[-1].write_text(text)
    return from_configurations([folder / "zope.conf"], servers, environment or {})


def database(storage: str, name: str = "main", mount: str = "/") -> str:
    return f"<zodb_db {name}>\n{storage}\nmount-point {mount}\n</zodb_db>\n"


FILE = "<filestorage>\npath Data.fs\n</filestorage>"


@pytest.mark.parametrize(
    "storage",
    [
        FILE,
        f"<zlibstorage>\n{FILE}\n</zlibstorage>",
        f"<encryptingstorage>\nconfig key.conf\n{FILE}\n</encryptingstorage>",
        f"<zrs>\nreplicate-to 5000\n{FILE}\n</zrs>",
        f"<somethingelse>\n<before>\n{FILE}\n</before>\n</somethingelse>",
        f"<demostorage>\n{FILE}\n</demostorage>",
    ],
)
@pytest.mark.parametrize("outside", [True, False])
def test_wrappers_are_looked_through(tmp_path: Path, storage: str, outside: bool) -> None:
    blobs = "blob-dir blobs\n"
    if outside:
        storage = f"<blobstorage>\n{blobs}{storage}\n</blobstorage>"
    else:
        storage = storage.replace("path Data.fs\n", f"path Data.fs\n{blobs}")
    (main,) = site_of(tmp_path, database(storage)).storages
    assert (main.name, main.kind) == ("main", FILESTORAGE)
    assert (main.path, main.blobs) == (tmp_path / "Data.fs", tmp_path / "blobs")
    assert main.zconfig is None


def test_base_and_changes_of_a_demostorage(tmp_path: Path) -> None:
    changes = "<filestorage changes>\npath Changes.fs\n</filestorage>"
    both = f"<demostorage>\n{FILE}\n{changes}\n</demostorage>"
    first, last = site_of(tmp_path, database(both)).storages
    assert (first.name, first.path, first.mount_points) == (
        "main-changes",
        tmp_path / "Changes.fs",
        (),
    )
    assert (last.name, last.path, last.mount_points) == ("main", tmp_path / "Data.fs", ("/",))


def test_what_is_in_memory_is_left_out(tmp_path: Path) -> None:
    kinds = ("temporarystorage", "mappingstorage", "demostorage")
    zope = database(FILE) + "".join(database(f"<{kind}/>", kind, f"/{kind}") for kind in kinds)
    site = site_of(tmp_path, zope)
    assert [each.name for each in site.storages] == ["main"]
    assert [each.name for each in site.left_out] == list(kinds)
    with pytest.raises(SourceUnusable, match=r"no database to back up: main: .*in memory"):
        site_of(tmp_path, database("<mappingstorage/>"))


def test_blobs_in_a_bucket_are_left_out(tmp_path: Path) -> None:
    s3 = f"<s3blobstorage>\nbucket-name b\ncache-dir c\n{FILE}\n</s3blobstorage>"
    site = site_of(tmp_path, database(s3.replace("path", "blob-dir ignored\npath")))
    assert site.storages[0].blobs is None
    (left,) = site.left_out
    assert left.name == "blobs of main"
    assert "bucket" in left.reason


def test_the_main_one_is_last(tmp_path: Path) -> None:
    zope = (
        database(FILE, "root")
        + database(FILE.replace("Data", "B"), "b", "/b")
        + database(FILE.replace("Data", "A"), "a", "/x:/a\nmount-point /y")
    )
    site = site_of(tmp_path, zope)
    assert [each.name for each in site.storages] == ["b", "a", "main"]
    assert site.storages[1].mount_points == ("/x:/a", "/y")


def test_the_same_storage_is_found_once(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path)
    zope = database(FILE) + database(FILE.replace("Data.fs", "link/Data.fs"), "again", "/again")
    (main,) = site_of(tmp_path, zope).storages
    assert (main.name, main.mount_points) == ("main", ("/", "/again"))


def test_two_databases_of_one_name_get_two(tmp_path: Path) -> None:
    paths = []
    for name in ("one", "two", "three"):
        path = tmp_path / name / "etc" / "zope.conf"
        path.parent.mkdir(parents=True)
        text = FILE.replace("Data.fs", str(tmp_path / name / "Data.fs"))
        path.write_text(database(text))
        paths.append(path)
    names = [each.name for each in from_zope_conf(paths, {}).storages]
    assert names == ["main-two", "main-three", "main"]


def test_paths(tmp_path: Path) -> None:
    def path_of(value: str, **environment: str) -> Path | None:
        zope = database(FILE.replace("Data.fs", value))
        return site_of(tmp_path, zope, environment=environment).storages[0].path

    assert path_of("var/Data.fs") == tmp_path / "var/Data.fs"
    assert path_of("/var/Data.fs") == Path("/var/Data.fs")
    assert path_of("~/Data.fs", HOME="/home/zope") == Path("/home/zope/Data.fs")
    assert path_of("$(PLACE)/Data.fs", PLACE="/place") == Path("/place/Data.fs")
    with pytest.raises(UsageError, match="no PLACE"):
        path_of("$(PLACE)/Data.fs")
    with pytest.raises(UsageError, match=r"zope.conf, line 2: a <filestorage> without a path"):
        site_of(tmp_path, database("<filestorage/>"))


# client's address, server's address, whether they meet
ADDRESSES = [
    ("8100", "8100", True),
    ("localhost:8100", "8100", True),
    ("127.0.0.1:8100", "0.0.0.0:8100", True),
    ("[::1]:8100", "localhost:8100", True),
    ("LOCALHOST:8100", "127.0.0.1:8100", True),
    ("www1.example.com:8100", "8100", True),
    ("www1:8100", "8100", True),
    ("192.168.1.5:8100", "192.168.1.5:8100", True),
    ("db:8100", "db:8100", True),
    ("/run/zeo.sock", "/run//zeo.sock", True),
    ("localhost:8100", "8101", False),
    ("db:8100", "8100", False),
    ("localhost:8100", "192.168.1.5:8100", False),
    ("/run/zeo.sock", "/run/other.sock", False),
    ("/run/zeo.sock", "8100", False),
]


@pytest.mark.parametrize(("client", "server", "meet"), ADDRESSES)
def test_addresses(client: str, server: str, meet: bool) -> None:
    assert Address.parse(client).leads_to(Address.parse(server), HERE) is meet


def zeoclient(storage: str, more: str = "", server: str = "localhost:8100") -> str:
    return f"<zeoclient>\nserver {server}\nstorage {storage}\n{more}\n</zeoclient>"


SERVER = (
    "<zeo>\naddress 8100\n</zeo>\n"
    "<filestorage>\npath Data.fs\n</filestorage>\n"
    "<zlibstorage users>\n<filestorage>\npath users.fs\n</filestorage>\n</zlibstorage>\n"
    "<filestorage unused>\npath unused.fs\n</filestorage>\n"
    "<runner>\nprogram x\n</runner>\n<eventlog>\nlevel info\n</eventlog>\n"
)


def test_a_zeo_client_leads_to_the_server_of_the_site(tmp_path: Path) -> None:
    shared = "blob-dir blobs\nshared-blob-dir on"
    zope = database(zeoclient("1", shared)) + database(zeoclient("users"), "people", "/acl")
    site = site_of(tmp_path, zope, SERVER)
    facts = [(each.name, each.path and each.path.name, each.blobs) for each in site.storages]
    assert facts == [
        ("people", "users.fs", None),
        ("unused", "unused.fs", None),
        ("main", "Data.fs", tmp_path / "blobs"),
    ]
    assert site.storages[-1].origin == "zeo0.conf, line 4"
    assert all(each.kind == FILESTORAGE for each in site.storages)


def test_a_cache_of_blobs_is_not_taken_for_the_blobs(tmp_path: Path) -> None:
    cached = "blob-dir cache\nshared-blob-dir off"
    (main,) = (
        each
        for each in site_of(tmp_path, database(zeoclient("1", cached)), SERVER).storages
        if each.name == "main"
    )
    assert main.blobs is None


def test_a_server_elsewhere_is_read_through_its_client(tmp_path: Path) -> None:
    more = "client web1\nvar /var/cache\nblob-dir blobs\nshared-blob-dir on\nrealm ZEO"
    main = site_of(
        tmp_path,
        database(zeoclient("1", more, "db:8100"))
        + database(zeoclient("nowhere", server="8100"), "other", "/other"),
        SERVER,
    ).storages
    by_name = {each.name: each for each in main}
    assert by_name["main"].kind == by_name["other"].kind == STORAGE
    assert by_name["main"].blobs == tmp_path / "blobs"
    text = by_name["main"].zconfig or ""
    assert "client" not in text.replace("zeoclient", "")
    assert "/var/cache" not in text
    assert "realm ZEO\n" in text


def test_clients_of_one_server_are_one(tmp_path: Path) -> None:
    one = zeoclient("1", "cache-size 1GB\nname a", "db:8100")
    other = zeoclient("1", "cache-size 2GB\nname b", "db:8100")
    third = zeoclient("2", "", "db:8100")
    zope = database(one) + database(other, "b", "/b") + database(third, "c", "/c")
    assert [each.name for each in site_of(tmp_path, zope).storages] == ["c", "main"]


def test_servers_that_lead_in_a_circle_end(tmp_path: Path) -> None:
    server = f"<zeo>\naddress 8100\n</zeo>\n{zeoclient('1')}\n".replace(
        "<zeoclient>", "<zeoclient 1>"
    )
    (main,) = site_of(tmp_path, database(zeoclient("1")), server).storages
    assert main.kind == STORAGE


def test_texts_name_the_packages_that_they_need(tmp_path: Path) -> None:
    client = zeoclient("1", "", "db:1").replace("zeoclient", "clientstorage")
    relstorage = "<relstorage>\n<postgresql>\ndsn x\n</postgresql>\n</relstorage>"
    zope = (
        "%import mailinglogger\n%import some.backend\n"
        + database(client, "a", "/a")
        + database(relstorage, "b", "/b")
        + database("%import neo.client\n<NEOStorage>\ncluster c\n</NEOStorage>", "c", "/c")
        + database("<unknown 5>\nkey value\n</unknown>")
    )
    texts = {each.name: each.zconfig or "" for each in site_of(tmp_path, zope).storages}
    assert texts["a"].startswith("%import ZEO\n<clientstorage>\n")
    assert texts["b"].startswith("%import relstorage\n<relstorage>\n")
    assert texts["c"] == "%import neo.client\n<neostorage>\n  cluster c\n</neostorage>\n"
    assert texts["main"].startswith("%import mailinglogger\n%import some.backend\n<unknown>\n")


@pytest.mark.parametrize(
    ("flag", "layout", "shared"),
    [
        ("shared-blob-dir true", None, True),
        ("shared-blob-dir false", "bushy", False),
        ("", "bushy", True),
        ("", "zeocache", False),
        ("", None, False),
    ],
)
def test_blobs_of_relstorage(tmp_path: Path, flag: str, layout: str | None, shared: bool) -> None:
    if layout:
        (tmp_path / "blobs").mkdir()
        (tmp_path / "blobs/.layout").write_text(f"{layout}\n")
    server = "<postgresql>\ndsn x\n</postgresql>"
    text = f"<relstorage>\nblob-dir blobs\n{flag}\n{server}\n</relstorage>"
    (main,) = site_of(tmp_path, database(text)).storages
    assert main.blobs == (tmp_path / "blobs" if shared else None)
    assert ("shared-blob-dir true" in (main.zconfig or "")) is shared


def test_a_text_opens(tmp_path: Path) -> None:
    """ZODB itself reads what is written for a storage that it knows."""
    FileStorage(str(tmp_path / "Data.fs")).close()
    text = f"<relstorage>\n<sqlite3>\ndata-dir {tmp_path}/sq$$lite\n</sqlite3>\n</relstorage>"
    (tmp_path / "sq$lite").mkdir()
    (main,) = site_of(tmp_path, database(text)).storages
    storage = ZODB.config.storageFromString(main.zconfig)
    assert storage.lastTransaction() is not None
    storage.close()


def test_what_is_no_configuration_of_databases(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="names no database"):
        site_of(tmp_path, "<zeo>\n</zeo>\n")
    with pytest.raises(UsageError, match="is not a ZEO server's"):
        site_of(tmp_path, database(FILE), database(FILE))

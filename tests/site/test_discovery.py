"""Sites without a zope.conf: planned ones, and data that merely lie there; and the command sources."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from command_line import Program
from ZODB.FileStorage import FileStorage

from perdure.errors import PerdureError, SourceUnusable, UsageError
from perdure.site import Site, discover, from_buildout
from perdure.site.instance_yaml import InstanceYaml


def database(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    FileStorage(str(path)).close()
    return path


def blobs(path: Path, layout: str = "bushy") -> Path:
    path.mkdir(parents=True)
    (path / ".layout").write_text(f"{layout}\n")
    return path


def found(folder: Path) -> Site:
    return discover(folder, {}, machine=folder)


# ------------------------------------------------------------------------------------------ buildout.cfg


def planned(folder: Path, text: str) -> list[tuple[str, str, str | None]]:
    (folder / "buildout.cfg").write_text(text)
    return [
        (
            each.name,
            str((each.path or folder).relative_to(folder)),
            str(each.blobs.relative_to(folder)) if each.blobs else None,
        )
        for each in found(folder).storages
    ]


def test_a_buildout_that_has_not_been_run(tmp_path: Path) -> None:
    text = "[buildout]\nparts = instance\n[instance]\nrecipe = plone.recipe.zope2instance\n"
    assert planned(tmp_path, text) == [("main", "var/filestorage/Data.fs", "var/blobstorage")]
    (main,) = from_buildout(tmp_path, {}).storages
    assert main.origin == "buildout.cfg, [instance]"


def test_the_options_of_its_recipes(tmp_path: Path) -> None:
    (tmp_path / "base.cfg").write_text(
        "[buildout]\nvar-dir = ${buildout:directory}/data\n[server]\nrecipe = plone.recipe.zeoserver[zrs]\n"
        "file-storage = fs/${:name}.fs\nblob-storage = fs/blobs\nname = one\n"
    )
    text = (
        "[buildout]\nextends =\n    base.cfg\n    https://example.com/versions.cfg\nparts = zeo instance\n"
        "[zeo]\n<= server\nname = Data\nvar = ${buildout:var-dir}\n"
        "[instance]\nrecipe = plone.recipe.zope2instance\nzeo-client = on\n"
        "[other]\nrecipe = plone.recipe.zope2instance\nfile-storage = other.fs\nblob-storage = b\n"
        "[third]\nrecipe = plone.recipe.zeoserver\nvar = third\nblob-storage =\n"
        "[backup]\nrecipe = collective.recipe.backup\n"
    )
    assert planned(tmp_path, text) == [
        ("main-other", "var/other.fs", "b"),
        ("main-third", "third/filestorage/Data.fs", None),
        ("main", "data/fs/Data.fs", "data/fs/blobs"),
    ]


def test_what_a_buildout_does_not_tell(tmp_path: Path) -> None:
    text = (
        "[a]\nrecipe = plone.recipe.zope2instance\nrel-storage =\n    type postgresql\n"
        "[b]\nrecipe = plone.recipe.zeoserver\nvar = ${elsewhere:var}\n"
        "[c]\nrecipe = plone.recipe.zope2instance\nzeo-client = on\n"
    )
    (tmp_path / "buildout.cfg").write_text(text)
    with pytest.raises(
        SourceUnusable, match=r"a: it uses RelStorage.*b: what its var.*c: its data"
    ):
        from_buildout(tmp_path, {})
    (tmp_path / "buildout.cfg").write_text("[a]\nrecipe = ${a:recipe}\n[x]\nno section end [\n")
    with pytest.raises(PerdureError):
        from_buildout(tmp_path, {})
    (tmp_path / "buildout.cfg").write_text("[buildout]\nextends = buildout.cfg buildout.cfg\n")
    with pytest.raises(UsageError, match="extends more than"):
        from_buildout(tmp_path, {})
    (tmp_path / "buildout.cfg").write_text("no section\n")
    with pytest.raises(UsageError, match=r"buildout\.cfg"):
        from_buildout(tmp_path, {})
    (tmp_path / "buildout.cfg").unlink()
    with pytest.raises(SourceUnusable, match="is no buildout"):
        from_buildout(tmp_path, {})


@pytest.mark.parametrize(
    "text",
    [
        "[a]\n<= a b\n[b]\n<= a a b\n",
        "[a]\nrecipe = ${a:recipe}${:recipe}${b:none}\n",
        "".join(f"[s{n}]\nrecipe = {f'${{s{n + 1}:recipe}}' * 10}\n" for n in range(30)),
        "".join(f"[s{n}]\n<= {' '.join(f's{m}' for m in range(30))}\n" for n in range(30)),
    ],
)
def test_options_that_lead_nowhere_end(tmp_path: Path, text: str) -> None:
    (tmp_path / "buildout.cfg").write_text(text)
    with pytest.raises(SourceUnusable):
        from_buildout(tmp_path, {})


def test_parts_elsewhere(tmp_path: Path) -> None:
    parts = tmp_path / "elsewhere"
    (parts / "instance/etc").mkdir(parents=True)
    (parts / "instance/etc/zope.conf").write_text(
        "<zodb_db main>\n<filestorage>\npath /srv/Data.fs\n</filestorage>\nmount-point /\n</zodb_db>\n"
    )
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / ".installed.cfg").write_text(f"[instance]\nlocation = {parts}/instance\n")
    (main,) = found(folder).storages
    assert main.path == Path("/srv/Data.fs")
    assert main.origin == f"{parts}/instance/etc/zope.conf, line 2"


# ----------------------------------------------------------------------------------------- instance.yaml


NESTED = """\
    load_zcml:
        target: wrong
    zope_conf: |
        target: wrong
    target: right
other:
    target: wrong
"""


@pytest.mark.parametrize(
    ("text", "path", "directory"),
    [
        ("", "instance/var/filestorage/Data.fs", "instance/var/blobs"),
        ("    target: zope\n", "zope/var/filestorage/Data.fs", "zope/var/blobs"),
        (
            "    location_clienthome: /data  # here\n    db_blobs_location: '/it''s/blobs'\n",
            "/data/filestorage/Data.fs",
            "/it's/blobs",
        ),
        (
            '    db_filestorage_location: "{{ cookiecutter.location_clienthome }}/My.fs"\n',
            "instance/var/My.fs",
            "instance/var/blobs",
        ),
        (
            '    location_clienthome: "/data"\n    db_blob_location: "blob#s" # quoted\n',
            "/data/filestorage/Data.fs",
            "blob#s",
        ),
        (
            NESTED,
            "right/var/filestorage/Data.fs",
            "right/var/blobs",
        ),
        ("    db_z3blobs_enabled: true\n", "instance/var/filestorage/Data.fs", None),
    ],
)
def test_an_instance_that_has_not_been_made(
    tmp_path: Path, text: str, path: str, directory: str | None
) -> None:
    (tmp_path / "instance.yaml").write_text(f"# settings\n\ndefault_context:\n    a: b\n{text}")
    (main,) = found(tmp_path).storages
    assert main.path == tmp_path / path
    assert main.blobs == (tmp_path / directory if directory else None)
    assert (main.name, main.mount_points) == ("main", ("/",))


@pytest.mark.parametrize(
    "value",
    ["|", ">-", "*anchor", "[a]", '"a\\n"', "'open", "x{{ cookiecutter.none }}", "'{% if %}'"],
)
def test_settings_that_are_not_understood(tmp_path: Path, value: str) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text(f"default_context:\n  db_filestorage_location: {value}\n")
    with pytest.raises(UsageError, match=r"instance.yaml, line 2: .*not understood"):
        _ = InstanceYaml(path).data_fs


def test_a_context_on_one_line_is_not_understood(tmp_path: Path) -> None:
    path = tmp_path / "instance.yaml"
    path.write_text("default_context: {db_storage: zeo}\n")
    with pytest.raises(UsageError, match=r"instance.yaml, line 1: .*not understood"):
        _ = InstanceYaml(path).storage


def test_an_instance_with_another_storage(tmp_path: Path) -> None:
    (tmp_path / "instance.yaml").write_text("default_context:\n    db_storage: relstorage\n")
    with pytest.raises(SourceUnusable, match=r"its storage is relstorage.*instance.yaml, line 2"):
        found(tmp_path)


def test_an_instance_with_another_name_is_found_by_its_yaml(tmp_path: Path) -> None:
    text = "default_context:\n    target: zope/live\n    db_blob_location: |\n"
    (tmp_path / "instance.yaml").write_text(text)
    conf = tmp_path / "zope/live/etc/zope.conf"
    conf.parent.mkdir(parents=True)
    conf.write_text("<zodb_db main>\n<filestorage>\npath /x/y.fs\n</filestorage>\n</zodb_db>\n")
    (main,) = found(tmp_path).storages
    assert main.path == Path("/x/y.fs")


# ------------------------------------------------------------------------------------------ data alone


def test_data_without_configuration(tmp_path: Path) -> None:
    main = database(tmp_path / "var/filestorage/Data.fs")
    catalog = database(tmp_path / "var/filestorage/catalog/catalog.fs")
    users = database(tmp_path / "var/filestorage/users.fs")
    (tmp_path / "var/filestorage/notes.fs").write_text("no database")
    blobs(tmp_path / "var/blobstorage")
    blobs(tmp_path / "var/blobstorage-users")
    blobs(tmp_path / "var/blobs-of-old-times")
    blobs(tmp_path / "var/blobcache", "zeocache")
    (tmp_path / "var/blobstoragebackups").mkdir()
    site = found(tmp_path)
    assert [(each.name, each.path, each.blobs and each.blobs.name) for each in site.storages] == [
        ("users", users, "blobstorage-users"),
        ("catalog", catalog, None),
        ("main", main, "blobstorage"),
    ]
    assert [each.name for each in site.left_out] == ["blobs-of-old-times"]
    for place in ("var", "var/filestorage", "var/blobstorage"):
        assert discover(tmp_path / place, {}, machine=tmp_path) == site


@pytest.mark.parametrize(
    ("data", "directory"),
    [
        ("data/filestorage/Data.fs", "data/blobstorage"),
        ("data/instance/var/filestorage/Data.fs", "data/instance/var/blobs"),
        ("data/var/Data.fs", None),
        ("data/Data.fs", None),
        ("data/only.fs", "data/blobs"),
    ],
)
def test_places_of_data(tmp_path: Path, data: str, directory: str | None) -> None:
    path = database(tmp_path / data)
    if directory:
        blobs(tmp_path / directory)
    (main,) = discover(tmp_path / "data", {}, machine=tmp_path).storages
    assert (main.name, main.path) == ("main", path)
    assert main.blobs == (tmp_path / directory if directory else None)


def test_a_stray_file_above_is_no_site(tmp_path: Path) -> None:
    database(tmp_path / "Data.fs")
    (tmp_path / "folder").mkdir()
    with pytest.raises(SourceUnusable):
        discover(tmp_path / "folder", {}, machine=tmp_path)


def test_a_database_that_no_configuration_names_is_noted(tmp_path: Path) -> None:
    named = database(tmp_path / "var/filestorage/Data.fs")
    forgotten = database(tmp_path / "var/filestorage/Forgotten.fs")
    (tmp_path / "etc").mkdir()
    text = (
        f"<zodb_db main>\n<filestorage>\npath {named}\n</filestorage>\nmount-point /\n</zodb_db>\n"
    )
    (tmp_path / "etc/zope.conf").write_text(text)
    site = found(tmp_path)
    assert [each.path for each in site.storages] == [named]
    (left,) = site.left_out
    assert (left.name, left.origin) == ("Forgotten.fs", str(forgotten))


def test_a_configuration_that_cannot_be_looked_at_is_not_passed_over(tmp_path: Path) -> None:
    database(tmp_path / "var/Data.fs")
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/zope.conf").symlink_to("zope.conf")
    with pytest.raises(UsageError, match=r"etc/zope.conf cannot be looked at: ") as caught:
        found(tmp_path)
    assert caught.value.hint


# ------------------------------------------------------------------------------------------ the command


def test_sources_shows_the_site(program: Program, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    path = database(folder / "var/filestorage/Data.fs")
    (folder / "etc").mkdir()
    conf = folder / "etc/zope.conf"
    dsn = "password='se$$cret'"
    conf.write_text(
        f"<zodb_db main>\n<filestorage>\npath {path}\nblob-dir {folder}/var/blobs\n</filestorage>\n"
        "mount-point /\n</zodb_db>\n"
        f"<zodb_db sql>\n<relstorage>\n<postgresql>\ndsn {dsn}\n</postgresql>\n</relstorage>\n"
        "mount-point /sql\n</zodb_db>\n"
        "<zodb_db temporary>\n<temporarystorage/>\nmount-point /temp_folder\n</zodb_db>\n"
    )
    done = program("sources", str(folder))
    assert done.out == (
        f"site {folder}\n"
        "\n"
        "sql (storage)\n"
        "  mounted at /sql\n"
        "  found in   etc/zope.conf, line 9\n"
        "\n"
        "main (filestorage)\n"
        f"  database   {path}\n"
        f"  blobs      {folder}/var/blobs (missing)\n"
        "  mounted at /\n"
        "  found in   etc/zope.conf, line 2\n"
        "\n"
        "left out\n"
        "  temporary: a temporarystorage is kept in memory (etc/zope.conf, line 17)\n"
    )
    in_json = program("sources", str(folder), "--json").out
    assert "cret" not in in_json
    values = json.loads(in_json)
    assert values["root"] == str(folder)
    assert values["storages"][1] == {
        "name": "main",
        "kind": "filestorage",
        "path": str(path),
        "exists": True,
        "blobs": f"{folder}/var/blobs",
        "mount_points": ["/"],
        "origin": "etc/zope.conf, line 2",
    }
    assert values["left_out"][0]["name"] == "temporary"
    assert program("sources", "--zope-conf", str(conf)).out == done.out
    assert program("sources", "--buildout", str(folder)).out == done.out


def test_sources_takes_the_environment(
    program: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conf = tmp_path / "zeo.conf"
    conf.write_text(
        "<zeo>\naddress 1\n</zeo>\n<filestorage 1>\npath $(PLACE)/Data.fs\n</filestorage>\n"
    )
    assert "no PLACE" in program("sources", "--zeo-conf", str(conf), code=2).err
    monkeypatch.setenv("PLACE", "/srv")
    assert "/srv/Data.fs (missing)" in program("sources", "--zeo-conf", str(conf)).out


def test_sources_refuses_what_excludes_itself(program: Program, tmp_path: Path) -> None:
    done = program("sources", str(tmp_path), "--buildout", str(tmp_path), code=2)
    assert "exclude each other" in done.err
    assert program("sources", str(tmp_path / "missing"), code=14).err

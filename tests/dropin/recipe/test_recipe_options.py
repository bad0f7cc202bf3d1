"""Options as texts: what each means, what contradicts itself, what folders and scripts are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from perdure.dropin.recipe.aliases import from_environment, from_table, parse_dotenv
from perdure.dropin.recipe.naming import folder_name, script_name
from perdure.dropin.recipe.options import declared, read_options
from perdure.dropin.recipe.part import Kind, Part, Place, Storage
from perdure.dropin.recipe.settling import Around, settle
from perdure.errors import UsageError

BASE = Path("/site")
AROUND = Around(BASE, BASE / "var", BASE / "var/filestorage/Data.fs", BASE / "var/blobstorage")
SIX_AND_FOUR = (
    *("location", "snapshotlocation", "ziplocation", "blobbackuplocation", "blobsnapshotlocation"),
    *(
        "blobziplocation",
        "locationprefix",
        "datafs",
        "blob_storage",
        "blob-storage",
        "backup_blobs",
    ),
    *("only_blobs", "keep", "keep_blob_days", "full", "archive_blob", "gzip_blob", "compress_blob"),
    *("incremental_blobs", "blob_timestamps", "use_rsync", "rsync_options", "pre_command"),
    *("rsync_hard_links_on_first_copy", "post_command", "debug", "enable_snapshotrestore"),
    *("enable_zipbackup", "alternative_restore_source", "alternative_restore_sources"),
    *("additional_filestorages", "gzip", "quick", "enable_fullbackup"),
)


def part(**options: str) -> Part:
    return settle(read_options(options), AROUND)


@pytest.mark.parametrize("name", SIX_AND_FOUR)
def test_every_option_of_the_original_is_known(name: str) -> None:
    values = {"location": "x", "keep": "3", "keep_blob_days": "3"}
    kind = declared().get(name)
    value = values.get(name, "true" if kind is None or kind.kind is bool else "x")
    read_options({name: value})


def test_defaults() -> None:
    made = part()
    assert made.storages == (Storage("", "/site/var/filestorage/Data.fs", "/site/var/blobstorage"),)
    assert made.places == {
        "backup": Place("/site/var/backups", "/site/var/blobstoragebackups"),
        "snapshotbackup": Place("/site/var/snapshotbackups", "/site/var/blobstoragesnapshots"),
        "zipbackup": Place("/site/var/zipbackups", "/site/var/blobstoragezips"),
    }
    assert made.commands == ("backup", "snapshotbackup", "restore", "snapshotrestore")
    assert (made.keeping.fulls, made.keeping.blob_days) == (2, 14)
    assert Part.decode(made.encode(), "part.json") == made


def test_a_part_of_another_name() -> None:
    made = part(name="plone", enable_zipbackup="yes", enable_fullbackup="On")
    assert made.places["backup"] == Place("/site/var/plones", "/site/var/plone-blobstorages")
    assert made.places["zipbackup"].blobs == "/site/var/plone-blobstoragezips"
    names = [script_name(command, "plone") for command in made.commands]
    assert names == [
        *("plone", "plone-full", "plone-snapshot", "plone-zip", "plone-restore"),
        *("plone-snapshotrestore", "plone-ziprestore"),
    ]
    assert folder_name("snapshotlocation", "plone") == "plone-snapshots"


def test_what_relative_paths_are_relative_to() -> None:
    made = part(locationprefix="away", location="x", datafs="fs/D.fs", blob_storage="b b")
    assert made.places["backup"] == Place("/site/away/x", "/site/away/blobstoragebackups")
    assert made.storages[-1] == Storage("", "/site/fs/D.fs", "/site/b b")


def test_additional_storages() -> None:
    made = part(
        additional_filestorages="\n  catalog\n  foo var/foo.fs 'var/blobs of foo'\n  catalog\n"
    )
    assert made.storages[:-1] == (
        Storage("catalog", "/site/var/filestorage/catalog.fs"),
        Storage("foo", "/site/var/foo.fs", "/site/var/blobs of foo"),
    )
    assert made.place(Kind.FULL, made.storages[1]).blobs == "/site/var/blobstoragebackups_foo"


def test_an_alternative_source() -> None:
    made = part(alternative_restore_source="\n# production\nData there/b there/blobs\n")
    assert made.alternative == {"": Place("/site/there/b", "/site/there/blobs")}
    assert "altrestore" in made.commands


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"kep": "2"}, "there is no option kep"),
        ({"keep": "two"}, "keep = two"),
        ({"keep": "-1"}, "keep = -1"),
        ({"full": "ture"}, "full = ture is neither yes nor no"),
        ({"location": ""}, "location is empty"),
        ({"location": "x", "snapshotlocation": "./x"}, "are the same folder"),
        ({"location": "filestorage"}, "where Data.fs itself is"),
        ({"blobbackuplocation": "blobstorage/b"}, "in the blob storage"),
        ({"backup_blobs": "no", "only_blobs": "yes"}, "nothing to back up"),
        ({"backup_blobs": "no", "enable_zipbackup": "yes"}, "needs blobs"),
        ({"blob_timestamps": "no", "incremental_blobs": "yes"}, "names with times"),
        ({"blob_storage": "a", "blob-storage": "b"}, "different values"),
        ({"keep": "0", "keep_daily": "7"}, "keeps all"),
        ({"rsync_options": "--exclude='x"}, "cannot be read"),
        ({"additional_filestorages": "a b c d"}, "is not NAME"),
        ({"additional_filestorages": "a x.fs\na y.fs"}, "twice"),
        ({"alternative_restore_source": "Data"}, "is not NAME BACKUPS"),
        ({"alternative_restore_source": "Other x y"}, "no storage of this part"),
        ({"alternative_restore_source": "Data x"}, "lacks the folder of the blobs"),
        ({"alternative_restore_source": "Data x y\n1 x y"}, "twice"),
        ({"alternative_restore_source": "Data x y", "backup_blobs": "no"}, "too many"),
        ({"repository": "r", "only_blobs": "yes"}, "only_blobs"),
        ({"name": "../x"}, "cannot be the name of a part"),
    ],
)
def test_what_is_refused(options: dict[str, str], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        part(**options)
    assert said in f"{caught.value}"


def test_no_blobs_are_found() -> None:
    with pytest.raises(UsageError, match="no blob storage was found"):
        settle(read_options({}), Around(BASE, BASE / "var"))
    assert not settle(read_options({"backup_blobs": "false"}), Around(BASE, BASE / "var")).blobs


def test_names_of_other_tools() -> None:
    assert from_environment({"KEEP": "5", "FULL": "true"}) == {}
    assert from_environment({"KEEP": "5", "DATAFS": "/d"}) == {"keep": "5", "datafs": "/d"}
    assert from_environment({"COLLECTIVE_BACKUP_REPOZO": "x", "COLLECTIVE_BACKUP_KEEP": "3"}) == {
        "keep": "3"
    }
    assert from_table({"blob-storage": "b", "keep": 5, "full": True}, "f") == {
        "blob_storage": "b",
        "keep": "5",
        "full": "true",
    }
    with pytest.raises(UsageError):
        from_table({"keep": [1]}, "f")
    assert parse_dotenv("# x\nexport A=1\nB='two words'\nnonsense\nC = \"\"\n") == {
        "A": "1",
        "B": "two words",
        "C": "",
    }
